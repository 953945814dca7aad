"""What the ticker does about connections whose time has come, with the clock in hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
import pytest

from pushserver.clock import ManualClock
from pushserver.limits import DEFAULTS
from pushserver.tokens import LEEWAY_S, Claims
from pushserver.web import ticker as ticker_module
from pushserver.web.engine import PING_INTERVAL_S, PING_TIMEOUT_S
from pushserver.web.phones import EventBudget, Phone
from pushserver.web.ticker import ANNOUNCE_EXPIRY_S, LOOK_EVERY_S, Ticker
from tests.system.harness import wait_until

#: Not a multiple of anything the ticker counts in.
LIMITS = replace(DEFAULTS, sign_in_s=8, stuck_s=31)
WALL_S = ManualClock().wall_ms() // 1000


@dataclass
class FakeOutbox:
    stuck_since_s: float | None = None


@dataclass
class FakeConnection:
    """What the ticker needs of a transport."""

    clock: ManualClock
    sid: str = "c1"
    phone: Any = None
    closed: bool = False
    close_reason: str = ""
    pings: int = 0
    pinged_at_s: float | None = None
    look_again_s: float = 0.0
    outbox: FakeOutbox = field(default_factory=FakeOutbox)
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.opened_at_s = self.ponged_at_s = self.clock.monotonic_s()

    def ping(self) -> None:
        self.pings += 1
        self.pinged_at_s = self.clock.monotonic_s()

    def pong(self) -> None:
        self.pinged_at_s, self.ponged_at_s = None, self.clock.monotonic_s()

    def send_message(self, message: bytes) -> None:
        self.sent.append(message)

    def close(self, reason: str) -> None:
        self.closed, self.close_reason = True, reason


class World:
    """A ticker over some connections; ``pass_time`` lets it tick every half second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.connections: dict[str, FakeConnection] = {}
        self.kicked: list[tuple[str, float]] = []
        self.calls = {"report": 0, "ensure": 0}
        self.ticker = Ticker(self, self._count("ensure"), self._count("report"), self.clock, LIMITS)
        self.started_s = self.clock.monotonic_s()

    def _count(self, name: str) -> Callable[[], None]:
        def call() -> None:
            self.calls[name] += 1

        return call

    def kick(self, phone: Phone, code: str) -> None:
        assert code == "token_expired"
        self.kicked.append((phone.sid, self.clock.wall_ms() / 1000))
        phone.connection.close(reason=code)

    def connection(self, sid: str = "c1", expires_in_s: float | None = 4000.0) -> FakeConnection:
        """Open; signed in unless ``expires_in_s`` is None."""
        connection = FakeConnection(self.clock, sid)
        if expires_in_s is not None:
            claims = Claims(4, sid, 0, int(self.clock.wall_ms() / 1000 + expires_in_s))
            now_s = self.clock.monotonic_s()
            connection.phone = Phone(sid, connection, claims, now_s, EventBudget(60, 5.0, now_s))
        self.connections[sid] = connection
        return connection

    def pass_time(self, seconds: float) -> None:
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s:
            self.clock.advance(0.5)
            self.ticker.tick()
            self.connections = {
                sid: connection for sid, connection in self.connections.items() if not connection.closed
            }

    def seconds_until_closed(self, connection: FakeConnection, at_most_s: float) -> float:
        started_s = self.clock.monotonic_s()
        while not connection.closed and self.clock.monotonic_s() - started_s < at_most_s:
            self.pass_time(0.5)
        assert connection.closed, f"open after {at_most_s} s"
        return self.clock.monotonic_s() - started_s


@pytest.fixture
def world() -> World:
    return World()


def test_E04_a_client_that_does_not_pong_is_pinged_once_and_closed_after_the_timeout(world: World) -> None:
    connection = world.connection()
    world.pass_time(PING_INTERVAL_S - 1)
    assert connection.pings == 0
    world.pass_time(1)
    assert connection.pings == 1
    took_s = world.seconds_until_closed(connection, PING_TIMEOUT_S + 5)
    assert PING_TIMEOUT_S <= took_s <= PING_TIMEOUT_S + 1
    assert (connection.close_reason, connection.pings) == ("ping timeout", 1)


def test_a_client_that_pongs_stays_and_is_pinged_at_the_interval(world: World) -> None:
    connection = world.connection()
    for expected in range(1, 5):
        world.pass_time(PING_INTERVAL_S)
        assert connection.pings == expected
        connection.pong()
    assert not connection.closed


def test_pings_of_connections_that_came_one_after_another_leave_together(world: World) -> None:
    connections = []
    for number in range(8):
        connections.append(world.connection(f"c{number}"))
        world.pass_time(0.5)
    world.pass_time(PING_INTERVAL_S - 4)
    pinged_by_pass = set()
    for _ in range(2 * int(LOOK_EVERY_S) + 1):
        pinged_by_pass.add(sum(connection.pings for connection in connections))
        world.pass_time(0.5)
    assert pinged_by_pass <= {0, 1, 8}
    assert max(pinged_by_pass) == 8


def test_E06_who_does_not_sign_in_is_closed_in_time_and_who_did_stays(world: World) -> None:
    silent, signed_in = world.connection("silent", expires_in_s=None), world.connection("in")
    took_s = world.seconds_until_closed(silent, LIMITS.sign_in_s + 5)
    assert LIMITS.sign_in_s <= took_s <= LIMITS.sign_in_s + 1
    assert silent.close_reason == "never signed in"
    assert not signed_in.closed


def test_E05_a_socket_that_takes_nothing_for_too_long_is_closed(world: World) -> None:
    connection = world.connection()
    world.pass_time(2)
    connection.outbox.stuck_since_s = world.clock.monotonic_s()
    connection.pong()
    assert LIMITS.stuck_s <= world.seconds_until_closed(connection, LIMITS.stuck_s + 5) <= LIMITS.stuck_s + 6
    assert connection.close_reason == "slow client"


def test_a_socket_that_takes_bytes_again_in_time_stays(world: World) -> None:
    connection = world.connection()
    connection.outbox.stuck_since_s = world.clock.monotonic_s()
    world.pass_time(LIMITS.stuck_s - 1)
    connection.outbox.stuck_since_s = None
    connection.pong()
    world.pass_time(10)
    assert not connection.closed


def test_a_client_is_told_once_that_its_token_expires_and_is_kicked_when_it_does(world: World) -> None:
    connection = world.connection(expires_in_s=103)
    world.pass_time(103 - ANNOUNCE_EXPIRY_S - 1)
    connection.pong()
    assert not connection.sent
    world.pass_time(1.5)
    (announced,) = connection.sent
    assert announced.startswith(b'42["token_expiring",{"expires_in":60,"token_expires_at":')
    while connection.sent and not connection.closed and world.clock.wall_ms() / 1000 < WALL_S + 120:
        connection.pong()
        world.pass_time(0.5)
    assert len(connection.sent) == 1
    ((_, kicked_at_s),) = world.kicked
    assert 103 <= kicked_at_s - WALL_S <= 104


def test_a_renewed_token_is_announced_anew(world: World) -> None:
    connection = world.connection(expires_in_s=30)
    world.pass_time(10)
    assert len(connection.sent) == 1
    connection.phone.renew(Claims(4, "new", 0, WALL_S + 90))
    world.pass_time(15)
    assert len(connection.sent) == 1
    connection.pong()
    world.pass_time(10)
    assert len(connection.sent) == 2 and not world.kicked


@pytest.mark.parametrize("expired_ago_s", [0, 5])
def test_A03_a_token_that_was_accepted_within_the_leeway_lives_until_the_leeway_ends(
    world: World, expired_ago_s: int
) -> None:
    world.clock.advance(0.3)
    connection = world.connection(expires_in_s=-expired_ago_s)
    world.pass_time(LEEWAY_S - expired_ago_s - 1)
    assert not connection.closed
    world.pass_time(1)
    ((_, kicked_at_s),) = world.kicked
    assert kicked_at_s <= WALL_S - expired_ago_s + LEEWAY_S
    assert not connection.sent


def test_a_kicked_phone_is_not_looked_at_again(world: World) -> None:
    connection = world.connection(expires_in_s=1)
    connections = {"c1": connection}
    for _ in range(60):
        world.clock.advance(0.5)
        world.connections = connections
        world.ticker.tick()
    assert len(world.kicked) == 1


def test_one_broken_connection_keeps_the_ticker_from_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    broken, silent = world.connection("broken"), world.connection("silent", expires_in_s=None)
    broken.outbox = None
    world.pass_time(LIMITS.sign_in_s + 1)
    assert silent.close_reason == "never signed in"
    # And it does not fill the log.
    assert 1 <= caplog.text.count("connection broken could not be looked after") <= 3


def test_it_runs_by_itself_reports_and_renews_schedules_and_survives_a_failed_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ticker_module, "TICK_S", 0.001)
    world = World()
    reports = []

    def report() -> None:
        world.clock.advance(1)
        reports.append(1)
        if len(reports) == 1:
            raise RuntimeError("the first report fails")
        if len(reports) == 20:
            raise gevent.GreenletExit

    world.ticker._report = report
    world.connection(expires_in_s=None)
    world.ticker.start()
    wait_until(lambda: gevent.sleep(0.001) or len(reports) == 20, 5, "twenty passes")
    assert "a pass over the connections failed" in caplog.text
    assert world.connections["c1"].closed
    # Every second of the twenty, less the one that failed.
    assert 17 <= world.calls["ensure"] <= 20
