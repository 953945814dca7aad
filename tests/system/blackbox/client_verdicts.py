"""What a single client can be wronged by, event after event: invented, foreign, regressed, repeated, unsolicited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.system.blackbox.logs import Entry, Fault
from tests.system.blackbox.rules import Finding, Rules
from tests.system.blackbox.timeline import Truth


@dataclass(slots=True)
class Shown:
    """The last true state of one type that a client was given."""

    seq: int
    as_of: int
    index: int
    digest: str
    conn: int


@dataclass(slots=True)
class ClientJudge:
    """Walks the entries of one client, oldest first."""

    truth: Truth
    rules: Rules
    faults: Sequence[Fault]
    _subscribed: set[str] = field(default_factory=set)
    #: Types that were asked for since their last update: they may come again.
    _asked: set[str] = field(default_factory=set)
    _shown: dict[str, Shown] = field(default_factory=dict)

    def judge(self, entries: Sequence[Entry]) -> Iterator[Finding]:
        for entry in entries:
            if entry.event in ("connect", "disconnect", "leave"):
                self._subscribed.clear()
            elif entry.event == "subscribed":
                self._subscribed.update(entry.types)
            elif entry.event == "unsubscribed":
                self._subscribed.difference_update(entry.types)
            elif entry.event in ("subscribe", "resync"):
                self._asked.update(entry.types)
            elif entry.event == "update":
                wrong = self._wrong(entry)
                if wrong is not None:
                    verdict, why = wrong
                    text = f"client {entry.client} of user {entry.user}, connection {entry.conn}, {entry.type}: {why}"
                    yield Finding(verdict, entry.t, text)

    def _wrong(self, entry: Entry) -> tuple[str, str] | None:
        if entry.type not in self._subscribed:
            return "unsolicited", f"seq {entry.seq} came without a subscription"
        if entry.told_user is not None and entry.told_user != entry.user:
            return "foreign", f"seq {entry.seq} is addressed to user {entry.told_user}"
        before = self._shown.get(entry.type)
        story = self.truth.story(entry.user, entry.type)
        index = story.index_shown(entry.digest, entry.t, before.index if before else 0)
        if index is None:
            owners = self.truth.users_of(entry.type, entry.digest)
            if owners - {entry.user}:
                return "foreign", f"seq {entry.seq} shows the state of user {min(owners)}"
            return "invented", f"seq {entry.seq} shows what the exchange never held"
        asked = entry.type in self._asked
        self._asked.discard(entry.type)
        self._shown[entry.type] = Shown(entry.seq, entry.as_of, index, entry.digest, entry.conn)
        return None if before is None else self._against(before, entry, index, asked)

    def _against(self, before: Shown, entry: Entry, index: int, asked: bool) -> tuple[str, str] | None:
        if entry.seq < before.seq:
            return "regressed", f"seq {entry.seq} after {before.seq}"
        if entry.as_of < before.as_of:
            return "regressed", f"as_of {entry.as_of} after {before.as_of}"
        if index < before.index:
            return "regressed", f"state {index} after {before.index}"
        if entry.seq == before.seq and entry.digest != before.digest:
            return "regressed", f"seq {entry.seq} with two different states"
        if entry.conn != before.conn or asked:
            return None
        if entry.seq == before.seq:
            return "repeated", f"seq {entry.seq} came twice"
        if entry.digest == before.digest and not self._after_a_gap(entry.t):
            return "repeated", f"seq {entry.seq} brought the content of {before.seq} again"
        return None

    def _after_a_gap(self, t: float) -> bool:
        memory_s = self.rules.fault_memory_s
        return any(fault.gap and fault.t_start <= t <= fault.t_end + memory_s for fault in self.faults)
