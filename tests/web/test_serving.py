"""A gunicorn worker from its first to its last connection, with a trivial application behind it."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pushserver.web.accepting import RESERVED_DESCRIPTORS
from tests.system.harness import wait_until
from tests.web.gunicorns import Gunicorn, read_all

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
NO_ROOM = "no file descriptor is left for one more client"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Gunicorn]:
    gunicorn = Gunicorn(tmp_path, DRAIN_S="10")
    try:
        yield gunicorn
    finally:
        gunicorn.process.stop(30)


def ask(sock: socket.socket) -> bytes:
    """Head and body, which may come apart."""
    sock.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b" / "):
        data = sock.recv(65_536)
        assert data, answer
        answer += data
    return answer


def is_answered(sock: socket.socket, within_s: float) -> bool:
    sock.settimeout(within_s)
    try:
        return b"200 OK" in sock.recv(65_536)
    except TimeoutError:
        return False


def limit_that_leaves(pid: int, descriptors: int) -> int:
    """The limit under which so many more clients are accepted."""
    used = {int(entry.name) for entry in os.scandir(f"/proc/{pid}/fd")}
    free = [number for number in range(10_000) if number not in used]
    return free[descriptors] + RESERVED_DESCRIPTORS


def limit_descriptors(pid: int, limit: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def test_E07_without_descriptors_accepting_pauses_idly_says_so_once_and_goes_on_by_itself(server: Gunicorn) -> None:
    (pid,) = server.workers()
    worker = psutil.Process(pid)
    limit_descriptors(pid, limit_that_leaves(pid, 5))
    served = [server.connect() for _ in range(5)]
    assert all(b"200 OK" in ask(sock) for sock in served)
    waiting = [server.connect() for _ in range(5)]
    for sock in waiting:
        sock.sendall(REQUEST)
    wait_until(lambda: NO_ROOM in server.log(), 5, "the line that says so")
    cpu_before_s = sum(worker.cpu_times()[:2])
    assert not any(is_answered(sock, 0.2) for sock in waiting)
    # Whoever is in is served as before.
    assert all(b"200 OK" in ask(sock) for sock in served)
    assert sum(worker.cpu_times()[:2]) - cpu_before_s < 0.3
    for sock in served:
        sock.close()
    assert all(is_answered(sock, 5) for sock in waiting)
    assert server.log().count(NO_ROOM) == 1
    assert "Traceback" not in server.log()
    for sock in waiting:
        sock.close()


def test_E07_a_limit_that_leaves_nothing_at_all_neither_spins_nor_kills(server: Gunicorn) -> None:
    (pid,) = server.workers()
    worker = psutil.Process(pid)
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    limit_descriptors(pid, worker.num_fds())
    with server.connect() as sock:
        sock.sendall(REQUEST)
        wait_until(lambda: NO_ROOM in server.log(), 5, "the line that says so")
        cpu_before_s = sum(worker.cpu_times()[:2])
        assert not is_answered(sock, 0.8)
        assert sum(worker.cpu_times()[:2]) - cpu_before_s < 0.3
        limit_descriptors(pid, limit)
        assert is_answered(sock, 5)
    assert server.log().count(NO_ROOM) == 1
    assert server.workers() == [pid]


def test_a_low_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        server = Gunicorn(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        (pid,) = server.workers()
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (min(hard, 65_536), hard)
    finally:
        server.process.stop()


def test_a_leaving_worker_lets_go_of_clients_that_ask_for_nothing(server: Gunicorn) -> None:
    before = server.workers()
    with server.connect() as idle:
        assert b"200 OK" in ask(idle)
        started_s = time.monotonic()
        os.kill(server.process.pid, signal.SIGHUP)
        assert idle.recv(1) == b""
        wait_until(lambda: server.workers() and not set(before) & set(server.workers()), 10, "the old worker to leave")
    assert time.monotonic() - started_s < 10
    assert server.answers()


def test_a_request_that_is_under_way_is_answered_before_the_worker_leaves(server: Gunicorn) -> None:
    with server.connect() as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        before = server.workers()
        # The worker itself, so that it is told when it is surely reading this request.
        wait_until(lambda: psutil.Process(before[0]).net_connections("tcp"), 5, "the request to be accepted")
        os.kill(server.process.pid, signal.SIGTERM)
        wait_until(lambda: not listens(server), 5, "the listener to be closed")
        slow.sendall(b"cd")
        answer = read_all(slow)
        assert b"200 OK" in answer and answer.endswith(b"abcd")
        assert server.process.popen.wait(10) == 0


def listens(server: Gunicorn) -> bool:
    try:
        server.connect(1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_reload_keeps_answering_while_the_new_worker_loads(server: Gunicorn) -> None:
    before = set(server.workers())
    os.kill(server.process.pid, signal.SIGHUP)
    answered_by = []
    while before & set(server.workers()):
        answer = server.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 2)
        assert b"200 OK" in answer
        answered_by.append(int(re.findall(rb"\r\n(\d+) / ", answer)[0]))
    assert answered_by[0] in before
    assert answered_by[-1] not in before
