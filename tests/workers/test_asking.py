"""Requests that are paid for, and what a refusal of the whole address does to everybody behind it."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.bus.budgets import Budget
from pushserver.bus.connection import connect
from pushserver.bus.pauses import Pauses
from pushserver.clock import ManualClock, SystemClock
from pushserver.errors import AddressBanned, AnswerMalformed, ExchangeUnavailable, RequestRejected
from pushserver.model import Credentials, Secret
from pushserver.observers import AddressPaused, RecordingObserver
from pushserver.workers import paying, quiet
from pushserver.workers.asking import Asking, open_desk
from pushserver.workers.memo import Resource
from pushserver.workers.paying import Cashier, Urgency
from pushserver.workers.quiet import Silenced
from tests.fakes import FakeBudget, FakeExchange, FakePauses

MINE = Credentials("key-4", Secret("secret"), 1)
BAN = AddressBanned(exchange_code=403, endpoint="positions")


class Address:
    """One egress address on a manual clock, and any number of processes behind it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.exchange = FakeExchange(self.clock)
        self.pauses: Any = FakePauses(self.clock)
        self.budget: Any = FakeBudget(self.pauses, self.clock)
        self.observer = RecordingObserver()

    def process(self) -> Asking:
        cashier = Cashier(self.budget, self.clock, self.observer)
        return Asking([open_desk(self.exchange, self.pauses, cashier, self.clock, self.observer)], self.clock)

    def ask(self, asking: Asking, resource: Resource = Resource.POSITIONS) -> Any:
        return asking.ask(resource, MINE, 0, self.clock.monotonic_s() + 8)


@pytest.fixture
def address() -> Address:
    return Address()


def test_a_wave_is_paid_for_once_and_each_request_uses_one_up(address: Address) -> None:
    asking = address.process().for_user(4)
    asking.pay(2, Urgency.HINT)
    address.ask(asking)
    address.ask(asking, Resource.WALLET)
    assert address.budget.spent == [2]
    address.ask(asking, Resource.ORDERS)
    assert address.budget.spent == [2, 1], "what was not paid for is paid for now"


def test_a_payment_that_was_not_used_at_once_is_paid_again(address: Address) -> None:
    asking = address.process().for_user(4)
    asking.pay(1, Urgency.HINT)
    address.clock.advance(0.5)
    address.ask(asking)
    assert address.budget.spent == [1, 1]


def test_what_belongs_to_a_round_that_was_begun_goes_before_others(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    really_pay = Cashier.pay

    def pay(cashier: Cashier, count: int, urgency: Urgency, *rest: Any, **options: Any) -> float:
        seen.append(urgency)
        return really_pay(cashier, count, urgency, *rest, **options)

    monkeypatch.setattr(Cashier, "pay", pay)
    asking = address.process().for_user(4)
    asking.pay(1, Urgency.ROUTINE)
    asking.pay(1, Urgency.ROUTINE)
    address.process().for_user(4).pay(1, Urgency.ROUTINE)
    assert seen == [Urgency.ROUTINE, Urgency.HINT, Urgency.ROUTINE]


def test_H02_a_ban_is_believed_when_a_public_request_is_refused_too(address: Address) -> None:
    asking, other = address.process(), address.process()
    address.exchange.faults["positions"].append(BAN)
    address.exchange.faults["server_time"].append(AddressBanned(exchange_code=403, retry_after_s=900.0))
    with pytest.raises(Silenced) as caught:
        address.ask(asking)
    assert caught.value.left_s == pytest.approx(900), "the hint beats the ten minutes"
    assert [record.seconds for record in address.observer.records if type(record) is AddressPaused] == [900.0]
    assert address.budget.owed == 1, "the proof is paid for afterwards"
    sent = address.exchange.count()
    for process in (asking, other):
        for _ in range(3):
            with pytest.raises(Silenced) as caught:
                address.ask(process)
            assert caught.value.until_ms == address.pauses.until_ms, "all are told the same end"
    assert address.exchange.count() == sent


def test_H02_a_refusal_of_one_key_alone_is_that_users_problem(address: Address) -> None:
    asking, other = address.process(), address.process()
    address.exchange.faults["positions"].append(BAN)
    with pytest.raises(RequestRejected) as caught:
        address.ask(asking)
    assert (caught.value.code, caught.value.exchange_code) == ("exchange_request_rejected", 403)
    assert not [record for record in address.observer.records if type(record) is AddressPaused]
    address.ask(other)
    address.ask(asking)
    assert not address.budget.slow
    assert address.exchange.counts() == {"positions": 3, "server_time": 1}


def test_H02_all_wait_while_one_finds_out(address: Address) -> None:
    asking, other = address.process(), address.process()
    met: list[str] = []

    def everybody_tries() -> None:
        for process in (asking, other):
            with pytest.raises(Silenced) as caught:
                address.ask(process)
            met.append(caught.value.code)

    address.exchange.faults["positions"].append(BAN)
    address.exchange.faults["server_time"].append(everybody_tries)
    with pytest.raises(RequestRejected):
        address.ask(asking)
    assert met == ["exchange_address_banned"] * 2
    assert address.exchange.counts() == {"positions": 1, "server_time": 1}


def test_H02_two_who_are_refused_at_the_same_moment_find_out_once(address: Address) -> None:
    asking, other = address.process(), address.process()

    def refused_too() -> None:
        address.exchange.faults["server_time"].append(BAN)
        with pytest.raises(Silenced):
            address.ask(other)
        raise BAN

    address.exchange.faults["positions"] += [refused_too, BAN]
    with pytest.raises(Silenced):
        address.ask(asking)
    assert address.exchange.count("server_time") == 1


def test_H02_a_proof_that_cannot_be_had_pauses_shortly(address: Address) -> None:
    asking = address.process()
    address.exchange.faults["positions"].append(BAN)
    address.exchange.faults["server_time"].append(ExchangeUnavailable("down"))
    with pytest.raises(Silenced) as caught:
        address.ask(asking)
    assert caught.value.left_s == pytest.approx(5)
    address.clock.advance(5.1)
    address.ask(asking)
    assert address.exchange.count("server_time") == 2


def test_E2_after_a_ban_one_request_probes_and_the_others_resume_slowly(address: Address) -> None:
    asking, other = address.process(), address.process()
    address.exchange.faults["positions"].append(BAN)
    address.exchange.faults["server_time"].append(BAN)
    with pytest.raises(Silenced):
        address.ask(asking)
    address.clock.advance(599)
    with pytest.raises(Silenced):
        address.ask(other)
    address.clock.advance(1.1)
    address.exchange.faults["server_time"].append(AddressBanned(exchange_code=403, retry_after_s=60.0))
    with pytest.raises(Silenced) as caught:
        address.ask(other)
    assert caught.value.left_s == pytest.approx(60), "a refused probe begins another pause"
    address.clock.advance(60.1)
    address.ask(other)
    assert address.budget.slow
    assert address.exchange.counts() == {"positions": 2, "server_time": 3}


def test_a_public_refusal_is_believed_at_once(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AddressBanned(exchange_code=403)

    monkeypatch.setattr(address.exchange, "mark_prices", refuse)
    with pytest.raises(Silenced) as caught:
        address.process().inverse_marks(address.clock.monotonic_s() + 8)
    assert caught.value.left_s == pytest.approx(600)
    assert address.exchange.count("server_time") == 0


def test_users_of_another_address_do_not_notice(address: Address) -> None:
    elsewhere = Address()
    elsewhere.clock = address.clock
    desks = [place.process()._desk for place in (address, elsewhere)]
    asking = Asking(desks, address.clock, pick=lambda user_id: user_id % 2)
    address.exchange.faults["positions"].append(BAN)
    address.exchange.faults["server_time"].append(BAN)
    with pytest.raises(Silenced):
        address.ask(asking.for_user(4))
    address.ask(asking.for_user(5))
    assert elsewhere.exchange.counts() == {"positions": 1}
    assert asking.room == desks[0].cashier.room + desks[1].cashier.room
    seen = asking.look()
    assert (seen.tightest.is_paused, seen.limit) == (True, 2 * 480), "the worst of them is told"


def test_H07_a_stamp_is_ahead_only_if_it_is_so_for_redis_too(address: Address) -> None:
    address.exchange.stamp_offset_ms = 3_600_000
    with pytest.raises(AnswerMalformed):
        address.ask(address.process().for_user(4))
    # Our own clock is an hour behind; all others agree.
    address.ask(address.process().for_user(4, lambda: address.clock.wall_ms() + 3_600_000))


def test_E2_processes_on_one_redis_share_the_ban_and_its_end(redis_url: str) -> None:
    clock = SystemClock()
    exchange = FakeExchange(clock)

    def process() -> Asking:
        client = connect(Secret(redis_url))
        budget = Budget(client, "here", 480, 5.0)
        budget.declare_unspent()
        cashier = Cashier(budget, clock, RecordingObserver())
        return Asking([open_desk(exchange, Pauses(client, "here"), cashier, clock, RecordingObserver())], clock)

    def ask(asking: Asking) -> Any:
        return asking.ask(Resource.POSITIONS, MINE, 0, clock.monotonic_s() + 8)

    processes = [process() for _ in range(3)]
    for asking in processes:
        ask(asking)
    ban = AddressBanned(exchange_code=403, retry_after_s=0.3)
    exchange.always = {"positions": ban, "server_time": ban}
    with pytest.raises(Silenced):
        ask(processes[0])
    sent = exchange.count()
    banned_s = clock.monotonic_s()
    for asking in processes:
        with pytest.raises(Silenced):
            ask(asking)
    assert exchange.count() == sent
    exchange.always = {}
    served = 0
    while served < 3:
        assert clock.monotonic_s() - banned_s < 10
        for asking in processes:
            try:
                ask(asking)
                served += 1
            except Silenced as silenced:
                assert clock.monotonic_s() - banned_s < 5
                clock.sleep(min(silenced.left_s, 0.1))
    assert clock.monotonic_s() - banned_s >= 0.29
    assert exchange.requests[sent][2] == "server_time"
    assert exchange.count("server_time") == 2, "one proof of the ban and one probe of its end"


def test_patience_is_short_enough_for_a_round() -> None:
    assert paying.PATIENCE_S + quiet.PROBED_S < 8
