"""The part of the control API that is about streams: what is open, cutting it, and making it fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushserver.exchange_sim.specs import object_of, text_of
from pushserver.exchange_sim.streams.forgeries import FORGERIES
from pushserver.exchange_sim.streams.hub import Hub
from pushserver.exchange_sim.world import World

Json = dict[str, Any]
Verbs = dict[tuple[str, str], Callable[[list[str], Json], Any]]

#: A larger burst would only test the memory of the simulator.
LARGEST_BURST = 10_000
LARGEST_CODE = 4999


class StreamControl:
    """The calls below ``/control/streams`` and ``/control/stream-faults``."""

    def __init__(self, world: World, hub: Hub) -> None:
        self._world = world
        self._hub = hub

    def verbs(self) -> Verbs:
        """(method, first path segment) to what it does, for the control API."""
        return {
            ("GET", "streams"): self._read,
            ("POST", "streams"): self._set_limits_or_say,
            ("DELETE", "streams"): self._drop,
            ("GET", "stream-faults"): self._read_faults,
            ("POST", "stream-faults"): self._set_fault,
            ("DELETE", "stream-faults"): self._clear_faults,
        }

    def _read(self, path: list[str], body: Json) -> Any:
        if not path:
            return self._hub.report()
        now_s = self._world.clock.monotonic_s()
        streams = [
            {"conn_id": each.connection_id, "topics": sorted(each.topics), "quiet_s": now_s - each.heard_s}
            for each in self._hub.chosen("private", int(path[0]))
        ]
        return {"streams": streams}

    def _set_limits_or_say(self, path: list[str], body: Json) -> Any:
        if path == ["say"]:
            return self._say(body)
        return self.set_limits(body)

    def set_limits(self, body: Json) -> Json:
        """``connects`` of one address in ``connects_window_s``. Raises ValueError."""
        gate = self._hub.gate
        most, window_s = int(body.get("connects", gate.most)), float(body.get("connects_window_s", gate.window_s))
        gate.most, gate.window_s = most, window_s
        return {"connects": gate.most, "connects_window_s": gate.window_s}

    def _say(self, body: Json) -> Any:
        """Send ``text`` or a ready-made message ``what`` on the chosen streams, ``times`` times."""
        what, times = body.get("what"), int(body.get("times", 1))
        if what is not None and what not in FORGERIES:
            raise ValueError(f"what is one of {', '.join(FORGERIES)}")
        if not 1 <= times <= LARGEST_BURST:
            raise ValueError(f"times is from 1 to {LARGEST_BURST}")
        text = None if what is not None else text_of(body, "text")
        told = self._hub.chosen(stream_of(body), user_in(body))
        for session in told:
            for number in range(times):
                session.outlet.send(text or FORGERIES[str(what)](self._world, session.user, number))
        return {"streams": len(told)}

    def _drop(self, path: list[str], body: Json) -> Any:
        code = None if body.get("code") is None else int(body["code"])
        if code is not None and not 1000 <= code <= LARGEST_CODE:
            raise ValueError(f"code is from 1000 to {LARGEST_CODE}")
        return {"dropped": self._hub.drop(stream_of(body), user_in(body), code)}

    def _read_faults(self, path: list[str], body: Json) -> Any:
        return {"faults": [fault.description() for fault in self._hub.misfortunes.active()]}

    def _set_fault(self, path: list[str], body: Json) -> Any:
        conditions: Json = {"stream": stream_of(body), "user": user_in(body)}
        if body.get("times") is not None:
            conditions["times"] = int(body["times"])
        if body.get("probability") is not None:
            conditions["probability"] = float(body["probability"])
        if body.get("seconds") is not None:
            conditions["until_s"] = self._world.clock.monotonic_s() + float(body["seconds"])
        kind, options = text_of(body, "kind"), object_of(body, "options")
        return {"id": self._hub.misfortunes.add(kind, options, **conditions).number}

    def _clear_faults(self, path: list[str], body: Json) -> Any:
        self._hub.misfortunes.clear(int(path[0]) if path else None)
        return {}


def stream_of(body: Json) -> str | None:
    stream = body.get("stream")
    if stream not in (None, "private", "public"):
        raise ValueError("stream is private or public")
    return None if stream is None else str(stream)


def user_in(body: Json) -> int | None:
    return None if body.get("user") is None else int(body["user"])
