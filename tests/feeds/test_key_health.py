"""What is said of an exchange key, from what the exchange says of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushserver.events import utc_instant
from pushserver.feeds.key_health import DAY_S, WITHDRAWAL, AccountHealth, HealthState, health_of, refused

NOW_S = 1_767_225_600
KEY = {
    "readOnly": 1,
    "permissions": {"ContractTrade": ["Order", "Position"], "Wallet": []},
    "ips": ["*"],
    "deadlineDay": 80,
    "expiredAt": "2026-03-22T00:00:00Z",
}
LETTERS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | LETTERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LETTERS, inner, max_size=4),
    max_leaves=12,
)
#: The fields that count, one or two of them with anything in them.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "readOnly": st.sampled_from([0, 1, True, "0", None, 2]) | JSON,
    "permissions": st.dictionaries(LETTERS, st.lists(LETTERS, max_size=3) | JSON, max_size=4) | JSON,
    "ips": st.lists(LETTERS, max_size=3) | JSON,
    "deadlineDay": st.integers() | JSON,
    "expiredAt": st.datetimes().map(datetime.isoformat) | LETTERS | st.sampled_from(["soon", "2026-13-01"]) | JSON,
}
FIELD = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name]))
DAMAGED = st.lists(FIELD, min_size=1, max_size=2).map(lambda fields: KEY | dict(fields))


def judged(**changed: Any) -> AccountHealth:
    return health_of(KEY | changed, NOW_S)


def codes(health: AccountHealth) -> list[str]:
    return [problem.code for problem in health.problems]


def at(seconds: int) -> str:
    return datetime.fromtimestamp(NOW_S + seconds, UTC).isoformat()


def test_a_key_that_only_reads_is_well_and_that_it_is_bound_to_no_address_is_worth_knowing() -> None:
    health = judged()
    assert (health.state, codes(health)) == (HealthState.OK, ["key_not_ip_bound"])
    assert (health.read_only, health.ip_bound, health.days_left) == (True, False, 80)
    assert not health.can_trade and not health.can_withdraw


def test_a_key_bound_to_addresses_never_ends() -> None:
    health = judged(ips=["1.2.3.4"], expiredAt="1970-01-01T00:00:00Z", deadlineDay=-2)
    assert health == AccountHealth(HealthState.OK, (), None, None, True, True)


@pytest.mark.parametrize(
    ("permissions", "expected", "state"),
    [
        ({"Spot": ["SpotTrade"]}, ["key_can_trade"], HealthState.WARNING),
        ({"Wallet": ["AccountTransfer"]}, ["key_can_trade"], HealthState.WARNING),
        ({"Wallet": ["Withdraw"]}, ["key_can_trade", "key_can_withdraw"], HealthState.CRITICAL),
        ({f"A{n}": ["x"] for n in range(99)} | {"Wallet": ["Withdraw"]}, None, HealthState.CRITICAL),
    ],
)
def test_C04_a_key_that_can_do_more_than_read_is_told(
    permissions: Any, expected: list[str] | None, state: HealthState
) -> None:
    health = judged(readOnly=0, permissions=permissions, ips=["1.2.3.4"])
    assert health.state is state
    assert health.can_trade and health.can_withdraw == (WITHDRAWAL.split(":")[1] in permissions.get("Wallet", ()))
    assert expected is None or codes(health) == expected


def test_a_read_only_key_cannot_withdraw_whatever_groups_it_may_read() -> None:
    assert judged(permissions={"Wallet": ["Withdraw"]}).state is HealthState.OK


@pytest.mark.parametrize(
    ("left_s", "days_left", "state"),
    [
        (-5, 0, HealthState.CRITICAL),
        (DAY_S - 1, 0, HealthState.CRITICAL),
        (DAY_S, 1, HealthState.WARNING),
        (8 * DAY_S - 1, 7, HealthState.WARNING),
        (8 * DAY_S, 8, HealthState.OK),
    ],
)
def test_a_key_that_ends_within_a_week_is_a_warning_and_within_a_day_critical(
    left_s: int, days_left: int, state: HealthState
) -> None:
    health = judged(expiredAt=at(left_s), ips=["1.2.3.4"])
    assert (health.days_left, health.state, health.expires_s) == (days_left, state, NOW_S + left_s)
    assert codes(health) == ([] if state is HealthState.OK else ["key_expires_soon"])
    assert all(problem.until_s == NOW_S + left_s for problem in health.problems)


def test_a_refused_key_is_critical_under_the_code_of_the_refusal() -> None:
    health = refused("key_expired", "The key has expired.")
    assert (health.state, codes(health), health.read_only) == (HealthState.CRITICAL, ["key_expired"], None)


@given(information=JSON | DAMAGED)
@example(information=KEY | {"expiredAt": "0001-01-01T00:00:00+23:59"})
@example(information=KEY | {"expiredAt": "9999-12-31T23:59:59-23:59"})
@example(information={"readOnly": 0, "permissions": {"Wallet": "Withdraw"}, "ips": [None, 3, []]})
def test_any_json_is_judged_and_what_cannot_be_understood_is_never_called_well(information: Any) -> None:
    health = health_of(information, NOW_S)
    if health.read_only is None:
        assert (health.state, codes(health)) == (HealthState.WARNING, ["key_unverified"])
    elif health.read_only is False:
        assert health.can_trade
    assert health.days_left is None or health.days_left >= 0
    assert health.expires_s is None or utc_instant(health.expires_s * 1000)
