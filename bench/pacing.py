"""A steady rate without a timer per message: whatever fell due within a tick, in one go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

#: The shortest time from one batch to the next, however long the first took to send. A batch holds what fell due
#: meanwhile: 4 messages at 4,000/s.
TICK_S = 0.001
#: A publisher that was held up catches up in batches of at most this, so that no single one grows without bound.
LARGEST_BATCH = 256
#: A message is due although its time is this part of an interval away: times are floats.
ROUNDING = 1e-6


def batches(
    rate: float,
    seconds: float,
    sleep: Callable[[float], object] = time.sleep,
    now_s: Callable[[], float] = time.monotonic,
) -> Iterator[range]:
    """Number the messages 0, 1, 2 … and give each out when it is due; ``rate × seconds`` in all."""
    total = round(rate * seconds)
    start_s = now_s()
    given = 0
    while given < total:
        tick_s = now_s()
        due = min(total, int((tick_s - start_s) * rate + ROUNDING) + 1)
        if due > given:
            batch = range(given, min(due, given + LARGEST_BATCH))
            given = batch.stop
            yield batch
        if given < total and given >= due:
            wait_s = max(start_s + given / rate, tick_s + TICK_S) - now_s()
            if wait_s > 0:
                sleep(wait_s)
