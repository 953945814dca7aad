"""The part of the control API that is about streams: what is open, cutting it, and making it fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pushserver.exchange_sim.specs import object_of, text_of
from pushserver.exchange_sim.streams.hub import Hub
from pushserver.exchange_sim.world import World

Json = dict[str, Any]


class StreamControl:
    """The calls below ``/control/streams`` and ``/control/stream-faults``."""

    def __init__(self, world: World, hub: Hub) -> None:
        self._world = world
        self._hub = hub

    def verbs(self) -> dict[tuple[str, str], Callable[[list[str], Json], Any]]:
        """(method, first path segment) to what it does, for the control API."""
        return {
            ("GET", "streams"): lambda path, body: self._hub.report(),
            ("POST", "streams"): self._set_limits,
            ("DELETE", "streams"): self._drop,
            ("GET", "stream-faults"): self._read_faults,
            ("POST", "stream-faults"): self._set_fault,
            ("DELETE", "stream-faults"): self._clear_faults,
        }

    def _set_limits(self, path: list[str], body: Json) -> Any:
        self._hub.most_connects = int(body.get("connects", self._hub.most_connects))
        return {"connects": self._hub.most_connects}

    def _drop(self, path: list[str], body: Json) -> Any:
        user, code = body.get("user"), body.get("code")
        dropped = self._hub.drop(
            body.get("stream"), None if user is None else int(user), None if code is None else int(code)
        )
        return {"dropped": dropped}

    def _read_faults(self, path: list[str], body: Json) -> Any:
        faults = [dataclasses.asdict(fault) for fault in self._hub.misfortunes.active()]
        return {"faults": [{name: value for name, value in fault.items() if name != "held"} for fault in faults]}

    def _set_fault(self, path: list[str], body: Json) -> Any:
        conditions: Json = {
            name: int(body[name]) for name in ("user", "times") if body.get(name) is not None
        }  # fmt: skip
        if body.get("stream") is not None:
            if body["stream"] not in ("private", "public"):
                raise ValueError("stream is private or public")
            conditions["stream"] = body["stream"]
        if body.get("seconds") is not None:
            conditions["until_s"] = self._world.clock.monotonic_s() + float(body["seconds"])
        kind, options = text_of(body, "kind"), object_of(body, "options")
        return {"id": self._hub.misfortunes.add(kind, options, **conditions).number}

    def _clear_faults(self, path: list[str], body: Json) -> Any:
        self._hub.misfortunes.clear(int(path[0]) if path else None)
        return {}
