"""The REST side: one request through the gates to its endpoint, and into the books (limits, counters, truth log)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pushserver.exchange_sim import refusals
from pushserver.exchange_sim.accounts import ApiKey
from pushserver.exchange_sim.counters import NO_KEY, Counters
from pushserver.exchange_sim.endpoints import ANY_KEY, ANY_RIGHT, ENDPOINTS, Call, Endpoint
from pushserver.exchange_sim.faults import Faults, Injected
from pushserver.exchange_sim.http_messages import Answer, Request
from pushserver.exchange_sim.limits import AddressGate, Allowance, UserGate
from pushserver.exchange_sim.refusals import Refusal, Unauthorized
from pushserver.exchange_sim.signing import authenticate
from pushserver.exchange_sim.world import World

BAN_TEXT = b"403 Forbidden: access too frequent, please try again later"


class Rest:
    """Answers ``/v5`` requests. Never switches greenlets: an answer shows one instant."""

    def __init__(self, world: World, ban_s: float = 600.0) -> None:
        self.world = world
        self._ban_s = ban_s
        self._trace = 0
        self.clear()

    def clear(self) -> None:
        """No faults, no bans, no counts; limits as they were at the start."""
        self.user_gate = UserGate()
        self.address_gate = AddressGate(ban_s=self._ban_s)
        self.counters = Counters()
        self.faults = Faults(random.Random(f"{self.world.seed}:faults"))  # noqa: S311 - invented misfortune

    def answer(self, request: Request) -> Answer:
        """The answer; its delivery (delays, cuts) is the server's business."""
        now_s = self.world.clock.monotonic_s()
        api_key = request.headers.get("x-bapi-api-key", NO_KEY)
        self.counters.requests[request.path, api_key] += 1
        key = self.world.keys.get(api_key)
        injected = Injected()
        if not self.address_gate.ask(request.address, now_s):
            answer = Answer(status=403, raw=BAN_TEXT, content_type="text/plain")
        else:
            injected = self.faults.draw(request.path, request.query, api_key, key.user if key else None, now_s)
            replaced = injected.replacement(self.world.now_ms())
            answer = replaced or self._ordinary(request, now_s, injected)
            injected.distort(answer)
        answer.headers.update(self._edge_headers(answer))
        self._book(request, api_key, key, now_s, answer, injected)
        return answer

    def _ordinary(self, request: Request, now_s: float, injected: Injected) -> Answer:
        endpoint = ENDPOINTS.get(request.path)
        if endpoint is None:
            return Answer(status=404, raw=b"404 page not found", content_type="text/plain")
        if request.method != "GET":
            return Answer(status=400, raw=b"400 Bad Request", content_type="text/plain")
        if request.body:
            return Answer(status=403, raw=b"<html><h1>403 ERROR</h1>Bad request.</html>", content_type="text/html")
        headers: dict[str, str] = {}
        code, message, result = 0, endpoint.success_text, {}
        try:
            result = self._result(endpoint, request, now_s, headers, injected)
        except Refusal as refusal:
            code, message = refusal.code, refusal.message
        except Unauthorized:
            self.counters.refused_signatures += 1
            return Answer(status=401, raw=b"")
        if code in (refusals.UNKNOWN_KEY, refusals.BAD_TIMESTAMP, refusals.BAD_SIGNATURE):
            self.counters.refused_signatures += 1
        return Answer(payload=envelope(code, message, result, self.world.now_ms()), headers=headers)

    def _result(
        self, endpoint: Endpoint, request: Request, now_s: float, headers: dict[str, str], injected: Injected
    ) -> dict[str, Any]:
        """The endpoint's ``result``; fills in the limit headers. Raises Refusal and Unauthorized."""
        world = self.world
        now_ms = world.now_ms() + round(injected.total("queued", "seconds") * 1000)
        params = dict(parse_qsl(request.query, keep_blank_values=True))
        key, account = None, None
        if endpoint.limit_per_s is not None:
            key = authenticate(request.headers, request.query, request.address, world.keys, now_ms)
            account = world.account_as_of(key.user, lag_s(injected))
            if account is None:
                raise Refusal(refusals.UNKNOWN_KEY)
            check_permission(key, endpoint, params)
            allowance = self.user_gate.ask(key.user, endpoint.path, endpoint.limit_per_s, now_s)
            headers.update(limit_headers(allowance, now_ms))
            if not allowance.allowed:
                raise Refusal(refusals.TOO_MANY_VISITS)
        return endpoint.handle(Call(world, params, key, account, now_ms))

    def _edge_headers(self, answer: Answer) -> dict[str, str]:
        self._trace += 1
        headers = {"Traceid": f"{self._trace:032x}", "Timenow": str(self.world.now_ms()), "Server": "Openresty"}
        if isinstance(answer.payload, dict) and "retCode" in answer.payload:
            headers["Ret_code"] = str(answer.payload["retCode"])
        return headers

    def _book(
        self, request: Request, api_key: str, key: ApiKey | None, now_s: float, answer: Answer, injected: Injected
    ) -> None:
        world = self.world
        user = key.user if key else None
        account = world.account_as_of(user, lag_s(injected)) if user is not None else None
        code = answer.payload.get("retCode") if isinstance(answer.payload, dict) else None
        self.counters.statuses[str(answer.status)] += 1
        if code is not None:
            self.counters.ret_codes[str(code)] += 1
        self.counters.faults.update(injected.names)
        entry = {
            "t_in": now_s,
            "t_out": None if answer.hang_s or answer.cut_at_once else world.clock.monotonic_s() + answer.delay_s,
            "wall_ms": world.clock.wall_ms(),
            "address": request.address,
            "api_key": api_key,
            "user": user,
            "endpoint": request.path,
            "query": request.query,
            "status": answer.status,
            "ret_code": code,
            "version": account.version if account else None,
            "market_version": world.market.version,
            "faults": injected.names,
        }
        if world.truth.keep_bodies and answer.raw is None:
            entry["body"] = answer.body().decode()
        world.truth.record("answer", entry)


def lag_s(injected: Injected) -> float:
    """How old the account is that the answer shows."""
    return injected.total("stale", "ms") / 1000


def check_permission(key: ApiKey, endpoint: Endpoint, params: Mapping[str, str]) -> None:
    """Raises Refusal 10005 unless the key has the right the endpoint asks for."""
    if endpoint.permission is ANY_KEY:
        return
    if endpoint.permission is ANY_RIGHT:
        allowed = any(key.permissions.values())
    else:
        group, right = ("Spot", "SpotTrade") if params.get("category") == "spot" else endpoint.permission
        allowed = right in key.permissions.get(group, ())
    if not allowed:
        raise Refusal(refusals.PERMISSION_DENIED)


def limit_headers(allowance: Allowance, now_ms: int) -> dict[str, str]:
    return {
        "X-Bapi-Limit": str(allowance.limit),
        "X-Bapi-Limit-Status": str(allowance.remaining),
        "X-Bapi-Limit-Reset-Timestamp": str(now_ms + round(allowance.reset_in_s * 1000)),
    }


def envelope(code: int, message: str, result: Any, now_ms: int) -> dict[str, Any]:
    return {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms}
