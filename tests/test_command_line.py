"""The command line as an operator meets it; a real Valkey and SQLite, the exchange a small HTTP server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from pushserver.__main__ import main
from pushserver.accounts.store import AccountStore
from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.signals import SignalKind, parse
from pushserver.clock import SystemClock
from pushserver.model import DataType, Secret
from pushserver.settings import Settings
from pushserver.tokens import tokens_from_settings

NO_REDIS = "redis://127.0.0.1:1/0"
Run = Callable[..., Result]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path}/cli.db",
        "REDIS_URL": NO_REDIS,
        "JWT_SECRETS": "canary-signing-" + "k" * 32,
        "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
    }


@pytest.fixture
def run(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in list(os.environ):
        if name.startswith(("JWT_", "BYBIT_")):
            monkeypatch.delenv(name)

    def run(*arguments: str, stdin: str = "", **changed: str) -> Result:
        for name, value in {**environ, **changed}.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(main, list(arguments), input=stdin)

    return run


def store_of(environ: dict[str, str]) -> AccountStore:
    return AccountStore.open(Secret(environ["DATABASE_URL"]), [Secret(environ["CREDENTIALS_KEYS"])], SystemClock())


def add(run: Run, name: str = "alice", *more: str, stdin: str = "pw\n", **changed: str) -> Result:
    return run("users", "add", name, "--password-stdin", *more, stdin=stdin, **changed)


# --- users -----------------------------------------------------------------------------------------------------


def test_a_user_with_a_key_is_added_to_an_empty_database(run: Run, environ: dict[str, str]) -> None:
    answer = add(run, "alice", "--user-id", "4", "--api-key", "key", "--api-secret-stdin", stdin="pw\nsecret\n")
    assert (answer.exit_code, answer.stdout) == (0, "user 4 alice added\n")
    store = store_of(environ)
    assert store.authenticate("alice", Secret("pw")) is not None
    credentials = store.credentials(4)
    assert credentials is not None and credentials.api_secret == Secret("secret")


def test_without_an_id_the_next_one_is_given(run: Run) -> None:
    add(run, "alice", "--user-id", "4")
    assert add(run, "bob").stdout == "user 5 bob added\n"


def test_a_windows_line_end_is_no_part_of_a_password(run: Run, environ: dict[str, str]) -> None:
    add(run, stdin="p w \r\n")
    assert store_of(environ).authenticate("alice", Secret("p w ")) is not None


def test_without_stdin_options_a_prompt_asks_twice_for_the_password(run: Run, environ: dict[str, str]) -> None:
    answer = run("users", "add", "alice", "--api-key", "key", stdin="pw\npw\nsecret\n")
    assert answer.exit_code == 0
    assert "pw" not in answer.output and "secret" not in answer.output.replace("API secret", "")
    assert store_of(environ).credentials(1) is not None


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (["alice"], "", "holds no Password"),
        (["alice", "--api-key", "k", "--api-secret-stdin"], "pw\n", "holds no API secret"),
        (["alice", "--api-secret-stdin"], "pw\n", "needs --api-key"),
        (["alice", "--user-id", "0"], "pw\n", "0 is not in the range"),
        (["alice", "--user-id", str(2**63)], "pw\n", "is not in the range"),
        (["alice", "--user-id", "x"], "pw\n", "not a valid"),
    ],
)
def test_a_wrong_call_is_explained_and_adds_nobody(
    run: Run, environ: dict[str, str], arguments: list[str], stdin: str, problem: str
) -> None:
    answer = run("users", "add", "--password-stdin", *arguments, stdin=stdin)
    assert answer.exit_code == 2
    assert problem in answer.stderr
    assert not Path(environ["DATABASE_URL"].removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["alice"], "name_taken"),
        (["bob", "--user-id", "4"], "id_taken"),
        (["a b"], "name_invalid"),
        (["bob", "--api-key", "k k"], "key_invalid"),
    ],
)
def test_what_cannot_be_added_is_one_line_and_exit_code_1(run: Run, arguments: list[str], code: str) -> None:
    add(run, "alice", "--user-id", "4")
    name, *more = arguments
    answer = add(run, name, *more, *(["--api-secret-stdin"] if "--api-key" in more else []), stdin="pw\ns\n")
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"{code}: ") and answer.stderr.count("\n") == 1
    assert [line.split("\t")[:2] for line in run("users", "list").stdout.splitlines()] == [["4", "alice"]]


def test_F05_secrets_are_never_arguments(run: Run) -> None:
    for arguments in (["users", "add", "x", "--password", "pw"], ["users", "set-key", "x", "--api-secret", "s"]):
        answer = run(*arguments)
        assert answer.exit_code == 2 and "No such option" in answer.stderr


def test_the_list_shows_who_is_there_and_no_key_whole(run: Run) -> None:
    add(run, "alice", "--user-id", "4", "--api-key", "abcdefghijklmnop", "--api-secret-stdin", stdin="pw\nsecret\n")
    add(run, "bob")
    run("users", "disable", "bob")
    rows = [line.split("\t") for line in run("users", "list").stdout.splitlines()]
    assert [row[:4] for row in rows] == [["4", "alice", "enabled", "abcd…mnop"], ["5", "bob", "disabled", "-"]]


def test_a_key_can_be_replaced(run: Run, environ: dict[str, str]) -> None:
    add(run)
    answer = run("users", "set-key", "alice", "--api-key", "new", "--api-secret-stdin", stdin="secret\n")
    assert (answer.exit_code, answer.stdout) == (0, "user 1 alice key stored\n")
    credentials = store_of(environ).credentials(1)
    assert credentials is not None and credentials.api_key == "new"


def test_a_password_can_be_replaced(run: Run, environ: dict[str, str]) -> None:
    add(run)
    assert run("users", "set-password", "alice", "--password-stdin", stdin="new\n").exit_code == 0
    assert store_of(environ).authenticate("alice", Secret("new")) is not None


def test_an_empty_database_has_no_users_and_is_no_outage(run: Run) -> None:
    answer = run("users", "list")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "", "there are no users\n")
    answer = run("users", "rotate-keys")
    assert (answer.exit_code, answer.stdout) == (0, "0 keys encrypted again\n")


def test_C07_removing_a_user_deletes_what_redis_keeps_of_the_account(run: Run, redis_url: str) -> None:
    add(run, "alice", "--user-id", "4", REDIS_URL=redis_url)
    client = connect(Secret(redis_url))
    client.hset(keys.state(4, DataType.PNL), "seq", 1)
    client.set(keys.memo(4), b"{}")
    client.hset(keys.state(5, DataType.PNL), "seq", 1)
    assert run("users", "remove", "alice", REDIS_URL=redis_url).stderr == ""
    assert sorted(client.keys("push:{*")) == sorted(
        name.encode() for name in (keys.access(4), keys.state(5, DataType.PNL))
    )
    client.close()


def test_C07_without_redis_a_user_is_removed_all_the_same(run: Run) -> None:
    add(run)
    answer = run("users", "remove", "alice")
    assert (answer.exit_code, answer.stdout) == (0, "user 1 alice removed\n")
    assert [line.partition(":")[0] for line in answer.stderr.splitlines()] == ["warning", "warning"]
    assert "within a day" in answer.stderr


@pytest.mark.parametrize("command", ["disable", "enable", "remove", "revoke-tokens"])
def test_without_any_user_a_name_is_unknown(run: Run, command: str) -> None:
    answer = run("users", command, "nobody")
    assert (answer.exit_code, answer.stderr) == (1, "unknown_user: there is no user nobody\n")


@pytest.mark.parametrize("command", ["disable", "enable", "remove", "revoke-tokens"])
def test_an_unknown_user_is_one_line_and_exit_code_1(run: Run, command: str) -> None:
    add(run)
    answer = run("users", command, "nobody")
    assert (answer.exit_code, answer.stderr) == (1, "unknown_user: there is no user nobody\n")


def test_without_redis_the_database_still_changes_and_a_line_warns(run: Run, environ: dict[str, str]) -> None:
    add(run)
    answer = run("users", "disable", "alice")
    assert (answer.exit_code, answer.stdout) == (0, "user 1 alice disabled\n")
    assert answer.stderr.startswith("warning: Redis did not answer") and answer.stderr.count("\n") == 1
    assert store_of(environ).access_rules().disabled_users == {1}


def test_A09_running_processes_are_told_of_every_change(run: Run, redis_url: str) -> None:
    client = connect(Secret(redis_url))
    heard = client.pubsub(ignore_subscribe_messages=True)
    heard.subscribe(keys.SIGNALS_CHANNEL)
    heard.get_message(timeout=1)
    add(run, "alice", "--user-id", "4", REDIS_URL=redis_url)
    seen = []
    for arguments in (
        ["set-key", "alice", "--api-key", "k", "--api-secret-stdin"],
        ["disable", "alice"],
        ["enable", "alice"],
        ["revoke-tokens", "alice"],
        ["remove", "alice"],
    ):
        answer = run("users", *arguments, stdin="secret\n", REDIS_URL=redis_url)
        assert (answer.exit_code, answer.stderr) == (0, "")
        seen.append(dict(client.hgetall(keys.access(4))))
    signals = []
    while (message := heard.get_message(timeout=0.2)) is not None:
        signals.append(parse(message["data"]))
    heard.close()
    client.close()
    assert [(signal.kind, signal.user_id) for signal in signals if signal] == [
        (SignalKind.KEY_CHANGED, 4),
        (SignalKind.USER_DISABLED, 4),
        (SignalKind.USER_ENABLED, 4),
        (SignalKind.TOKENS_REVOKED, 4),
        (SignalKind.USER_DISABLED, 4),
    ]
    assert [set(fields) for fields in seen] == [
        set(), {b"disabled"}, set(), {b"tokens_not_before"}, {b"tokens_not_before", b"disabled"},
    ]  # fmt: skip


def test_F04_keys_are_rotated_and_an_unreadable_one_is_named(run: Run, environ: dict[str, str]) -> None:
    add(run, "alice", "--api-key", "k", "--api-secret-stdin", stdin="pw\ns\n")
    new = Fernet.generate_key().decode()
    both = f"{new},{environ['CREDENTIALS_KEYS']}"
    assert run("users", "rotate-keys", CREDENTIALS_KEYS=both).stdout == "1 keys encrypted again\n"
    assert run("users", "rotate-keys", CREDENTIALS_KEYS=new).stdout == "0 keys encrypted again\n"
    other = run("users", "rotate-keys", CREDENTIALS_KEYS=Fernet.generate_key().decode())
    assert other.exit_code == 1
    assert other.stderr.startswith("user 1: ")


def test_a_database_that_is_away_is_one_line_and_exit_code_1(run: Run) -> None:
    answer = run("users", "list", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/x")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("server_busy: the database did not answer") and "canary" not in answer.output


# --- token -----------------------------------------------------------------------------------------------------


def test_a_token_is_minted_for_the_user_and_the_time_asked_for(run: Run, environ: dict[str, str]) -> None:
    tokens = tokens_from_settings(Settings.from_env(environ), SystemClock())
    claims = tokens.verify(run("token", "4", "--ttl", "60").stdout.strip())
    assert (claims.user_id, claims.expires_at_s - claims.issued_at_s) == (4, 60)
    claims = tokens.verify(run("token", "4").stdout.strip())
    assert claims.expires_at_s - claims.issued_at_s == 3600


@pytest.mark.parametrize(
    "arguments", [["0"], ["-1"], ["x"], [str(2**63)], ["4", "--ttl", "0"], ["4", "--ttl", "86401"]]
)
def test_a_token_that_could_not_count_is_not_minted(run: Run, arguments: list[str]) -> None:
    assert run("token", *arguments).exit_code == 2


# --- check -----------------------------------------------------------------------------------------------------


class Exchange:
    def __init__(self) -> None:
        self.offset_ms = 0
        self.body: bytes | None = None
        exchange = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time_ms = SystemClock().wall_ms() + exchange.offset_ms
                body = exchange.body
                if body is None:
                    body = json.dumps({"retCode": 0, "result": {}, "time": time_ms}).encode()
                self.send_response(200 if self.path == "/v5/market/time" else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                """Silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    exchange = Exchange()
    yield exchange
    exchange.server.shutdown()
    exchange.server.server_close()


def lines(answer: Result) -> dict[str, bool]:
    """Which dependency was found good."""
    return {line[5:].partition(":")[0]: line.startswith("ok ") for line in answer.stdout.splitlines()}


def test_a_check_of_good_surroundings_is_one_line_each_and_exit_code_0(
    run: Run, redis_url: str, exchange: Exchange
) -> None:
    add(run, REDIS_URL=redis_url)
    answer = run("check", REDIS_URL=redis_url, BYBIT_REST_URL=exchange.url)
    assert lines(answer) == {"settings": True, "redis": True, "database": True, "exchange clock": True}, answer.output
    assert answer.exit_code == 0


def test_a_check_names_each_dependency_that_fails(run: Run) -> None:
    answer = run("check", BYBIT_REST_URL="http://127.0.0.1:1", DATABASE_URL="sqlite:////no/such/place.db")
    assert lines(answer) == {"settings": True, "redis": False, "database": False, "exchange clock": False}
    assert answer.exit_code == 1


def test_an_empty_database_is_good_enough(run: Run, redis_url: str, exchange: Exchange) -> None:
    answer = run("check", REDIS_URL=redis_url, BYBIT_REST_URL=exchange.url)
    assert answer.exit_code == 0
    assert "users add" in answer.stdout


@pytest.mark.parametrize("offset_ms", [5_000, -5_000])
def test_H03_a_clock_that_is_off_fails_the_check(run: Run, redis_url: str, exchange: Exchange, offset_ms: int) -> None:
    exchange.offset_ms = offset_ms
    answer = run("check", REDIS_URL=redis_url, BYBIT_REST_URL=exchange.url)
    assert answer.exit_code == 1
    assert lines(answer)["exchange clock"] is False
    assert f"{offset_ms / 1000:+.1f} s" in answer.stdout


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"time":"soon"}', b'{"time":1.5}', b"[" * 60_000])
def test_an_exchange_that_answers_nonsense_fails_the_check(
    run: Run, redis_url: str, exchange: Exchange, body: bytes
) -> None:
    exchange.body = body
    answer = run("check", REDIS_URL=redis_url, BYBIT_REST_URL=exchange.url)
    assert (answer.exit_code, lines(answer)["exchange clock"]) == (1, False)


def test_F05_the_printed_settings_hide_every_secret(run: Run, environ: dict[str, str]) -> None:
    answer = run("check", "--print", REDIS_URL="redis://u:canary@127.0.0.1:1/0")
    assert "JWT_SECRETS=***" in answer.stdout and "REDIS_URL=redis://***@127.0.0.1:1/0" in answer.stdout
    assert "PUSH_INTERVALS=balance=10,positions=5,pnl=5,orders=15" in answer.stdout
    assert "canary" not in answer.output and environ["CREDENTIALS_KEYS"] not in answer.output


@pytest.mark.parametrize(
    "arguments", [["check"], ["users", "list"], ["token", "4"], ["users", "add", "x", "--password-stdin"]]
)
def test_wrong_settings_are_a_line_each_and_exit_code_2(run: Run, arguments: list[str]) -> None:
    answer = run(*arguments, stdin="pw\n", JWT_SECRETS="short", BIND="nowhere")
    assert answer.exit_code == 2
    assert [line.partition(":")[0] for line in answer.stderr.splitlines()] == ["JWT_SECRETS", "BIND"]


# --- the door --------------------------------------------------------------------------------------------------


def test_the_module_can_be_run(environ: dict[str, str]) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "pushserver", "users", "add", "alice", "--user-id", "4", "--password-stdin"],
        env={**os.environ, **environ},
        input="pw\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (0, "user 4 alice added\n")


def test_help_names_every_command_and_that_keys_are_not_verified(run: Run) -> None:
    assert {"users", "token", "check", "demo"} <= set(run("--help").stdout.split())
    text = run("users", "--help").stdout
    for command in (
        "add",
        "list",
        "set-key",
        "set-password",
        "disable",
        "enable",
        "remove",
        "revoke-tokens",
        "rotate-keys",
    ):
        assert f"  {command} " in text
    assert "without asking the exchange" in text
    assert "without asking the exchange" in run("users", "set-key", "--help").stdout


def at_a_terminal(environ: dict[str, str], typed: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command whose standard input is a terminal."""
    ours, theirs = os.openpty()
    try:
        os.write(ours, typed.encode())
        done = subprocess.run(
            [sys.executable, "-m", "pushserver", *arguments],
            env={**os.environ, **environ},
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout, done.stderr


def test_at_a_terminal_it_is_said_what_standard_input_is_waited_for(environ: dict[str, str], run: Run) -> None:
    options = ("--password-stdin", "--api-key", "key", "--api-secret-stdin")
    code, output, errors = at_a_terminal(environ, "pw\nsecret\n", "users", "add", "alice", "--user-id", "4", *options)
    assert (code, output) == (0, "user 4 alice added\n")
    hints = [line for line in errors.splitlines() if line.startswith("reading")]
    assert hints == ["reading the Password from standard input", "reading the API secret from standard input"]
    assert "reading" not in add(run, "bob").output, "a pipe needs no hint"


# --- inspect ---------------------------------------------------------------------------------------------------


def test_a_user_is_inspected_by_name_or_id_and_no_secret_is_shown(run: Run, redis_url: str) -> None:
    add(run, "alice", "--user-id", "4", "--api-key", "key-of-alice", "--api-secret-stdin", stdin="pw\ncanary-secret\n")
    by_name, by_id = run("inspect", "alice", REDIS_URL=redis_url), run("inspect", "4", "--json", REDIS_URL=redis_url)
    assert (by_name.exit_code, by_id.exit_code) == (0, 0), by_name.output + by_id.output
    assert "user 4 alice: enabled, exchange key …" in by_name.stdout
    assert json.loads(by_id.stdout)["schedule"]["scheduled"] is False
    assert "canary" not in by_name.output + by_id.output
    assert "key-of-alice" not in by_name.output + by_id.output


def test_an_unknown_user_and_a_redis_that_is_away_are_one_line_each(run: Run) -> None:
    add(run, "alice")
    for arguments in (("inspect", "bob"), ("inspect", "77"), ("inspect", "alice")):
        answer = run(*arguments)
        assert answer.exit_code == 1
        assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr
