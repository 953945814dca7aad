"""``/v5/private``: authenticate, subscribe, be told what changes; no snapshot, ever."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pushserver.exchange_sim import refusals
from pushserver.exchange_sim.accounts import ApiKey
from pushserver.exchange_sim.answers import Row
from pushserver.exchange_sim.streams.misfortunes import Misfortunes
from pushserver.exchange_sim.streams.session import Message, Outlet, Session, arguments_of
from pushserver.exchange_sim.world import World

TOPIC = re.compile(
    r"(position|order|execution|execution\.fast)(\.(linear|inverse|option|spot))?|wallet|greeks|dcp\.(future|spot|option)"
)
#: Milliseconds; longer numbers are no times.
EXPIRES = re.compile(r"[0-9]{1,16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose stream it will be once the key is accepted; to faults a stream like any other."""

    kind: str
    user: int | None


class PrivateSession(Session):
    kind = "private"

    def __init__(
        self,
        world: World,
        outlet: Outlet,
        number: int,
        misfortunes: Misfortunes,
        idle_s: float,
        address: str,
        known: Callable[[PrivateSession], None],
    ) -> None:
        """``known`` is called when the user is."""
        super().__init__(world, outlet, number, misfortunes, idle_s)
        self.api_key = ""
        self._address = address
        self._known = known
        self._messages = 0
        self._operations["auth"] = self._authenticate

    def account_changed(self, events: Iterable[tuple[str, list[Row]]], version: int) -> None:
        """``events`` are those of ``account_events``; the topics not subscribed are left out."""
        for topic, rows in events:
            told = [row for row in rows if self._hears(topic, row)]
            if told:
                self._tell_rows(topic, told, version)
            if topic == "order":
                self._tell_filled_twice(told, version)

    def _tell_rows(self, topic: str, rows: list[Row], version: int) -> None:
        self._messages += 1
        identifier = f"{self.user}{topic}{version:x}-{self._messages:x}"
        self.tell({"id": identifier, "topic": topic, "creationTime": self.world.now_ms(), "data": rows})
        self.world.truth.record_stream(
            {"user": self.user, "topic": topic, "version": version, "conn_id": self.connection_id},
            self.world.clock.monotonic_s(),
        )

    def _tell_filled_twice(self, orders: list[Row], version: int) -> None:
        """Of a cancel that came too late the exchange may tell a second ``Filled``."""
        filled = [row for row in orders if row["orderStatus"] == "Filled"]
        if filled and self.misfortunes.strikes("filled_twice", self):
            late_cancel = {"cancelType": "CancelByUser", "rejectReason": "EC_OrigClOrdIDDoesNotExist"}
            self._tell_rows("order", [row | late_cancel for row in filled], version)

    def _hears(self, topic: str, row: Row) -> bool:
        return topic in self.topics or f"{topic}.{row.get('category')}" in self.topics

    def _authenticate(self, request: Message) -> None:
        refused = self._refusal(request.get("args"))
        self.reply(request, not refused, refused, "auth")
        if refused:
            self.outlet.close(1000)
        elif self.user is not None:
            self._known(self)

    def _refusal(self, arguments: object) -> str:
        """Why the key is not accepted; empty when it is."""
        if not (isinstance(arguments, list) and len(arguments) == 3 and isinstance(arguments[1], int | str)):
            return "Params Error"
        name, expires, signed = str(arguments[0]), str(arguments[1]), str(arguments[2])
        if not EXPIRES.fullmatch(expires) or int(expires) <= self.world.now_ms():
            return "Params Error"
        key = self.world.keys.get(name)
        if key is None or key.user not in self.world.accounts:
            return refusals.MESSAGES[refusals.UNKNOWN_KEY]
        if not hmac.compare_digest(stream_signature(key, expires).encode(), signed.encode()):
            return "Sign Error"
        if key.expires_ms is not None and self.world.now_ms() >= key.expires_ms:
            return refusals.MESSAGES[refusals.KEY_EXPIRED]
        if key.ips and self._address not in key.ips:
            return refusals.MESSAGES[refusals.ADDRESS_NOT_ALLOWED]
        if self.user not in (None, key.user):
            return "Repeat auth"
        refused = self.misfortunes.drawn("refuse_auth", Claim(self.kind, key.user))
        if refused is not None:
            return str(refused.options["message"])
        self.api_key, self.user = name, key.user
        return ""

    def _ping(self, request: Message) -> None:
        if self.misfortunes.strikes("no_pong", self):
            return
        answer: Message = {"op": "pong", "args": [str(self.world.now_ms())], "conn_id": self.connection_id}
        if "req_id" in request:
            answer["req_id"] = request["req_id"]
        self.say(answer)

    def _subscribe(self, request: Message) -> None:
        topics = arguments_of(request)
        if self.user is None:
            self.reply(request, False, "Request needs auth first", "subscribe")
            return
        refused = self.misfortunes.topic_refusal(self, topics)
        bare = {topic for topic in topics if "." not in topic}
        mixed = any(topic.partition(".")[0] in bare for topic in topics if "." in topic)
        unknown = [topic for topic in topics if not TOPIC.fullmatch(topic)]
        if refused or mixed or unknown or not topics:
            text = refused or (f"error:handler not found,topic:{unknown[0]}" if unknown else "Params Error")
            self.reply(request, False, text, "subscribe")
            return
        self.topics |= set(topics)
        self.reply(request, True, "", "subscribe")


def stream_signature(key: ApiKey, expires: str) -> str:
    return hmac.new(key.secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
