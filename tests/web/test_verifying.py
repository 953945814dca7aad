"""Keys are verified out of the budget of the egress address, and a ban met there is everybody's."""

from __future__ import annotations

import pytest

from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.connection import connect
from pushserver.bus.pauses import Pauses
from pushserver.clock import SystemClock
from pushserver.errors import AddressBanned, KeyRefused, RateLimited, RequestRejected
from pushserver.model import Credentials, Secret
from pushserver.observers import AddressPaused, RecordingObserver
from pushserver.web.verifying import Desk, PaidVerifier

CREDENTIALS = Credentials("key", Secret("secret"))
PER_WINDOW = 100


class FakeExchange:
    def __init__(self, outcome, public=1) -> None:
        self.outcome, self.public = outcome, public
        self.asked = 0

    def key_information(self, credentials, deadline_s, pay):
        self.asked += 1
        return self._given(self.outcome)

    def server_time_ms(self, deadline_s):
        return self._given(self.public)

    def _given(self, outcome):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class World:
    def __init__(self, redis_url, *exchanges) -> None:
        self.clock, self.observer = SystemClock(), RecordingObserver()
        client = connect(Secret(redis_url))
        self.desks = [
            Desk(
                exchange,
                Budget(client, f"egress{number}", PER_WINDOW, ADDRESS_WINDOW_S),
                Pauses(client, f"egress{number}"),
            )
            for number, exchange in enumerate(exchanges)
        ]
        for desk in self.desks:
            desk.budget.declare_unspent()
        self.verifier = PaidVerifier(
            self.desks, lambda user_id: user_id % len(exchanges), self.clock, self.observer
        )  # fmt: skip

    def ask(self, user_id=0, within_s=5.0):
        return self.verifier.key_information(user_id, CREDENTIALS, self.clock.monotonic_s() + within_s)


def test_each_user_is_asked_about_by_the_address_that_is_theirs(redis_url):
    first, second = FakeExchange({"readOnly": 1}), FakeExchange({"readOnly": 0})
    world = World(redis_url, first, second)
    assert world.ask(user_id=4) == {"readOnly": 1}
    assert world.ask(user_id=5) == {"readOnly": 0}
    assert (first.asked, second.asked) == (1, 1)


def test_H11_a_question_is_paid_for_and_waits_or_is_refused_when_the_budget_is_spent(redis_url):
    exchange = FakeExchange({})
    world = World(redis_url, exchange)
    budget = world.desks[0].budget
    while budget.spend(1).granted:
        pass
    world.ask()
    assert exchange.asked == 1, "it had to wait for its turn"
    while budget.spend(1, horizon_s=0.5).granted:
        pass
    with pytest.raises(RateLimited):
        world.ask(within_s=1.01)
    assert exchange.asked == 1


def test_H02_during_a_ban_nothing_is_asked(redis_url):
    exchange = FakeExchange({})
    world = World(redis_url, exchange)
    world.desks[0].pauses.pause(60, "exchange_address_banned")
    with pytest.raises(AddressBanned) as refusal:
        world.ask()
    assert exchange.asked == 0
    assert 0 < refusal.value.retry_after_s <= 60


@pytest.mark.parametrize(
    ("signed", "public", "raised"),
    [
        (KeyRefused(), 1, KeyRefused),
        (AddressBanned(), 1, RequestRejected),
    ],
)
def test_H02_a_key_that_is_turned_away_alone_pauses_nobody(redis_url, signed, public, raised):
    world = World(redis_url, FakeExchange(signed, public))
    with pytest.raises(raised):
        world.ask()
    assert world.desks[0].budget.spend().gate.verdict == "open"


def test_H02_a_ban_met_here_pauses_everybody(redis_url):
    world = World(redis_url, FakeExchange(AddressBanned(), AddressBanned()))
    with pytest.raises(AddressBanned):
        world.ask()
    assert world.desks[0].budget.spend().gate.verdict == "paused"
    assert world.observer.records == [AddressPaused("exchange_address_banned", 600.0)]
