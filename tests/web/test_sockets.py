"""Connecting against the unexpected, and the rooms other programs may emit to."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import gevent
import pytest

from pushserver.bus.connection import connect
from pushserver.clock import ManualClock
from pushserver.errors import TokenRefused
from pushserver.limits import DEFAULTS, Limits
from pushserver.model import Secret
from pushserver.observers import BusMessageDropped, ConnectionRefused, RecordingObserver
from pushserver.tokens import Claims
from pushserver.web.bus_messages import MessageRefused, StatusMessage, UpdateMessage, parse_message
from pushserver.web.connection import ProtocolViolation
from pushserver.web.engine import Handshake, SocketServer
from pushserver.web.pace import FLOOD_LIMIT_S
from pushserver.web.phones import EventBudget
from pushserver.web.rooms import RoomManager
from pushserver.web.sign_in import SignIn
from pushserver.web.sockets import Sockets, nothing
from tests.system.harness import wait_until

CLAIMS = Claims(4, "id", 0, 4_000_000_000)


class FakeConnection:
    """What ``Sockets`` needs of a transport, with everything sent kept."""

    def __init__(self, sid: str = "eio1") -> None:
        self.sid = sid
        self.phone: Any = None
        self.refused = self.closed = False
        self.sent: list[str] = []

    def send_message(self, message: bytes) -> None:
        self.sent.append(message.decode())

    def close(self, reason: str = "", **_: Any) -> None:
        self.closed = True
        self.close_reason = reason


class FakeVerifier:
    def __init__(self, outcome: Claims | Exception) -> None:
        self.outcome = outcome

    def pick(self, carriers):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome, "payload"


class FakeAccess:
    def __init__(self, refusal: TokenRefused | None = None) -> None:
        self.refusal = refusal

    def check(self, claims):
        if self.refusal:
            raise self.refusal


class FakeTally:
    def __init__(self) -> None:
        self.users: Counter[int] = Counter()

    def enter_user(self, user_id: int, most: int) -> bool:
        self.users[user_id] += 1
        if self.users[user_id] > most:
            self.leave_user(user_id)
            return False
        return True

    def leave_user(self, user_id: int) -> None:
        self.users[user_id] -= 1


class NoDeliveries:
    def unsubscribe(self, phone, data_types):
        pass


class World:
    """``Sockets`` on fakes: everything but the wire, Redis and the tokens is real."""

    def __init__(
        self,
        outcome: Claims | Exception = CLAIMS,
        refusal: TokenRefused | None = None,
        limits: Limits = DEFAULTS,
        access: Any = None,
    ) -> None:
        self.observer, self.clock, self.tally = RecordingObserver(), ManualClock(), FakeTally()
        self.deliveries: Any = NoDeliveries()
        self.sign_in = SignIn(
            FakeVerifier(outcome), access or FakeAccess(refusal), self.tally, self.deliveries, limits,
            self.clock, self.observer,
        )  # fmt: skip
        self.sockets = Sockets(self.sign_in, limits, self.clock, self.observer)
        self.manager = RoomManager(None, self.observer)
        SocketServer(self.sockets, self.clock, self.manager, None, limits)
        self.sign_in.manager, self.sign_in.resume = self.manager, lambda phone, auth: nothing
        self.sign_in.greet = lambda phone: None
        self.sockets.handlers = {}


def open_and_connect(sockets: Sockets, sid: str = "eio1") -> FakeConnection:
    connection = FakeConnection(sid)
    sockets.opened(connection, Handshake(None, "token"))  # type: ignore[arg-type]
    sockets.message(connection, "0")  # type: ignore[arg-type]
    return connection


def test_D12_an_unexpected_exception_in_the_connect_handler_refuses_and_cleans_up():
    world = World(RuntimeError("surprise"))
    connection = open_and_connect(world.sockets)
    refusal = json.loads(connection.sent[0][2:])
    assert connection.sent[0].startswith("44")
    assert refusal["message"] == "server_busy"
    assert "surprise" not in connection.sent[0]
    assert ConnectionRefused("eio1", "server_busy") in world.observer.records
    assert (world.sockets.by_user, world.manager.room_count(), +world.tally.users) == ({}, 0, {})
    gevent.sleep(0.2)
    assert connection.closed


def test_A08_a_lost_redis_lets_nobody_new_in():
    sockets = World(refusal=TokenRefused(code="server_busy")).sockets
    assert json.loads(open_and_connect(sockets).sent[0][2:])["message"] == "server_busy"


def test_everything_a_connection_got_is_taken_back_when_it_ends():
    world = World()
    sockets = world.sockets
    connection = open_and_connect(sockets)
    assert connection.sent[0].startswith("40")
    assert (len(sockets.by_user[4]), world.tally.users[4]) == (1, 1)
    world.manager.enter_room(connection.phone.sid, "/", "balance_4")
    sockets.closed(connection, "transport close")  # type: ignore[arg-type]
    sockets.closed(connection, "transport close")  # type: ignore[arg-type]
    assert (sockets.by_user, sockets.connections, world.manager.room_count()) == ({}, {}, 0)
    assert (world.manager.rooms, +world.tally.users) == ({}, {})


class SlowAccess:
    """An access check that takes as long as it is told to."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked = 0

    def check(self, claims):
        self.asked += 1
        gevent.sleep(self.seconds)


def nothing_is_left(world: World) -> bool:
    return (world.sockets.by_user, world.manager.room_count(), +world.tally.users) == ({}, 0, {})


def test_D11_a_connect_that_takes_too_long_is_refused_with_server_busy_and_leaves_nothing():
    world = World(limits=Limits(connect_s=1), access=SlowAccess(30))
    world.sign_in._limits = replace(DEFAULTS, connect_s=0.05)  # type: ignore[arg-type]
    connection = open_and_connect(world.sockets)
    assert json.loads(connection.sent[0][2:])["message"] == "server_busy"
    assert nothing_is_left(world)
    wait_until(lambda: not gevent.sleep(0.01) and connection.closed, 1)


def test_D11_a_client_that_leaves_while_it_is_signed_in_leaves_nothing():
    world = World(access=SlowAccess(0.05))
    connection = FakeConnection()
    world.sockets.opened(connection, Handshake(None, "token"))  # type: ignore[arg-type]
    signing_in = gevent.spawn(world.sockets.message, connection, "0")
    gevent.sleep(0.01)
    connection.closed = True
    world.sockets.closed(connection, "transport close")  # type: ignore[arg-type]
    signing_in.join()
    assert (connection.phone, connection.sent) == (None, [])
    assert nothing_is_left(world)


def test_D11_D12_whatever_fails_while_a_phone_is_registered_gives_its_place_back():
    world = World()
    world.manager.connect = lambda *_: 1 / 0
    connection = open_and_connect(world.sockets)
    assert json.loads(connection.sent[0][2:])["message"] == "server_busy"
    assert nothing_is_left(world)


def test_E01_a_user_has_so_many_connections_and_a_place_that_is_left_is_free_again():
    world = World(limits=Limits(max_connections_per_user=2))
    connections = [open_and_connect(world.sockets, f"eio{n}") for n in range(3)]
    assert [connection.sent[0][:2] for connection in connections] == ["40", "40", "44"]
    assert json.loads(connections[2].sent[0][2:])["message"] == "too_many_connections"
    world.sockets.closed(connections[0], "transport close")  # type: ignore[arg-type]
    world.sockets.closed(connections[2], "refused")  # type: ignore[arg-type]
    assert open_and_connect(world.sockets, "eio3").sent[0].startswith("40")


def signed_in(**limits: Any) -> tuple[World, FakeConnection]:
    world = World(limits=replace(DEFAULTS, **limits))
    connection = open_and_connect(world.sockets)
    connection.sent.clear()
    return world, connection


def test_D03_attachments_together_have_the_room_of_one_message():
    world, connection = signed_in(max_message_bytes=100)
    world.sockets.message(connection, '52-["a",{"_placeholder":true,"num":0}]')
    world.sockets.message(connection, b"x" * 60)
    with pytest.raises(ProtocolViolation):
        world.sockets.message(connection, b"x" * 41)


def test_D03_attachments_of_exactly_the_room_are_answered_also_in_the_ack():
    world, connection = signed_in(max_message_bytes=100)
    world.sockets.message(connection, '52-7["a",{"_placeholder":true,"num":0}]')
    world.sockets.message(connection, b"x" * 60)
    assert connection.sent == []
    world.sockets.message(connection, b"x" * 40)
    assert json.loads(connection.sent[0][2:])[1]["code"] == "invalid_payload"
    assert json.loads(connection.sent[1][3:])[0]["error"]["code"] == "invalid_payload"


def test_D03_anything_else_between_attachments_closes_the_transport():
    world, connection = signed_in()
    world.sockets.message(connection, '51-["a",{"_placeholder":true,"num":0}]')
    with pytest.raises(ProtocolViolation):
        world.sockets.message(connection, '2["whoami"]')


def test_D03_attachments_that_come_in_time_are_not_held_against_the_connection_later():
    world, connection = signed_in(attachments_s=0.02)
    world.sockets.message(connection, '51-["a",{"_placeholder":true,"num":0}]')
    world.sockets.message(connection, b"x")
    gevent.sleep(0.1)
    assert not connection.closed


def test_D03_attachments_that_never_come_close_the_transport():
    world, connection = signed_in(attachments_s=0.02)
    world.sockets.message(connection, '51-["a",{"_placeholder":true,"num":0}]')
    wait_until(lambda: not gevent.sleep(0.01) and connection.closed, 1)
    world.sockets.closed(connection, connection.close_reason)  # type: ignore[arg-type]
    assert world.sockets._attachments == {}


def test_D10_a_minute_of_flood_closes_the_connection_and_names_it(monkeypatch):
    world, connection = signed_in(event_burst=20, event_rate=5)
    monkeypatch.setattr(gevent, "sleep", lambda seconds=0: world.clock.advance(seconds))
    events = 0
    with pytest.raises(ProtocolViolation):
        while world.clock.monotonic_s() < 2_000:
            world.sockets.message(connection, '2["nothing"]')
            events += 1
    # A burst of 20, then five a second for a minute; and one word about it every ten seconds.
    assert 310 <= events <= 330
    assert 6 <= sum("rate_limited" in sent for sent in connection.sent) <= 7
    assert connection.close_reason == "flood"


def test_B04_E06_a_transport_that_ends_without_a_sign_in_is_counted():
    world = World()
    for reason in ("never signed in", "protocol error", "transport close"):
        connection = FakeConnection()
        world.sockets.opened(connection, Handshake(None, None))  # type: ignore[arg-type]
        world.sockets.closed(connection, reason)  # type: ignore[arg-type]
    assert world.observer.records == [
        ConnectionRefused("eio1", "never_signed_in"),
        ConnectionRefused("eio1", "protocol_error"),
    ]


@pytest.mark.parametrize(
    ("configured", "origin", "allowed"),
    [
        (None, "http://h:1", True),
        (None, "https://app.example", False),
        (("https://app.example",), "https://app.example", True),
        (("https://app.example",), "http://h:1", True),
        (("https://app.example",), "https://app.example.evil", False),
        (("https://app.example",), "null", False),
        (("*",), "https://any.example", True),
    ],
)
def test_B01_B02_our_own_page_and_the_listed_origins_may_connect(configured, origin, allowed):
    server = SocketServer(World().sockets, ManualClock(), RoomManager(None, RecordingObserver()), configured)
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "h:1", "HTTP_ORIGIN": origin}
    origins = server.eio._cors_allowed_origins(environ)
    assert (origins is None or origin in origins) is allowed
    assert server.eio.cors_allowed_origins != []


def test_a_kicked_phone_hears_nothing_more_than_why():
    world = World()
    sockets = world.sockets
    left: list[list] = []
    world.deliveries.unsubscribe = lambda phone, data_types: left.append(list(data_types))
    connection = open_and_connect(sockets)
    sockets.kick(connection.phone, "user_disabled")
    sockets.kick(connection.phone, "token_revoked")
    assert [len(data_types) for data_types in left] == [4]
    assert sum('"error"' in sent for sent in connection.sent) == 1


def test_A09_a_kicked_phone_cannot_subscribe_again_before_its_transport_ends():
    world, connection = signed_in()
    subscribed: list[object] = []
    world.sockets.handlers = {"subscribe_trading": lambda phone, arguments: subscribed.append(arguments)}  # type: ignore[dict-item]
    world.sockets.kick(connection.phone, "token_revoked")
    world.sockets.message(connection, '2["subscribe_trading",{}]')
    assert subscribed == []


def test_D10_events_beyond_the_burst_wait_and_an_endless_flood_is_cut_off():
    budget = EventBudget(DEFAULTS.event_burst, DEFAULTS.event_rate, 0.0)
    assert all(budget.spend(0.0) == 0.0 for _ in range(DEFAULTS.event_burst))
    assert budget.spend(0.0) == pytest.approx(0.2)
    assert budget.must_tell(0.0) and not budget.must_tell(9.9) and budget.must_tell(10.0)
    now_s = 0.0
    while not budget.exhausted(now_s):
        now_s += 0.1
        budget.spend(now_s)
        assert now_s < FLOOD_LIMIT_S + 1
    assert now_s > FLOOD_LIMIT_S


def test_D10_a_pause_fills_the_bucket_again():
    budget = EventBudget(DEFAULTS.event_burst, DEFAULTS.event_rate, 0.0)
    for _ in range(DEFAULTS.event_burst + 5):
        budget.spend(0.0)
    assert budget.spend(30.0) == 0.0
    assert not budget.exhausted(100.0)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_an_event"),
        (b"5", "not_an_event"),
        (b"u 5 5\nhello", "not_an_event"),
        (b'u x 5\n42["a"]', "malformed"),
        (b'u 5\n42["a"]', "malformed"),
        (b's half reason\n42["a"]', "malformed"),
        (b'x 5 5\n42["a"]', "malformed"),
        (b'u 99999999999999 5\n42["a"]', "seq_ahead"),
        (b'u 5 5\n42["' + b"x" * (1 << 20), "oversize"),
    ],
)
def test_G02_a_message_that_is_not_ours_is_refused(payload, reason):
    with pytest.raises(MessageRefused) as refusal:
        parse_message(payload, now_ms=1_000_000)
    assert refusal.value.reason == reason


def test_our_own_messages_are_taken_apart_without_looking_into_the_frame():
    assert parse_message(b'u 7 6\n42["a",{"b":"\\n"}]', 10) == UpdateMessage(7, 6, b'42["a",{"b":"\\n"}]')
    status = parse_message(b's stopped key_invalid\n42["status_update"]', 10)
    assert isinstance(status, StatusMessage) and status.reason == "key_invalid"


EMIT = {"method": "emit", "event": "balance_update", "data": [{}], "namespace": "/", "room": "balance_4"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"not json", "malformed"),
        (b"5", "malformed"),
        (b"[]", "malformed"),
        (b"x" * (2 << 20), "oversize"),
        ({**EMIT, "method": "disconnect", "sid": "x"}, "method_not_allowed"),
        ({**EMIT, "method": "close_room"}, "method_not_allowed"),
        ({**EMIT, "method": "enter_room"}, "method_not_allowed"),
        ({**EMIT, "method": "callback"}, "method_not_allowed"),
        ({**EMIT, "room": None}, "room_not_allowed"),
        ({**EMIT, "room": ["balance_4"]}, "room_not_allowed"),
        ({**EMIT, "room": "everybody"}, "room_not_allowed"),
        ({**EMIT, "room": "balance_0"}, "room_not_allowed"),
        ({**EMIT, "namespace": "/admin"}, "room_not_allowed"),
        ({**EMIT, "callback": ["a", "/", 1]}, "method_not_allowed"),
        ({**EMIT, "event": 5}, "malformed"),
        ({**EMIT, "event": {"a": 1}}, "malformed"),
    ],
)
def test_G02_on_the_shared_queue_only_an_emit_to_one_of_our_rooms_is_obeyed(message, reason):
    world = World()
    connection = open_and_connect(world.sockets)
    world.manager.enter_room(connection.phone.sid, "/", "balance_4")
    before = list(connection.sent)
    payload = message if isinstance(message, bytes) else json.dumps(message).encode()
    world.manager.on_queue_message(payload)
    assert world.observer.records[-1] == BusMessageDropped(reason)
    assert connection.sent == before and not connection.closed


def test_an_emit_of_ours_reaches_the_queue_for_other_workers(redis_url):
    client = connect(Secret(redis_url))
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("pushserver")
    pubsub.get_message(timeout=2)
    manager = RoomManager(client, RecordingObserver())
    SocketServer(World().sockets, ManualClock(), manager, None)
    manager.emit("balance_update", {"a": 1}, namespace="/", room="balance_4")
    message = json.loads(pubsub.get_message(timeout=2)["data"])
    assert (message["method"], message["room"], message["data"]) == ("emit", "balance_4", [{"a": 1}])
