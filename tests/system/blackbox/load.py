"""Users whose accounts change at a steady rate, each state recognisable in what a client shows.

The n-th change of a user writes ``base + n * 0.000001`` into legitimate figures, the base being the user's own, so no
two states of anybody are alike. What belongs together changes together: figures of two different moments in one
state are then a state that never was.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pushserver.exchange_sim.client import SimControl

STEP = Decimal("0.000001")
SYMBOL = "BTCUSDT"
#: What one change of an account touches; most touch everything.
PARTS = ((("wallet", "positions", "orders"), 5), (("wallet",), 1), (("positions", "wallet"), 2), (("orders",), 2))


class Load:
    """``users`` get accounts of their own making; then ``start`` and ``stop`` as often as wanted."""

    def __init__(self, exchange: SimControl, users: Sequence[int], changes_per_s: float, seed: int) -> None:
        self._exchange = exchange
        self._users = list(users)
        self._changes_per_s = changes_per_s
        self._chance = random.Random(f"{seed}:load")
        self._count = dict.fromkeys(users, 0)
        self._order_ids: dict[int, str] = {}
        self._entry_price = Decimal(exchange.market()["marks"][SYMBOL]) - 10
        self._only: tuple[str, ...] = ()
        self._running = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def prepare(self) -> None:
        """An account of known content for everybody."""
        for user in self._users:
            fresh = {
                "margin_mode": "REGULAR_MARGIN",
                "hedge": False,
                "drop": ["wallet", "positions", "orders", "closed"],
            }
            answer = self._exchange.change(user, **fresh, **self._parts(user, PARTS[0][0]))
            self._order_ids[user] = answer["order_ids"][0]

    def change(self, user: int) -> None:
        """One change now."""
        names, weights = zip(*PARTS, strict=True)
        chosen = self._only or self._chance.choices(names, weights)[0]
        self._exchange.change(user, **self._parts(user, chosen))

    def change_everybody(self) -> None:
        """One change of everything of everybody."""
        for user in self._users:
            self._exchange.change(user, **self._parts(user, PARTS[0][0]))

    def start(self, only: Sequence[str] = ()) -> None:
        """``only``: the parts that change from now on (``wallet``, ``positions``, ``orders``); none named: all."""
        self._only = tuple(only)
        self._running.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when no further change will come. Raises what the load met, if it failed."""
        self._running.clear()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        due_s = time.monotonic()
        while self._running.is_set():
            try:
                self.change(self._chance.choice(self._users))
            except Exception as error:  # kept for the test's own thread: a load that died silently proves nothing
                self._failure = error
                return
            due_s = max(due_s + 1 / self._changes_per_s, time.monotonic() - 1)
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _parts(self, user: int, names: Sequence[str]) -> dict[str, Any]:
        self._count[user] += 1
        smuggled = self._count[user] * STEP
        order = {"symbol": "ETHUSDT", "side": "Sell", "quantity": str(user + smuggled), "price": "9000"}
        if user in self._order_ids:
            order["order_id"] = self._order_ids[user]
        wallet = {"wallet_balance": str(1000 * user + smuggled), "cum_realised_pnl": str(10 * user + smuggled)}
        position = {"symbol": SYMBOL, "side": "Buy", "size": str(user + smuggled), "avg_price": str(self._entry_price)}
        parts = {"wallet": {"USDT": wallet}, "positions": [position], "orders": [order]}
        return {name: parts[name] for name in names}
