"""How long to wait after a failure; pure."""

from __future__ import annotations

import random

BASE_S = 1.0
CAP_S = 60.0
#: A hint of the exchange is believed only within these bounds: it may be in the past, or a day ahead.
SHORTEST_HINT_S = 0.1
LONGEST_HINT_S = 60.0


def next_delay(attempt: int, hint_s: float | None, rng: random.Random) -> float:
    """Seconds until attempt number ``attempt`` + 1, the first attempt being 1.

    The exchange's own hint beats the formula; else capped exponential with full jitter, so that users who failed
    together do not come back together.
    """
    if hint_s is not None and hint_s == hint_s:
        return min(max(hint_s, SHORTEST_HINT_S), LONGEST_HINT_S)
    ceiling = min(CAP_S, BASE_S * 2 ** min(max(attempt, 1) - 1, 10))
    return rng.uniform(0.0, ceiling)
