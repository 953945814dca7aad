"""A keeper of homes beside a schedule in memory, with streams that do what a test says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import AsyncResult

from pushserver.bus.memory_homes import MemoryHomes
from pushserver.bus.memory_schedule import MemorySchedule
from pushserver.bus.schedule import Claim
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.exchange.private_stream import StreamState
from pushserver.exchange.stream_messages import Happening, Topic
from pushserver.exchange.stream_socket import Loss
from pushserver.model import Credentials, DataType, Secret
from pushserver.observers import RecordingObserver
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.homes.keeper import Keeper

ALL_TYPES = frozenset(DataType)


class FakeStream:
    """Lives until ``lose``; ``go_live`` and ``tell`` are the exchange's doing."""

    def __init__(self, credentials: Credentials, on_live: Callable[[], None], on_happening: Callable[..., None]):
        self.credentials = credentials
        self.go_live = on_live
        self._on_happening = on_happening
        self._end: AsyncResult = AsyncResult()
        self.state = StreamState.LIVE
        self.refusal = ""
        self.ticks = 0

    @property
    def key_version(self) -> int:
        return self.credentials.version

    def tell(self, topic: Topic = Topic.WALLET, **row: Any) -> None:
        self._on_happening(Happening(topic, "", (row,)))

    def run(self) -> Loss:
        return Loss(self._end.get())

    def tick(self) -> None:
        self.ticks += 1

    def lose(self, loss: Loss) -> None:
        self._end.set(loss)
        gevent.sleep(0)
        gevent.sleep(0)

    def close(self, loss: Loss = Loss.STOPPED) -> None:
        if not self._end.ready():
            self.lose(loss)


class FakeDoor:
    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.room = 1_000
        self.wait_s = 0.0
        self.asked = 0

    def may_open(self, wanted: int) -> tuple[int, float]:
        self.asked += 1
        granted = min(self.room, wanted)
        self.room -= granted
        return granted, 0.0 if self.room else self.wait_s

    def open(self, credentials: Credentials, on_live: Callable[[], None], on_happening: Callable[..., None]) -> Any:
        self.streams.append(FakeStream(credentials, on_live, on_happening))
        return self.streams[-1]


class Keys:
    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self.missing: set[int] = set()
        self.failure: Exception | None = None

    def credentials(self, user_id: int) -> Credentials | None:
        if self.failure is not None:
            raise self.failure
        if user_id in self.missing:
            return None
        return Credentials(f"key-{user_id}", Secret("s"), self.versions.get(user_id, 1))


class FailingHomes(MemoryHomes):
    down = False

    def keep(self, *arguments: Any) -> Any:
        if self.down:
            raise StoreUnavailable
        return super().keep(*arguments)

    def sweep(self) -> int:
        if self.down:
            raise StoreUnavailable
        return super().sweep()


class Site:
    """One keeper beside a schedule in memory; time moves with ``pass_time``."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.schedule = MemorySchedule(self.clock)
        self.homes = FailingHomes(self.schedule, self.clock)
        self.keys = Keys()
        self.observer = RecordingObserver()
        self.doors = [FakeDoor()]
        self.credentials = CredentialsCache(self.keys, self.clock)
        self.keeper = self.another("here")

    def another(self, holder: str, doors: list[FakeDoor] | None = None, limit: int = 100) -> Keeper:
        return Keeper(
            self.homes, self.schedule, self.credentials, self.doors if doors is None else doors, holder, limit,
            self.clock, self.observer, random.Random(7), lambda user_id: user_id % len(self.doors),
        )  # fmt: skip

    def round(self, keeper: Keeper | None = None, watched: frozenset[DataType] = ALL_TYPES) -> list[Claim]:
        """What is due is claimed, met and completed for a minute."""
        claims = self.schedule.claim(1_000, 12, "round")
        for claim in claims:
            (keeper or self.keeper).met(claim, watched)
            self.schedule.complete(claim, 60)
        return claims

    def settle(self, keeper: Keeper | None = None) -> None:
        """Everything that the keeper's greenlets would do now."""
        for _ in range(3):
            (keeper or self.keeper).tend_once()
            gevent.sleep(0)
            (keeper or self.keeper).tell_once()

    def settled(self, *user_ids: int) -> list[FakeStream]:
        """Users with a home here and live streams, not due."""
        self.schedule.wake(user_ids)
        self.round()
        self.settle()
        for stream in self.doors[0].streams:
            stream.go_live()
        self.settle()
        self.round()
        return self.doors[0].streams

    def pass_time(self, seconds: float, step_s: float = 0.5) -> None:
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.settle()

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.observer.records if isinstance(record, kind)]
