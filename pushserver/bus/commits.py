"""States that wait to be committed, as the arguments of the scripts that do it, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.bus import keys
from pushserver.events import EncodedUpdate
from pushserver.model import DataType, Freshness

#: A state nobody confirmed for so long is forgotten.
STATE_TTL_S = 86_400


@dataclass(frozen=True, slots=True)
class Commit:
    """One fetched state to be committed.

    ``fence``: of the round that asked for it (``States.open_rounds``); empty for a committer without rounds.
    ``base``: what mark prices will be applied to until the next answer, opaque here; see ``bases``.
    """

    user_id: int
    data_type: DataType
    update: EncodedUpdate
    as_of_ms: int
    fence: str = ""
    base: bytes = b""

    def keys(self) -> list[str]:
        return [
            keys.state(self.user_id, self.data_type),
            keys.update_channel(self.user_id, self.data_type),
            keys.fence(self.user_id),
            keys.bases(self.user_id),
            keys.bases_channel(self.user_id),
        ]

    def arguments(self, now_ms: int) -> list[str | bytes | int]:
        update = self.update
        return [
            update.digest, self.as_of_ms, now_ms, update.head, update.tail, STATE_TTL_S,
            self.fence, self.data_type.value, self.base,
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Marked:
    """A state of one type, computed from mark prices and the answer that has ``base_as_of_ms``."""

    data_type: DataType
    base_as_of_ms: int
    update: EncodedUpdate


@dataclass(frozen=True, slots=True)
class MarkCommit:
    """All states of one user that mark prices of the moment ``as_of_ms`` (the exchange's time) changed."""

    user_id: int
    as_of_ms: int
    states: tuple[Marked, ...]

    def keys(self) -> list[str]:
        names = []
        for state in self.states:
            names += [keys.state(self.user_id, state.data_type), keys.update_channel(self.user_id, state.data_type)]
        return names

    def arguments(self, now_ms: int) -> list[str | bytes | int]:
        arguments: list[str | bytes | int] = [self.as_of_ms, now_ms, STATE_TTL_S]
        for state in self.states:
            arguments += [state.base_as_of_ms, state.update.digest, state.update.head, state.update.tail]
        return arguments


@dataclass(frozen=True, slots=True)
class CommitResult:
    """``result``: published, unchanged or stale. ``listeners``: web workers that were sent it. ``told``: what phones
    were told last of the type's freshness."""

    result: str
    seq: int
    listeners: int
    told: Freshness = Freshness.LIVE
