"""Tells phones how current a type is, each only what it does not know yet."""

from __future__ import annotations

from collections.abc import Iterable

from pushserver.model import DataType, Freshness
from pushserver.observers import Observer, UpdateEmitted
from pushserver.web.phones import Phone
from pushserver.web.websocket import text_frame


class Statuses:
    """A phone that was never told anything of a type believes that it is live."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def send(self, phones: Iterable[Phone], data_type: DataType, state: Freshness, reason: str, message: bytes) -> None:
        """Send ``message``, a ``status_update``; a stopped type also as an ``error``, once per reason."""
        frame = text_frame(message)
        for phone in list(phones):
            told = phone.told.get(data_type, (Freshness.LIVE, ""))
            if told == (state, reason) or (told[0] is state is Freshness.LIVE):
                continue
            phone.told[data_type] = (state, reason)
            phone.connection.outbox.send(frame)
            self._observer.record(UpdateEmitted(data_type, "status", phone.user_id, 1, len(frame)))
            if state is Freshness.STOPPED and phone.told_error != reason:
                phone.told_error = reason
                phone.emit_error(
                    reason, "The exchange account cannot be read; see status_update.", type=data_type.value
                )
            elif state is Freshness.LIVE:
                phone.told_error = ""
