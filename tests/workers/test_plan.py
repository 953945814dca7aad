"""What is asked of the exchange, and when: simulated minutes of one user, without any I/O."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushserver.model import DataType
from pushserver.settings import DEFAULT_INTERVALS
from pushserver.workers.memo import Memo, Resource
from pushserver.workers.plan import RoundPlan
from pushserver.workers.timing import Moment, Timing

ALL = frozenset(DataType)
DATE = "2026-01-02"
START_MS = 1_767_312_000_000
LATENCY_S = 0.03


def one_by_one(plan: RoundPlan) -> Iterator[Resource]:
    """All waves of a round, as if the requests of one wave were answered one after another."""
    while wave := plan.next_requests():
        yield from wave


@dataclass
class Account:
    """A made-up account: what each resource would show now."""

    fingerprint: str = "flat"
    realized: Decimal = Decimal(0)
    today: Decimal = Decimal(0)
    wallet: int = 0
    orders: int = 0
    #: Called before each request, with its number: lets tests change the account under our hands.
    before_request: Callable[[int], None] = lambda number: None


@dataclass
class Simulation:
    """Runs rounds as a worker would and keeps what was asked and what was committed."""

    account: Account = field(default_factory=Account)
    watched: frozenset[DataType] = ALL
    memo: Memo = field(default_factory=Memo)
    now_ms: int = START_MS
    date: str = DATE
    timing: Timing = field(default_factory=lambda: Timing(DEFAULT_INTERVALS))
    requests: list[tuple[int, Resource]] = field(default_factory=list)
    commits: list[tuple[int, DataType, object]] = field(default_factory=list)
    failing: set[Resource] = field(default_factory=set)
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    next_ms: int = START_MS

    def round(self) -> list[Resource]:
        moment = Moment(self.now_ms, self.date)
        self.memo.listeners_changed(self.watched, self.now_ms)
        plan = RoundPlan(self.memo, self.watched, moment, self.timing)
        asked: list[Resource] = []
        seen: dict[Resource, object] = {}
        for resource in one_by_one(plan):
            self.account.before_request(len(asked))
            asked.append(resource)
            self.requests.append((self.now_ms, resource))
            self.now_ms += round(LATENCY_S * 1000)
            if resource in self.failing:
                row = self.memo.resources[resource]
                row.failures, row.code, row.retry_ms = row.failures + 1, "exchange_unavailable", self.now_ms + 4_000
                plan.failed(resource)
            elif resource is Resource.POSITIONS:
                seen[resource] = self.account.fingerprint
                plan.positions_read(self.account.fingerprint)
            elif resource is Resource.WALLET:
                seen[resource] = (self.account.wallet, self.account.realized)
                plan.wallet_read(self.account.realized, str(self.account.realized))
            elif resource is Resource.CLOSED_PNL:
                plan.closed_read(self.account.today, str(self.account.today))
            else:
                seen[resource] = self.account.orders
                plan.orders_read()
        for data_type in plan.served():
            self._commit(data_type, plan, seen)
        plan.remember()
        after = Moment(self.now_ms, self.date)
        self.next_ms = self.now_ms + round(
            self.timing.next_round_in_s(self.memo, self.watched, after, self.rng) * 1000
        )  # fmt: skip
        return asked

    def _commit(self, data_type: DataType, plan: RoundPlan, seen: dict[Resource, object]) -> None:
        shown: dict[DataType, object] = {
            DataType.POSITIONS: seen.get(Resource.POSITIONS),
            DataType.BALANCE: seen.get(Resource.WALLET),
            DataType.ORDERS: seen.get(Resource.ORDERS),
            DataType.PNL: (seen.get(Resource.POSITIONS), plan.realized, plan.today),
        }
        self.memo.types[data_type].good_ms = self.now_ms
        self.commits.append((self.now_ms, data_type, shown[data_type]))

    def run_until(self, end_ms: int, claim_lag_ms: int = 40) -> None:
        while self.next_ms + claim_lag_ms < end_ms:
            self.now_ms = self.next_ms + claim_lag_ms
            self.round()

    def pushed(self, data_type: DataType) -> list[object]:
        """Values of one type without repetitions: what phones would be sent."""
        pushed: list[object] = []
        for _, kind, value in self.commits:
            if kind is data_type and (not pushed or pushed[-1] != value):
                pushed.append(value)
        return pushed


def test_a_first_round_reads_everything_once() -> None:
    simulation = Simulation()
    assert simulation.round() == [
        Resource.ORDERS, Resource.WALLET, Resource.POSITIONS, Resource.CLOSED_PNL,
    ]  # fmt: skip
    assert {kind for _, kind, _ in simulation.commits} == ALL


@pytest.mark.parametrize("claim_lag_ms", [0, 20, 50, 150])
def test_a_minute_costs_at_most_23_requests_from_the_first_on(claim_lag_ms: int) -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 60_000, claim_lag_ms)
    assert Counter(resource for _, resource in simulation.requests)[Resource.CLOSED_PNL] == 1
    assert len(simulation.requests) <= 23


def test_a_steady_hour_costs_at_most_23_requests_a_minute() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 3_600_000)
    assert len(simulation.requests) / 60 <= 22.6
    counts = Counter(resource for _, resource in simulation.requests)
    assert counts[Resource.CLOSED_PNL] in range(28, 32)
    assert counts[Resource.POSITIONS] > 650, "the intervals are used, too"


def test_nothing_is_read_sooner_than_its_interval_when_nothing_changes() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 120_000)
    for resource, interval_ms in ((Resource.POSITIONS, 5_000), (Resource.WALLET, 10_000), (Resource.ORDERS, 15_000)):
        at = [at_ms for at_ms, read in simulation.requests if read is resource]
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert min(gaps) >= interval_ms - LATENCY_S * 1000 * 4
        assert max(gaps) <= interval_ms + 700


def test_neighbouring_turns_are_read_in_one_round() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 600_000)
    rounds = {at_ms for at_ms, resource in simulation.requests if resource is Resource.POSITIONS}
    alone = [
        at_ms
        for at_ms, resource in simulation.requests
        if resource is Resource.WALLET and at_ms + round(LATENCY_S * 1000) not in rounds
    ]
    assert len(alone) <= 3


def test_a_fill_refreshes_positions_pnl_and_balance_in_one_round_and_pushes_each_once() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 12_000)
    account = simulation.account
    account.fingerprint, account.realized, account.today, account.wallet = "long", Decimal(-1), Decimal(3), 1
    simulation.run_until(START_MS + 60_000)
    assert simulation.pushed(DataType.POSITIONS) == ["flat", "long"]
    assert simulation.pushed(DataType.BALANCE) == [(0, Decimal(0)), (1, Decimal(-1))]
    assert simulation.pushed(DataType.PNL) == [("flat", 0, 0), ("long", Decimal(-1), Decimal(3))]
    [(positions_at, *_)] = [row for row in simulation.commits if row[1:] == (DataType.POSITIONS, "long")][:1]
    [(pnl_at, *_)] = [row for row in simulation.commits if row[2] == ("long", Decimal(-1), Decimal(3))][:1]
    assert pnl_at == positions_at <= START_MS + 12_000 + 6_000


def test_closed_rows_that_appear_late_are_counted_in_the_next_round() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 12_000)
    simulation.account.fingerprint, simulation.account.realized = "long", Decimal(-1)
    simulation.run_until(START_MS + 17_000)
    simulation.account.today = Decimal(3)
    simulation.run_until(START_MS + 24_000)
    assert simulation.pushed(DataType.PNL)[-1] == ("long", Decimal(-1), Decimal(3))


def test_a_round_trip_between_two_readings_is_seen_by_the_wallet() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 12_000)
    simulation.account.realized, simulation.account.today, simulation.account.wallet = Decimal(2), Decimal(2), 9
    simulation.run_until(START_MS + 24_000)
    assert simulation.pushed(DataType.PNL) == [("flat", 0, 0), ("flat", Decimal(2), Decimal(2))]
    assert simulation.pushed(DataType.BALANCE)[-1] == (9, Decimal(2))


@pytest.mark.parametrize("number", range(7))
def test_a_fill_in_the_middle_of_a_round_never_makes_a_mixture(number: int) -> None:
    """Whichever request the fill comes before: pnl is of before or of after, never of both."""
    simulation = Simulation()
    simulation.run_until(START_MS + 17_500)

    def fill(asked: int) -> None:
        if asked == number:
            account = simulation.account
            account.fingerprint, account.realized, account.today = "long", Decimal(-1), Decimal(3)

    # Something else moves too, so that the round has as many requests as it can have.
    simulation.account.realized = Decimal(5)
    simulation.account.before_request = fill
    simulation.now_ms = simulation.next_ms
    simulation.round()
    simulation.account.before_request = lambda asked: None
    fill(number)
    simulation.run_until(START_MS + 60_000)
    wholes = [("flat", 0, 0), ("flat", Decimal(5), 0), ("long", Decimal(-1), Decimal(3))]
    assert all(value in wholes for value in simulation.pushed(DataType.PNL))
    assert simulation.pushed(DataType.PNL)[-1] == wholes[-1]


def test_an_account_that_never_rests_does_not_hold_a_round_for_ever() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 12_000)
    numbers = iter(range(10_000))

    def churn(asked: int) -> None:
        simulation.account.fingerprint = f"holding {next(numbers)}"

    simulation.account.before_request = churn
    simulation.now_ms = simulation.next_ms
    assert len(simulation.round()) <= 12
    assert DataType.POSITIONS in {kind for at, kind, _ in simulation.commits if at == simulation.now_ms}


def test_flapping_subscriptions_cause_no_extra_fetch() -> None:
    steady, flapping = Simulation(), Simulation()
    steady.run_until(START_MS + 60_000)
    while flapping.now_ms < START_MS + 60_000:
        flapping.watched = ALL if flapping.watched != ALL else frozenset({DataType.BALANCE})
        flapping.round()
        flapping.now_ms += 700
    assert len(flapping.requests) <= len(steady.requests)


def test_a_type_without_any_stored_state_is_fetched_at_once() -> None:
    simulation = Simulation(watched=frozenset({DataType.BALANCE}))
    simulation.run_until(START_MS + 3_000)
    simulation.watched = ALL
    assert simulation.round() == [
        Resource.ORDERS, Resource.POSITIONS, Resource.WALLET, Resource.CLOSED_PNL,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("watched", "expected"),
    [
        ({DataType.BALANCE}, {Resource.WALLET: 6}),
        ({DataType.POSITIONS}, {Resource.POSITIONS: 12}),
        ({DataType.ORDERS}, {Resource.ORDERS: 4}),
        ({DataType.PNL}, {Resource.POSITIONS: 12, Resource.WALLET: 12, Resource.CLOSED_PNL: 1}),
        ({DataType.POSITIONS, DataType.BALANCE}, {Resource.POSITIONS: 12, Resource.WALLET: 6}),
    ],
)
def test_only_what_is_watched_is_read(watched: set[DataType], expected: dict[Resource, int]) -> None:
    simulation = Simulation(watched=frozenset(watched))
    simulation.run_until(START_MS + 60_000)
    counts = Counter(resource for _, resource in simulation.requests)
    assert counts.keys() == expected.keys()
    for resource, count in counts.items():
        assert count in (expected[resource], expected[resource] - 1)


def test_a_new_utc_day_is_counted_in_the_first_round_after_midnight() -> None:
    simulation = Simulation(account=Account(today=Decimal(7)))
    simulation.run_until(START_MS + 12_000)
    simulation.date, simulation.account.today = "2026-01-03", Decimal(0)
    simulation.run_until(START_MS + 18_000)
    assert simulation.pushed(DataType.PNL)[-1] == ("flat", 0, Decimal(0))


@pytest.mark.parametrize(
    ("failing", "served"),
    [
        (Resource.POSITIONS, {DataType.BALANCE, DataType.ORDERS}),
        (Resource.WALLET, {DataType.POSITIONS, DataType.ORDERS}),
        (Resource.CLOSED_PNL, {DataType.POSITIONS, DataType.ORDERS, DataType.BALANCE}),
        (Resource.ORDERS, {DataType.POSITIONS, DataType.BALANCE, DataType.PNL}),
    ],
)
def test_a_failing_resource_fails_only_the_types_that_need_it(failing: Resource, served: set[DataType]) -> None:
    simulation = Simulation(failing={failing})
    simulation.round()
    assert {kind for _, kind, _ in simulation.commits} == served


@pytest.mark.parametrize("failing", list(Resource))
def test_a_failed_resource_is_not_asked_before_its_time_and_heals(failing: Resource) -> None:
    simulation = Simulation(failing={failing})
    simulation.run_until(START_MS + 11_000)
    at = [at_ms for at_ms, resource in simulation.requests if resource is failing]
    assert all(later - earlier >= 4_000 for earlier, later in itertools.pairwise(at))
    simulation.failing = set()
    simulation.run_until(START_MS + 22_000)
    assert {kind for at_ms, kind, _ in simulation.commits if at_ms > START_MS + 11_000} == ALL


def test_a_change_seen_while_the_wallet_fails_is_not_forgotten() -> None:
    simulation = Simulation()
    simulation.run_until(START_MS + 12_000)
    account = simulation.account
    account.fingerprint, account.realized, account.today = "long", Decimal(-1), Decimal(3)
    simulation.failing = {Resource.WALLET}
    simulation.run_until(START_MS + 18_000)
    assert simulation.pushed(DataType.PNL) == [("flat", 0, 0)]
    simulation.failing = set()
    simulation.run_until(START_MS + 26_000)
    assert simulation.pushed(DataType.PNL) == [("flat", 0, 0), ("long", Decimal(-1), Decimal(3))]


def test_a_wallet_that_failed_after_a_change_is_read_before_pnl_goes_out_whatever_its_interval() -> None:
    simulation = Simulation(timing=Timing({**DEFAULT_INTERVALS, DataType.BALANCE: 60.0}))
    simulation.run_until(START_MS + 12_000)
    account = simulation.account
    account.fingerprint, account.realized, account.today = "long", Decimal(-1), Decimal(3)
    simulation.failing = {Resource.WALLET}
    simulation.run_until(START_MS + 16_000)
    simulation.failing = set()
    simulation.run_until(START_MS + 26_000)
    assert simulation.pushed(DataType.PNL) == [("flat", 0, 0), ("long", Decimal(-1), Decimal(3))]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(["fingerprint", "realized", "today", "wallet", "orders"])),
        st.tuples(st.just("fail"), st.sets(st.sampled_from(list(Resource)))),
        st.tuples(st.just("watch"), st.sets(st.sampled_from(list(DataType)))),
        st.tuples(st.just("pass"), st.integers(100, 20_000)),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_after_any_history_everything_watched_converges_within_its_interval(steps: list[tuple[str, object]]) -> None:
    simulation = Simulation()
    for step, value in steps:
        if step == "change":
            change(simulation.account, str(value))
        elif step == "fail":
            simulation.failing = set(value)  # type: ignore[call-overload]
        elif step == "watch":
            simulation.watched = frozenset(value)  # type: ignore[call-overload]
            simulation.next_ms = simulation.now_ms
        else:
            simulation.run_until(simulation.now_ms + int(str(value)))
    simulation.failing, simulation.watched = set(), ALL
    simulation.next_ms = simulation.now_ms
    healed_ms = simulation.now_ms
    # The last failure's pause, then the longest interval and a second; closed rows may need their second count.
    simulation.run_until(healed_ms + 4_000 + 16_000 + 6_000)
    account = simulation.account
    assert simulation.pushed(DataType.POSITIONS)[-1] == account.fingerprint
    assert simulation.pushed(DataType.BALANCE)[-1] == (account.wallet, account.realized)
    assert simulation.pushed(DataType.ORDERS)[-1] == account.orders
    fingerprint, realized, _ = simulation.pushed(DataType.PNL)[-1]  # type: ignore[misc]
    assert (fingerprint, realized) == (account.fingerprint, account.realized)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_no_history_asks_a_resource_twice_within_a_second_outside_one_round(steps: list[tuple[str, object]]) -> None:
    simulation = Simulation()
    for step, value in steps:
        if step == "change":
            change(simulation.account, str(value))
        elif step == "fail":
            simulation.failing = set(value)  # type: ignore[call-overload]
        elif step == "watch":
            simulation.watched = frozenset(value)  # type: ignore[call-overload]
            simulation.next_ms = simulation.now_ms + 50
        else:
            simulation.run_until(simulation.now_ms + int(str(value)))
    span_s = (simulation.now_ms - START_MS) / 1000
    watches = sum(1 for step, _ in steps if step == "watch")
    changes = sum(1 for step, _ in steps if step == "change")
    assert len(simulation.requests) <= 4 + span_s * 0.9 + 8 * changes + 5 * watches


def change(account: Account, part: str) -> None:
    if part == "fingerprint":
        account.fingerprint += "+"
    elif part in ("wallet", "orders"):
        setattr(account, part, getattr(account, part) + 1)
    else:
        setattr(account, part, getattr(account, part) + Decimal(1))
