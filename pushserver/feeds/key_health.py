"""What the exchange says about a key, read with care, and what its owner must be told about it.

We only read accounts: a key that can do more is a risk that its owner need not take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pushserver.errors import AnswerMalformed, KeyRefused
from pushserver.model import KeyFacts

DAY_S = 86_400
#: A key that ends within a day is not stored any more; one with at most so many days left is worth a warning.
REFUSED_BELOW_S = DAY_S
SOON_DAYS = 7
#: The last second that has a calendar date to show; a key that ends later never does.
LAST_S = 253_402_300_799
MAX_PERMISSIONS = 64
MAX_PERMISSION_CHARACTERS = 64

ENDPOINT = "/v5/user/query-api"
WITHDRAWAL = "Wallet:Withdraw"


class HealthState(StrEnum):
    """``ok`` may come with problems that are only worth knowing."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """``code`` is stable, ``message`` for a person; ``until_s``: the Unix second at which the key ends, where it does.

    Codes: key_expires_soon, key_can_trade, key_can_withdraw, key_unverified, key_not_ip_bound (worth knowing, no
    more), and those of KeyRefused for a key that the exchange does not accept.
    """

    code: str
    message: str
    until_s: int | None = None
    weight: HealthState = HealthState.WARNING


@dataclass(frozen=True, slots=True)
class AccountHealth:
    """``state`` is that of the heaviest problem. None means never (expiry) or unknown (the rest)."""

    state: HealthState
    problems: tuple[KeyProblem, ...] = ()
    expires_s: int | None = None
    days_left: int | None = None
    read_only: bool | None = None
    ip_bound: bool | None = None

    @property
    def can_trade(self) -> bool:
        return any(problem.code == "key_can_trade" for problem in self.problems)

    @property
    def can_withdraw(self) -> bool:
        return any(problem.code == "key_can_withdraw" for problem in self.problems)


def health_of(information: object, now_s: int) -> AccountHealth:
    """The judgement on a ``query-api`` result, whatever it is; ``read_only`` None when it cannot be understood."""
    try:
        facts = read_facts(information if isinstance(information, Mapping) else {}, now_s)
    except AnswerMalformed:
        facts = KeyFacts()
    return judged(facts, now_s)


def judged(facts: KeyFacts, now_s: int) -> AccountHealth:
    days_left = None if facts.expires_s is None else max(0, (facts.expires_s - now_s) // DAY_S)
    problems = tuple(_problems(facts, days_left))
    return AccountHealth(_heaviest(problems), problems, facts.expires_s, days_left, facts.read_only, facts.ip_bound)


def refused(code: str, message: str) -> AccountHealth:
    """The judgement on a key that the exchange does not accept: ``code`` is one of KeyRefused."""
    return AccountHealth(HealthState.CRITICAL, (KeyProblem(code, message, None, HealthState.CRITICAL),))


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
        ip_bound=_ip_bound(information.get("ips")),
    )


def check_lasting(facts: KeyFacts, now_s: int) -> None:
    """Raises KeyRefused: key_expired, for a key that ends within a day."""
    if facts.expires_s is not None and facts.expires_s - now_s < REFUSED_BELOW_S:
        raise KeyRefused("the key expires within a day", code="key_expired", endpoint=ENDPOINT)


def _problems(facts: KeyFacts, days_left: int | None) -> list[KeyProblem]:
    found = []
    if facts.read_only is None:
        found.append(KeyProblem("key_unverified", "The exchange has not confirmed this key yet."))
    if facts.read_only is False:
        text = "This key can do more than read. A read-only key is enough and safer."
        found.append(KeyProblem("key_can_trade", text))
        if WITHDRAWAL in facts.permissions:
            text = "This key can withdraw funds. Replace it with a read-only key."
            found.append(KeyProblem("key_can_withdraw", text, None, HealthState.CRITICAL))
    if days_left is not None and days_left <= SOON_DAYS:
        text = f"This key expires in {days_left} days." if days_left else "This key expires within a day."
        weight = HealthState.WARNING if days_left else HealthState.CRITICAL
        found.append(KeyProblem("key_expires_soon", text, facts.expires_s, weight))
    if facts.ip_bound is False:
        text = "This key is not bound to addresses: whoever has it can use it from anywhere."
        found.append(KeyProblem("key_not_ip_bound", text, None, HealthState.OK))
    return found


def _heaviest(problems: tuple[KeyProblem, ...]) -> HealthState:
    return max((problem.weight for problem in problems), key=list(HealthState).index, default=HealthState.OK)


def _permissions(groups: Mapping[Any, Any]) -> tuple[str, ...]:
    """``{"Wallet": ["Withdraw"]}`` as ``Wallet:Withdraw``; sizes are capped because they are stored and shown."""
    found = [
        f"{group}:{right}"[:MAX_PERMISSION_CHARACTERS]
        for group, rights in groups.items()
        if isinstance(rights, list)
        for right in rights
        if isinstance(right, str) and f"{group}{right}".isprintable()
    ]
    # What matters most must not fall to the cap.
    return tuple(sorted(sorted(found, key=lambda right: (right != WITHDRAWAL, right))[:MAX_PERMISSIONS]))


def _expiry(expired_at: Any, deadline_days: Any, now_s: int) -> int | None:
    """Keys bound to addresses do not expire; the exchange then says 1970 and a negative number of days."""
    if isinstance(expired_at, str) and expired_at:
        try:
            instant = datetime.fromisoformat(expired_at)
            expires_s = int(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp())
        except ValueError:
            raise AnswerMalformed("the exchange gave no readable expiry", endpoint=ENDPOINT) from None
        return expires_s if DAY_S < expires_s <= LAST_S else None
    if type(deadline_days) is int and 0 <= deadline_days < 10_000:
        return now_s + deadline_days * DAY_S
    return None


def _ip_bound(addresses: Any) -> bool | None:
    """A key without bound addresses has none, or an asterisk for all."""
    if not isinstance(addresses, list):
        return None
    return any(isinstance(address, str) and address not in ("", "*") for address in addresses)
