"""What each event of the contract does.

Each handler returns the body of the ack and what follows it (states come after the answer), or raises a
PushserverError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from pushserver.bus.states import States
from pushserver.clock import Clock
from pushserver.errors import PayloadRefused, TokenRefused
from pushserver.events import utc_instant
from pushserver.model import DataType, room
from pushserver.web.deliveries import Deliveries
from pushserver.web.payloads import TypeChoice, parse_resume, parse_resync, parse_token, parse_types
from pushserver.web.phones import Phone
from pushserver.web.sign_in import NAMESPACE, AccessCheck, Verifier, connected_payload
from pushserver.web.sockets import Handler, nothing

_IGNORED_SINCE = 'Only whole numbers of known types count in "since".'

Answer = tuple[object, Callable[[], None]]


class DueTimes(Protocol):
    def next_due_ms(self, user_id: int) -> int | None:
        """When the user is fetched next; None while nobody is scheduled. Raises StoreUnavailable."""
        ...


class Handlers:
    """The handlers by event name, as ``Sockets`` wants them. ``manager`` keeps the ordinary rooms."""

    def __init__(
        self,
        deliveries: Deliveries,
        manager: Any,
        verifier: Verifier,
        access: AccessCheck,
        states: States,
        due_times: DueTimes,
        intervals_s: Mapping[DataType, float],
        clock: Clock,
    ) -> None:
        self._deliveries = deliveries
        self._manager = manager
        self._verifier = verifier
        self._access = access
        self._states = states
        self._due_times = due_times
        self._intervals = {data_type.value: intervals_s[data_type] for data_type in DataType}
        self._clock = clock

    def by_name(self) -> dict[str, Handler]:
        return {
            "subscribe_trading": self.subscribe,
            "unsubscribe_trading": self.unsubscribe,
            "authenticate": self.authenticate,
            "resync": self.resync,
            "whoami": self.whoami,
        }

    def subscribe(self, phone: Phone, arguments: Sequence[Any]) -> Answer:
        choice = parse_types(arguments)
        _refuse_if_all_unknown(choice)
        new = self._join(phone, choice)
        answer = self._subscription(phone, choice)
        phone.emit("subscribed", answer)
        _name_unknown(phone, choice)
        return answer, lambda: self._deliveries.send_stored(phone, new)

    def resume(self, phone: Phone, auth: object) -> Callable[[], None]:
        """Subscribe a returning phone to what its auth payload names; what follows its ``connected``.

        A payload that cannot be used is answered as it would be in ``subscribe_trading``, and changes nothing.
        """
        try:
            wish = parse_resume(auth)
            if wish is None:
                return nothing
            _refuse_if_all_unknown(wish.choice)
        except PayloadRefused as refusal:
            return partial(_answer_refusal, phone, refusal)
        new = self._join(phone, wish.choice)

        def follow() -> None:
            phone.emit("subscribed", self._subscription(phone, wish.choice))
            _name_unknown(phone, wish.choice)
            if wish.held.ignored:
                phone.emit_error("invalid_payload", _IGNORED_SINCE)
            self._deliveries.send_stored(phone, new, wish.held.since)

        return follow

    def unsubscribe(self, phone: Phone, arguments: Sequence[Any]) -> Answer:
        choice = parse_types(arguments)
        _refuse_if_all_unknown(choice)
        self._deliveries.unsubscribe(phone, choice.accepted)
        for data_type in choice.accepted:
            self._manager.leave_room(phone.sid, NAMESPACE, room(data_type, phone.user_id))
        answer = self._subscription(phone, choice)
        phone.emit("unsubscribed", answer)
        _name_unknown(phone, choice)
        return answer, nothing

    def authenticate(self, phone: Phone, arguments: Sequence[Any]) -> Answer:
        claims, _ = self._verifier.pick([("payload", parse_token(arguments))])
        self._access.check(claims)
        if claims.user_id != phone.user_id:
            raise TokenRefused("This token belongs to another user.", code="token_mismatch")
        phone.renew(claims)
        answer = connected_payload(phone)
        phone.emit("connected", answer)
        return answer, nothing

    def resync(self, phone: Phone, arguments: Sequence[Any]) -> Answer:
        request = parse_resync(arguments)
        if request.ignored:
            phone.emit_error("invalid_payload", _IGNORED_SINCE)
        # Without any seq the client holds nothing: everything it subscribed to is newer than that.
        since = request.since or dict.fromkeys(DataType, 0)
        wanted = [data_type for data_type in DataType if data_type in phone.subscribed and data_type in since]
        answer = {"types": [data_type.value for data_type in wanted]}
        return answer, lambda: self._deliveries.send_stored(phone, wanted, since, again=True)

    def whoami(self, phone: Phone, _arguments: Sequence[Any]) -> Answer:
        types = [data_type for data_type in DataType if data_type in phone.subscribed]
        now_ms = self._clock.wall_ms()
        stored = self._states.read([(phone.user_id, data_type) for data_type in types])
        next_due_ms = self._due_times.next_due_ms(phone.user_id)
        answer = {
            "user_id": phone.user_id,
            "types": phone.types(),
            "states": {
                data_type.value: {
                    "seq": state.seq or None,
                    "age_s": (now_ms - state.confirmed_ms) / 1000 if state.confirmed_ms else None,
                    "state": state.status.value,
                    "next_fetch_at": None if next_due_ms is None else utc_instant(next_due_ms),
                    "last_error": state.reason or None,
                }
                for data_type, state in zip(types, stored, strict=True)
            },
            "worker_id": os.getpid(),
            "token_expires_at": utc_instant(phone.claims.expires_at_s * 1000),
        }
        return answer, nothing

    def _join(self, phone: Phone, choice: TypeChoice) -> list[DataType]:
        new = self._deliveries.subscribe(phone, choice.accepted)
        for data_type in new:
            if not phone.gone:
                self._manager.enter_room(phone.sid, NAMESPACE, room(data_type, phone.user_id))
        return new

    def _subscription(self, phone: Phone, choice: TypeChoice) -> dict[str, object]:
        return {
            "types": [data_type.value for data_type in choice.accepted],
            "subscribed": phone.types(),
            "intervals": self._intervals,
        }


def _answer_refusal(phone: Phone, refusal: PayloadRefused) -> None:
    phone.emit_error(refusal.code, refusal.message, False, **refusal.details)


def _refuse_if_all_unknown(choice: TypeChoice) -> None:
    if choice.unknown and not choice.accepted:
        raise PayloadRefused(_unknown_text(choice), code="unknown_type", types=list(choice.unknown))


def _name_unknown(phone: Phone, choice: TypeChoice) -> None:
    if choice.unknown:
        phone.emit_error("unknown_type", _unknown_text(choice), types=list(choice.unknown))


def _unknown_text(choice: TypeChoice) -> str:
    return f"Unknown types: {', '.join(choice.unknown)}. Known are: {', '.join(DataType)}."
