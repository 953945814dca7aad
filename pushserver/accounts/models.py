"""The tables. Times are whole Unix seconds, UTC; a change here needs a migration beside it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pushserver.errors import AccountRefused

#: SQLite numbers rows itself only in a column of type INTEGER, which holds 64 bits there anyway.
BIG_ID = BigInteger().with_variant(Integer, "sqlite")


#: How the rows of removed users are named; no user can choose such a name.
REMOVED_PREFIX = "~removed-"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UserRow(Base):
    """A removed user keeps a disabled row, so that the id (which old tokens name) is never given away again."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    tokens_not_before_s: Mapped[int] = mapped_column(BigInteger, default=0)
    created_s: Mapped[int] = mapped_column(BigInteger)


class ExchangeKeyRow(Base):
    """``secret`` is encrypted; ``permissions`` is a JSON list; facts are null while the key is unverified."""

    __tablename__ = "exchange_keys"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, autoincrement=False)
    api_key: Mapped[str] = mapped_column(String(128))
    secret: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(BigInteger)
    read_only: Mapped[bool | None] = mapped_column(Boolean)
    permissions: Mapped[str] = mapped_column(Text, default="[]")
    expires_s: Mapped[int | None] = mapped_column(BigInteger)
    stored_s: Mapped[int] = mapped_column(BigInteger)


class RevokedTokenRow(Base):
    __tablename__ = "revoked_tokens"
    __table_args__ = (Index("ix_revoked_tokens_expires_s", "expires_s"),)

    token_hash: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    expires_s: Mapped[int] = mapped_column(BigInteger)


def existing_user(session: Session, user_id: int) -> UserRow:
    """The user's row, locked until the transaction ends. Raises AccountRefused: unknown_user."""
    row = session.get(UserRow, user_id, with_for_update=True)
    if row is None or row.name.startswith(REMOVED_PREFIX):
        raise AccountRefused(f"there is no user {user_id}", code="unknown_user")
    return row
