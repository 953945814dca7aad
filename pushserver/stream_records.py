"""What happens on the exchange's streams and in the homes that hold them, as records for observers."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.worker_records import Record


@dataclass(frozen=True, slots=True)
class StreamStarted(Record):
    """A connection for a user's private stream was begun: it was paid for, whatever becomes of it."""


@dataclass(frozen=True, slots=True)
class StreamEnded(Record):
    """``reason`` is a ``Loss`` of ``exchange.stream_socket``; ``text`` what the exchange said, for people."""

    user_id: int
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class StreamOddity(Record):
    """Something arrived on a private stream that means nothing to us."""

    kind: str


@dataclass(frozen=True, slots=True)
class StreamsCounted(Record):
    """So many private streams of this process are in this state."""

    state: str
    streams: int


@dataclass(frozen=True, slots=True)
class StreamHinted(Record):
    """A private stream told of a change; ``is_news`` unless it repeats what is known."""

    topic: str
    is_news: bool


@dataclass(frozen=True, slots=True)
class HintServed(Record):
    """``delay_s``: from a wake with hints to the claim that looks after them."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class HomesCounted(Record):
    """This process is the home of so many users."""

    homes: int


@dataclass(frozen=True, slots=True)
class HomesSwept(Record):
    """So many homes were not kept any more by another process, and ended."""

    homes: int


@dataclass(frozen=True, slots=True)
class TickerMeasured(Record):
    """``age_s``: since the ticker was last heard; ``fresh`` of ``wanted`` symbols have a current price."""

    age_s: float
    wanted: int
    fresh: int


@dataclass(frozen=True, slots=True)
class TickerEnded(Record):
    """The ticker's connection is over; ``reason`` is a ``Loss`` of ``exchange.stream_socket``."""

    reason: str
