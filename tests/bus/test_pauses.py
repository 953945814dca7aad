"""The gate in front of the exchange, shared by all processes of one address."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pushserver.bus import budgets as budgets_module
from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.connection import connect
from pushserver.bus.pauses import Gate, Pauses
from pushserver.errors import StoreUnavailable
from pushserver.model import Secret


@pytest.fixture
def client(redis_url: str) -> Any:
    client = connect(Secret(redis_url))
    for name in ("here", "elsewhere"):
        budget_of(client, name).declare_unspent()
    return client


def budget_of(client: Any, name: str = "here") -> Budget:
    return Budget(client, name, 480, ADDRESS_WINDOW_S)


def gate_of(client: Any, name: str = "here") -> Gate:
    """As every payment passes it."""
    return budget_of(client, name).spend(1, may_probe=True).gate


def test_an_address_that_was_never_refused_is_open(client: Any) -> None:
    assert gate_of(client).verdict == "open"


def test_a_pause_holds_for_every_process_of_the_address_and_for_no_other(client: Any) -> None:
    assert Pauses(client, "here").pause(600, "exchange_address_banned")
    gate = gate_of(client)
    assert (gate.verdict, gate.code) == ("paused", "exchange_address_banned")
    assert 599 < gate.left_s <= 600
    assert gate_of(client, "elsewhere").verdict == "open"


def test_a_pause_only_grows_and_its_end_stays_the_same_for_all(client: Any) -> None:
    pauses = Pauses(client, "here")
    assert pauses.pause(600, "exchange_address_banned")
    until_ms = gate_of(client).until_ms
    assert not pauses.pause(600, "exchange_address_banned"), "seen by a second process a moment later"
    assert not pauses.pause(5, "exchange_address_banned")
    assert gate_of(client).until_ms == until_ms
    assert pauses.pause(900, "exchange_address_banned")
    assert gate_of(client).until_ms > until_ms


def test_after_the_end_one_process_probes_and_its_success_opens_the_gate(client: Any) -> None:
    pauses = Pauses(client, "here")
    pauses.pause(0.05, "exchange_address_banned")
    time.sleep(0.06)
    assert [gate_of(client).verdict for _ in range(5)] == ["probe", "paused", "paused", "paused", "paused"]
    budget_of(client).reopen(slowly=False)
    assert gate_of(client).verdict == "open"


def test_a_prober_that_dies_is_followed_by_another(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets_module, "PROBE_LEASE_S", 0.1)
    pauses = Pauses(client, "here")
    pauses.pause(0.0, "exchange_address_banned")
    assert gate_of(client).verdict == "probe"
    time.sleep(0.12)
    assert gate_of(client).verdict == "probe"


def test_a_refused_probe_pauses_again(client: Any) -> None:
    pauses = Pauses(client, "here")
    pauses.pause(0.0, "exchange_address_banned")
    assert gate_of(client).verdict == "probe"
    pauses.pause(600, "exchange_address_banned")
    assert gate_of(client).verdict == "paused"


def test_without_redis_nothing_may_be_asked() -> None:
    nowhere = connect(Secret("redis://127.0.0.1:1/0"), timeout_s=0.2)
    with pytest.raises(StoreUnavailable):
        gate_of(nowhere)
    with pytest.raises(StoreUnavailable):
        Pauses(nowhere, "here").pause(1, "x")
