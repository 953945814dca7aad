"""The budget of an egress address in a real Redis: what everybody behind it is granted, also after a loss."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pushserver.bus.budgets import Budget
from pushserver.bus.connection import connect
from pushserver.bus.pauses import Pauses
from pushserver.errors import StoreUnavailable
from pushserver.model import Secret


@pytest.fixture
def client(redis_url: str) -> Any:
    return connect(Secret(redis_url))


def unspent(client: Any, per_window: int = 480, window_s: float = 5.0, **options: Any) -> Budget:
    budget = Budget(client, "here", per_window, window_s, **options)
    budget.declare_unspent()
    return budget


def test_at_least_85_percent_of_the_limit_can_be_used(client: Any) -> None:
    assert unspent(client).rate_per_s * 5 >= 0.85 * 480
    assert unspent(client, 400, 300.0).rate_per_s * 300 >= 0.85 * 400


def test_payments_are_granted_in_order_now_or_a_little_later(client: Any) -> None:
    budget = unspent(client)
    grant = budget.spend(4, 4, 4, 4, 4, 4, horizon_s=0.05)
    assert 8 < grant.granted < 24
    starts = [usable_from for usable_from, _ in grant.usable]
    assert starts == sorted(starts)
    assert starts[1] < time.monotonic()
    assert 0 < starts[-1] - starts[0] < 0.05 + 3 / budget.rate_per_s + 0.001
    assert budget.spend(1, horizon_s=0.05).granted == 0, "small payments do not pass large ones"


def test_what_is_refused_is_told_when_to_come_again(client: Any) -> None:
    budget = unspent(client, per_window=20, window_s=0.5)
    budget.spend(4)
    grant = budget.spend(1)
    assert grant.granted == 0
    assert 0 < grant.wait_s <= 1 / budget.rate_per_s
    time.sleep(grant.wait_s)
    assert budget.spend(1).granted == 1


def test_who_knows_nothing_waits_a_whole_window_when_redis_knows_nothing(client: Any) -> None:
    grant = Budget(client, "here", 480, 5.0).spend(1, horizon_s=0.5)
    assert (grant.granted, round(grant.wait_s)) == (0, 6)
    assert Budget(client, "here", 480, 5.0).spend(1).wait_s > 5, "and whoever comes next"


def test_E3_a_lost_redis_silences_nobody_who_lived_through_it(client: Any) -> None:
    budget = unspent(client)
    assert budget.spend(4).granted == 4
    client.flushall()
    Budget(client, "here", 480, 5.0).spend(1)
    grant = budget.spend(1)
    assert grant.granted == 0, "all may have been spent"
    assert grant.wait_s < 1.5, "a newcomer that came first does not silence those who know"


@pytest.mark.parametrize("behind_s", [60, -60])
def test_R3_a_redis_that_comes_back_with_another_time_silences_nobody(client: Any, behind_s: int) -> None:
    budget = unspent(client)
    assert budget.spend(4).granted == 4
    assert budget._granted is not None
    granted_at_us, spent_us, sent_s = budget._granted
    # As if that grant had been told by a clock that was so far ahead of the one there is now.
    budget._granted = granted_at_us + behind_s * 1_000_000, spent_us + behind_s * 1_000_000, sent_s
    client.flushall()
    until_s = time.monotonic() + 3.0
    while (grant := budget.spend(1)).granted == 0:
        assert time.monotonic() < until_s, f"still {grant.wait_s:.1f} s to wait"
        time.sleep(0.05)


def test_R2_a_question_that_was_under_way_for_long_is_no_clock_put_forward(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = unspent(client)
    assert budget.spend(1).granted == 1
    script, delays_s = budget._spend, [0.6, 0.0]

    def late(**call: Any) -> Any:
        time.sleep(delays_s.pop(0))
        return script(**call)

    monkeypatch.setattr(budget, "_spend", late)
    assert budget.spend(4).granted == 4
    assert not delays_s, "it asked again"


def test_E3_a_clock_put_forward_refills_nothing(client: Any) -> None:
    budget = unspent(client)
    assert budget.spend(4).granted == 4
    granted_at_us, spent_us, sent_s = budget._granted or (0, 0, 0.0)
    budget._granted = granted_at_us - 3_000_000, spent_us - 3_000_000, sent_s
    assert budget.spend(4).granted == 0


def test_budgets_of_one_address_are_apart_and_share_its_pauses(client: Any) -> None:
    requests = unspent(client)
    streams = Budget(client, "here", 400, 300.0, kind="streams", unknown_pause_s=0.0)
    assert streams.spend(1).wait_s < 1, "starts with nothing"
    requests.spend(4, 4)
    Pauses(client, "here").pause(600, "exchange_address_banned")
    for budget in (requests, streams):
        grant = budget.spend(1)
        assert (grant.granted, grant.gate.verdict) == (0, "paused")
        assert 599 < grant.gate.left_s <= 600


def test_E2_after_a_pause_one_process_probes_and_all_resume_slowly(client: Any) -> None:
    budget, other = unspent(client), Budget(client, "here", 480, 5.0)
    Pauses(client, "here").pause(0.0, "exchange_address_banned")
    assert other.spend(1).gate.verdict == "paused"
    assert budget.spend(1, may_probe=True).gate.verdict == "probe"
    assert other.spend(1, may_probe=True).gate.verdict == "paused"
    budget.reopen(slowly=True)
    grant = other.spend(1)
    assert (grant.granted, grant.gate.verdict) == (0, "open")
    first = other.spend(1, 1, 1, horizon_s=0.2)
    assert first.usable[2][0] - first.usable[1][0] == pytest.approx(2 / budget.rate_per_s, rel=0.05)


def test_a_pause_that_redis_lost_is_told_by_whoever_knows_it(client: Any) -> None:
    budget = unspent(client)
    grant = budget.spend(1, known_pause=(300.0, "exchange_address_banned"))
    assert grant.gate.verdict == "paused"
    assert Budget(client, "here", 480, 5.0).spend(1).gate.left_s > 299


def test_requests_that_were_owed_are_paid_with_the_next(client: Any) -> None:
    budget = unspent(client)
    budget.owe(3)
    budget.spend(4)
    assert budget.spend(3).granted == 3
    assert budget.spend(1).granted == 0


def test_the_share_that_was_used_is_told_to_everybody(client: Any) -> None:
    budget = unspent(client, per_window=10, window_s=0.2)
    budget.spend(4)
    deadline = time.monotonic() + 2
    while not (share := Budget(client, "here", 10, 0.2).spend().used_share):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert share == 0.4


def test_without_redis_nothing_is_granted() -> None:
    budget = Budget(connect(Secret("redis://127.0.0.1:1/0"), timeout_s=0.2), "here", 480, 5.0)
    with pytest.raises(StoreUnavailable):
        budget.spend(1)


def test_a_payment_larger_than_the_burst_is_a_mistake(client: Any) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        unspent(client).spend(11)
    with pytest.raises(ValueError, match="cannot be kept"):
        unspent(client, per_window=5)
