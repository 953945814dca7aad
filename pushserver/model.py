"""The values everything else speaks of: data types, account figures, markets, credentials.

All frozen, all plain. Money and sizes are ``Decimal`` here and become JSON numbers only in ``events``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

MAX_USER_ID = 2**63 - 1

#: A proxy that is believed about its clients: by address, or whoever comes through a unix socket.
TrustedPeer = IPv4Network | IPv6Network | Literal["unix"]


class DataType(StrEnum):
    """What a phone can subscribe to; the closed set from which rooms, channels and labels are built."""

    BALANCE = "balance"
    POSITIONS = "positions"
    PNL = "pnl"
    ORDERS = "orders"


class Freshness(StrEnum):
    """How current a type is for one user; told to the phone by ``status_update``."""

    LIVE = "live"
    DELAYED = "delayed"
    STOPPED = "stopped"


class Secret:
    """A string that never shows itself: not in ``repr``, ``str``, ``format``, pickles or comparisons by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself; call it at the last moment and keep it nowhere."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


@dataclass(frozen=True, slots=True)
class Credentials:
    """One user's exchange key. ``version`` changes whenever the key is replaced."""

    api_key: str
    api_secret: Secret
    version: int = 0

    def __repr__(self) -> str:
        return f"Credentials({masked(self.api_key)}, ***)"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What the exchange said about a key when it was verified; the defaults mean that it was not.

    ``ip_bound`` is only known right after the exchange was asked: it is not stored.
    """

    read_only: bool | None = None
    permissions: tuple[str, ...] = ()
    expires_s: int | None = None
    ip_bound: bool | None = None


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Everything that takes an otherwise valid token's force away, as the database knows it.

    ``tokens_not_before_s``: user id to the Unix second before which that user's tokens were all revoked.
    ``revoked_tokens``: hashed ids (``hashed_token_id``) of tokens that would still be valid by their own words.
    """

    disabled_users: frozenset[int] = frozenset()
    tokens_not_before_s: Mapping[int, int] = field(default_factory=dict)
    revoked_tokens: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that takes CONNECT, and so another address towards the exchange. ``login`` is ``user:password``."""

    host: str
    port: int
    login: Secret | None = None

    def __str__(self) -> str:
        return f"{'***@' if self.login else ''}{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Market:
    """One entry of ``BYBIT_MARKETS``: a product category and, where it has one, its settle coin."""

    category: str
    settle_coin: str | None = None

    def __str__(self) -> str:
        return f"{self.category}:{self.settle_coin}" if self.settle_coin else self.category


@dataclass(frozen=True, slots=True)
class Balance:
    total_balance: Decimal
    available_balance: Decimal
    used_margin: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    symbol: str
    side: str
    size: Decimal
    entry_price: Decimal
    mark_price: Decimal
    unrealized_pnl: Decimal


@dataclass(frozen=True, slots=True)
class Pnl:
    total_pnl: Decimal
    today_pnl: Decimal
    unrealized_pnl: Decimal
    realized_pnl: Decimal


@dataclass(frozen=True, slots=True)
class Order:
    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal | None
    status: str


AccountData = Balance | Pnl | tuple[Position, ...] | tuple[Order, ...]


def masked(text: str) -> str:
    """``AbCd…wxyz`` for a key that a person must recognise but nobody can use."""
    return f"{text[:4]}…{text[-4:]}" if len(text) > 12 else "…"


def hashed_token_id(token_id: str) -> str:
    """The form in which a token's id is stored and published: it shows no id, and is plain hexadecimal."""
    return hashlib.blake2b(token_id.encode(), digest_size=16).hexdigest()


def room(data_type: DataType, user_id: int) -> str:
    """The Socket.IO room of one user's type, e.g. ``balance_4``."""
    return f"{data_type.value}_{user_id}"
