"""Keys are verified behind the gate of the egress address, and a ban met there is everybody's."""

from __future__ import annotations

import pytest

from pushserver.bus.connection import connect
from pushserver.bus.pauses import Pauses
from pushserver.errors import AddressBanned, KeyRefused
from pushserver.model import Credentials, Secret
from pushserver.observers import AddressPaused, RecordingObserver
from pushserver.web.verifying import GatedVerifier

CREDENTIALS = Credentials("key", Secret("secret"))


class FakeExchange:
    def __init__(self, outcome) -> None:
        self.outcome = outcome
        self.asked = 0

    def key_information(self, credentials, deadline_s):
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def pauses(redis_url):
    return Pauses(connect(Secret(redis_url)), "egress")


def test_an_open_gate_lets_the_question_through(pauses):
    exchange = FakeExchange({"readOnly": 1})
    verifier = GatedVerifier(exchange, pauses, RecordingObserver())
    assert verifier.key_information(CREDENTIALS, 1.0) == {"readOnly": 1}


def test_H02_during_a_ban_nothing_is_asked(pauses):
    exchange = FakeExchange({})
    pauses.pause(60, "exchange_address_banned")
    with pytest.raises(AddressBanned) as refusal:
        GatedVerifier(exchange, pauses, RecordingObserver()).key_information(CREDENTIALS, 1.0)
    assert exchange.asked == 0
    assert 0 < refusal.value.retry_after_s <= 60


def test_H02_a_ban_met_here_pauses_everybody_and_a_bad_key_nobody(pauses):
    observer = RecordingObserver()
    with pytest.raises(KeyRefused):
        GatedVerifier(FakeExchange(KeyRefused()), pauses, observer).key_information(CREDENTIALS, 1.0)
    assert pauses.gate().verdict == "open"
    with pytest.raises(AddressBanned):
        GatedVerifier(FakeExchange(AddressBanned()), pauses, observer).key_information(CREDENTIALS, 1.0)
    assert pauses.gate().verdict == "paused"
    assert observer.records == [AddressPaused("exchange_address_banned", 600.0)]
