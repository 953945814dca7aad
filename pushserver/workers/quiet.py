"""What this process knows of a pause of its address, so that it falls silent before everybody has been told."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.bus.pauses import Gate
from pushserver.clock import Clock

#: How long those wait who only have to see what a prober finds.
PROBED_S = 1.0


class Silenced(Exception):
    """Nothing may be asked from this address for ``left_s``: expected, hence no failure of the user.

    ``is_crowd``: only because too many want to ask now.
    """

    def __init__(self, left_s: float, until_ms: int, code: str, *, is_crowd: bool = False) -> None:
        super().__init__(code)
        self.left_s = left_s
        self.until_ms = until_ms
        self.code = code
        self.is_crowd = is_crowd


@dataclass(frozen=True, slots=True)
class _Pause:
    ends_s: float
    until_ms: int
    code: str


class Quiet:
    """``ends_s`` on our monotonic clock; ``until_ms`` as phones are told it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pause: _Pause | None = None

    def begin(self, left_s: float, code: str) -> Silenced:
        """Nothing that was paid for is sent any more either. A pause only grows."""
        ends_s = self._clock.monotonic_s() + left_s
        if self._pause is None or self._pause.ends_s < ends_s:
            self._pause = _Pause(ends_s, self._clock.wall_ms() + round(left_s * 1000), code)
        return Silenced(left_s, self._pause.until_ms, self._pause.code)

    def learn(self, gate: Gate) -> Silenced:
        """What all processes know, who name the same end to everybody."""
        self._pause = _Pause(self._clock.monotonic_s() + gate.left_s, gate.until_ms, gate.code)
        return Silenced(gate.left_s, gate.until_ms, gate.code)

    def lift(self) -> None:
        self._pause = None

    def check(self) -> None:
        """Raises Silenced while the pause lasts."""
        if self._pause is None:
            return
        left_s = self._pause.ends_s - self._clock.monotonic_s()
        if left_s > 0:
            raise Silenced(left_s, self._pause.until_ms, self._pause.code)
        self._pause = None

    def known(self) -> tuple[float, str] | None:
        """Seconds left and code, for a Redis that may have lost it. A moment of suspicion is nothing to be told."""
        if self._pause is None or (left_s := self._pause.ends_s - self._clock.monotonic_s()) <= PROBED_S:
            return None
        return left_s, self._pause.code
