"""The estimate of the exchange's clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pushserver.exchange.clock_offset import ClockOffset

NOW = 1_767_225_600_000


def test_clocks_that_agree_stay_as_they_are() -> None:
    offset = ClockOffset()
    offset.learn(NOW, NOW + 80, NOW + 33)
    assert offset.offset_ms == 0 and not offset.is_alarming()


def test_H03_a_drift_is_followed_as_far_as_an_answer_proves_it() -> None:
    offset = ClockOffset()
    offset.learn(NOW, NOW + 80, NOW + 500)
    assert offset.offset_ms == 420
    offset.learn(NOW, NOW + 80, NOW - 500)
    assert offset.offset_ms == -500


def test_H07_an_old_stamp_in_an_ordinary_answer_is_no_reason_to_jump() -> None:
    offset = ClockOffset()
    offset.learn(NOW, NOW + 80, NOW - 3_600_000)
    assert offset.offset_ms == 0


def test_H03_an_answer_about_the_time_is_believed_whatever_it_says() -> None:
    offset = ClockOffset()
    offset.correct(NOW, NOW + 80, NOW + 3_600_000)
    assert 3_600_000 - 80 <= offset.offset_ms <= 3_600_000 and offset.is_alarming()


def test_a_slow_answer_teaches_nothing_it_cannot_know() -> None:
    """Queued for 6 s on the way: the stamp is late, but the clocks agree."""
    offset = ClockOffset()
    offset.correct(NOW, NOW + 6_000, NOW + 5_900)
    assert offset.offset_ms == 0


def test_I06_a_wall_clock_that_jumped_back_during_a_request_does_no_harm() -> None:
    offset = ClockOffset()
    offset.correct(NOW, NOW - 5_000, NOW + 40)
    assert abs(offset.offset_ms) <= 40


@given(
    true_ms=st.integers(-1_900, 1_900),
    trips=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 3_000)), min_size=1, max_size=20),
)
def test_the_error_is_never_larger_than_the_shortest_trip(true_ms: int, trips: list[tuple[int, int]]) -> None:
    offset = ClockOffset()
    for there_ms, back_ms in trips:
        offset.learn(NOW, NOW + there_ms + back_ms, NOW + there_ms + true_ms)
    assert abs(offset.offset_ms - true_ms) <= min(there_ms + back_ms for there_ms, back_ms in trips)
