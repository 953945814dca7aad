"""A connection reads without a greenlet while nothing comes, in order while something does, and always ends whole."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator

import gevent
import pytest
from wsaccel.xormask import XorMaskerSimple

from pushserver.clock import SystemClock
from pushserver.web.connection import FRAME_BURST, Connection, ProtocolViolation
from pushserver.web.websocket import BINARY, NORMAL, PING, POLICY_VIOLATION, TEXT, close_frame, encode_frame

MASK = b"\x01\x02\x03\x04"


def masked(message: bytes, opcode: int = TEXT) -> bytes:
    """A short frame as a client sends it."""
    return bytes((0x80 | opcode, 0x80 | len(message))) + MASK + XorMaskerSimple(MASK).process(message)


class Wire:
    """A connection and its client; ``heard`` are messages, ``ends`` the reasons it was closed for."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.heard: list[str | bytes] = []
        self.ends: list[str] = []
        self.released = 0
        self.handle: Callable[[str | bytes], None] = lambda message: None
        self.number = ours.fileno()
        self.connection = Connection(
            None, "sid", ours, SystemClock(), self._on_message, lambda connection, reason: self.ends.append(reason),
            self._on_released,
        )  # fmt: skip

    def _on_message(self, connection: Connection, message: str | bytes) -> None:
        self.heard.append(message)
        self.handle(message)

    def _on_released(self) -> None:
        self.released += 1

    def received(self, wanted: bytes) -> bool:
        """Wait until the client has been sent exactly this."""
        got = b""
        with gevent.Timeout(5):
            while len(got) < len(wanted):
                gevent.sleep(0.001)
                try:
                    got += self.client.recv(65_536)
                except BlockingIOError:
                    continue
        return got == wanted

    @property
    def is_released(self) -> bool:
        return self.released == 1 and not descriptor_is_open(self.number)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.connection.close()
    until(lambda: wire.released)
    wire.client.close()


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.001)


def descriptor_is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def greenlets() -> int:
    gc.collect()
    return sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())


def test_an_idle_phone_costs_no_greenlet_before_and_after_it_said_something(wire: Wire) -> None:
    before = greenlets()
    wire.connection.start(b"")
    gevent.sleep(0.01)
    assert greenlets() == before
    wire.client.sendall(masked(b"4hello"))
    until(lambda: wire.heard == ["hello"])
    gevent.sleep(0)
    assert greenlets() == before


def test_the_answer_to_a_ping_is_noted_without_a_greenlet(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.connection.start(b"")
    monkeypatch.setattr(gevent, "spawn", None)
    wire.connection.ping()
    wire.client.sendall(masked(b"3"))
    until(lambda: wire.connection.pinged_at_s is None)
    monkeypatch.undo()
    wire.client.sendall(masked(b"3") + masked(b"4x"))
    until(lambda: wire.heard == ["x"])


def test_what_came_behind_the_upgrade_request_is_read_first(wire: Wire) -> None:
    wire.client.sendall(masked(b"4second"))
    wire.connection.start(masked(b"4first") + masked(b"4se")[:4])
    gevent.sleep(0.01)
    assert wire.heard == ["first"]


def test_a_frame_that_comes_byte_by_byte_is_read_whole(wire: Wire) -> None:
    wire.connection.start(b"")
    for byte in masked(b"4slowly") + masked(b"4again"):
        wire.client.sendall(bytes((byte,)))
        gevent.sleep(0)
    until(lambda: wire.heard == ["slowly", "again"])


def test_messages_are_handled_one_at_a_time_and_more_are_not_read_meanwhile(wire: Wire) -> None:
    running = []

    def slow(message: str | bytes) -> None:
        assert not running
        running.append(message)
        gevent.sleep(0.01)
        running.clear()

    wire.handle = slow
    wire.connection.start(b"")
    wire.client.sendall(b"".join(masked(b"4%d" % number) for number in range(10)))
    gevent.sleep(0.005)
    wire.client.sendall(masked(b"410"))
    until(lambda: len(wire.heard) == 11)
    assert wire.heard == [str(number) for number in range(11)]


def test_a_websocket_ping_is_answered_and_binary_messages_arrive_as_bytes(wire: Wire) -> None:
    wire.connection.start(b"")
    wire.client.sendall(masked(b"there?", PING) + masked(b"\x00\x01", BINARY))
    assert wire.received(encode_frame(0xA, b"there?"))
    until(lambda: wire.heard == [b"\x00\x01"])


@pytest.mark.parametrize("busy", [False, True])
def test_a_client_that_goes_ends_the_connection_once_and_frees_its_descriptor(wire: Wire, busy: bool) -> None:
    wire.connection.start(b"")
    if busy:
        wire.client.sendall(masked(b"4x")[:5])
        gevent.sleep(0.01)
    wire.client.close()
    until(lambda: wire.is_released)
    assert wire.ends == ["transport close"]


@pytest.mark.parametrize("state", ["idle", "in a frame", "in a handler"])
def test_closing_from_our_side_says_so_and_frees_everything(wire: Wire, state: str) -> None:
    wire.connection.start(b"")
    if state == "in a handler":
        wire.handle = lambda message: gevent.sleep(0.05)
        wire.client.sendall(masked(b"4x") + masked(b"4never"))
    elif state == "in a frame":
        wire.client.sendall(masked(b"4x")[:5])
    gevent.sleep(0.01)
    wire.connection.close(reason="slow client")
    assert wire.ends == ["slow client"]
    assert wire.received(close_frame(NORMAL))
    until(lambda: wire.is_released)
    assert wire.ends == ["slow client"]
    assert "never" not in wire.heard


def test_a_handler_that_closes_its_own_connection_ends_it_once(wire: Wire) -> None:
    wire.handle = lambda message: wire.connection.close(reason="client disconnect")
    wire.connection.start(masked(b"41") + masked(b"4never"))
    until(lambda: wire.is_released)
    assert (wire.ends, wire.heard) == (["client disconnect"], ["1"])


def test_nothing_is_handled_after_the_connection_was_closed(wire: Wire) -> None:
    wire.connection.start(b"")
    wire.connection.outbox._partial = memoryview(b"never leaves")  # type: ignore[assignment]
    wire.connection.close()
    wire.client.sendall(masked(b"4late"))
    until(lambda: wire.released)
    assert wire.heard == []


def test_a_violation_closes_with_its_code(wire: Wire) -> None:
    def refuse(message: str | bytes) -> None:
        raise ProtocolViolation

    wire.handle = refuse
    wire.connection.start(masked(b"4x"))
    assert wire.received(close_frame(POLICY_VIOLATION))
    until(lambda: wire.is_released)
    assert wire.ends == ["protocol error"]


def test_a_handler_that_stumbles_leaves_no_ghost(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    def stumble(message: str | bytes) -> None:
        raise RuntimeError("stumbled")

    wire.handle = stumble
    wire.connection.start(masked(b"4x"))
    until(lambda: wire.is_released)
    assert wire.ends == ["internal error"]
    assert "something unforeseen" in caplog.text


def test_D10_a_flood_of_pongs_is_made_to_wait_like_any_other(wire: Wire) -> None:
    wire.connection.start(b"")
    for _ in range(FRAME_BURST + 5):
        wire.client.sendall(masked(b"3"))
    wire.client.sendall(masked(b"4x"))
    gevent.sleep(0.05)
    assert wire.heard == []
    until(lambda: wire.heard == ["x"])
