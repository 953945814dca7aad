import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.exchange_sim.limits import AddressGate, UserGate


def test_a_user_gets_his_limit_in_a_rolling_second_and_then_a_reset_time() -> None:
    gate = UserGate()
    asked = [gate.ask(1, "/p", 3, now_s) for now_s in (0.0, 0.2, 0.4, 0.5)]
    assert [a.allowed for a in asked] == [True, True, True, False]
    assert [a.remaining for a in asked] == [2, 1, 0, 0]
    assert asked[3].reset_in_s == pytest.approx(0.5)
    assert gate.ask(1, "/p", 3, 1.01).allowed
    assert not gate.ask(1, "/p", 3, 1.02).allowed


def test_users_and_endpoints_do_not_share_a_limit() -> None:
    gate = UserGate()
    assert gate.ask(1, "/p", 1, 0.0).allowed
    assert gate.ask(2, "/p", 1, 0.0).allowed
    assert gate.ask(1, "/q", 1, 0.0).allowed
    assert not gate.ask(1, "/p", 1, 0.0).allowed


def test_a_limit_set_by_hand_replaces_the_endpoints_own() -> None:
    gate = UserGate()
    gate.overrides["/p"] = 0
    refused = gate.ask(1, "/p", 50, 0.0)
    assert (refused.allowed, refused.limit, refused.reset_in_s) == (False, 0, 1.0)


@given(st.lists(st.floats(0, 10), max_size=200), st.integers(1, 5))
def test_no_second_ever_sees_more_than_the_limit(times: list[float], limit: int) -> None:
    gate = UserGate()
    served = [now for now in sorted(times) if gate.ask(1, "/p", limit, now).allowed]
    for start in served:
        assert sum(start <= t < start + 0.999 for t in served) <= limit


def test_one_request_too_many_bans_the_address_for_the_set_time() -> None:
    gate = AddressGate(limit=3, window_s=5.0, ban_s=60.0)
    assert [gate.ask("a", t) for t in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]
    assert gate.bans == 1
    assert not gate.ask("a", 62.9)
    assert gate.ask("b", 62.9)
    assert gate.ask("a", 63.1)
    assert (gate.refused_during_bans, gate.most_in_a_window) == (1, {"a": 4, "b": 1})


def test_a_ban_shorter_than_the_window_ends_with_a_clean_slate() -> None:
    gate = AddressGate(limit=2, window_s=5.0, ban_s=1.0)
    assert [gate.ask("a", t) for t in (0.0, 0.1, 0.2, 0.9)] == [True, True, False, False]
    assert gate.ask("a", 1.3) and gate.bans == 1


def test_a_window_that_rolls_is_no_ban() -> None:
    gate = AddressGate(limit=3, window_s=5.0)
    assert all(gate.ask("a", index * 1.7) for index in range(100))


def test_a_lifted_ban_is_forgotten() -> None:
    gate = AddressGate(limit=1)
    gate.ban("a", 100.0, 0.0)
    assert gate.banned(1.0) == {"a": 99.0}
    gate.lift("a")
    assert gate.ask("a", 1.0) and gate.banned(1.0) == {}
