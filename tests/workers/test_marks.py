"""The once-a-second loop on a manual clock: what it commits, what it tells the keeper, and when it keeps silent."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

import gevent
import pytest

from pushserver.bus import keys
from pushserver.bus.homes import Live
from pushserver.bus.states import CommitResult
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.mark_records import MarksCommitted, MarksMeasured
from pushserver.model import DataType
from pushserver.observers import RecordingObserver
from pushserver.workers.kept_figures import PATIENCE_S, UNHEARD_STATES
from pushserver.workers.mark_bases import positions_base
from pushserver.workers.marks import SHARES, Marks

BASE_MS = 1_767_268_800_000


def base(as_of_ms: int = BASE_MS, size: str = "2", symbol: str = "BTCUSDT") -> bytes:
    row = {
        "category": "linear", "symbol": symbol, "side": "Buy", "size": size, "avgPrice": "100", "markPrice": "110",
        "unrealisedPnl": str(Decimal(size) * 10),
    }  # fmt: skip
    return positions_base([row], as_of_ms, f"holding {size} {symbol}")


class World:
    """Stand-ins for the ticker, the keeper, the states, the stored bases and the ears of one process."""

    def __init__(self) -> None:
        self.clock = ManualClock(wall_ms=BASE_MS)
        self.observer = RecordingObserver()
        self.prices: dict[str, tuple[Decimal, int]] = {}
        self.alive = True
        self.wanted: frozenset[str] = frozenset()
        self.users = {4}
        self.live: dict[int, Live] = defaultdict(lambda: Live(0))
        self.stored: dict[int, dict[DataType, bytes]] = {4: {DataType.POSITIONS: base()}}
        self.reads = 0
        self.heard: set[bytes] = set()
        self.commits: list[Any] = []
        self.result, self.listeners = "published", 1
        self.error: Exception | None = None
        self.looked_at: list[int] = []
        self.marks = Marks(self, self, self, self, self.looked_at.extend, self.clock, self.observer)  # type: ignore[arg-type]
        self.marks.listener = self  # type: ignore[assignment]
        self.price("BTCUSDT", "110")

    def price(self, symbol: str, mark: str) -> None:
        self.prices[symbol] = (Decimal(mark), self.clock.wall_ms())

    def want(self, symbols: Any) -> None:
        self.wanted = frozenset(symbols)

    def mark(self, symbol: str) -> tuple[Decimal, int] | None:
        return self.prices.get(symbol)

    def is_fresh(self, symbol: str) -> bool:
        return self.alive and symbol in self.prices

    def homes(self) -> set[int]:
        return self.users

    def set_live(self, user_id: int, bit: Live, on: bool) -> None:
        self.live[user_id] = self.live[user_id] | bit if on else self.live[user_id] & ~bit

    def subscribe(self, channels: Any, timeout_s: float) -> bool:
        self.heard.update(channels)
        return True

    def unsubscribe(self, channels: Any) -> None:
        self.heard.difference_update(channels)

    def read(self, user_ids: Any) -> dict[int, dict[DataType, bytes]]:
        self.reads += 1
        if self.error:
            raise self.error
        return {user_id: self.stored.get(user_id, {}) for user_id in user_ids}

    def commit_marks(self, commits: Any) -> list[list[CommitResult]]:
        if self.error:
            raise self.error
        self.commits += commits
        return [[CommitResult(self.result, 1, self.listeners) for _ in commit.states] for commit in commits]

    def second(self) -> list[Any]:
        """A second of the process's life; what it committed."""
        self.commits.clear()
        self.clock.advance(1.0)
        self.marks.sync_once()
        for share in range(SHARES):
            self.marks.visit(share)
        return list(self.commits)

    def store(self, raw: bytes, user_id: int = 4) -> None:
        """As a round's commit does."""
        self.stored.setdefault(user_id, {})[DataType.POSITIONS] = raw
        self.marks.on_message(keys.bases_channel(user_id).encode(), b"positions\n" + raw)


@pytest.fixture
def world() -> World:
    world = World()
    world.second()
    return world


def test_a_moved_mark_is_committed_once_on_its_base_with_the_prices_time(world: World) -> None:
    world.price("BTCUSDT", "111.5")
    [commit] = world.second()
    [state] = commit.states
    assert (commit.user_id, commit.as_of_ms) == (4, BASE_MS + 1_000)
    assert (state.data_type, state.base_as_of_ms) == (DataType.POSITIONS, BASE_MS)
    assert b'"mark_price":111.5,"unrealized_pnl":23.0' in state.update.head
    assert world.second() == []


def test_the_symbols_of_all_homes_are_wanted_and_their_channels_heard(world: World) -> None:
    world.users = {4, 5}
    world.stored[5] = {DataType.POSITIONS: base(symbol="ETHUSDT")}
    world.second()
    assert world.wanted == {"BTCUSDT", "ETHUSDT"}
    assert world.heard == {b"push:{4}:bases", b"push:{5}:bases"}
    world.users = {5}
    world.second()
    assert (world.wanted, world.heard) == ({"ETHUSDT"}, {b"push:{5}:bases"})


def test_every_user_is_visited_once_a_second_and_not_all_at_the_same_moment() -> None:
    world = World()
    world.users = set(range(1, 101))
    world.stored = {user_id: {DataType.POSITIONS: base()} for user_id in world.users}
    world.second()
    world.price("BTCUSDT", "112")
    sizes = []
    for share in range(SHARES):
        world.commits.clear()
        world.marks.visit(share)
        sizes.append(len(world.commits))
    assert sum(sizes) == 100
    assert max(sizes) < 20


def test_a_newer_base_counts_from_the_message_on(world: World) -> None:
    world.store(base(BASE_MS + 1_000, size="5"))
    world.price("BTCUSDT", "111")
    [commit] = world.second()
    assert commit.states[0].base_as_of_ms == BASE_MS + 1_000
    assert b'"size":5.0' in commit.states[0].update.head


def test_prices_older_than_the_answer_are_not_applied_to_it(world: World) -> None:
    world.price("BTCUSDT", "111")
    world.store(base(BASE_MS + 5_000))
    assert world.second() == []
    world.clock.advance(5.0)
    world.price("BTCUSDT", "111")
    assert len(world.second()) == 1


def test_marks_are_live_while_the_ticker_is_and_a_dead_ticker_ends_that_within_seconds(world: World) -> None:
    assert world.live[4] == Live.MARKS
    world.alive = False
    world.second()
    assert world.live[4] == Live.MARKS
    world.clock.advance(PATIENCE_S)
    world.second()
    assert world.live[4] == Live(0)
    world.alive = True
    world.second()
    assert world.live[4] == Live.MARKS


def test_a_user_without_a_base_is_polled(world: World) -> None:
    world.users = {4, 5}
    world.second()
    assert world.live[5] == Live(0)


def test_a_refused_state_has_the_stored_bases_read_and_in_the_end_the_user_polled(world: World) -> None:
    world.result = "stale"
    reads = world.reads
    for mark in ("111", "112", "113", "114"):
        world.price("BTCUSDT", mark)
        assert len(world.second()) == 1
    assert world.reads > reads
    assert world.live[4] == Live(0)
    world.result = "published"
    world.store(base(BASE_MS + 4_000))
    world.second()
    assert world.live[4] == Live.MARKS


def test_a_state_whose_base_was_missed_is_right_in_the_next_second(world: World) -> None:
    world.result = "stale"
    world.price("BTCUSDT", "111")
    world.second()
    world.stored[4][DataType.POSITIONS] = base(BASE_MS + 1_000, size="5")
    world.result = "published"
    [commit] = world.second()
    assert b'"size":5.0' in commit.states[0].update.head
    assert world.live[4] == Live.MARKS


def test_what_nobody_listens_to_is_left_alone_and_a_round_looks_at_the_user(world: World) -> None:
    world.listeners = 0
    for number in range(UNHEARD_STATES):
        world.price("BTCUSDT", str(120 + number))
        assert len(world.second()) == 1
    world.price("BTCUSDT", "150")
    assert world.second() == []
    assert world.looked_at == [4]
    assert world.live[4] == Live(0)
    world.listeners = 1
    world.store(base(world.clock.wall_ms()))
    world.price("BTCUSDT", "151")
    assert len(world.second()) == 1


def test_after_redis_was_away_the_newest_figures_are_committed(world: World) -> None:
    world.price("BTCUSDT", "111")
    world.error = StoreUnavailable("away")
    assert world.second() == []
    world.error = None
    [commit] = world.second()
    assert b'"mark_price":111.0' in commit.states[0].update.head


def test_bases_are_read_again_after_the_bus_was_lost(world: World) -> None:
    world.stored[4][DataType.POSITIONS] = base(BASE_MS + 500, size="7")
    world.marks.on_restored()
    world.price("BTCUSDT", "111")
    [commit] = world.second()
    assert b'"size":7.0' in commit.states[0].update.head


def test_nonsense_on_the_bus_changes_nothing(world: World) -> None:
    for payload in (b"", b"positions\n", b"positions\n{}", b"fees\n[]", b'positions\n[9e99,"x",[]]'):
        world.marks.on_message(b"push:{4}:bases", payload)
        world.marks.on_message(b"push:{9}:bases", payload)
    world.price("BTCUSDT", "111")
    assert len(world.second()) == 1


def test_a_user_whose_figures_cannot_be_computed_takes_nobody_along(world: World, monkeypatch) -> None:
    world.users = {4, 5}
    world.stored[5] = {DataType.POSITIONS: base(size="3")}
    world.second()
    broken = world.marks._kept[4]
    monkeypatch.setattr(type(broken.book), "figures", lambda self, *_: 1 / 0 if self is broken.book else ())
    world.price("BTCUSDT", "111")
    assert [commit.user_id for commit in world.second()] == [5]
    assert world.live[4] == Live(0)


def test_what_was_done_is_reported(world: World) -> None:
    world.marks.measure()
    world.observer.records.clear()
    world.price("BTCUSDT", "111")
    world.second()
    world.marks.measure()
    assert MarksCommitted(DataType.POSITIONS, "published", 1) in world.observer.records
    [measured] = [record for record in world.observer.records if isinstance(record, MarksMeasured)]
    assert measured.users == 1


def test_a_commit_that_fails_in_a_way_nobody_thought_of_means_polling(world: World) -> None:
    world.second()
    assert world.live[4] & Live.MARKS
    world.error = ValueError("a word of another program version")
    world.stored = {}
    for price in ("111", "112", "113", "114"):
        world.price("BTCUSDT", price)
        world.clock.advance(1.0)
        for share in range(SHARES):
            world.marks.visit(share)
    assert not world.live[4] & Live.MARKS


def test_one_stumble_of_the_upkeep_does_not_end_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.workers.marks.SYNC_EVERY_S", 0.01)
    monkeypatch.setattr("pushserver.workers.marks.RETRY_S", 0.01)
    world.error = ValueError("nobody thought of it")
    syncing = gevent.spawn(world.marks._sync)
    gevent.sleep(0.05)
    world.error = None
    gevent.sleep(0.05)
    assert not syncing.dead
    assert world.wanted == {"BTCUSDT"}
    syncing.kill()
