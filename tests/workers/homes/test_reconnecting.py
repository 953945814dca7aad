"""When a lost stream is opened again."""

from __future__ import annotations

import itertools
import random

from pushserver.exchange.stream_socket import Loss
from pushserver.workers.homes.reconnecting import LONG_CAP_S, REFUSED_CAP_S, REFUSED_S, SPREAD, delay_s

RNG = random.Random(7)


def bounds(failures: int, loss: Loss = Loss.CLOSED) -> tuple[float, float]:
    drawn = [delay_s(failures, loss, RNG) for _ in range(300)]
    return min(drawn), max(drawn)


def test_after_a_good_stream_the_next_follows_within_half_a_second() -> None:
    assert bounds(0)[1] <= SPREAD


def test_failures_back_off_to_five_seconds_and_then_to_a_minute() -> None:
    ceilings = [bounds(failures)[1] for failures in range(1, 14)]
    assert ceilings[0] <= 0.5
    assert all(earlier <= later * 1.05 for earlier, later in itertools.pairwise(ceilings))
    assert 4.5 <= ceilings[6] <= 5.0
    assert LONG_CAP_S * 0.95 <= ceilings[12] <= LONG_CAP_S
    assert bounds(10_000)[1] <= LONG_CAP_S


def test_E9_ten_refusals_to_connect_in_a_row_take_about_a_minute_and_not_more_than_ten_requests() -> None:
    waited = sum(bounds(failures, Loss.HANDSHAKE)[1] for failures in range(1, 10))
    assert 20 < waited < 60


def test_waits_are_spread_so_that_users_who_fell_together_do_not_return_together() -> None:
    least, most = bounds(7)
    assert most - least > 2


def test_a_refused_key_is_tried_rarely() -> None:
    assert bounds(1, Loss.AUTH)[0] >= REFUSED_S * SPREAD
    assert REFUSED_CAP_S * 0.9 <= bounds(20, Loss.AUTH)[1] <= REFUSED_CAP_S
