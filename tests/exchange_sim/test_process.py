"""The program as a process: its line, its signals, its exit codes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from pushserver.exchange_sim.client import SimControl
from tests.exchange_sim.conftest import start_process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_clients_waiting(number: int) -> None:
    process, url = start_process("--users", "1")
    control = SimControl(url)
    control.fault("hang")
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as waiting:
        waiting.sendall(b"GET /v5/market/time HTTP/1.1\r\n\r\n")
        while control.counters()["requests"] < 1:
            time.sleep(0.01)
        process.send_signal(number)
        printed, complaints = process.communicate(timeout=5)
    assert (process.returncode, printed, complaints) == (0, "", "")


def test_a_taken_port_is_told_and_ends_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "pushserver.exchange_sim", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=10,
        )
    assert ended.returncode == 1 and f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert ended.stdout == ""


def test_it_moves_by_itself_unless_frozen() -> None:
    process, url = start_process("--users", "1", "--seed", "4")
    try:
        control = SimControl(url)
        version = control.market()["market_version"]
        deadline = time.monotonic() + 10
        while control.market()["market_version"] == version:
            assert time.monotonic() < deadline, "the market stands still"
            time.sleep(0.05)
        control.freeze()
        marks = control.market()["marks"]
        time.sleep(0.7)
        assert control.market()["marks"] == marks
    finally:
        process.terminate()
        process.communicate(timeout=5)
