"""Users' exchange keys: encrypted at rest, decrypted for a fetch, shown masked."""

from __future__ import annotations

import json
import re
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from pushserver.accounts.database import Database
from pushserver.accounts.models import ExchangeKeyRow, UserRow, existing_user
from pushserver.accounts.records import KeySummary
from pushserver.accounts.vault import Vault
from pushserver.clock import Clock
from pushserver.errors import AccountRefused, CredentialsUnreadable
from pushserver.model import Credentials, KeyFacts, Secret, masked

#: Printable ASCII without blanks: what exchanges hand out, and what may stand in a request header.
KEY_PATTERN = re.compile(r"[!-~]{1,128}")


class ExchangeKeys:
    """All methods raise StoreUnavailable."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock

    def credentials(self, user_id: int) -> Credentials | None:
        """The exchange key to fetch with; None for an unknown or disabled user and for one without a key.

        Raises:
            CredentialsUnreadable: no key of ours decrypts it, or the row is damaged.
        """

        def read(session: Session) -> ExchangeKeyRow | None:
            return session.scalar(
                select(ExchangeKeyRow)
                .join(UserRow, UserRow.id == ExchangeKeyRow.user_id)
                .where(UserRow.id == user_id, UserRow.disabled.is_(False))
            )

        row = self._database.read(read)
        return None if row is None else Credentials(row.api_key, self._vault.decrypt(row.secret), row.version)

    def set_key(self, user_id: int, api_key: str, api_secret: Secret, facts: KeyFacts | None = None) -> KeySummary:
        """Store or replace the user's exchange key; its ``version`` differs from every earlier one.

        Raises:
            AccountRefused: unknown_user, or key_invalid (not 1 to 128 printable ASCII characters each).
        """
        check_key(api_key, api_secret)
        facts = facts or KeyFacts()
        encrypted = self._vault.encrypt(api_secret)

        def write(session: Session) -> KeySummary:
            existing_user(session, user_id)
            row = session.get(ExchangeKeyRow, user_id)
            # Milliseconds grow past a deleted key's version too; equal ones cannot follow each other.
            version = max(self._clock.wall_ms(), row.version + 1 if row else 0)
            row = row or ExchangeKeyRow(user_id=user_id)
            row.api_key, row.secret, row.version = api_key, encrypted, version
            row.read_only, row.expires_s = facts.read_only, facts.expires_s
            row.permissions, row.stored_s = json.dumps(facts.permissions), self._clock.wall_ms() // 1000
            session.add(row)
            return _summary(row)

        return self._database.write(write)

    def set_key_facts(self, user_id: int, version: int, facts: KeyFacts) -> KeySummary | None:
        """Add what the exchange says to a key that is stored already; as it is now, None without one.

        A key of another ``version`` stays untouched: the facts are about one that was replaced meanwhile. The
        version stays, because the key does.
        """

        def write(session: Session) -> KeySummary | None:
            row = session.get(ExchangeKeyRow, user_id)
            if row is None:
                return None
            if row.version == version:
                row.read_only, row.expires_s = facts.read_only, facts.expires_s
                row.permissions = json.dumps(facts.permissions)
            return _summary(row)

        return self._database.write(write)

    def delete_key(self, user_id: int) -> bool:
        """Whether there was one."""

        def write(session: Session) -> bool:
            row = session.get(ExchangeKeyRow, user_id)
            if row is not None:
                session.delete(row)
            return row is not None

        return self._database.write(write)

    def key_summary(self, user_id: int) -> KeySummary | None:
        """None without a key."""

        def read(session: Session) -> KeySummary | None:
            row = session.get(ExchangeKeyRow, user_id)
            return None if row is None else _summary(row)

        return self._database.read(read)

    def reencrypt_keys(self) -> tuple[int, list[int]]:
        """Encrypt every secret with the first of ``CREDENTIALS_KEYS``.

        Each row is done in a transaction of its own and only if it needs it, so the work may be interrupted
        and repeated. Returns how many were changed, and the user ids whose secret cannot be decrypted.
        """
        user_ids = self._database.read(lambda session: list(session.scalars(select(ExchangeKeyRow.user_id))))
        changed, unreadable = 0, []
        for user_id in sorted(user_ids):
            try:
                changed += self._database.write(partial(self._reencrypt, user_id))
            except CredentialsUnreadable:
                unreadable.append(user_id)
        return changed, unreadable

    def _reencrypt(self, user_id: int, session: Session) -> bool:
        row = session.get(ExchangeKeyRow, user_id)
        if row is None or self._vault.is_current(row.secret):
            return False
        # The version stays: it is the same key, and no push worker need forget what it holds.
        row.secret = self._vault.encrypt(self._vault.decrypt(row.secret))
        return True


def check_key(api_key: str, api_secret: Secret) -> None:
    """Raises AccountRefused: key_invalid, for what no exchange hands out."""
    if not KEY_PATTERN.fullmatch(api_key) or not KEY_PATTERN.fullmatch(api_secret.reveal()):
        raise AccountRefused("an API key and secret have 1 to 128 printable characters", code="key_invalid")


def _summary(row: ExchangeKeyRow) -> KeySummary:
    return KeySummary(
        api_key=masked(row.api_key),
        version=row.version,
        facts=KeyFacts(row.read_only, tuple(json.loads(row.permissions)), row.expires_s),
        stored_s=row.stored_s,
    )
