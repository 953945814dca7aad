"""What the exchange says about a key, read with care, and what its owner must be told about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pushserver.accounts.records import KeyFacts
from pushserver.errors import AnswerMalformed, KeyRefused

DAY_S = 86_400
#: A key that ends within a day is refused, one that ends within two weeks is stored with a warning.
REFUSED_BELOW_S = DAY_S
WARNED_BELOW_S = 14 * DAY_S
MAX_PERMISSIONS = 64
MAX_PERMISSION_CHARACTERS = 64

ENDPOINT = "/v5/user/query-api"


def read_facts(information: Mapping[str, Any], now_s: int) -> KeyFacts:
    """The facts of a ``query-api`` result.

    Raises:
        AnswerMalformed: it is not clear from it what the key may do.
    """
    read_only = information.get("readOnly")
    permissions = information.get("permissions")
    if type(read_only) is not int or read_only not in (0, 1) or not isinstance(permissions, dict):
        raise AnswerMalformed("the exchange did not say what the key may do", endpoint=ENDPOINT)
    return KeyFacts(
        read_only=read_only == 1,
        permissions=_permissions(permissions),
        expires_s=_expiry(information.get("expiredAt"), information.get("deadlineDay"), now_s),
    )


def check_lasting(facts: KeyFacts, now_s: int) -> None:
    """Raises KeyRefused: key_expired, for a key that ends within a day."""
    if facts.expires_s is not None and facts.expires_s - now_s < REFUSED_BELOW_S:
        raise KeyRefused("the key expires within a day", code="key_expired", endpoint=ENDPOINT)


def warnings(facts: KeyFacts, now_s: int) -> list[dict[str, str]]:
    """What the owner should know and may want to change."""
    found = []
    if facts.read_only is None:
        found.append(("key_unverified", "The exchange has not confirmed this key yet."))
    if facts.read_only is False:
        found.append(("key_can_trade", "This key can do more than read. A read-only key is enough and safer."))
        if "Wallet:Withdraw" in facts.permissions:
            found.append(("key_can_withdraw", "This key can withdraw funds. Replace it with a read-only key."))
    if facts.expires_s is not None and facts.expires_s - now_s < WARNED_BELOW_S:
        days = max(0, (facts.expires_s - now_s) // DAY_S)
        found.append(("key_expires_soon", f"This key expires in {days} days."))
    return [{"code": code, "message": message} for code, message in found]


def _permissions(groups: Mapping[Any, Any]) -> tuple[str, ...]:
    """``{"Wallet": ["Withdraw"]}`` as ``Wallet:Withdraw``; sizes are capped because they are stored and shown."""
    found = [
        f"{group}:{right}"[:MAX_PERMISSION_CHARACTERS]
        for group, rights in groups.items()
        if isinstance(rights, list)
        for right in rights
        if isinstance(right, str) and f"{group}{right}".isprintable()
    ]
    return tuple(sorted(found)[:MAX_PERMISSIONS])


def _expiry(expired_at: Any, deadline_days: Any, now_s: int) -> int | None:
    """Keys bound to addresses do not expire; the exchange then says 1970 and a negative number of days."""
    if isinstance(expired_at, str) and expired_at:
        try:
            instant = datetime.fromisoformat(expired_at)
        except ValueError:
            raise AnswerMalformed("the exchange gave no readable expiry", endpoint=ENDPOINT) from None
        expires_s = int(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp())
        return expires_s if expires_s > DAY_S else None
    if type(deadline_days) is int and 0 <= deadline_days < 10_000:
        return now_s + deadline_days * DAY_S
    return None
