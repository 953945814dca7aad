"""A push worker's rounds on a manual clock: one call of ``run_for`` is minutes of a worker's life."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from pushserver.bus.memory_schedule import MemorySchedule
from pushserver.clock import ManualClock
from pushserver.model import DataType, Market
from pushserver.observers import Record, RecordingObserver
from pushserver.settings import DEFAULT_INTERVALS
from pushserver.workers.asking import Asking, open_desk
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.ending import Ending, give_back
from pushserver.workers.fetching import Round
from pushserver.workers.figures import Figures
from pushserver.workers.memo import Memo
from pushserver.workers.paying import Cashier
from pushserver.workers.round_state import RoundState, Tools
from pushserver.workers.statuses import Statuses
from pushserver.workers.timing import Timing
from tests.fakes import FakeBudget, FakeExchange, FakeKeys, FakeMemos, FakePauses, FakeStates

ALL = frozenset(DataType)


class Bench:
    """One worker, in-memory twins of everything outside, and time that moves only when told."""

    def __init__(self, intervals: Mapping[DataType, float] = DEFAULT_INTERVALS) -> None:
        self.clock = ManualClock(wall_ms=1_767_268_800_000)
        self.exchange = FakeExchange(self.clock)
        self.exchange.latency_s = 0.02
        self.states = FakeStates()
        self.keys = FakeKeys()
        self.credentials = CredentialsCache(self.keys, self.clock)
        self.pauses = FakePauses(self.clock)
        self.memos = FakeMemos()
        self.observer = RecordingObserver()
        self.schedule = MemorySchedule(self.clock)
        states: Any = self.states
        pauses: Any = self.pauses
        self.budget: Any = FakeBudget(self.pauses, self.clock)
        cashier = Cashier(self.budget, self.clock, self.observer)
        self.tools = Tools(
            asking=Asking([open_desk(self.exchange, pauses, cashier, self.clock, self.observer)], self.clock),
            states=states,
            credentials=self.credentials,
            figures=Figures([Market("linear", "USDT")]),
            timing=Timing(intervals),
            statuses=Statuses(states, self.observer),
            observer=self.observer,
            clock=self.clock,
            rng=random.Random(5),
        )
        self.endings: list[Ending] = []

    def watch(self, user_id: int, data_types: frozenset[DataType] = ALL) -> None:
        """Phones of this user listen to these types from now on."""
        self.states.listening[user_id] = data_types
        self.schedule.wake([user_id])

    def run_for(self, seconds: float) -> None:
        """Serve users one after another, as due, for so long."""
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s:
            claims = self.schedule.claim(1, 12.0, "bench")
            if not claims:
                self.clock.advance(0.05)
                continue
            [claim] = claims
            self.endings.append(self.serve(claim))

    def serve(self, claim: Any) -> Ending:
        user_id = claim.user_id
        memo = Memo.from_bytes(self.memos.read([user_id])[user_id])
        watched = self.states.watched([user_id])[user_id]
        tools = dataclasses.replace(self.tools, asking=self.tools.asking.for_user(user_id))
        round_ = Round(RoundState(tools, claim, "round", memo, watched, self.clock.monotonic_s()))
        ending = round_.run()
        self.memos.write(user_id, memo.to_bytes())
        give_back(self.schedule, claim, ending)
        return ending

    def memo(self, user_id: int) -> Memo:
        return Memo.from_bytes(self.memos.stored.get(user_id))

    def status(self, user_id: int, data_type: DataType) -> str:
        return self.states.statuses.get((user_id, data_type), ("live", "", None))[0]

    def pushed(self, user_id: int, data_type: DataType) -> int:
        return sum(1 for user, kind, *_ in self.states.published if (user, kind) == (user_id, data_type))

    def records(self, kind: type[Record]) -> list[Any]:
        return [record for record in self.observer.records if type(record) is kind]
