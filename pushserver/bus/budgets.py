"""How many requests may leave one egress address, shared by every process behind it and spent before sending.

The budget is one number in Redis, the time until which it is spent (the "theoretical arrival time" of the generic cell
rate algorithm). Each request moves it on by ``cost``, never from before now, and a payment may be used from the moment
``start`` on at which the number is no more than ``capacity = burst * cost`` ahead. Payments are in the order in which
they were asked for, also those that start a little later: so nobody is starved and no time is lost.

**At most ``per_window`` requests arrive in any ``window_s``.** Take the payments that start in ``[a, b]``, and let
the first find the number at ``base``, or at now if that is later. By the choice of its start ``base >= a`` (no payment
is larger than the burst), the last leaves it at ``b + capacity`` at most, and each request in between has moved it by
``cost``: they are at most ``burst + (b - a) / cost``. A payment is used within ``VALID_S`` of its start, and what is
sent arrives within ``TRANSIT_S``: what arrives within ``window_s`` started within ``window_s + SLACK_S``. ``cost`` is
chosen so that ``burst + (window_s + SLACK_S) / cost < per_window + 1``.

A budget that is missing in Redis is taken for spent. Who was granted requests lately has lived while Redis lost it:
then the number is put as far ahead as it can have been. Who knows nothing waits a whole window first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.bus.pauses import OPEN, PROBE_LEASE_S, Gate
from pushserver.clock import Clock, SystemClock

#: What the exchange counts the requests of an address over.
ADDRESS_WINDOW_S = 5.0
#: From the start of a payment until its requests must have been sent; later it is forfeited.
#: The answer of Redis is under way during it: less would leave nothing of it where that takes a fifth of a second.
VALID_S = 0.4
#: From sending to arriving, at most.
TRANSIT_S = 0.3
SLACK_S = VALID_S + TRANSIT_S
#: A screen's first requests need not wait for each other; more burst would cost more of the rate.
BURST_SHARE = 0.02
SMALLEST_BURST = 4
#: Payments may be reserved so far ahead at all.
LONGEST_HORIZON_S = 0.5
#: So long a declared budget is believed if nobody spends from it.
DECLARED_FOR_S = 3600
#: For so long a process's last grant tells that Redis has lost what it knew.
REMEMBERED_S = 90.0


@dataclass(frozen=True, slots=True)
class Grant:
    """``granted`` requests are paid for: one entry of ``usable`` for each payment, a prefix of those asked for.

    An entry is ``(from_s, until_s)`` on our monotonic clock. ``wait_s``: when asking for more makes sense.
    ``gate`` is not open when nothing may be asked at all. ``used_share``: of the last whole window, by everybody.
    """

    granted: int
    wait_s: float
    usable: tuple[tuple[float, float], ...]
    gate: Gate = OPEN
    used_share: float = 0.0


class Budget:
    """All methods raise StoreUnavailable when Redis does not answer in time: then nothing may be asked.

    ``name`` is the egress address; ``kind`` tells budgets of the same address apart, which share its pauses.
    ``unknown_pause_s``: how long a process that knows nothing waits when Redis knows nothing; None: a whole window.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        per_window: int,
        window_s: float,
        *,
        kind: str = "requests",
        unknown_pause_s: float | None = None,
        horizon_s: float = LONGEST_HORIZON_S,
        clock: Clock | None = None,
    ) -> None:
        self._spend = scripts.load(client, "spend")
        self._reopen = scripts.load(client, "reopen")
        self._client = client
        self._keys = [keys.budget(name, kind), keys.pause(name), keys.pause_probe(name)]
        self._clock = clock or SystemClock()
        self.per_window = per_window
        self.window_s = window_s
        self.burst, self._cost_us = burst_and_cost_us(per_window, window_s)
        self._horizon_s = horizon_s
        unknown_s = window_s + SLACK_S if unknown_pause_s is None else unknown_pause_s
        self._fixed = [
            self._cost_us,
            self.burst * self._cost_us,
            round(horizon_s * 1e6) + 3 * self.burst * self._cost_us,
            round(unknown_s * 1e6),
            round(window_s * 1e6),
        ]
        self._granted: tuple[int, int, float] | None = None
        self._owed = 0

    @property
    def rate_per_s(self) -> float:
        return 1e6 / self._cost_us

    def spend(
        self,
        *sizes: int,
        horizon_s: float = 0.0,
        may_probe: bool = False,
        known_pause: tuple[float, str] | None = None,
    ) -> Grant:
        """Pay for as many of the payments ``sizes``, in order, as may be used within ``horizon_s``.

        None given: only looks. ``known_pause``: seconds left and code of a pause that Redis may have lost.
        A gate with the verdict probe, given only if ``may_probe``, has paid for that one request.
        """
        if any(not 1 <= size <= self.burst for size in sizes):
            raise ValueError(f"a payment is for 1 to {self.burst} requests")
        for is_second in (0, 1):
            sent_s = self._clock.monotonic_s()
            arguments = self._arguments(sent_s, horizon_s, may_probe, known_pause)
            try:
                answer = self._spend(keys=self._keys, args=[*arguments, is_second, *sizes])
            except REDIS_FAILURES as error:
                raise unavailable(error) from error
            if answer[0] != b"unsure":
                break
        self._owed = 0
        if answer[0] != b"open":
            verdict, _, left_ms, until_ms, code = answer
            gate = Gate(verdict.decode(), int(left_ms) / 1000, int(until_ms), code.decode())
            return Grant(0, gate.left_s, (), gate)
        return self._open(answer, sizes, sent_s)

    def owe(self, requests: int) -> None:
        """Requests that had to be sent without being paid for first; the next payment pays for them too."""
        self._owed += requests

    def reopen(self, slowly: bool) -> None:
        """End the address's pause for everybody; ``slowly``: with nothing, and for one window at half the rate."""
        slow_us = round(self.window_s * 1e6) if slowly else 0
        try:
            self._reopen(keys=self._keys, args=[self.burst * self._cost_us, slow_us])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def declare_unspent(self) -> None:
        """For whoever knows that nothing was asked lately: an exchange and a Redis that were started just now."""
        try:
            self._client.hset(self._keys[0], mapping={"spent": 0, "opens": 0})
            self._client.expire(self._keys[0], DECLARED_FOR_S)
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def _arguments(
        self, sent_s: float, horizon_s: float, may_probe: bool, known_pause: tuple[float, str] | None
    ) -> list[int | str]:
        granted_at, granted_to, granted_ago = 0, 0, 0
        if self._granted is not None and sent_s - self._granted[2] <= REMEMBERED_S:
            granted_at, granted_to = self._granted[:2]
            granted_ago = round((sent_s - self._granted[2]) * 1e6)
        cost, capacity, ahead, unknown, window = self._fixed
        left_s, code = known_pause or (0.0, "")
        return [
            cost, capacity, round(min(horizon_s, self._horizon_s) * 1e6), ahead, unknown, window,
            granted_at, granted_to, granted_ago,
            round(PROBE_LEASE_S * 1000) if may_probe else 0, max(0, round(left_s * 1000)), code, self._owed,
        ]  # fmt: skip

    def _open(self, answer: list[bytes], sizes: Sequence[int], sent_s: float) -> Grant:
        _, now_us, spent_us, wait_us, used = answer[:5]
        received_s = self._clock.monotonic_s()
        delays_s = [int(delay) / 1e6 for delay in answer[5:]]
        # Whoever was granted something goes on learning: where Redis's clock was put, what it said before would look
        # wrong again and again.
        if delays_s or self._granted is not None:
            self._granted = int(now_us), int(spent_us), sent_s
        return Grant(
            granted=sum(sizes[: len(delays_s)]),
            wait_s=int(wait_us) / 1e6,
            usable=tuple((received_s + delay, sent_s + delay + VALID_S) for delay in delays_s),
            used_share=int(used) / self.per_window,
        )


def burst_and_cost_us(per_window: int, window_s: float) -> tuple[int, int]:
    """The burst, and microseconds per request, that keep the promise above.

    One request of a window is left for probes, which may have to be sent without waiting.
    """
    if per_window < SMALLEST_BURST + 2:
        raise ValueError(f"a budget of fewer than {SMALLEST_BURST + 2} requests cannot be kept")
    payable = per_window - 1
    burst = max(SMALLEST_BURST, round(payable * BURST_SHARE))
    return burst, int((window_s + SLACK_S) * 1e6 / (payable + 1 - burst)) + 1
