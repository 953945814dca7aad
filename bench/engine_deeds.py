"""What the benchmark does at the exchange while it measures: orders and positions that carry a number, marks that jump.

The simulated customers' own activity goes on beside it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.engine_listener import Heard
from pushserver.exchange_sim.client import SimControl

FIRST_NUMBER = 1001
#: Holders of a position whose mark is made to jump; the prices lie on both sides of ``Listener.MARK_MIDDLE``.
JUMPING = "XRPUSDT"
LOW, HIGH = 100, 200
#: What was not seen within this is counted as missed.
PATIENCE_MS = 5_000


@dataclass(slots=True)
class Deeds:
    """``done``: (type, user, number) to the wall-clock ms just before it was done; ``jumps``: (high, ms)."""

    sim: SimControl
    users: int
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    done: dict[tuple[str, int, int], float] = field(default_factory=dict)
    jumps: list[tuple[bool, float]] = field(default_factory=list)
    holders: Sequence[int] = ()

    def hold(self, users: Sequence[int]) -> None:
        """Give these users a position whose mark will jump."""
        self.sim.set_marks(**{JUMPING: LOW})
        self.jumps.append((False, time.time() * 1000))
        for user_id in users:
            self.sim.set_position(user_id, JUMPING, "Buy", 1, LOW)
        self.holders = users

    def act(self) -> None:
        """One customer places an order, or gets another position, in turns."""
        user_id, number = self.rng.randint(1, self.users), FIRST_NUMBER + len(self.done)
        data_type = "positions" if number % 2 else "orders"
        at_ms = time.time() * 1000
        if data_type == "orders":
            self.sim.place_order(user_id, "SOLUSDT", "Buy", number, 1)
        else:
            self.sim.set_position(user_id, "SOLUSDT", "Buy", number, 148)
        self.done[data_type, user_id, number] = at_ms

    def jump(self) -> None:
        """The mark goes to the other side of the middle."""
        high = not self.jumps[-1][0]
        at_ms = time.time() * 1000
        self.sim.set_marks(**{JUMPING: HIGH if high else LOW})
        self.jumps.append((high, at_ms))

    def lags_ms(self, heard: Heard, data_type: str, until_ms: float) -> tuple[list[float], int]:
        """Of each deed of the type done before ``until_ms`` the time until it was shown, and how many never were.

        A deed that a later one of the same user hid before it could be shown counts as never shown.
        """
        wanted = {key: at_ms for key, at_ms in self.done.items() if key[0] == data_type and at_ms < until_ms}
        lags = [heard.numbers[key] - at_ms for key, at_ms in wanted.items() if key in heard.numbers]
        return lags, len(wanted) - len(lags)

    def mark_lags_ms(self, heard: Heard, until_ms: float) -> tuple[list[float], int]:
        """The same for the holders of the jumping mark, one for each jump and holder."""
        lags, missed = [], 0
        told: dict[int, list[tuple[bool, float]]] = {}
        for user_id, side, at_ms in heard.marks:
            told.setdefault(user_id, []).append((side, at_ms))
        for high, at_ms in self.jumps[1:]:
            if at_ms >= until_ms:
                continue
            for user_id in self.holders:
                shown = [when for side, when in told.get(user_id, []) if side is high and when - at_ms >= 0]
                if shown and shown[0] - at_ms < PATIENCE_MS:
                    lags.append(shown[0] - at_ms)
                else:
                    missed += 1
        return lags, missed
