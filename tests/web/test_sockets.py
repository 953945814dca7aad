"""Connecting against the unexpected, and the rooms other programs may emit to."""

from __future__ import annotations

import json
from collections import Counter
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
from pushserver.web.engine import Handshake, SocketServer
from pushserver.web.pace import FLOOD_LIMIT_S
from pushserver.web.phones import EventBudget
from pushserver.web.rooms import RoomManager
from pushserver.web.sign_in import SignIn
from pushserver.web.sockets import Sockets, nothing

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
        self.sockets.handlers = {}


def open_and_connect(sockets: Sockets) -> FakeConnection:
    connection = FakeConnection()
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
