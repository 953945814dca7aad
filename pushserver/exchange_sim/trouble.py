"""The part of the control API that makes trouble: faults of answers, bans, limits, and a restart of the exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pushserver.exchange_sim.endpoints import ENDPOINTS
from pushserver.exchange_sim.rest import Rest
from pushserver.exchange_sim.specs import object_of, text_of
from pushserver.exchange_sim.streams.control import StreamControl
from pushserver.exchange_sim.streams.hub import Hub
from pushserver.exchange_sim.world import World

#: What may narrow a fault down, and the type each has.
CONDITIONS: dict[str, Any] = {
    "api_key": str,
    "user": int,
    "endpoint": str,
    "query_contains": str,
    "times": int,
    "skip": int,
    "probability": int | float,
}
RESTARTING = 10019


class TroubleControl:
    """The calls ``faults``, ``ban``, ``limits`` and ``restart`` of the control API."""

    def __init__(self, world: World, rest: Rest, hub: Hub, streams: StreamControl) -> None:
        self._world, self._rest, self._hub, self._streams = world, rest, hub, streams

    def verbs(self) -> dict[tuple[str, str], Callable[[list[str], dict[str, Any]], Any]]:
        """(method, first path segment) to what it does."""
        return {
            ("GET", "faults"): self._read_faults,
            ("POST", "faults"): self._set_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "ban"): self._ban,
            ("DELETE", "ban"): self._lift_ban,
            ("POST", "limits"): self._set_limits,
            ("POST", "restart"): self._restart,
        }

    def _read_faults(self, path: list[str], body: dict[str, Any]) -> Any:
        active = self._rest.faults.active(self._world.clock.monotonic_s())
        return {"faults": [dataclasses.asdict(fault) for fault in active]}

    def _set_fault(self, path: list[str], body: dict[str, Any]) -> Any:
        conditions = {name: body[name] for name in CONDITIONS if body.get(name) is not None}
        for name, value in conditions.items():
            if not isinstance(value, CONDITIONS[name]) or isinstance(value, bool):
                raise ValueError(f"{name} cannot be {value!r}")
        if conditions.get("endpoint", "/v5/market/time") not in ENDPOINTS:
            raise ValueError(f"endpoint is one of {', '.join(ENDPOINTS)}")
        if body.get("seconds") is not None:
            conditions["until_s"] = self._world.clock.monotonic_s() + float(body["seconds"])
        options = object_of(body, "options")
        return {"id": self._rest.faults.set(text_of(body, "kind"), options, **conditions).number}

    def _clear_faults(self, path: list[str], body: dict[str, Any]) -> Any:
        self._rest.faults.clear(int(path[0]) if path else None)
        return {}

    def _ban(self, path: list[str], body: dict[str, Any]) -> Any:
        gate = self._rest.address_gate
        seconds = float(body.get("seconds", gate.ban_s))
        gate.ban(body.get("address", "127.0.0.1"), seconds, self._world.clock.monotonic_s())
        return {}

    def _lift_ban(self, path: list[str], body: dict[str, Any]) -> Any:
        self._rest.address_gate.lift(body.get("address", "127.0.0.1"))
        return {}

    def _set_limits(self, path: list[str], body: dict[str, Any]) -> Any:
        gate = self._rest.address_gate
        per_endpoint = {path: int(limit) for path, limit in object_of(body, "per_endpoint").items()}
        taken = {int(user): int(count) for user, count in object_of(body, "taken_by_others").items()}
        requests = int(body.get("requests", gate.limit))
        window_s, ban_s = float(body.get("window_s", gate.window_s)), float(body.get("ban_s", gate.ban_s))
        of_streams = self._streams.set_limits(body)
        gate.limit, gate.window_s, gate.ban_s = requests, window_s, ban_s
        self._rest.user_gate.overrides.update(per_endpoint)
        self._rest.user_gate.taken_by_others.update(taken)
        return {"requests": gate.limit, "window_s": gate.window_s, "ban_s": gate.ban_s, **of_streams}

    def _restart(self, path: list[str], body: dict[str, Any]) -> Any:
        """Streams are cut, recently closed orders forgotten; for ``seconds`` nobody is served."""
        seconds = float(body.get("seconds", 0))
        self._world.restart()
        if seconds > 0:
            until_s = self._world.clock.monotonic_s() + seconds
            answer = {"code": RESTARTING, "message": "The service is restarting"}
            self._rest.faults.set("ret_code", answer, until_s=until_s)
            self._hub.misfortunes.add("refuse_handshake", {"status": 502}, until_s=until_s)
        return {"dropped": self._hub.drop(None, None, None)}
