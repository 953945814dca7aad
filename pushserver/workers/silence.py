"""What happens when the exchange refuses our whole address: who believes it, for how long, and who tries again.

A refusal of one user's request may be that user's alone (a key that is bound elsewhere, a request that the edge does
not like). So one public request decides, which needs no key: if that is answered, nobody else is touched.
"""

from __future__ import annotations

from pushserver.bus.pauses import Pauses
from pushserver.clock import Clock
from pushserver.errors import AddressBanned, ExchangeError, RequestRejected
from pushserver.exchange.port import Exchange
from pushserver.observers import AddressPaused, Observer
from pushserver.workers.paying import Cashier, ProbeWanted
from pushserver.workers.quiet import PROBED_S, Silenced

#: What the exchange wants after a 403 that names no time.
SILENCE_S = 600.0
#: The pause between two probes when the exchange could not be reached at all.
PROBE_AGAIN_S = 5.0
PROBE_DEADLINE_S = 5.0


class Silence:
    """All methods raise StoreUnavailable when Redis does not answer in time."""

    def __init__(
        self, exchange: Exchange, pauses: Pauses, cashier: Cashier, clock: Clock, observer: Observer
    ) -> None:  # fmt: skip
        self._exchange = exchange
        self._pauses = pauses
        self._cashier = cashier
        self._clock = clock
        self._observer = observer

    def probe(self, wanted: ProbeWanted) -> None:
        """The pause has ended: only an answer lets the others resume, slowly. Raises Silenced without one."""
        try:
            self._ask_anything()
        except AddressBanned as error:
            raise self._pause(error) from error
        except ExchangeError as error:
            raise Silenced(PROBE_AGAIN_S, wanted.until_ms, wanted.code) from error
        self._cashier.quiet.lift()
        self._cashier.budget.reopen(slowly=True)

    def refused(self, error: AddressBanned, *, signed: bool) -> Silenced | RequestRejected:
        """What the refusal of a request means; ``signed``: it was made with a user's key."""
        if not signed:
            return self._pause(error)
        # Nothing further leaves this process, and in a moment none of the others, until one knows more.
        silenced = self._cashier.quiet.begin(PROBED_S, error.code)
        if not self._pauses.suspect(error.code):
            return silenced
        self._cashier.budget.owe(1)
        try:
            self._ask_anything()
        except AddressBanned as proof:
            return self._pause(proof)
        except ExchangeError:
            return self._pause(error, PROBE_AGAIN_S)
        self._cashier.quiet.lift()
        self._cashier.budget.reopen(slowly=False)
        return RequestRejected(
            "The exchange refuses this account's requests at its door.",
            endpoint=error.endpoint,
            exchange_code=error.exchange_code,
        )

    def _ask_anything(self) -> None:
        self._exchange.server_time_ms(self._clock.monotonic_s() + PROBE_DEADLINE_S)

    def _pause(self, error: AddressBanned, seconds: float | None = None) -> Silenced:
        if seconds is None:
            seconds = error.retry_after_s if error.retry_after_s is not None else SILENCE_S
        # First for ourselves, at once; then for everybody, which takes a round trip.
        quiet = self._cashier.quiet
        silenced = quiet.begin(seconds, error.code)
        if self._pauses.pause(seconds, error.code):
            self._observer.record(AddressPaused(error.code, seconds))
        gate = self._cashier.budget.spend(known_pause=quiet.known()).gate
        return quiet.learn(gate) if gate.verdict == "paused" else silenced
