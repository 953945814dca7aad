"""When a lost stream is opened again; pure."""

from __future__ import annotations

import random

from pushserver.exchange.stream_socket import Loss

#: A stream that lived so long was a good one: the next follows at once.
GOOD_AFTER_S = 30.0
FIRST_S, GROWTH, CAP_S = 0.5, 1.5, 5.0
#: From here on the exchange is away for longer, or does not want us.
LONG_GROWTH, LONG_CAP_S = 2.0, 60.0
#: Who was refused is refused again until the key changes, and that is told to us.
REFUSED_S, REFUSED_CAP_S = 60.0, 600.0
#: Together after an outage of the exchange, apart when they come back.
SPREAD = 0.5

REFUSALS = frozenset({Loss.AUTH, Loss.SUBSCRIPTION})


def delay_s(failures: int, loss: Loss, rng: random.Random) -> float:
    """How long to wait after ``failures`` streams in a row that were no good; none is waited for after a good one."""
    if failures == 0:
        return rng.uniform(0.0, SPREAD)
    longest_s = _longest_s(failures, loss)
    return rng.uniform(longest_s * (1 - SPREAD), longest_s)


def _longest_s(failures: int, loss: Loss) -> float:
    if loss in REFUSALS:
        return min(REFUSED_CAP_S, REFUSED_S * LONG_GROWTH ** (min(failures, 20) - 1))
    wait_s = FIRST_S
    for _ in range(min(failures, 20) - 1):
        wait_s = min(CAP_S, wait_s * GROWTH) if wait_s < CAP_S else min(LONG_CAP_S, wait_s * LONG_GROWTH)
    return wait_s
