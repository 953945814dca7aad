"""What to ask the exchange in one round of one user, decided answer by answer; pure, told the time.

Requests are scarce, so wallet and closed pnl are read out of turn only when something was seen to change.
"""

from __future__ import annotations

from decimal import Decimal

from pushserver.model import DataType
from pushserver.workers.memo import Memo, Resource, ResourceMemo
from pushserver.workers.timing import HINT_AGAIN_S, NEEDS, Moment, Timing

TELLING_ORDER = (Resource.ORDERS, Resource.WALLET, Resource.POSITIONS, Resource.CLOSED_PNL)


class RoundPlan:
    """Which resource to read next in one round, decided answer by answer.

    Figures that go into one ``pnl`` must belong together. So when something changed, wallet and closed pnl are read
    between two readings of the position list that show the same holdings; with changes in between, once more.
    The very first round of a user has nothing to compare with and does without the second reading.
    ``realized`` and ``today`` are the newest figures known, also when they were read in an earlier round.
    """

    #: So many times the holdings may change under our hands before pnl is left to the next round.
    MOST_ATTEMPTS = 3

    def __init__(
        self,
        memo: Memo,
        watched: frozenset[DataType],
        moment: Moment,
        timing: Timing,
        hinted: frozenset[Resource] = frozenset(),
    ) -> None:
        self._memo = memo
        self._watched = watched
        self._moment = moment
        self._hinted = hinted
        self._seen: dict[Resource, str] = {}
        self._due = timing.due_types(memo, watched, moment)
        self.pnl_wanted = DataType.PNL in self._due
        self._traces = {Resource.POSITIONS: memo.positions_trace, Resource.WALLET: memo.wallet_trace}
        self._traces[Resource.CLOSED_PNL] = memo.closed_trace if memo.today_date == moment.date else None
        self.realized = None if memo.realized is None else Decimal(memo.realized)
        self.today = None if memo.today is None or memo.today_date != moment.date else Decimal(memo.today)
        self._pending: set[Resource] = {NEEDS[data_type][0] for data_type in self._due}
        if self.pnl_wanted:
            if memo.realized is None or timing.wallet_is_due(memo, watched, moment):
                self._pending.add(Resource.WALLET)
            if timing.closed_is_due(memo, moment):
                self._pending.add(Resource.CLOSED_PNL)
        self._read: set[Resource] = set()
        self._failed: set[Resource] = set()
        self._moving = False
        self._verify = False
        self._positions_are_first = True
        self._attempts = 1
        self.settled = True

    def saw(self, resource: Resource, trace: str) -> None:
        """What a resource shows, as a text that differs when there is news of what a hint may have announced."""
        self._seen[resource] = trace

    def next_requests(self) -> tuple[Resource, ...]:
        """What to read now, at the same time; empty when the round is complete.

        The answers are to be told in this order. It takes a wallet that came with a position list for the older of
        the two, so that one which was read before a change is read again.
        """
        wave = self._pending - {Resource.CLOSED_PNL} if Resource.POSITIONS in self._pending else self._pending
        if not wave and self._moving and self._verify and self.pnl_possible():
            return (Resource.POSITIONS,)
        return tuple(resource for resource in TELLING_ORDER if resource in wave)

    def pnl_possible(self) -> bool:
        return self.pnl_wanted and not self._failed & set(NEEDS[DataType.PNL])

    def positions_read(self, trace: str) -> None:
        """``trace`` covers what is held and realised, not what the market makes of it."""
        before, self._traces[Resource.POSITIONS] = self._traces[Resource.POSITIONS], trace
        self._pending.discard(Resource.POSITIONS)
        verified = Resource.POSITIONS in self._read and self._verify
        self._read.add(Resource.POSITIONS)
        self._verify = False
        if before == trace:
            return
        if verified:
            self._attempts += 1
            if self._attempts > self.MOST_ATTEMPTS:
                self.settled = False
                return
        if before is not None:
            self._moving = True
        if self.pnl_wanted:
            if before is not None or Resource.WALLET not in self._read:
                self._want(Resource.WALLET)
            self._want(Resource.CLOSED_PNL)
        elif DataType.BALANCE in self._watched and before is not None:
            self._want(Resource.WALLET)

    def wallet_read(self, realized: Decimal | None, trace: str | None) -> None:
        """``realized`` and its trace None: the wallet came, but not the figure that pnl needs of it."""
        before, self._traces[Resource.WALLET] = self._traces[Resource.WALLET], trace
        self.realized = realized
        self._pending.discard(Resource.WALLET)
        self._read.add(Resource.WALLET)
        self._verify = True
        if before is None or trace is None or before == trace:
            return
        self._moving = True
        if self.pnl_wanted_now():
            if Resource.POSITIONS not in self._read:
                self._want(Resource.POSITIONS, Resource.WALLET)
            self._want(Resource.CLOSED_PNL)

    def pnl_wanted_now(self) -> bool:
        """A realised figure that moved between two turns of pnl is reason enough to refresh pnl at once."""
        row = self._memo.types[DataType.PNL]
        main = self._memo.resources[Resource.POSITIONS]
        if DataType.PNL in self._watched and max(row.retry_ms, main.retry_ms) <= self._moment.now_ms:
            self.pnl_wanted = True
        return self.pnl_possible()

    def closed_read(self, today: Decimal | None, trace: str | None) -> None:
        """``today`` and its trace None: the rows came, but could not be summed up."""
        before, self._traces[Resource.CLOSED_PNL] = self._traces[Resource.CLOSED_PNL], trace
        self.today = today
        self._pending.discard(Resource.CLOSED_PNL)
        self._read.add(Resource.CLOSED_PNL)
        self._verify = True
        if before is not None and trace is not None and before != trace:
            self._moving = True

    def orders_read(self) -> None:
        self._pending.discard(Resource.ORDERS)
        self._read.add(Resource.ORDERS)

    def failed(self, resource: Resource) -> None:
        """Not read now; whatever was only wanted for pnl is not worth a request any more."""
        self._pending.discard(resource)
        self._failed.add(resource)
        if resource in NEEDS[DataType.PNL]:
            self._pending.discard(Resource.CLOSED_PNL)
            if resource is Resource.POSITIONS and DataType.BALANCE not in self._due:
                self._pending.discard(Resource.WALLET)

    def served(self) -> frozenset[DataType]:
        """Watched types whose parts were all read, belong together and may be committed."""
        whole = {
            data_type
            for data_type in self._watched - {DataType.PNL}
            if NEEDS[data_type][0] in self._read
        }  # fmt: skip
        if (
            self.pnl_possible()
            and self.settled
            and Resource.POSITIONS in self._read
            and not (self._moving and self._verify)
            and self.realized is not None
            and self.today is not None
        ):
            whole.add(DataType.PNL)
        return frozenset(whole)

    def read(self) -> frozenset[Resource]:
        return frozenset(self._read)

    def remember(self) -> None:
        """Write what was learnt into the memo, with what is owed to the next round."""
        memo, changed = self._memo, self._moving or not self.settled
        complete = DataType.PNL in self.served()
        for resource in self._read - self._failed:
            memo.resources[resource] = self._remembered(resource)
        if Resource.POSITIONS in self._read:
            memo.positions_trace = self._traces[Resource.POSITIONS]
        if Resource.WALLET in self._read:
            memo.realized = None if self.realized is None else str(self.realized)
            memo.wallet_trace = self._traces[Resource.WALLET]
        counted = Resource.CLOSED_PNL in self._read
        if counted and self.today is not None:
            memo.today, memo.today_date = str(self.today), self._moment.date
            memo.closed_trace = self._traces[Resource.CLOSED_PNL]
        if changed:
            # Closed rows appear a moment after the fill: one more count next time, two if this one is no use.
            memo.recounts = 1 if counted and complete else 2
            memo.wallet_owed = not complete and self._wallet_is_missing()
        else:
            memo.recounts = max(0, memo.recounts - 1) if counted else memo.recounts
            memo.wallet_owed = memo.wallet_owed and Resource.WALLET not in self._read

    def _remembered(self, resource: Resource) -> ResourceMemo:
        """A hint that nothing new was seen of stays open a little: lists may lag behind the stream."""
        seen = self._seen.get(resource, "")
        shows_nothing_new = resource in self._hinted and seen == self._memo.resources[resource].seen
        wanted_ms = self._moment.now_ms + round(HINT_AGAIN_S * 1000) if shows_nothing_new else 0
        return ResourceMemo(fetched_ms=self._moment.now_ms, wanted_ms=wanted_ms, seen=seen)

    def _wallet_is_missing(self) -> bool:
        return Resource.WALLET in self._failed or Resource.WALLET not in self._read or not self.settled

    def _want(self, *resources: Resource) -> None:
        for resource in resources:
            blocked = self._memo.resources[resource].retry_ms > self._moment.now_ms
            if blocked or resource in self._failed:
                self.failed(resource)
            else:
                self._pending.add(resource)
