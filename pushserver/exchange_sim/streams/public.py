"""``/v5/public/linear`` and ``/v5/public/inverse``: tickers, first a snapshot, then what changed."""

from __future__ import annotations

from collections.abc import Iterable

from pushserver.exchange_sim.answers import ticker_row
from pushserver.exchange_sim.streams.misfortunes import Misfortunes
from pushserver.exchange_sim.streams.session import Message, Outlet, Session, arguments_of
from pushserver.exchange_sim.world import World

FUNDING_PERIOD_MS = 8 * 3_600_000
PREFIX = "tickers."
#: Something about a contract always changes: a symbol whose mark stands still is heard of so often all the same.
BEAT_S = 20.0
SIZES = ("3.2", "3.3")


class PublicSession(Session):
    kind = "public"

    def __init__(
        self, world: World, outlet: Outlet, number: int, misfortunes: Misfortunes, idle_s: float, category: str
    ) -> None:
        super().__init__(world, outlet, number, misfortunes, idle_s)
        self._category = category
        self._told: dict[str, Message] = {}
        self._told_s: dict[str, float] = {}
        self._sequence = 0

    def market_moved(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            if f"{PREFIX}{symbol}" in self.topics:
                row = self._row(symbol)
                known = self._told.get(symbol, {})
                changed = {name: value for name, value in row.items() if known.get(name) != value}
                self._told[symbol] = row
                if changed:
                    self._tell(symbol, "delta", {"symbol": symbol} | changed)

    def beat(self, now_s: float) -> None:
        """A change of the order book for every symbol that was quiet for a while; to be called now and then."""
        for symbol in [each for each, at_s in self._told_s.items() if now_s >= at_s + BEAT_S]:
            size = SIZES[self._told[symbol]["bid1Size"] == SIZES[0]]
            self._told[symbol]["bid1Size"] = size
            self._tell(symbol, "delta", {"symbol": symbol, "bid1Size": size})

    def _subscribe(self, request: Message) -> None:
        topics = arguments_of(request)
        unknown = [topic for topic in topics if not self._is_known(topic)]
        refused = self.misfortunes.topic_refusal(self, topics)
        if refused or unknown or not topics:
            text = refused or (refusal_of(unknown[0]) if unknown else "Params Error")
            self.reply(request, False, text, "subscribe")
            return
        self.reply(request, True, "subscribe", "subscribe")
        for topic in topics:
            if topic not in self.topics:
                self.topics.add(topic)
                symbol = topic.removeprefix(PREFIX)
                self._told[symbol] = self._row(symbol)
                self._tell(symbol, "snapshot", self._told[symbol])

    def _unsubscribe(self, request: Message) -> None:
        for topic in arguments_of(request):
            self._told.pop(topic.removeprefix(PREFIX), None)
            self._told_s.pop(topic.removeprefix(PREFIX), None)
        super()._unsubscribe(request)

    def _ping(self, request: Message) -> None:
        if not self.misfortunes.strikes("no_pong", self):
            self.reply(request, True, "pong", "ping")

    def _tell(self, symbol: str, kind: str, data: Message) -> None:
        self._sequence += 1
        self._told_s[symbol] = self.world.clock.monotonic_s()
        topic = f"{PREFIX}{symbol}"
        self.tell({"topic": topic, "type": kind, "data": data, "cs": self._sequence, "ts": self.world.now_ms()})

    def _is_known(self, topic: str) -> bool:
        instrument = self.world.market.instruments.get(topic.removeprefix(PREFIX))
        return topic.startswith(PREFIX) and instrument is not None and instrument.category == self._category

    def _row(self, symbol: str) -> Message:
        now_ms = self.world.now_ms()
        funding_ms = now_ms - now_ms % FUNDING_PERIOD_MS + FUNDING_PERIOD_MS
        return ticker_row(self.world.market.instruments[symbol], self.world.market, funding_ms)


def refusal_of(topic: str) -> str:
    if topic.startswith(PREFIX):
        return f"Invalid symbol :[{topic}]"
    return f"error:handler not found,topic:{topic}"
