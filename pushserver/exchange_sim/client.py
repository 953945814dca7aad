"""A client of the control API for tests and scripts; standard library only, so that any process can use it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

Json = dict[str, Any]


class ControlError(Exception):
    """The exchange refused the call; the text says why."""


class SimControl:
    """Steers the simulated exchange at ``base_url`` (``http://127.0.0.1:PORT``). Every method is one HTTP call.

    Figures may be given as strings, ints or floats; they come back as strings. All methods raise ControlError when
    the call is refused and OSError when nobody answers.
    """

    def __init__(self, base_url: str, timeout_s: float = 10.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        request = urllib.request.Request(  # noqa: S310 - the address is the caller's own simulator
            f"{self.base_url}/control/{path}",
            data=json.dumps(body or {}, default=str).encode(),
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310
                parsed: Json = json.load(answer)
                return parsed
        except urllib.error.HTTPError as error:
            with error:
                raise ControlError(f"{error.code}: {error.read().decode(errors='replace')}") from None

    # Accounts

    def reset(self, users: int = 0, seed: int | None = None) -> Json:
        """An empty exchange (or seeded users 1..N): no accounts, faults, bans, counts or truth."""
        return self.call("POST", "reset", {"users": users} | ({} if seed is None else {"seed": seed}))

    def put_account(self, user: int, **parts: Any) -> Json:
        """Create or replace user ``user``: ``api_key``, ``api_secret`` and the parts of ``change``."""
        return self.call("PUT", f"accounts/{user}", parts)

    def change(self, user: int, **parts: Any) -> Json:
        """One atomic change (see account_changes.py for the parts); ``{"version", "types", "order_ids"}``."""
        return self.call("POST", f"accounts/{user}", parts)

    def account(self, user: int) -> Json:
        return self.call("GET", f"accounts/{user}")

    def users(self) -> list[int]:
        return list(self.call("GET", "accounts")["users"])

    def delete_account(self, user: int) -> None:
        self.call("DELETE", f"accounts/{user}")

    def figures(self, user: int) -> Json:
        """What a right client shows now: ``balance``, ``positions``, ``pnl``, ``orders``, and ``version``."""
        return self.call("GET", f"figures/{user}")

    def set_wallet(self, user: int, **coins: Any) -> Json:
        """``set_wallet(1, USDT="1000")``."""
        return self.change(user, wallet=coins)

    def set_position(self, user: int, symbol: str, side: str, size: Any, avg_price: Any, **fields: Any) -> Json:
        row = {"symbol": symbol, "side": side, "size": size, "avg_price": avg_price, **fields}
        return self.change(user, positions=[row])

    def place_order(self, user: int, symbol: str, side: str, quantity: Any, price: Any = 0, **fields: Any) -> str:
        """The id of the new open order."""
        row = {"symbol": symbol, "side": side, "quantity": quantity, "price": price, **fields}
        return str(self.change(user, orders=[row])["order_ids"][0])

    def cancel_order(self, user: int, order_id: str) -> Json:
        return self.change(user, cancel=[order_id])

    def fill_order(self, user: int, order_id: str, **fields: Any) -> Json:
        return self.change(user, fill=[{"order_id": order_id, **fields}])

    def close_position(self, user: int, symbol: str, **fields: Any) -> Json:
        return self.change(user, close=[{"symbol": symbol, **fields}])

    # Keys

    def put_key(self, api_key: str, secret: str, user: int, **fields: Any) -> Json:
        return self.call("PUT", f"keys/{api_key}", {"secret": secret, "user": user, **fields})

    def change_key(self, api_key: str, **fields: Any) -> Json:
        """``permissions``, ``read_only``, ``ips``, ``expires_ms``, ``secret``."""
        return self.call("POST", f"keys/{api_key}", fields)

    def revoke_key(self, api_key: str) -> None:
        """The key is unknown (10003) from now on."""
        self.call("DELETE", f"keys/{api_key}")

    # Market and clock

    def set_marks(self, **marks: Any) -> Json:
        return self.call("POST", "market", {"marks": marks})

    def set_usd_prices(self, **prices: Any) -> Json:
        return self.call("POST", "market", {"usd_prices": prices})

    def freeze(self, market: bool = True, activity: bool = True) -> Json:
        return self.call("POST", "market", {"market_frozen": market, "activity_frozen": activity})

    def unfreeze(self) -> Json:
        return self.freeze(market=False, activity=False)

    def market(self) -> Json:
        return self.call("GET", "market")

    def skew_clock(self, skew_ms: int) -> Json:
        return self.call("POST", "clock", {"skew_ms": skew_ms})

    # Faults, bans and limits

    def fault(self, kind: str, options: Json | None = None, **conditions: Any) -> int:
        """Set a fault; its number. Conditions: ``endpoint``, ``query_contains``, ``api_key``, ``user``,
        ``times``, ``skip``, ``seconds``, ``probability``; without ``times`` and ``seconds`` it stays until cleared."""
        return int(self.call("POST", "faults", {"kind": kind, "options": options or {}, **conditions})["id"])

    def faults(self) -> list[Json]:
        return list(self.call("GET", "faults")["faults"])

    def clear_faults(self, number: int | None = None) -> None:
        self.call("DELETE", "faults" if number is None else f"faults/{number}")

    def ban(self, seconds: float, address: str = "127.0.0.1") -> None:
        self.call("POST", "ban", {"seconds": seconds, "address": address})

    def lift_ban(self, address: str = "127.0.0.1") -> None:
        self.call("DELETE", "ban", {"address": address})

    def set_limits(self, **limits: Any) -> Json:
        """``requests``, ``window_s``, ``ban_s`` of the address gate; ``per_endpoint={path: per second}``;
        ``taken_by_others={user: per second}``; ``connects``, ``connects_window_s`` of the streams."""
        return self.call("POST", "limits", limits)

    def restart(self, seconds: float = 0.0) -> int:
        """Cut all streams, forget recently closed orders, serve nobody for ``seconds``; the streams cut."""
        return int(self.call("POST", "restart", {"seconds": seconds})["dropped"])

    # Streams

    def streams(self) -> Json:
        """``open`` streams by kind, ``users`` with private ones (``several``: with more than one), ``topics``,
        ``connects`` and ``most_connects`` by address in a window, counts."""
        return self.call("GET", "streams")

    def streams_of(self, user: int) -> list[Json]:
        """``conn_id``, ``topics`` and ``quiet_s`` (since the client last spoke) of each private stream of a user."""
        return list(self.call("GET", f"streams/{user}")["streams"])

    def limit_streams(self, connects: int) -> Json:
        """So many new connections of one address in five minutes."""
        return self.call("POST", "streams", {"connects": connects})

    def drop_streams(self, stream: str | None = None, user: int | None = None, code: int | None = None) -> int:
        """Close with ``code``, or cut without a word; how many."""
        wanted = {"stream": stream, "user": user, "code": code}
        body = {name: value for name, value in wanted.items() if value is not None}
        return int(self.call("DELETE", "streams", body)["dropped"])

    def say_on_streams(
        self,
        text: str | None = None,
        what: str | None = None,
        stream: str | None = None,
        user: int | None = None,
        times: int = 1,
    ) -> int:
        """Send ``text`` as it is, or a ready-made message ``what`` (see streams/forgeries.py), on the chosen streams,
        past all faults; the streams told."""
        wanted = {"text": text, "what": what, "stream": stream, "user": user, "times": times}
        body = {name: value for name, value in wanted.items() if value is not None}
        return int(self.call("POST", "streams/say", body)["streams"])

    def stream_faults(self) -> list[Json]:
        return list(self.call("GET", "stream-faults")["faults"])

    def stream_fault(self, kind: str, options: Json | None = None, **conditions: Any) -> int:
        """Conditions: ``stream`` (private, public), ``user``, ``times``, ``seconds``, ``probability``; its number."""
        return int(self.call("POST", "stream-faults", {"kind": kind, "options": options or {}, **conditions})["id"])

    def clear_stream_faults(self, number: int | None = None) -> None:
        self.call("DELETE", "stream-faults" if number is None else f"stream-faults/{number}")

    # Counters and truth

    def mark_counters(self) -> int:
        return int(self.call("POST", "counters")["mark"])

    def counters(self, mark: int = 0) -> Json:
        """Requests since ``mark`` (0: since the start) by endpoint and key, bans, refused signatures, …"""
        return self.call("GET", "counters", {"mark": mark})

    def keep_in_truth(self, **settings: Any) -> Json:
        """``keep_bodies``, ``keep_figures``, ``keep_streams``, ``capacity``."""
        return self.call("POST", "truth", settings)

    def truth(self, after: int = 0, kind: str | None = None, limit: int = 10_000) -> list[Json]:
        """Entries newer than ``after``; ``kind`` is ``change``, ``market``, ``answer`` or ``stream``."""
        body = {"after": after, "limit": limit} | ({} if kind is None else {"kind": kind})
        return list(self.call("GET", "truth", body)["entries"])
