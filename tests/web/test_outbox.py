"""One outbox owns every byte out: order, conflation, bounded memory, never a block."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
import pytest

from pushserver.clock import SystemClock
from pushserver.limits import DEFAULTS
from pushserver.model import DataType
from pushserver.web.outbox import Outbox
from tests.system.harness import wait_until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def read_all(peer: socket.socket) -> bytes:
    """Everything that can be read while the event loop may write more."""
    data = b""
    for _ in range(200):
        gevent.sleep(0.001)
        try:
            data += peer.recv(65_536)
        except BlockingIOError:
            if data:
                gevent.sleep(0.005)
                try:
                    data += peer.recv(65_536)
                except BlockingIOError:
                    return data
    return data


def test_a_frame_is_written_at_once_when_nothing_waits(pair):
    server, peer = pair
    outbox = Outbox(server, SystemClock(), lambda reason: None)
    outbox.send(b"hello")
    assert peer.recv(100) == b"hello"
    assert outbox.idle


def test_a_slow_reader_gets_the_newest_state_of_each_type_and_frames_in_order(pair):
    server, peer = pair
    outbox = Outbox(server, SystemClock(), lambda reason: None)
    outbox.send(b"A" * 100_000)
    outbox.send(b"first|")
    replaced = [outbox.send_update(DataType.BALANCE, f"balance-{n}|".encode()) for n in range(10_000)]
    outbox.send_update(DataType.PNL, b"pnl|")
    outbox.send(b"second|")
    assert replaced.count(False) == 1
    received = read_all(peer)
    while not outbox.idle:
        received += read_all(peer)
    received += read_all(peer)
    assert received.replace(b"A", b"") == b"first|second|balance-9999|pnl|"


def test_a_reader_that_lets_too_much_pile_up_is_given_up_once(pair):
    server, _ = pair
    reasons: list[str] = []
    outbox = Outbox(server, SystemClock(), reasons.append)
    for _ in range(40):
        outbox.send(b"x" * (DEFAULTS.max_waiting_bytes // 16))
    assert reasons == ["slow client"]
    assert not outbox.open


def test_a_broken_socket_ends_the_outbox_without_an_exception(pair):
    server, peer = pair
    reasons: list[str] = []
    outbox = Outbox(server, SystemClock(), reasons.append)
    peer.close()
    outbox.send(b"x")
    outbox.send(b"y")
    assert reasons == ["transport error"]


def test_nothing_follows_the_last_frame(pair):
    server, peer = pair
    outbox = Outbox(server, SystemClock(), lambda reason: None)
    outbox.finish(b"bye")
    outbox.send(b"late")
    assert outbox.send_update(DataType.PNL, b"late") is False
    wait_until(lambda: gevent.sleep(0) is None, 1)
    assert peer.recv(100) == b"bye"


def test_a_discarded_update_does_not_follow_its_unsubscription(pair):
    server, peer = pair
    outbox = Outbox(server, SystemClock(), lambda reason: None)
    outbox.send(b"A" * 100_000)
    outbox.send_update(DataType.ORDERS, b"orders|")
    outbox.discard_update(DataType.ORDERS)
    received = read_all(peer)
    while not outbox.idle:
        received += read_all(peer)
    assert b"orders" not in received
