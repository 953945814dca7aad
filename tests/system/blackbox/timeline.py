"""Truth and client logs put in order: what was true when, and what each client showed when."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.system.blackbox.logs import TYPES, Change, Entry

#: A change is logged by the exchange in the instant in which it happens; clocks of two processes read a little apart.
SAME_MOMENT_S = 0.005


@dataclass(slots=True)
class Story:
    """The different states of one user's type, oldest first: state ``i`` was true from ``times[i]`` on."""

    times: list[float] = field(default_factory=list)
    digests: list[str | None] = field(default_factory=list)
    by_digest: dict[str, list[int]] = field(default_factory=dict)

    def add(self, t: float, digest: str | None) -> None:
        if self.digests and self.digests[-1] == digest:
            return
        if digest is not None:
            self.by_digest.setdefault(digest, []).append(len(self.digests))
        self.times.append(t)
        self.digests.append(digest)

    def index_at(self, t: float) -> int:
        """The state that was true at ``t``; -1 before the first."""
        return bisect.bisect_right(self.times, t) - 1

    def index_shown(self, digest: str, t: float, at_least: int) -> int | None:
        """Which state a client showed at ``t`` that showed ``at_least`` before; None when it never was true.

        Content that was true several times counts as the earliest one that is no step back.
        """
        known = [i for i in self.by_digest.get(digest, ()) if self.times[i] <= t + SAME_MOMENT_S]
        if not known:
            return None
        return next((i for i in known if i >= at_least), known[-1])


class Truth:
    """Stories by user and type."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self._stories: dict[tuple[int, str], Story] = {}
        self._users_of: dict[tuple[str, str], set[int]] = {}
        for change in sorted(changes, key=lambda change: change.t):
            self.take(change)

    def take(self, change: Change) -> None:
        """Go on by one change, in the order in which they happened."""
        for name in TYPES:
            digest = change.digests[name]
            self.story(change.user, name).add(change.t, digest)
            if digest is not None:
                self._users_of.setdefault((name, digest), set()).add(change.user)

    def story(self, user: int, name: str) -> Story:
        return self._stories.setdefault((user, name), Story())

    def users_of(self, name: str, digest: str) -> set[int]:
        """Whose state of that type this once was."""
        return self._users_of.get((name, digest), set())


@dataclass(slots=True)
class Holding:
    """What one client showed of one type: state ``indexes[i]`` from ``times[i]`` on; false states are left out."""

    client: int
    user: int
    type: str
    wanted_from: float
    times: list[float] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)

    def index_at(self, t: float) -> int:
        """-1 when nothing was shown yet."""
        position = bisect.bisect_right(self.times, t) - 1
        return self.indexes[position] if position >= 0 else -1


def by_client(entries: Sequence[Entry]) -> dict[int, list[Entry]]:
    """Each client's entries in the order in which they happened."""
    clients: dict[int, list[Entry]] = {}
    for entry in entries:
        clients.setdefault(entry.client, []).append(entry)
    for own in clients.values():
        own.sort(key=lambda entry: entry.t)
    return clients


def holdings(entries: Sequence[Entry], truth: Truth) -> list[Holding]:
    """One for each client and type that was ever subscribed."""
    found: dict[tuple[int, str], Holding] = {}
    for client, own in by_client(entries).items():
        for entry in own:
            if entry.event == "subscribed":
                for name in entry.types:
                    found.setdefault((client, name), Holding(client, entry.user, name, entry.t))
            elif entry.event == "update":
                holding = found.get((client, entry.type))
                if holding is None:
                    continue
                before = holding.indexes[-1] if holding.indexes else 0
                index = truth.story(entry.user, entry.type).index_shown(entry.digest, entry.t, before)
                if index is not None:
                    holding.times.append(entry.t)
                    holding.indexes.append(index)
    return list(found.values())
