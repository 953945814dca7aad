"""What only the course of time shows: a client that never came to the truth, or was not told that it could not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.system.blackbox.logs import Checkpoint, Entry, Fault
from tests.system.blackbox.rules import Finding, Rules
from tests.system.blackbox.timeline import Holding, Truth

LIVE = "live"


@dataclass(slots=True)
class Standing:
    """How a client stands: which types it wants, what it was told of their freshness, and since when it is
    subscribed to them on its present connection."""

    user: int
    connected: bool = False
    wanted: set[str] = field(default_factory=set)
    told: dict[str, str] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Go on by one entry, in the order in which they happened."""
        if entry.event == "connect":
            self.connected, self.told, self.since = True, {}, {}
        elif entry.event == "disconnect":
            self.connected, self.since = False, {}
        elif entry.event == "leave":
            self.connected, self.wanted, self.told, self.since = False, set(), {}, {}
        elif entry.event == "subscribed":
            self.wanted.update(entry.types)
            self.since.update({name: self.since.get(name, entry.t) for name in entry.types})
        elif entry.event == "unsubscribed":
            self.wanted.difference_update(entry.types)
        elif entry.event == "status":
            self.told[entry.type] = entry.state


def standing(own: Sequence[Entry], t: float) -> Standing:
    """The standing of one client at ``t``, from its entries."""
    now = Standing(own[0].user)
    for entry in own:
        if entry.t > t:
            break
        now.take(entry)
    return now


def missing_final(
    clients: dict[int, list[Entry]], held: Sequence[Holding], truth: Truth, checkpoints: Sequence[Checkpoint]
) -> Iterator[Finding]:
    """G3: at each checkpoint every client that wants a type shows what the exchange has."""
    by_key = {(holding.client, holding.type): holding for holding in held}
    for checkpoint in checkpoints:
        t = checkpoint.t_deadline
        for client, own in clients.items():
            now = standing(own, t)
            for name in sorted(now.wanted):
                story = truth.story(now.user, name)
                true = story.index_at(t)
                if true < 0 or story.digests[true] is None:
                    continue
                shown = by_key[client, name].index_at(t)
                if shown != true or not now.connected:
                    how = f"shows state {shown} of {true}" if now.connected else "is not connected"
                    yield Finding("missing_final", t, f"client {client} of user {now.user} {how} of {name}")


def silent_stale(
    clients: dict[int, list[Entry]], faults: Sequence[Fault], checkpoints: Sequence[Checkpoint], rules: Rules
) -> Iterator[Finding]:
    """G7: whoever cannot get the truth is told so in time, and told again when it is over."""
    for fault in faults:
        for name in sorted(fault.blocks):
            yield from _not_told(clients, fault, name, rules)
    for checkpoint in checkpoints:
        t = checkpoint.t_deadline
        blocked = {name for fault in faults if fault.t_start <= t < fault.t_end for name in fault.blocks}
        for client, own in clients.items():
            now = standing(own, t)
            for name in sorted(now.wanted - blocked):
                if now.told.get(name, LIVE) != LIVE:
                    yield Finding("silent_stale", t, f"client {client}: {name} is still told {now.told[name]}")


def _not_told(clients: dict[int, list[Entry]], fault: Fault, name: str, rules: Rules) -> Iterator[Finding]:
    patience_s = rules.intervals_s[name] + rules.status_after_s + rules.slack_s
    for client, own in clients.items():
        if fault.users is not None and own[0].user not in fault.users:
            continue
        start = standing(own, fault.t_start)
        since = max(fault.t_start, start.since.get(name, fault.t_start))
        t = since + patience_s
        now = standing(own, t)
        stayed = now.connected and name in now.since and now.since[name] <= since
        if t < fault.t_end and stayed and now.told.get(name, LIVE) == LIVE:
            yield Finding("silent_stale", t, f"client {client} was not told of {name} during {fault.kind}")
