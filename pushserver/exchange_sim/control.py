"""The control API under ``/control``: JSON in, JSON out, from this machine only.

It exists for scripts and tests: they set what the exchange holds, make it fail, and read what really happened. The
calls are listed in docs/exchange-sim.md and, as a client, in client.py. Every call is done at one instant: all
endpoints show its effect from then on. A refused call answers 400 (404 for what does not exist) with
``{"error": "…"}`` and has changed nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from pushserver.exchange_sim.account_changes import AccountChange
from pushserver.exchange_sim.accounts import Account, ApiKey
from pushserver.exchange_sim.figures import figures_of
from pushserver.exchange_sim.http_messages import Answer, Request
from pushserver.exchange_sim.rest import Rest
from pushserver.exchange_sim.seeding import seed_users
from pushserver.exchange_sim.specs import decimal_of, flag_of, object_of, text_of, texts_of, update
from pushserver.exchange_sim.streams.control import StreamControl
from pushserver.exchange_sim.streams.hub import Hub
from pushserver.exchange_sim.trouble import TroubleControl
from pushserver.exchange_sim.world import World

FREEZERS = ("market_frozen", "activity_frozen")
KEY_FIELDS = frozenset({"api_key", "api_secret", "keys"})


class Missing(Exception):
    """What the path names does not exist."""


class Control:
    """``handle`` serves one call; ``verbs`` maps (method, first path segment) to what it does."""

    def __init__(self, world: World, rest: Rest, hub: Hub) -> None:
        self._world, self._rest, self._hub = world, rest, hub
        streams = StreamControl(world, hub)
        self._verbs: dict[tuple[str, str], Callable[[list[str], dict[str, Any]], Any]] = {
            ("GET", "health"): lambda rest_of_path, body: {"ok": True},
            ("POST", "reset"): self._reset,
            ("GET", "accounts"): self._read_accounts,
            ("PUT", "accounts"): self._replace_account,
            ("POST", "accounts"): self._change_account,
            ("DELETE", "accounts"): self._delete_account,
            ("GET", "figures"): self._read_figures,
            ("PUT", "keys"): self._put_key,
            ("POST", "keys"): self._change_key,
            ("DELETE", "keys"): self._delete_key,
            ("GET", "market"): self._read_market,
            ("POST", "market"): self._change_market,
            **TroubleControl(world, rest, hub, streams).verbs(),
            **streams.verbs(),
            ("POST", "clock"): self._set_clock,
            ("GET", "counters"): self._read_counters,
            ("POST", "counters"): self._mark_counters,
            ("GET", "truth"): self._read_truth,
            ("POST", "truth"): self._set_truth,
        }

    def handle(self, request: Request) -> Answer:
        segments = [unquote(part) for part in request.path.split("/")[2:] if part]
        verb = self._verbs.get((request.method, segments[0] if segments else ""))
        if not request.address.startswith("127.") and request.address != "::1":
            return Answer(status=403, payload={"error": "control is for this machine only"})
        if verb is None:
            return Answer(status=404, payload={"error": f"no call {request.method} {request.path}"})
        try:
            body = orjson.loads(request.body) if request.body else dict(parse_qsl(request.query))
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
            return Answer(payload=verb(segments[1:], body))
        except Missing as missing:
            return Answer(status=404, payload={"error": str(missing)})
        except (ValueError, TypeError, ArithmeticError) as error:
            # A wrong call: the text goes back to the script that made it.
            return Answer(status=400, payload={"error": f"{type(error).__name__}: {error}"})

    # Accounts and keys

    def _reset(self, path: list[str], body: dict[str, Any]) -> Any:
        seed, users = int(body.get("seed", self._world.seed)), int(body.get("users", 0))
        self._world.clear(seed)
        self._rest.clear()
        self._hub.clear()
        seed_users(self._world, users)
        return {"users": sorted(self._world.accounts)}

    def _account(self, path: list[str]) -> Account:
        account = self._world.accounts.get(user_of(path))
        if account is None:
            raise Missing(f"no user {path[0]}")
        return account

    def _describe(self, account: Account) -> Any:
        held = {
            "coins": [dataclasses.asdict(coin) for coin in account.coins.values()],
            "positions": [dataclasses.asdict(p) for p in account.positions.values()],
            "orders": [dataclasses.asdict(order) for order in account.orders.values()],
            "closed": [dataclasses.asdict(row) for row in account.closed],
        }
        modes = {n: getattr(account, n) for n in ("user", "version", "margin_mode", "hedge", "unified_margin_status")}
        keys = [key.api_key for key in self._world.keys.values() if key.user == account.user]
        return modes | {"keys": keys} | orjson.loads(orjson.dumps(held, default=str))

    def _read_accounts(self, path: list[str], body: dict[str, Any]) -> Any:
        if not path:
            return {"users": sorted(self._world.accounts)}
        return self._describe(self._account(path))

    def _replace_account(self, path: list[str], body: dict[str, Any]) -> Any:
        user = user_of(path)
        parts = {name: value for name, value in body.items() if name not in KEY_FIELDS}
        account = AccountChange(self._world, Account(user)).apply(parts)
        specs = [*body.get("keys", [])]
        if "api_key" in body:
            specs.append({"api_key": body["api_key"], "secret": body.get("api_secret", "")})
        keys = [self._new_key(user, text_of(spec, "api_key"), spec) for spec in specs]
        account, types = self._world.commit(account, "replaced")
        self._world.keys.update({key.api_key: key for key in keys})
        return {"user": user, "version": account.version, "types": types}

    def _change_account(self, path: list[str], body: dict[str, Any]) -> Any:
        change = AccountChange(self._world, self._account(path))
        account, types = self._world.commit(change.apply(body), "control")
        return {"user": account.user, "version": account.version, "types": types, "order_ids": change.placed}

    def _delete_account(self, path: list[str], body: dict[str, Any]) -> Any:
        self._world.delete(self._account(path).user)
        return {}

    def _read_figures(self, path: list[str], body: dict[str, Any]) -> Any:
        account = self._account(path)
        now_ms = self._world.now_ms()
        figures = figures_of(account, self._world.market, now_ms, body.get("settle_coin", "USDT"))
        versions = {"version": account.version, "market_version": self._world.market.version}
        return figures | versions | {"time_ms": now_ms, "t": self._world.clock.monotonic_s()}

    def _new_key(self, user: int, api_key: str, spec: dict[str, Any]) -> ApiKey:
        text_of(spec, "secret")
        blank = ApiKey(api_key, "", user, created_ms=self._world.now_ms())
        return with_key_fields(blank, spec)

    def _put_key(self, path: list[str], body: dict[str, Any]) -> Any:
        if not path:
            raise Missing("a key has a name: /control/keys/some-key")
        key = self._new_key(int(body.get("user", 0)), path[0], body)
        if key.user not in self._world.accounts:
            raise Missing(f"no user {key.user}")
        self._world.keys[path[0]] = key
        return {"api_key": key.api_key, "user": key.user}

    def _key(self, path: list[str]) -> ApiKey:
        if not path or path[0] not in self._world.keys:
            raise Missing(f"no key {'/'.join(path)}")
        return self._world.keys[path[0]]

    def _change_key(self, path: list[str], body: dict[str, Any]) -> Any:
        key = with_key_fields(self._key(path), body)
        self._world.keys[path[0]] = key
        return {"api_key": key.api_key, "user": key.user}

    def _delete_key(self, path: list[str], body: dict[str, Any]) -> Any:
        del self._world.keys[self._key(path).api_key]
        return {}

    # Market and clock

    def _read_market(self, path: list[str], body: dict[str, Any]) -> Any:
        market = self._world.market
        return {
            "market_version": market.version,
            "marks": {symbol: str(mark) for symbol, mark in market.marks.items()},
            "usd_prices": {coin: str(price) for coin, price in market.stable_prices.items()},
            "market_frozen": self._world.market_frozen,
            "activity_frozen": self._world.activity_frozen,
        }

    def _change_market(self, path: list[str], body: dict[str, Any]) -> Any:
        marks = {symbol: decimal_of(mark, symbol) for symbol, mark in object_of(body, "marks").items()}
        prices = {coin: decimal_of(price, coin) for coin, price in object_of(body, "usd_prices").items()}
        frozen = {name: flag_of(body, name, getattr(self._world, name)) for name in FREEZERS}
        self._world.change_market(marks, prices, "control")
        for name, value in frozen.items():
            setattr(self._world, name, value)
        return self._read_market(path, {})

    def _set_clock(self, path: list[str], body: dict[str, Any]) -> Any:
        self._world.skew_ms = int(body.get("skew_ms", 0))
        return {"skew_ms": self._world.skew_ms, "time_ms": self._world.now_ms()}

    # Counters and truth

    def _read_counters(self, path: list[str], body: dict[str, Any]) -> Any:
        gate = self._rest.address_gate
        try:
            report = self._rest.counters.report(int(body.get("mark", 0)))
        except KeyError:
            raise Missing(f"no mark {body['mark']}") from None
        return report | {
            "most_in_a_window": dict(gate.most_in_a_window),
            "bans": gate.bans,
            "refused_during_bans": gate.refused_during_bans,
            "banned": gate.banned(self._world.clock.monotonic_s()),
            "stream_connects": self._hub.gate.connects(self._world.clock.monotonic_s()),
        }

    def _mark_counters(self, path: list[str], body: dict[str, Any]) -> Any:
        return {"mark": self._rest.counters.mark()}

    def _read_truth(self, path: list[str], body: dict[str, Any]) -> Any:
        truth = self._world.truth
        entries = truth.read(int(body.get("after", 0)), int(body.get("limit", 10_000)), body.get("kind"))
        now = {"t": self._world.clock.monotonic_s(), "wall_ms": self._world.clock.wall_ms()}
        return {"entries": entries, "last_seq": truth.last_seq} | now

    def _set_truth(self, path: list[str], body: dict[str, Any]) -> Any:
        truth = self._world.truth
        truth.keep_bodies = bool(body.get("keep_bodies", truth.keep_bodies))
        truth.keep_figures = bool(body.get("keep_figures", truth.keep_figures))
        truth.keep_streams = bool(body.get("keep_streams", truth.keep_streams))
        if "capacity" in body:
            truth.resize(int(body["capacity"]))
        return {"keep_bodies": truth.keep_bodies, "keep_figures": truth.keep_figures, "last_seq": truth.last_seq}


def user_of(path: list[str]) -> int:
    if not path or not path[0].isdigit():
        raise Missing("a user is a number: /control/accounts/7")
    return int(path[0])


def with_key_fields(key: ApiKey, spec: dict[str, Any]) -> ApiKey:
    """``key`` with the fields of ``spec``; permissions are ``{group: [rights]}``, ``ips`` a list of addresses."""
    key = update(key, spec, skip=frozenset({"permissions", "ips", "api_key", "user"}))
    if "permissions" in spec:
        granted = object_of(spec, "permissions")
        permissions = {group: texts_of(granted, group) for group in granted}
        key = dataclasses.replace(key, permissions=permissions)
    if "ips" in spec:
        key = dataclasses.replace(key, ips=texts_of(spec, "ips"))
    return key
