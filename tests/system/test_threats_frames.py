"""Frames and events of a hostile client, on the real socket of a real worker (section D of the threat table)."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from bench.publish import changed_state
from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.exchange_sim.client import SimControl
from pushserver.model import DataType, Secret
from tests.system.harness import Stack, wait_until
from tests.system.raw_client import RawClient
from tests.system.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Wire, frame, header, text

pytestmark = pytest.mark.system

ATTACHMENTS_S, STUCK_S = 1, 3
ANNOUNCED = '451-["subscribe_trading",{"_placeholder":true,"num":0}]'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environ = {"ATTACHMENTS_S": str(ATTACHMENTS_S), "STUCK_S": str(STUCK_S)}
    folder = tmp_path_factory.mktemp("frames")
    stack = Stack(folder, users=0, web_workers=1, push_workers=0, environ=environ).start()
    yield stack
    stack.stop()


@pytest.fixture
def wire(stack: Stack) -> Iterator[Wire]:
    wire = Wire(stack.web_port)
    wire.sign_in(stack.token(4))
    yield wire
    wire.close()


@pytest.fixture
def client(stack: Stack) -> Iterator[RawClient]:
    client = RawClient(stack.url)
    assert client.connect({"token": stack.token(4)}).startswith("40")
    yield client
    client.close()


def metric(stack: Stack, series: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.web_metrics_port}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(series)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def nobody_is_left(stack: Stack) -> bool:
    subscribed = sum(metric(stack, f'push_subscriptions_open{{type="{name.value}"}}') for name in DataType)
    return metric(stack, "push_connections_open") == 0 and subscribed == 0


def closed_with(wire: Wire) -> int:
    """The code with which the server ends the connection, within a second."""
    wire.socket.settimeout(1.0)
    closing = [frame for frame in wire.read_to_the_end() if frame.opcode == CLOSE]
    assert len(closing) == 1
    return closing[0].close_code


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(header(TEXT, 65_537), 1009, id="D01-64-KiB-and-a-byte"),
        pytest.param(header(BINARY, 2**40), 1009, id="D01-a-terabyte"),
        pytest.param(b"\x81\xff" + b"\x80" + bytes(7), 1009, id="D01-2-to-the-63"),
        pytest.param(frame(TEXT, b"x" * 65_000, final=False) + header(CONTINUATION, 537), 1009, id="D01-in-fragments"),
        pytest.param(
            frame(TEXT, b"4", final=False) + frame(CONTINUATION, b"x", final=False) * 64, 1008, id="D01-65-fragments"
        ),
        pytest.param(frame(TEXT, b"4", masked=False), 1002, id="D02-unmasked"),
        pytest.param(frame(TEXT, b"4", bits=4), 1002, id="D02-compressed-bit"),
        pytest.param(frame(TEXT, b"4", bits=1), 1002, id="D02-reserved-bit"),
        pytest.param(frame(0x3), 1002, id="D02-unknown-opcode"),
        pytest.param(frame(0xB), 1002, id="D02-unknown-control-opcode"),
        pytest.param(header(PING, 126), 1002, id="D02-long-ping"),
        pytest.param(frame(PING, b"", final=False), 1002, id="D02-fragmented-ping"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="D02-continuation-of-nothing"),
        pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="D02-not-UTF-8"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="D02-surrogate"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="D02-close-of-one-byte"),
        pytest.param(frame(CLOSE, b"\x03\xed"), 1002, id="D02-close-1005"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="D02-close-reason-not-UTF-8"),
        pytest.param(frame(CLOSE, b"\x03\xe8") + text("42[]"), 1000, id="D02-data-after-close"),
    ],
)
def test_D01_D02_a_broken_or_oversize_frame_closes_at_once_with_its_code(wire, sent, code):
    wire.send(sent)
    assert closed_with(wire) == code


def test_D01_D02_of_all_these_connections_nothing_is_left(stack):
    wait_until(lambda: nobody_is_left(stack), 5, "all connections to be forgotten")
    assert metric(stack, 'push_connections_closed_total{reason="protocol_error"}') >= 17
    assert "Traceback" not in stack.web.log()


def test_D03_attachments_that_never_come_close_the_transport(client):
    started = time.monotonic()
    client.send(ANNOUNCED)
    assert client.closed_within(ATTACHMENTS_S + 2)
    assert time.monotonic() - started > ATTACHMENTS_S * 0.9


def test_D03_attachments_of_more_than_64_KiB_in_all_close_the_transport(client):
    client.send(ANNOUNCED.replace("451-", "452-"))
    client.send_binary(b"x" * 40_000)
    client.send_binary(b"x" * 40_000)
    assert client.closed_within(1.0)


def test_D03_attachments_in_time_are_answered_and_the_connection_lives_on(client):
    client.send(ANNOUNCED)
    client.send_binary(b"x" * 60_000)
    assert client.event("error")["code"] == "invalid_payload"
    started = time.monotonic()
    while time.monotonic() - started < ATTACHMENTS_S + 0.3:
        assert client.call("whoami")["user_id"] == 4
        time.sleep(0.3)


@pytest.mark.parametrize("sent", ["bAAEC", "bAAEC" * 100, "453-[]", "451000000000-[]", "461-[]", "45-[]"])
def test_D03_anything_else_that_is_binary_closes_the_transport(client, sent):
    client.send(sent)
    assert client.closed_within(1.0)


def test_D03_acks_nobody_asked_for_are_ignored_and_counted(stack, client):
    series = 'push_events_received_total{event="other",result="unasked_ack"}'
    before = metric(stack, series)
    for number in range(5):
        client.send(f"43{number}[]")
    assert client.call("whoami")["user_id"] == 4
    wait_until(lambda: metric(stack, series) == before + 5, 5, "the count")


def test_D06_events_named_like_the_librarys_own_move_no_gauge(stack, client):
    wait_until(lambda: metric(stack, "push_connections_open") == 1, 5, "one connection")
    for name in ("disconnect", "connect", "connect_error", "message", "*"):
        assert client.call(name, {"token": "x"})["error"]["code"] == "unknown_event"
    assert client.call("whoami")["user_id"] == 4
    assert metric(stack, "push_connections_open") == 1
    client.close()
    wait_until(lambda: nobody_is_left(stack), 5, "the connection to be forgotten")


def test_D10_events_beyond_the_burst_wait_and_the_client_is_told_once(client):
    started = time.monotonic()
    for number in range(35):
        client.send(f'42{number}["whoami"]')
    acks = 0
    while acks < 35:
        packet = client.packet()
        acks += packet.startswith("43")
        client._take(packet)
    # 20 at once, then five a second.
    assert time.monotonic() - started > 2.7
    assert [payload["code"] for name, payload in client.events if name == "error"] == ["rate_limited"]


def commit_large(stack: Stack, user_id: int, version: int) -> None:
    """A state of 75 KB."""
    now_ms = SystemClock().wall_ms()
    update = encode_update(DataType.ORDERS, user_id, changed_state(DataType.ORDERS, version, 500), now_ms, now_ms)
    states = States(connect(Secret(stack.redis_url)), SystemClock())
    assert states.commit(user_id, DataType.ORDERS, update, now_ms).result == "published"


def test_E05_a_client_that_reads_a_byte_a_second_is_cut_off(stack):
    wire = Wire(stack.web_port, receive_buffer=4_096)
    wire.sign_in(stack.token(8))
    wire.send(text('420["subscribe_trading",{"types":["orders"]}]'))
    assert wire.read().payload.startswith(b'42["subscribed"')
    closed = 'push_connections_closed_total{reason="slow_client"}'
    before = metric(stack, closed)
    for version in range(1, 60):
        commit_large(stack, 8, version)
    started = time.monotonic()
    while metric(stack, closed) == before:
        assert time.monotonic() - started < STUCK_S + 5
        wire.socket.recv(1)
        time.sleep(0.9)
    assert time.monotonic() - started > STUCK_S - 1
    # Not only ended but gone: the worker holds no descriptor of it.
    worker, ours = psutil.Process(stack.web.children()[0]), wire.socket.getsockname()
    wait_until(lambda: ours not in [end.raddr for end in worker.net_connections("tcp")], 5, "the socket to be gone")
    wire.close()


def test_D13_frames_never_interleave_while_a_large_update_is_being_written(stack):
    """The client stops reading, so that a large update stays half written; then all writers come at once."""
    wire = Wire(stack.web_port, receive_buffer=4_096)
    wire.sign_in(stack.token(5))
    wire.send(text('420["subscribe_trading",{"types":["orders"]}]'))
    assert wire.read().payload.startswith(b'42["subscribed"')
    assert wire.read().payload.startswith(b"430[")
    for version in range(1, 60):
        commit_large(stack, 5, version)
        if version % 6 == 0:
            wire.send(frame(PING, b"ping %d" % version) + text(f'42{version}["whoami"]'))
    wire.send(text("41"))
    frames = wire.read_to_the_end()
    assert all(frame.final for frame in frames)
    assert [frame.payload for frame in frames if frame.opcode == PONG] == [b"ping %d" % n for n in range(6, 60, 6)]
    said = [frame.payload.decode() for frame in frames if frame.opcode == TEXT]
    acks = [message for message in said if message.startswith("43")]
    assert [int(ack[2 : ack.index("[")]) for ack in acks] == list(range(6, 60, 6))
    seqs = [json.loads(message[2:])[1]["seq"] for message in said if message.startswith('42["orders_update"')]
    # Fewer than were committed: something did wait.
    assert 1 <= len(seqs) < 59 and seqs == sorted(set(seqs))
    assert frames[-1].opcode == CLOSE
    wire.close()


def test_D11_a_client_that_leaves_while_redis_hangs_leaves_nothing_behind(stack):
    staying = Wire(stack.web_port)
    staying.sign_in(stack.token(6))
    process = stack.valkey._process.pid
    os.kill(process, signal.SIGSTOP)
    try:
        for reason in ("connecting", "subscribing"):
            for _ in range(10):
                wire = Wire(stack.web_port)
                assert wire.upgrade() == 101
                wire.send(text('40{"token":"' + stack.token(6) + '"}'))
                if reason == "subscribing":
                    wire.send(text('42["subscribe_trading",{}]'))
                wire.close()
        refused = Wire(stack.web_port)
        assert refused.upgrade() == 101
        started = time.monotonic()
        refused.send(text('40{"token":"' + stack.token(6) + '"}'))
        messages = [frame.payload for frame in refused.read_to_the_end() if frame.opcode == TEXT]
        assert b'"server_busy"' in messages[-1] and messages[-1].startswith(b"44")
        assert time.monotonic() - started < 7
        refused.close()
    finally:
        os.kill(process, signal.SIGCONT)
    wait_until(lambda: metric(stack, "push_connections_open") == 1, 10, "only the one that stayed")
    staying.send(frame(PING, b"still there?"))
    assert staying.read().payload == b"still there?"
    staying.close()
    wait_until(lambda: nobody_is_left(stack), 10, "all to be forgotten")
    # What was counted per user was given back: twenty more fit.
    clients = [RawClient(stack.url) for _ in range(20)]
    assert all(client.connect({"token": stack.token(6)}).startswith("40") for client in clients)
    for client in clients:
        client.close()


def test_D10_flapping_causes_no_extra_fetch(tmp_path):
    stack = Stack(tmp_path, users=1, web_workers=1, push_workers=1, intervals="balance=2,positions=2,pnl=2,orders=2")
    try:
        stack.start()
        exchange = SimControl(stack.exchange_url)
        client = RawClient(stack.url)
        client.connect({"token": stack.token(1)})
        client.call("subscribe_trading", {})
        for name in DataType:
            client.event(f"{name.value}_update", 20)

        def requests_of_a_while(what: list[str]) -> int:
            mark, started = exchange.mark_counters(), time.monotonic()
            while time.monotonic() - started < 4.3:
                for event in what:
                    client.call(event, {})
                time.sleep(0.3)
            return int(exchange.counters(mark)["requests"])

        calm = requests_of_a_while(["whoami"])
        flapping = requests_of_a_while(["unsubscribe_trading", "subscribe_trading"])
        client.close()
    finally:
        stack.stop()
    assert calm > 0
    # A round more may fall into the second while.
    assert flapping <= calm * 2
