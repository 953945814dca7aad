"""Exchange keys at hand: read from the database rarely, forgotten the moment they change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.model import Credentials

FRESH_S = 60.0
#: With the database away, a known key goes on serving for so long.
USABLE_S = 600.0


class KeyStore(Protocol):
    def credentials(self, user_id: int) -> Credentials | None:
        """None for a user without a key. Raises CredentialsUnreadable, StoreUnavailable."""
        ...


@dataclass(slots=True)
class _Entry:
    credentials: Credentials | None
    read_s: float


class CredentialsCache:
    """Keys of this process. ``forget`` is called for every change that is signalled."""

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._changes: dict[int, int] = {}

    def get(self, user_id: int) -> Credentials | None:
        """The user's key, at most a minute old (ten when the database is away).

        Raises:
            CredentialsUnreadable: it is stored, but cannot be decrypted.
            StoreUnavailable: the database is away and nothing usable is known.
        """
        entry = self._entries.get(user_id)
        now = self._clock.monotonic_s()
        if entry is not None and now - entry.read_s < FRESH_S:
            return entry.credentials
        try:
            return self.read(user_id)
        except StoreUnavailable:
            if entry is not None and now - entry.read_s < USABLE_S:
                return entry.credentials
            raise

    def read(self, user_id: int) -> Credentials | None:
        """As ``get``, but from the database."""
        changes = self._changes.get(user_id, 0)
        credentials = self._store.credentials(user_id)
        if self._changes.get(user_id, 0) == changes:
            # A change signalled while we were reading may or may not be in what we read: do not keep it.
            self._entries[user_id] = _Entry(credentials, self._clock.monotonic_s())
        return credentials

    def is_current(self, user_id: int, version: int) -> bool:
        """Whether an answer fetched with this version still belongs to the user's key, as far as is known here."""
        entry = self._entries.get(user_id)
        return entry is not None and entry.credentials is not None and entry.credentials.version == version

    def versions(self) -> dict[int, int]:
        """Users whose key was lately in use here, and its version."""
        return {
            user_id: entry.credentials.version
            for user_id, entry in self._entries.items()
            if entry.credentials is not None
        }

    def forget(self, user_id: int) -> None:
        self._entries.pop(user_id, None)
        self._changes[user_id] = self._changes.get(user_id, 0) + 1

    def forget_old(self) -> None:
        """Keep no key longer than it could be used."""
        now = self._clock.monotonic_s()
        old = [user_id for user_id, entry in self._entries.items() if now - entry.read_s >= USABLE_S]
        for user_id in old:
            del self._entries[user_id]
