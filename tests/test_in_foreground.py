"""Ctrl-C reaches what make runs exactly once, and make reports how that ended."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pushserver.clock import SystemClock
from tests.conftest import require

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "in_foreground.py"

#: Counts the signals it gets and leaves with the exit code it was told.
PROGRAM = """
import signal, sys, threading
heard, first = [], threading.Event()
def hear(number, frame):
    heard.append(signal.Signals(number).name)
    first.set()
signal.signal(signal.SIGINT, hear)
signal.signal(signal.SIGTERM, hear)
print("ready", flush=True)
while not first.wait(0.05):
    pass
threading.Event().wait(0.3)
print("heard", *heard, flush=True)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    return [sys.executable, str(SCRIPT), sys.executable, str(program)]


def read_until(descriptor: int, wanted: str) -> str:
    """What comes from ``descriptor`` up to and with ``wanted``."""
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 20
    received = ""
    while wanted not in received:
        assert clock.monotonic_s() < deadline_s, received
        if select.select([descriptor], [], [], 0.2)[0]:
            received += os.read(descriptor, 4096).decode()
    return received


def test_ctrl_c_under_make_is_heard_once_and_make_succeeds(tmp_path: Path, command: list[str]) -> None:
    require(shutil.which("make"), "make")
    (tmp_path / "Makefile").write_text(f"demo:\n\t@exec {' '.join(command)} 0\n", encoding="utf-8")
    make, terminal = pty.fork()
    if make == 0:
        os.chdir(tmp_path)
        os.execvp("make", ["make", "demo"])
    try:
        read_until(terminal, "ready")
        os.write(terminal, b"\x03")
        said = read_until(terminal, "heard SIGINT\r\n")
    finally:
        status = os.waitpid(make, 0)[1]
        os.close(terminal)
    assert "heard SIGINT SIGINT" not in said
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_is_handed_on_once(command: list[str], number: signal.Signals) -> None:
    process = subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), "ready")
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=20)
    assert output.decode().split() == ["heard", number.name]
    assert process.returncode == 0


def test_the_exit_code_is_the_commands(command: list[str]) -> None:
    process = subprocess.Popen([*command, "7"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), "ready")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 7
