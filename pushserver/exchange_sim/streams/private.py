"""``/v5/private``: authenticate, subscribe, be told what changes; no snapshot, ever."""

from __future__ import annotations

import hashlib
import hmac
import re

from pushserver.exchange_sim.accounts import Account, ApiKey
from pushserver.exchange_sim.answers import Row
from pushserver.exchange_sim.streams.account_events import account_events
from pushserver.exchange_sim.streams.misfortunes import Misfortunes
from pushserver.exchange_sim.streams.session import Message, Outlet, Session, arguments_of
from pushserver.exchange_sim.world import World

TOPIC = re.compile(
    r"(position|order|execution|execution\.fast)(\.(linear|inverse|option|spot))?|wallet|greeks|dcp\.(future|spot|option)"
)


class PrivateSession(Session):
    kind = "private"

    def __init__(self, world: World, outlet: Outlet, number: int, misfortunes: Misfortunes, idle_s: float) -> None:
        super().__init__(world, outlet, number, misfortunes, idle_s)
        self.api_key = ""
        self._messages = 0
        self._operations["auth"] = self._authenticate

    def account_changed(self, before: Account, after: Account) -> None:
        for topic, rows in account_events(before, after, self.world.market):
            told = [row for row in rows if self._hears(topic, row)]
            if told:
                self._messages += 1
                self.tell(
                    {
                        "id": f"{after.user}{topic}{after.version:x}-{self._messages:x}",
                        "topic": topic,
                        "creationTime": self.world.now_ms(),
                        "data": told,
                    }
                )

    def _hears(self, topic: str, row: Row) -> bool:
        return topic in self.topics or f"{topic}.{row.get('category')}" in self.topics

    def _authenticate(self, request: Message) -> None:
        refused = self.misfortunes.text("refuse_auth", self) or self._refusal(request.get("args"))
        self.reply(request, not refused, refused, "auth")
        if refused:
            self.outlet.close(1000)

    def _refusal(self, arguments: object) -> str:
        """Why the key is not accepted; empty when it is."""
        if not (isinstance(arguments, list) and len(arguments) == 3 and isinstance(arguments[1], int | str)):
            return "Params Error"
        name, expires, signed = str(arguments[0]), str(arguments[1]), str(arguments[2])
        if not expires.isascii() or not expires.isdigit() or int(expires) <= self.world.now_ms():
            return "Params Error"
        key = self.world.keys.get(name)
        if key is None:
            return "API key is invalid."
        if not hmac.compare_digest(stream_signature(key, expires).encode(), signed.encode()):
            return "Sign Error"
        if key.expires_ms is not None and self.world.now_ms() >= key.expires_ms:
            return "Your api key has expired."
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
        refused = self.misfortunes.text("refuse_topic", self)
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
