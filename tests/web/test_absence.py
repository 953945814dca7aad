"""Phones hear of push workers that are gone, per type in time, and each that its own figures are fresh again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pushserver.bus.homes import HOME_LEASE_S, Live
from pushserver.bus.states import NOTHING_STORED, StoredState
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType, Freshness
from pushserver.web.absence import BEFORE_MS, LATE_AFTER_S, READ_BATCH, Absence
from pushserver.web.watches import Watch

INTERVALS_S = {DataType.POSITIONS: 5.0, DataType.BALANCE: 10.0}
BUSY = (Freshness.DELAYED, "server_busy")


class World:
    def __init__(self, users: int = 1) -> None:
        self.clock = ManualClock(wall_ms=1_000_000)
        self.told: list[tuple[int, DataType, Freshness, str]] = []
        self.rows: dict[tuple[int, DataType], StoredState] = {}
        self.read_sizes: list[int] = []
        self.watches = [Watch(user_id, data_type) for user_id in range(1, users + 1) for data_type in INTERVALS_S]
        for watch in self.watches:
            watch.phones = [SimpleNamespace(user_id=watch.user_id, told={})]  # type: ignore[assignment]
        self.away, self.live = False, 0
        self.absence = Absence(lambda: self.watches, self.tell, self.read, self.live_bits, INTERVALS_S, self.clock)  # type: ignore

    def tell(self, phones: Iterable[Any], data_type: DataType, freshness: Freshness, reason: str, frame: bytes) -> None:
        assert b'"state":"%s"' % freshness.value.encode() in frame
        for phone in phones:
            phone.told[data_type] = (freshness, reason)
            self.told.append((phone.user_id, data_type, freshness, reason))

    def read(self, wanted: Sequence[tuple[int, DataType]]) -> list[StoredState]:
        if self.away:
            raise StoreUnavailable("away")
        self.read_sizes.append(len(wanted))
        return [self.rows.get(key, NOTHING_STORED) for key in wanted]

    def live_bits(self, user_ids: Iterable[int]) -> dict[int, int]:
        return dict.fromkeys(user_ids, self.live)

    def store(self, user_id: int, data_type: DataType, confirmed_ms: int, status: Freshness = Freshness.LIVE) -> None:
        self.rows[user_id, data_type] = StoredState(1, 1, confirmed_ms, b"42[]", status, "", None)

    def nobody_for(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.absence.looked(False)


@pytest.fixture
def gone() -> World:
    """All were told."""
    world = World()
    world.absence.looked(True)
    world.nobody_for(20)
    assert len(world.told) == 2
    world.told.clear()
    return world


def test_G7_each_type_is_told_of_when_its_own_interval_was_missed_and_once() -> None:
    world = World()
    world.absence.looked(True)
    world.nobody_for(5 + LATE_AFTER_S - 0.1)
    assert world.told == []
    world.nobody_for(0.2)
    assert world.told == [(1, DataType.POSITIONS, *BUSY)]
    world.nobody_for(5)
    world.nobody_for(5)
    assert world.told[1:] == [(1, DataType.BALANCE, *BUSY)]


def test_whoever_asks_for_work_now_and_then_is_there() -> None:
    world = World()
    for _ in range(10):
        world.absence.looked(True)
        world.nobody_for(5)
    assert world.told == []


def test_time_in_which_redis_could_not_be_asked_counts_for_nothing() -> None:
    world = World()
    world.absence.looked(True)
    world.clock.advance(60)
    world.absence.unknown()
    world.absence.looked(False)
    world.nobody_for(5)
    assert world.told == []
    world.nobody_for(1)
    assert world.told == [(1, DataType.POSITIONS, *BUSY)]


def test_other_troubles_stay_as_they_were_told() -> None:
    world = World()
    [phone] = world.watches[0].phones
    phone.told[DataType.POSITIONS] = (Freshness.STOPPED, "key_invalid")
    world.absence.looked(True)
    world.nobody_for(20)
    assert world.told == [(1, DataType.BALANCE, *BUSY)]


def test_live_again_is_what_the_exchange_confirmed_after_they_came_back(gone: World) -> None:
    back_ms = gone.clock.wall_ms()
    gone.store(1, DataType.POSITIONS, back_ms - BEFORE_MS)
    gone.store(1, DataType.BALANCE, back_ms - BEFORE_MS - 1)
    gone.absence.looked(True)
    assert gone.told == [(1, DataType.POSITIONS, Freshness.LIVE, "")]
    gone.store(1, DataType.BALANCE, back_ms + 5)
    gone.absence.looked(True)
    assert gone.told[1:] == [(1, DataType.BALANCE, Freshness.LIVE, "")]
    gone.absence.looked(True)
    assert len(gone.told) == 2 and gone.read_sizes == [2, 1], "nothing is read once all know"


def test_what_a_living_home_keeps_is_live_once_dead_homes_are_gone_although_it_is_seldom_fetched(gone: World) -> None:
    gone.live = Live.STREAM | Live.MARKS
    gone.absence.looked(True)
    gone.clock.advance(HOME_LEASE_S + 1)
    gone.absence.looked(True)
    assert gone.told == []
    gone.clock.advance(2)
    gone.absence.looked(True)
    assert gone.told == [(1, DataType.POSITIONS, Freshness.LIVE, "")], "nothing keeps its balance"


def test_a_push_workers_own_word_is_left_to_it(gone: World) -> None:
    gone.store(1, DataType.POSITIONS, gone.clock.wall_ms(), Freshness.DELAYED)
    gone.store(1, DataType.BALANCE, gone.clock.wall_ms(), Freshness.STOPPED)
    gone.absence.looked(True)
    gone.absence.looked(True)
    assert gone.told == [] and gone.read_sizes == [2]


def test_a_reading_that_fails_is_done_again(gone: World) -> None:
    gone.store(1, DataType.POSITIONS, gone.clock.wall_ms())
    gone.store(1, DataType.BALANCE, gone.clock.wall_ms())
    gone.away = True
    with pytest.raises(StoreUnavailable):
        gone.absence.looked(True)
    gone.away = False
    gone.absence.looked(True)
    assert [freshness for _, _, freshness, _ in gone.told] == [Freshness.LIVE] * 2


def test_what_was_confirmed_between_two_absences_is_old_after_the_second(gone: World) -> None:
    gone.absence.looked(True)
    gone.store(1, DataType.POSITIONS, gone.clock.wall_ms())
    gone.nobody_for(20)
    gone.absence.looked(True)
    assert gone.told == []
    gone.store(1, DataType.POSITIONS, gone.clock.wall_ms())
    gone.absence.looked(True)
    assert gone.told == [(1, DataType.POSITIONS, Freshness.LIVE, "")]


def test_who_comes_during_the_absence_is_told_as_well(gone: World) -> None:
    gone.watches.append(newcomer := Watch(7, DataType.POSITIONS))
    newcomer.phones = [SimpleNamespace(user_id=7, told={})]  # type: ignore[assignment]
    gone.nobody_for(1)
    assert gone.told == [(7, DataType.POSITIONS, *BUSY)]


def test_thousands_are_read_in_batches() -> None:
    world = World(users=READ_BATCH)
    world.absence.looked(True)
    world.nobody_for(20)
    world.absence.looked(True)
    assert world.read_sizes == [READ_BATCH, READ_BATCH]
