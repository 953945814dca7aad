"""What is known of a run while it goes on: who is still behind the truth. Fed piece by piece, so looking is cheap."""

from __future__ import annotations

from collections.abc import Iterable

from tests.system.blackbox.convergence_verdicts import LIVE, Standing
from tests.system.blackbox.logs import Change, Entry
from tests.system.blackbox.timeline import Truth


class Progress:
    """``take_changes`` and ``take_entries`` get everything once, in order."""

    def __init__(self) -> None:
        self.truth = Truth(())
        self.clients: dict[int, Standing] = {}
        self._last: dict[tuple[int, str], tuple[str, float]] = {}

    def take_changes(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.truth.take(change)

    def take_entries(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.clients.setdefault(entry.client, Standing(entry.user)).take(entry)
            if entry.event == "update":
                self._last[entry.client, entry.type] = (entry.digest, entry.t)

    def subscribed(self) -> int:
        """Clients that are connected and subscribed to all they want."""
        return sum(c.connected and bool(c.wanted) and c.wanted <= c.since.keys() for c in self.clients.values())

    def behind(self, t: float) -> list[str]:
        """The clients that do not yet show what was true at ``t`` or something newer, with what they lack."""
        return [
            f"client {number} of user {client.user}: {name}" + ("" if client.connected else " (not connected)")
            for number, client in self.clients.items()
            for name in client.wanted
            if not (client.connected and name in client.since and self._shows(number, client.user, name, t))
        ]

    def told_late(self) -> list[str]:
        """The clients whose last word on a type's freshness is not that it is live."""
        return [
            f"client {number}: {name} is told {client.told[name]}"
            for number, client in self.clients.items()
            for name in client.wanted
            if client.told.get(name, LIVE) != LIVE
        ]

    def _shows(self, number: int, user: int, name: str, t: float) -> bool:
        story = self.truth.story(user, name)
        target = story.index_at(t)
        if target < 0 or story.digests[target] is None:
            return True
        digest, at = self._last.get((number, name), ("", 0.0))
        shown = story.index_shown(digest, at, target)
        return shown is not None and shown >= target
