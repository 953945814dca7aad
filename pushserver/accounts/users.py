"""Users and what takes their tokens' force away."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pushserver.accounts.database import Database
from pushserver.accounts.models import REMOVED_PREFIX, ExchangeKeyRow, RevokedTokenRow, UserRow, existing_user
from pushserver.accounts.passwords import Passwords
from pushserver.accounts.records import User
from pushserver.clock import Clock
from pushserver.errors import AccountRefused
from pushserver.model import MAX_USER_ID, AccessRules, Secret, masked

T = TypeVar("T")

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
#: No password has this hash: a removed user cannot log in.
NO_PASSWORD = "!"  # noqa: S105 - it is the absence of one
#: Two processes may pick the same free id at once; the loser picks again.
ID_ATTEMPTS = 20


class Users:
    """All methods raise StoreUnavailable."""

    def __init__(self, database: Database, passwords: Passwords, clock: Clock) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock

    def add_user(self, name: str, password: Secret, user_id: int | None = None) -> User:
        """Raises AccountRefused: name_invalid, name_taken, id_invalid, id_taken or password_invalid."""
        if not NAME_PATTERN.fullmatch(name):
            raise AccountRefused(
                "a user name has 1 to 64 letters, digits and . _ @ + -, the first a letter or digit",
                code="name_invalid",
            )
        if user_id is not None and not 1 <= user_id <= MAX_USER_ID:
            raise AccountRefused("a user id is a whole number from 1 to 2^63 - 1", code="id_invalid")
        password_hash = self._passwords.hash(password)
        for _ in range(ID_ATTEMPTS):
            try:
                return self._database.write(lambda session: self._insert(session, name, password_hash, user_id))
            except IntegrityError:
                # Somebody else took the id or the name between our look and our insert: look again.
                continue
        raise AccountRefused("no free user id was found", code="id_taken")

    def _insert(self, session: Session, name: str, password_hash: str, user_id: int | None) -> User:
        if session.scalar(select(UserRow.id).where(UserRow.name == name)) is not None:
            raise AccountRefused(f"there is a user {name} already", code="name_taken")
        if user_id is None:
            user_id = (session.scalar(select(func.max(UserRow.id))) or 0) + 1
            if user_id > MAX_USER_ID:
                raise AccountRefused("the highest user id is in use; choose one", code="id_taken")
        elif session.get(UserRow, user_id) is not None:
            raise AccountRefused(f"user id {user_id} is in use", code="id_taken")
        row = UserRow(
            id=user_id,
            name=name,
            password_hash=password_hash,
            disabled=False,
            tokens_not_before_s=0,
            created_s=self._now_s(),
        )
        session.add(row)
        session.flush()
        return _user(row)

    def users(self) -> list[User]:
        """All users that were not removed, by id."""

        def read(session: Session) -> list[User]:
            rows = session.execute(
                select(UserRow, ExchangeKeyRow.api_key)
                .outerjoin(ExchangeKeyRow, ExchangeKeyRow.user_id == UserRow.id)
                .where(UserRow.name.not_like(f"{REMOVED_PREFIX}%"))
                .order_by(UserRow.id)
            )
            return [_user(row, api_key) for row, api_key in rows]

        return self._database.read(read)

    def user(self, name: str) -> User:
        """Raises AccountRefused: unknown_user."""
        return self._database.read(lambda session: _user(_named(session, name)))

    def authenticate(self, name: str, password: Secret) -> User | None:
        """The user whose name and password these are; None, after equal work, for everybody else.

        A disabled user is told nothing more than a stranger.

        Raises:
            AccountRefused: password_invalid, for what cannot be anybody's password.
            OverCapacity: too many logins at the moment.
        """

        def read(session: Session) -> UserRow | None:
            return session.scalar(select(UserRow).where(UserRow.name == name))

        # A name outside the pattern is looked up like any other, so that it takes as long; the driver refuses NUL.
        row = self._database.read(read) if name.isprintable() and len(name) <= 1024 else None
        usable = None if row is None or row.password_hash == NO_PASSWORD else row.password_hash
        if not self._passwords.verify(usable, password) or row is None or row.disabled:
            return None
        if self._passwords.outdated(row.password_hash):
            self._set_password_hash(row.id, self._passwords.hash(password))
        return _user(row)

    def set_password(self, user_id: int, password: Secret) -> None:
        """Raises AccountRefused: unknown_user or password_invalid."""
        self._set_password_hash(user_id, self._passwords.hash(password))

    def _set_password_hash(self, user_id: int, password_hash: str) -> None:
        self._change(user_id, lambda row: setattr(row, "password_hash", password_hash))

    def disable(self, user_id: int) -> None:
        """Raises AccountRefused: unknown_user."""
        self._change(user_id, lambda row: setattr(row, "disabled", True))

    def enable(self, user_id: int) -> None:
        """Raises AccountRefused: unknown_user."""
        self._change(user_id, lambda row: setattr(row, "disabled", False))

    def remove(self, user_id: int) -> None:
        """Delete the user's name, password and exchange key; the id stays taken and disabled.

        Raises:
            AccountRefused: unknown_user.
        """

        def write(session: Session) -> None:
            row = existing_user(session, user_id)
            row.name, row.password_hash, row.disabled = f"{REMOVED_PREFIX}{user_id}", NO_PASSWORD, True
            session.execute(delete(ExchangeKeyRow).where(ExchangeKeyRow.user_id == user_id))

        self._database.write(write)

    def _change(self, user_id: int, change: Callable[[UserRow], T]) -> T:
        return self._database.write(lambda session: change(existing_user(session, user_id)))

    # --- tokens ----------------------------------------------------------------------------------------------

    def revoke_tokens(self, user_id: int) -> int:
        """Take the force of every token issued up to now; returns the second from which new ones count.

        Raises:
            AccountRefused: unknown_user.
        """
        # A token of this very second may have been issued before or after: the next second decides it.
        not_before_s = self._now_s() + 1
        self._change(user_id, lambda row: setattr(row, "tokens_not_before_s", not_before_s))
        return not_before_s

    def revoke_token(self, token_hash: str, user_id: int, expires_s: int) -> None:
        """Take the force of one token for as long as it would have had any; forgets those that are over."""

        def write(session: Session) -> None:
            session.execute(delete(RevokedTokenRow).where(RevokedTokenRow.expires_s < self._now_s()))
            session.merge(RevokedTokenRow(token_hash=token_hash, user_id=user_id, expires_s=expires_s))

        try:
            self._database.write(write)
        except IntegrityError:
            # The same token was revoked by somebody else a moment ago: that is what was asked for.
            return

    def access_rules(self) -> AccessRules:
        """All that is disabled or revoked now; each web worker reads it every few seconds."""

        def read(session: Session) -> AccessRules:
            disabled = session.scalars(select(UserRow.id).where(UserRow.disabled))
            not_before = session.execute(
                select(UserRow.id, UserRow.tokens_not_before_s).where(UserRow.tokens_not_before_s > 0)
            )
            revoked = session.scalars(
                select(RevokedTokenRow.token_hash).where(RevokedTokenRow.expires_s >= self._now_s())
            )
            return AccessRules(
                disabled_users=frozenset(disabled),
                tokens_not_before_s=dict(iter(not_before)),
                revoked_tokens=frozenset(revoked),
            )

        return self._database.read(read)

    def _now_s(self) -> int:
        return self._clock.wall_ms() // 1000


def _named(session: Session, name: str) -> UserRow:
    row = session.scalar(select(UserRow).where(UserRow.name == name))
    if row is None or not NAME_PATTERN.fullmatch(name):
        raise AccountRefused(f"there is no user {name[:64]}", code="unknown_user")
    return row


def _user(row: UserRow, api_key: str | None = None) -> User:
    return User(
        id=row.id,
        name=row.name,
        disabled=row.disabled,
        tokens_not_before_s=row.tokens_not_before_s,
        created_s=row.created_s,
        api_key=None if api_key is None else masked(api_key),
    )
