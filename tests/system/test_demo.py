"""``python -m pushserver demo`` as a stranger runs it: it starts, moves, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.harness import ROOT, free_port, wait_until
from tests.system.phones import TYPES, PythonPhone

pytestmark = pytest.mark.system


class DemoRun:
    """A running demo, its output kept."""

    def __init__(self, folder: Path, port: int) -> None:
        self.output = folder / "demo.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pushserver", "demo", "--port", str(port)],
                cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "TMPDIR": str(folder)},  # what a killed demo leaves behind goes with the test
            )  # fmt: skip

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def line(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.text()
            return re.search(pattern, self.text(), re.MULTILINE)

        return wait_until(found, timeout_s, f"{pattern} in:\n{self.text()}")

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[DemoRun]:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        run = DemoRun(tmp_path, busy.getsockname()[1])
        try:
            yield run
        finally:
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait()


def gone(processes: list[psutil.Process]) -> bool:
    return not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_the_demo_starts_beside_a_busy_port_moves_and_leaves_nothing(demo):
    url = demo.line(r"http://127\.0\.0\.1:\d+$")[0]
    username = demo.line(r"username: (\S+)")[1]
    password = demo.line(r"password: (\S+)")[1]
    demo.line(r'emitting event "balance_update" to balance_\d+$')
    assert re.search(r"port \d+ is in use; taking \d+", demo.text())
    body = json.dumps({"username": username, "password": password}).encode()
    request = urllib.request.Request(f"{url}/api/auth/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        login = json.load(answer)
    phone = PythonPhone(url, login["token"])
    phone.wait_for("connected")
    phone.call("subscribe_trading", {})
    for name in TYPES:
        phone.wait_for(f"{name}_update")
    phone.wait_for("balance_update", 2, timeout_s=30)
    demo.line(rf'emitting event "balance_update" to balance_{login["user_id"]}$')
    phone.close()
    family, folder = demo.family(), Path(demo.line(r"logs:\s+(\S+)")[1])
    assert len(family) >= 7 and folder.is_dir()
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(20) == 0, demo.text()
    wait_until(lambda: gone(family), 5, "every process to be gone")
    assert not folder.exists()


def test_a_killed_demo_takes_its_parts_along(demo):
    demo.line(r"emitting event")
    family = demo.family()
    demo.process.kill()
    demo.process.wait()
    wait_until(lambda: gone(family), 20, f"every process to be gone: {family}")


def test_a_part_that_ends_by_itself_ends_the_demo_with_its_name(demo):
    demo.line(r"password: ")
    [exchange] = [process for process in demo.family() if "pushserver.exchange_sim" in process.cmdline()]
    exchange.kill()
    assert demo.process.wait(20) == 1
    assert "exchange ended by itself" in demo.text()


def test_a_stop_while_it_starts_is_heard(tmp_path):
    run = DemoRun(tmp_path, free_port())
    run.line("starting the simulated exchange")
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(30) == 0, run.text()


def test_a_reader_that_goes_away_ends_the_demo(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "pushserver", "demo", "--port", "0"],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(40) == 0
        assert process.stderr.read() == b""
    assert list(tmp_path.glob("pushserver-demo-*")) == []


def test_a_second_signal_hurries(demo):
    demo.line(r"emitting event")
    family = demo.family()
    [web] = [
        process for process in demo.family() if "wsgi:app" in process.cmdline() and process.ppid() == demo.process.pid
    ]
    web.suspend()  # it cannot hear the first one
    demo.process.send_signal(signal.SIGINT)
    demo.line(r"stopping")
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(5) == 0
    wait_until(lambda: gone(family), 5, "every process to be gone")
