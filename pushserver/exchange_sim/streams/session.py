"""What private and public streams have in common: requests with an ``op``, their replies, pings, topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from pushserver.exchange_sim.streams.misfortunes import Misfortunes
from pushserver.exchange_sim.world import World

Message = dict[str, Any]


class Outlet(Protocol):
    """Where a session's texts go."""

    def send(self, text: str) -> None: ...

    def close(self, code: int) -> None: ...

    def cut(self) -> None: ...


class Session:
    """One connection. ``heard_s``: when the client last said anything, on the monotonic clock."""

    kind = ""

    def __init__(self, world: World, outlet: Outlet, number: int, misfortunes: Misfortunes, idle_s: float) -> None:
        self.world = world
        self.outlet = outlet
        self.connection_id = f"sim-{number:08d}"
        self.misfortunes = misfortunes
        self.idle_s = idle_s
        self.heard_s = world.clock.monotonic_s()
        self.topics: set[str] = set()
        self.user: int | None = None
        self._operations: dict[str, Callable[[Message], None]] = {
            "ping": self._ping,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def receive(self, text: str) -> None:
        """One message of the client."""
        self.heard_s = self.world.clock.monotonic_s()
        try:
            message = orjson.loads(text)
            operation = self._operations.get(message["op"])
        except (ValueError, TypeError, KeyError, AttributeError):
            message, operation = {}, None
        if operation is None:
            self.reply(message, False, "Invalid request", str(message.get("op", "")))
            return
        operation(message)

    def hears_ping_frame(self) -> bool:
        """A ping frame of the protocol came; whether it is answered."""
        self.heard_s = self.world.clock.monotonic_s()
        return not (self.misfortunes.strikes("no_pong", self) or self.misfortunes.strikes("silent", self))

    def reply(self, request: Message, success: bool, text: str, operation: str) -> None:
        answer: Message = {"success": success, "ret_msg": text, "conn_id": self.connection_id, "op": operation}
        if "req_id" in request:
            answer["req_id"] = request["req_id"]
        self.say(answer)

    def say(self, message: Message) -> None:
        """A reply, unless the stream is struck dumb."""
        if not self.misfortunes.strikes("silent", self):
            self.outlet.send(orjson.dumps(message).decode())

    def tell(self, message: Message) -> None:
        """A topic's message, with whatever goes wrong with it."""
        for text in self.misfortunes.distorted(orjson.dumps(message).decode(), self):
            self.outlet.send(text)

    def _ping(self, request: Message) -> None:
        raise NotImplementedError

    def _subscribe(self, request: Message) -> None:
        raise NotImplementedError

    def _unsubscribe(self, request: Message) -> None:
        self.topics -= set(arguments_of(request))
        self.reply(request, True, "", "unsubscribe")


def arguments_of(request: Message) -> list[str]:
    arguments = request.get("args")
    return [argument for argument in arguments if isinstance(argument, str)] if isinstance(arguments, list) else []
