"""Waiting after failures."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.workers.backoff import CAP_S, LONGEST_HINT_S, SHORTEST_HINT_S, next_delay


@given(st.integers(-3, 10_000), st.integers())
def test_a_delay_lies_between_zero_and_the_cap(attempt: int, seed: int) -> None:
    assert 0 <= next_delay(attempt, None, random.Random(seed)) <= CAP_S


@pytest.mark.parametrize(("attempt", "ceiling_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (500, 60)])
def test_delays_fill_an_exponential_range_with_full_jitter(attempt: int, ceiling_s: float) -> None:
    rng = random.Random(7)
    delays = [next_delay(attempt, None, rng) for _ in range(2_000)]
    assert max(delays) == pytest.approx(ceiling_s, rel=0.02)
    assert min(delays) < 0.02 * ceiling_s
    assert sum(delays) / len(delays) == pytest.approx(ceiling_s / 2, rel=0.1)


@pytest.mark.parametrize(
    ("hint_s", "delay_s"),
    [(3.5, 3.5), (0.0, SHORTEST_HINT_S), (-40.0, SHORTEST_HINT_S), (86_400.0, LONGEST_HINT_S), (float("inf"), 60.0)],
)
def test_the_exchange_hint_beats_the_formula_within_reason(hint_s: float, delay_s: float) -> None:
    assert next_delay(9, hint_s, random.Random(1)) == delay_s


def test_a_hint_that_is_no_number_is_ignored() -> None:
    assert 0 <= next_delay(1, float("nan"), random.Random(1)) <= 1
