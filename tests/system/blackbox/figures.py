"""The figures of a run: how late, how soon back, at what cost. Seconds and bytes; pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

from tests.system.blackbox.logs import Entry, Fault, Logs
from tests.system.blackbox.timeline import Holding, Truth, by_client, holdings

#: Changes so long after a fault's end still tell whether it is over.
AFTERMATH_S = 5.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Of ``count`` values; all zero when there are none."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls()
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(len(ordered), ordered[round(last * 0.5)], ordered[round(last * 0.99)], ordered[last])


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What one fault cost. ``reconvergence_s``: from its end (or from a later change) until a client showed what was
    true. ``away_s``: from losing a connection until subscribed again, for connections lost during or right after it.
    """

    fault: Fault
    reconvergence_s: Spread
    away_s: Spread

    def line(self) -> str:
        """For people."""
        lasted_s = self.fault.t_end - self.fault.t_start
        return (
            f"{self.fault.kind} {self.fault.target} ({lasted_s:.1f} s)  "
            f"back to the truth {_text(self.reconvergence_s)}  away {_text(self.away_s)}"
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """``lag_s``: from a change until a client showed it or something newer; ``snapshot_s``: from ``subscribed`` to
    the type's first update."""

    clients: int
    changes: int
    updates: int
    lag_s: Spread
    snapshot_s: Spread
    fetches_per_change: float
    bytes_per_change: float
    faults: Sequence[Aftermath] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"{self.clients} clients, {self.changes} changes, {self.updates} updates",
            f"lag        {_text(self.lag_s)}",
            f"snapshot   {_text(self.snapshot_s)}",
            f"{self.fetches_per_change:.2f} fetches and {self.bytes_per_change:.0f} bytes per change",
        ]
        lines += [aftermath.line() for aftermath in self.faults]
        return lines


def _text(spread: Spread) -> str:
    return f"p50 {spread.p50:.2f} s, p99 {spread.p99:.2f} s, max {spread.max:.2f} s (n {spread.count})"


def measure(logs: Logs) -> Figures:
    """All figures of the run."""
    truth = Truth(logs.changes)
    held = holdings(logs.entries, truth)
    clients = by_client(logs.entries)
    shown = list(_shown(held, truth))
    updates = [entry for entry in logs.entries if entry.event == "update"]
    began = min((holding.wanted_from for holding in held), default=0.0)
    changes = sum(change.t >= began for change in logs.changes)
    fetches = sum(answer.user is not None and answer.t_in >= began for answer in logs.answers)
    absences = [absence for own in clients.values() for absence in _absences(own)]
    return Figures(
        clients=len(clients),
        changes=changes,
        updates=len(updates),
        lag_s=Spread.of([at - since for since, at in shown]),
        snapshot_s=Spread.of([wait_s for own in clients.values() for wait_s in _snapshot_waits(own)]),
        fetches_per_change=fetches / max(1, changes),
        bytes_per_change=sum(entry.size for entry in updates) / max(1, changes),
        faults=tuple(_aftermath(fault, _next_start(fault, logs.faults), shown, absences) for fault in logs.faults),
    )


def lag_within(logs: Logs, from_s: float, until_s: float, users: Container[int] | None = None) -> Spread:
    """From each change within that time until each client (of these users) showed it or something newer."""
    truth = Truth(logs.changes)
    held = [holding for holding in holdings(logs.entries, truth) if users is None or holding.user in users]
    shown = _shown(held, truth)
    return Spread.of([at - since for since, at in shown if from_s <= since < until_s])


def _shown(held: Sequence[Holding], truth: Truth) -> Iterator[tuple[float, float]]:
    """``(since, at)``: a state is true and wanted since, a client showed it or a newer one at."""
    for holding in held:
        story = truth.story(holding.user, holding.type)
        position = 0
        for index, since in enumerate(story.times):
            superseded = index + 1 < len(story.times) and story.times[index + 1] <= holding.wanted_from
            if superseded:
                continue
            while position < len(holding.indexes) and holding.indexes[position] < index:
                position += 1
            if position == len(holding.indexes):
                break
            yield max(since, holding.wanted_from), max(holding.times[position], since)


def _absences(own: Sequence[Entry]) -> Iterator[tuple[float, float]]:
    """``(lost, subscribed again)`` for each connection that the client did not end itself."""
    lost = None
    for entry in own:
        if entry.event == "disconnect":
            lost = entry.t if lost is None else lost
        elif entry.event == "subscribed" and lost is not None:
            yield lost, entry.t
            lost = None


def _snapshot_waits(own: Sequence[Entry]) -> Iterator[float]:
    waiting: dict[str, float] = {}
    for entry in own:
        if entry.event == "subscribed":
            waiting.update(dict.fromkeys(entry.types, entry.t))
        elif entry.event == "disconnect":
            waiting.clear()
        elif entry.event == "update" and entry.type in waiting:
            yield entry.t - waiting.pop(entry.type)


def _next_start(fault: Fault, faults: Sequence[Fault]) -> float:
    return min((other.t_start for other in faults if other.t_start > fault.t_end), default=float("inf"))


def _aftermath(
    fault: Fault, until: float, shown: Sequence[tuple[float, float]], absences: Sequence[tuple[float, float]]
) -> Aftermath:
    """``until``: when the next fault began; what was true only after this one's end and shown after that is its."""
    last = min(fault.t_end + AFTERMATH_S, until)
    touched = [
        (since, at)
        for since, at in shown
        if at > fault.t_start and (since <= fault.t_end or (since <= last and at <= until))
    ]  # fmt: skip
    return Aftermath(
        fault,
        Spread.of([max(0.0, at - max(since, fault.t_end)) for since, at in touched]),
        Spread.of([back - lost for lost, back in absences if fault.t_start <= lost <= last]),
    )
