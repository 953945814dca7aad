"""What the home of one user knows of its figures: their bases, what was committed last, and whether that is enough
to leave the exchange alone; pure, told the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from pushserver.bus.homes import Live
from pushserver.bus.states import CommitResult, Marked
from pushserver.events import encode_update
from pushserver.model import DataType
from pushserver.workers.mark_bases import base_from_bytes
from pushserver.workers.marking import Book

#: A new symbol takes a moment to be told, a connection to be made anew: only then is the user polled.
PATIENCE_S = 2.0
#: So many states in a row that nobody was sent mean that nobody listens to the type.
UNHEARD_STATES = 3


@dataclass(slots=True)
class KeptFigures:
    """``must_read``: bases may have been missed. ``refused``: something else was fetched than what we know.

    ``marks`` are those of the last states, None when they must be made anew; ``digests`` tell what was committed.
    """

    user_id: int
    book: Book = field(default_factory=Book)
    must_read: bool = True
    refused: bool = False
    marks: Mapping[str, Decimal] | None = None
    _digests: dict[DataType, str] = field(default_factory=dict)
    _unheard: Counter[DataType] = field(default_factory=Counter)
    _doubt_s: float | None = None

    def take(self, data_type: DataType, raw: bytes) -> None:
        """A base was stored; one that is no newer or damaged changes nothing."""
        base = base_from_bytes(data_type, raw)
        book = self.book if base is None else self.book.replaced(base)
        if book is not self.book:
            self.book, self.marks, self.refused = book, None, False
            self._digests.pop(data_type, None)
            self._unheard.pop(data_type, None)

    def states_at(self, marks: Mapping[str, Decimal], as_of_ms: int, now_ms: int) -> tuple[Marked, ...]:
        """What the marks change; ``as_of_ms`` is the exchange's time of them, ``now_ms`` ours.

        Nothing where the same marks were asked for last.
        """
        if marks == self.marks or not marks:
            return ()
        self.marks, states = marks, []
        for data_type in self.book.types():
            base = self.book.base(data_type)
            if base is None or as_of_ms < base.as_of_ms:
                # The answer is newer than these prices.
                self.marks = None
                continue
            figures = self.book.figures(data_type, marks)
            update = encode_update(data_type, self.user_id, figures, as_of_ms, now_ms)
            if update.digest != self._digests.get(data_type):
                states.append(Marked(data_type, base.as_of_ms, update))
        return tuple(states)

    def learn(self, state: Marked, done: CommitResult) -> bool:
        """What became of a state; False when nobody listens to the type any more, so that it is left alone."""
        data_type = state.data_type
        if done.result == "stale":
            # Something else was fetched meanwhile: its base is on the way, or was missed.
            self.must_read, self.refused, self.marks = True, True, None
            return True
        self.refused = False
        base = self.book.base(data_type)
        if base is None or base.as_of_ms != state.base_as_of_ms:
            return True
        self._digests[data_type] = state.update.digest
        if done.result == "published":
            self._unheard[data_type] = 0 if done.listeners else self._unheard[data_type] + 1
        if self._unheard[data_type] < UNHEARD_STATES:
            return True
        self.book = self.book.without(data_type)
        return False

    def live(self, is_fresh: bool, now_s: float) -> Live | None:
        """What is kept fresh of MARKS and BALANCE; None while it is not certain enough to say anything new.

        ``is_fresh``: all marks follow the market.
        """
        if is_fresh and not self.must_read and not self.refused:
            self._doubt_s = None
        else:
            self._doubt_s = now_s if self._doubt_s is None else self._doubt_s
            if now_s - self._doubt_s < PATIENCE_S and self.book.is_complete:
                return None
        live = Live(0)
        if self._doubt_s is None:
            live |= Live.MARKS if self.book.is_complete else Live(0)
            live |= Live.BALANCE if self.book.is_whole else Live(0)
        return live

    @property
    def is_at_the_market(self) -> bool:
        return self._doubt_s is None and bool(self.book.symbols)
