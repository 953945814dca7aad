"""What a client may say in its events, parsed: pure functions over untrusted JSON.

Anything that is not understood is named or refused, never guessed, and never changes a subscription.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pushserver.errors import PayloadRefused
from pushserver.model import DataType

MAX_TYPES = 16
MAX_NAME_SHOWN = 32
MAX_SEQ = 2**63

_NAMES = {data_type.value: data_type for data_type in DataType}


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """``accepted`` in the contract's order, each once; ``unknown`` cut to a length that may be echoed."""

    accepted: tuple[DataType, ...]
    unknown: tuple[str, ...]


def parse_types(arguments: Sequence[Any]) -> TypeChoice:
    """The types named by a ``subscribe_trading`` or ``unsubscribe_trading`` event.

    Raises:
        PayloadRefused: the payload is not an object, or its types are not a list of at most 16 names.
    """
    payload = arguments[0] if arguments else {}
    if len(arguments) > 1 or not isinstance(payload, dict):
        raise PayloadRefused('Send one object, for example {"types": ["balance"]}.')
    if "types" in payload:
        names = payload["types"]
    elif "subscribeTypes" in payload:
        names = payload["subscribeTypes"]
    else:
        return TypeChoice(tuple(DataType), ())
    if not isinstance(names, list) or len(names) > MAX_TYPES:
        raise PayloadRefused(f'"types" is a list of at most {MAX_TYPES} names.')
    if not all(isinstance(name, str) for name in names):
        raise PayloadRefused('"types" takes names as strings.')
    chosen = {_NAMES[name] for name in names if name in _NAMES}
    unknown = dict.fromkeys(name[:MAX_NAME_SHOWN] for name in names if name not in _NAMES)
    return TypeChoice(tuple(data_type for data_type in DataType if data_type in chosen), tuple(unknown))


@dataclass(frozen=True, slots=True)
class ResyncRequest:
    """``since``: the newest ``seq`` the client holds, known types only. ``ignored``: something was not understood."""

    since: Mapping[DataType, int]
    ignored: bool


def parse_resync(arguments: Sequence[Any]) -> ResyncRequest:
    """The ``since`` of a ``resync`` event; without one, everything counts as older.

    Raises:
        PayloadRefused: the payload or its ``since`` is not an object.
    """
    payload = arguments[0] if arguments else {}
    if len(arguments) > 1 or not isinstance(payload, dict):
        raise PayloadRefused('Send one object, for example {"since": {"positions": 1762765200123}}.')
    since = payload.get("since", {})
    if not isinstance(since, dict):
        raise PayloadRefused('"since" is an object of type to seq.')
    known = {_NAMES[name]: seq for name, seq in since.items() if name in _NAMES and _is_seq(seq)}
    return ResyncRequest(known, len(known) != len(since))


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """What a returning device wants to be subscribed to, and what it holds of it."""

    choice: TypeChoice
    held: ResyncRequest


def parse_resume(auth: object) -> ResumeRequest | None:
    """The ``subscribe`` (a list as ``types``) and ``since`` of an auth payload; None without ``subscribe``.

    Raises:
        PayloadRefused: as for ``subscribe_trading`` and ``resync``.
    """
    if isinstance(auth, dict) and "subscribe" not in auth and isinstance(auth.get("auth"), dict):
        auth = auth["auth"]
    if not isinstance(auth, dict) or "subscribe" not in auth:
        return None
    held = parse_resync([{"since": auth["since"]}] if "since" in auth else [])
    return ResumeRequest(parse_types([{"types": auth["subscribe"]}]), held)


def parse_token(arguments: Sequence[Any]) -> object:
    """The token of an ``authenticate`` event, still to be verified.

    Raises:
        PayloadRefused: the payload is not an object with a ``token``.
    """
    payload = arguments[0] if arguments else None
    if len(arguments) > 1 or not isinstance(payload, dict) or "token" not in payload:
        raise PayloadRefused('Send one object with the new token: {"token": "…"}.')
    return _present(payload["token"])


def carried_tokens(auth: object, authorization: str | None, query_token: str | None) -> list[tuple[str, object]]:
    """Every token a connection brings, in the order in which they are tried."""
    carried: list[tuple[str, object]] = []
    if isinstance(auth, dict):
        if "token" in auth:
            carried.append(("payload", _present(auth["token"])))
        nested = auth.get("auth")
        if isinstance(nested, dict) and "token" in nested:
            carried.append(("payload", _present(nested["token"])))
    if authorization is not None:
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() == "bearer":
            carried.append(("header", token.strip()))
    if query_token is not None:
        carried.append(("url", query_token))
    return carried


def _present(token: object) -> object:
    """A null token was sent, if badly: that is an invalid token and not a missing one."""
    return "" if token is None else token


def _is_seq(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEQ
