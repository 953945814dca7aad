"""Mark prices of the symbols that are held: one public connection per process, supervised.

Prices are polled from it, not pushed. A price counts as fresh only while the connection proves that it lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import gevent
from gevent.event import Event

from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.exchange.stream_socket import Connect, Loss, StreamLost, StreamSocket
from pushserver.exchange.ticker_messages import PREFIX, Price, Refusal, read
from pushserver.observers import Observer
from pushserver.stream_records import TickerEnded, TickerMeasured

logger = logging.getLogger(__name__)

#: More often than the exchange asks for: prices must not look fresh on a dead connection.
PING_EVERY_S = 4.0
#: What was heard last, whatever it is, must not be older for any price to be fresh.
ALIVE_S = 10.0
#: A symbol that is not spoken of for so long is asked for again.
SYMBOL_SILENT_S = 60.0
#: The connection is given up.
SILENT_AFTER_S = 15.0
#: Symbols per request: longer ones are refused.
SYMBOLS_PER_REQUEST = 10
#: A symbol that was refused, or left unanswered, is asked for again after so long.
ASK_AGAIN_S = 30.0
TICK_S = 0.25
FIRST_RETRY_S, LONGEST_RETRY_S, RETRY_GROWTH = 0.5, 30.0, 1.5
#: A connection that lived so long was a good one: the next may follow at once.
GOOD_AFTER_S = 60.0


@dataclass(slots=True)
class _Known:
    mark: Decimal
    as_of_ms: int
    heard_s: float


class TickerFeed:
    """``want`` says which symbols; ``mark`` and ``is_fresh`` tell about them. ``start`` and ``stop`` once each.

    ``connect_wait_s()`` is asked before each connection: how long to wait first, because connections have a budget; it
    may raise StoreUnavailable.
    """

    def __init__(
        self,
        url: str,
        connect: Connect,
        clock: Clock,
        observer: Observer,
        connect_wait_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._url = url
        self._connect = connect
        self._clock = clock
        self._observer = observer
        self._connect_wait_s = connect_wait_s
        self._wanted: frozenset[str] = frozenset()
        self._known: dict[str, _Known] = {}
        self._asked_s: dict[str, float] = {}
        self._heard_s = self._pinged_s = 0.0
        self._socket: StreamSocket | None = None
        self._stopping = Event()
        self._greenlets: list[gevent.Greenlet] = []

    def want(self, symbols: Iterable[str]) -> None:
        """From now on these and no others; the change is asked for within a moment."""
        self._wanted = frozenset(symbols)

    def mark(self, symbol: str) -> tuple[Decimal, int] | None:
        """The newest mark price and the exchange's time of it (ms), fresh or not."""
        known = self._known.get(symbol)
        return None if known is None else (known.mark, known.as_of_ms)

    def is_fresh(self, symbol: str) -> bool:
        """Whether ``mark`` follows the market now."""
        known, asked_s = self._known.get(symbol), self._asked_s.get(symbol)
        now_s = self._clock.monotonic_s()
        return (
            known is not None
            and asked_s is not None
            and self._socket is not None
            and known.heard_s >= asked_s
            and now_s - self._heard_s < ALIVE_S
            and now_s - known.heard_s < SYMBOL_SILENT_S
        )

    def start(self) -> None:
        self._greenlets = [gevent.spawn(self._supervise), gevent.spawn(self._tend)]

    def stop(self) -> None:
        self._stopping.set()
        self._hang_up()
        gevent.joinall(self._greenlets, timeout=1.0)
        gevent.killall(self._greenlets, timeout=1.0)

    def _supervise(self) -> None:
        pause_s = FIRST_RETRY_S
        while not self._stopping.is_set():
            wait_s = self._wait_s()
            if wait_s > 0:
                self._stopping.wait(wait_s)
                continue
            began_s = self._clock.monotonic_s()
            self._observer.record(TickerEnded(self._listen().value))
            if self._clock.monotonic_s() - began_s > GOOD_AFTER_S:
                pause_s = FIRST_RETRY_S
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * RETRY_GROWTH, LONGEST_RETRY_S)

    def _wait_s(self) -> float:
        if not self._wanted:
            return TICK_S
        try:
            return self._connect_wait_s()
        except StoreUnavailable:
            # Whether we may is not known: so not yet.
            return FIRST_RETRY_S

    def _listen(self) -> Loss:
        """One connection from beginning to end."""
        try:
            socket = StreamSocket(self._url, self._connect)
        except StreamLost as lost:
            return lost.loss
        try:
            self._heard_s = self._pinged_s = self._clock.monotonic_s()
            self._asked_s = {}
            self._socket = socket
            while not self._stopping.is_set():
                raw = socket.receive()
                self._heard_s = self._clock.monotonic_s()
                self._take(read(raw))
        except StreamLost as lost:
            return Loss.STOPPED if self._stopping.is_set() else lost.loss
        finally:
            self._hang_up()
        return Loss.STOPPED

    def _take(self, message: Price | Refusal | None) -> None:
        if isinstance(message, Refusal):
            logger.warning("the ticker refused a subscription: %s", message.text)
        elif isinstance(message, Price) and message.symbol in self._asked_s:
            known = self._known.get(message.symbol)
            if message.mark is not None:
                # A price from before the one we have is a repetition; only a snapshot begins anew.
                if known is None or message.is_snapshot or message.as_of_ms >= known.as_of_ms:
                    self._known[message.symbol] = _Known(message.mark, message.as_of_ms, self._heard_s)
            elif known is not None:
                known.heard_s = self._heard_s
                known.as_of_ms = max(known.as_of_ms, message.as_of_ms)

    def _tend(self) -> None:
        """Beside the listening: what is wanted, pings, silence, figures."""
        measured_s = 0.0
        while not self._stopping.wait(TICK_S):
            socket, now_s = self._socket, self._clock.monotonic_s()
            if socket is not None:
                try:
                    self._look_after(socket, now_s)
                except StreamLost:
                    # The listener finds out the same, and reports it.
                    self._hang_up()
            if now_s - measured_s >= 1.0:
                measured_s = now_s
                self._measure(now_s)

    def _look_after(self, socket: StreamSocket, now_s: float) -> None:
        if now_s - self._heard_s > SILENT_AFTER_S:
            self._hang_up()
            return
        if now_s - self._pinged_s >= PING_EVERY_S:
            self._pinged_s = now_s
            socket.send({"req_id": "ping", "op": "ping"})
        for symbol in list(self._asked_s.keys() - self._wanted):
            del self._asked_s[symbol]
            self._known.pop(symbol, None)
            socket.send({"req_id": "less", "op": "unsubscribe", "args": [PREFIX + symbol]})
        missing = sorted(symbol for symbol in self._wanted if self._is_to_be_asked(symbol, now_s))
        again = [symbol for symbol in missing if symbol in self._asked_s]
        for few in _in_parts(again):
            # A topic that is subscribed already would not get a snapshot.
            socket.send({"req_id": "less", "op": "unsubscribe", "args": [PREFIX + symbol for symbol in few]})
        # One that is refused spoils the request it is in: what was not answered is asked for alone.
        new = [symbol for symbol in missing if symbol not in self._asked_s]
        for few in (*_in_parts(new), *([symbol] for symbol in again)):
            socket.send({"req_id": "more", "op": "subscribe", "args": [PREFIX + symbol for symbol in few]})
            self._asked_s.update((symbol, now_s) for symbol in few)

    def _is_to_be_asked(self, symbol: str, now_s: float) -> bool:
        asked_s = self._asked_s.get(symbol)
        if asked_s is None:
            return True
        known = self._known.get(symbol)
        if known is None or known.heard_s < asked_s:
            return now_s - asked_s > ASK_AGAIN_S
        return now_s - known.heard_s > SYMBOL_SILENT_S

    def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _measure(self, now_s: float) -> None:
        fresh = sum(map(self.is_fresh, self._wanted))
        age_s = now_s - self._heard_s if self._heard_s else 0.0
        self._observer.record(TickerMeasured(age_s, len(self._wanted), fresh))


def _in_parts(symbols: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(symbols), SYMBOLS_PER_REQUEST):
        yield symbols[start : start + SYMBOLS_PER_REQUEST]
