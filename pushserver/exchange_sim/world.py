"""Everything the simulated exchange knows at one instant: market, accounts, keys, clock, and the log of truth.

One process, one thread, and no switch of greenlets in here: a change is complete before anybody else can look.
"""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from pushserver.clock import Clock
from pushserver.exchange_sim.accounts import Account, ApiKey
from pushserver.exchange_sim.figures import TYPES, figures_of
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.truth import TruthLog

#: How many former states of accounts are remembered for answers that lag behind, and for how long at most.
MOST_FORMER_STATES = 2_000
LONGEST_LAG_S = 60.0


class Follower(Protocol):
    """Who is told at once of everything that changes; the account after a change still has its ``fills``."""

    def account_changed(self, before: Account | None, after: Account) -> None: ...

    def account_deleted(self, user: int) -> None: ...

    def market_moved(self, symbols: list[str]) -> None: ...


class World:
    """Accounts by user number and keys by name. Every change of an account goes through ``commit``."""

    def __init__(self, clock: Clock, seed: int = 1, frozen: bool = False) -> None:
        self.clock = clock
        self.truth = TruthLog()
        self.followers: list[Follower] = []
        self._starts_frozen = frozen
        self.clear(seed)

    def clear(self, seed: int) -> None:
        """An empty exchange with a fresh market, frozen or not as at the start."""
        self.truth.clear()
        self.seed = seed
        self.market = Market()
        self.accounts: dict[int, Account] = {}
        self.keys: dict[str, ApiKey] = {}
        #: (when it was replaced, the account before), oldest first.
        self._former: deque[tuple[float, Account]] = deque(maxlen=MOST_FORMER_STATES)
        self.skew_ms = 0
        self.market_frozen = self.activity_frozen = self._starts_frozen
        #: Source of all movement; anew at each reset, so that a seed always tells the same story.
        self.chance = random.Random(f"{seed}:market")  # noqa: S311 - a market nobody bets on
        self._chance_of_ids = random.Random(f"{seed}:ids")  # noqa: S311 - invented order ids, not secrets

    def now_ms(self) -> int:
        """The exchange's own clock, skew included."""
        return self.clock.wall_ms() + self.skew_ms

    def new_order_id(self) -> str:
        return str(uuid.UUID(int=self._chance_of_ids.getrandbits(128), version=4))

    def account(self, user: int) -> Account:
        """Raises KeyError for an unknown user."""
        return self.accounts[user]

    def account_as_of(self, user: int, lag_s: float) -> Account | None:
        """The account as it was ``lag_s`` ago (at most a minute); None for an unknown user."""
        if lag_s > 0:
            wanted_s = self.clock.monotonic_s() - lag_s
            for replaced_s, former in self._former:
                if former.user == user and replaced_s > wanted_s:
                    return former
        return self.accounts.get(user)

    def commit(self, account: Account, cause: str) -> tuple[Account, list[str]]:
        """Put ``account`` in the place of its former self; its new version, and the data types that really differ."""
        before = self.accounts.get(account.user)
        version = before.version + 1 if before else 1
        now_ms = self.now_ms()
        account = replace(account, version=version, updated_ms=now_ms)
        figures = figures_of(account, self.market, now_ms)
        old = figures_of(before, self.market, now_ms) if before else None
        types = [name for name in TYPES if old is None or old[name] != figures[name]]
        self.accounts[account.user] = replace(account, fills=())
        self._remember(before)
        entry = self._stamp() | {"user": account.user, "version": version, "types": types, "cause": cause}
        self.truth.record("change", entry | ({"figures": figures} if self.truth.keep_figures else {}))
        for follower in self.followers:
            follower.account_changed(before, account)
        return account, types

    def _remember(self, former: Account | None) -> None:
        now_s = self.clock.monotonic_s()
        while self._former and self._former[0][0] < now_s - LONGEST_LAG_S:
            self._former.popleft()
        if former is not None:
            self._former.append((now_s, former))

    def restart(self) -> None:
        """What a restart of the exchange loses: the orders that were recently filled or cancelled."""
        for user, account in self.accounts.items():
            self.accounts[user] = replace(account, recent_orders=())

    def delete(self, user: int) -> None:
        """Remove an account and its keys. Raises KeyError for an unknown user."""
        account = self.accounts.pop(user)
        self.keys = {name: key for name, key in self.keys.items() if key.user != user}
        entry = {"user": user, "version": account.version, "types": list(TYPES), "cause": "deleted"}
        self.truth.record("change", self._stamp() | entry)
        for follower in self.followers:
            follower.account_deleted(user)

    def change_market(self, marks: Mapping[str, Decimal], usd_prices: Mapping[str, Decimal], cause: str) -> None:
        """Move marks and the USD prices of coins such as USDT together. Raises ValueError, having changed nothing."""
        before = self.market.version
        moved = self.market.set_prices(marks, usd_prices)
        if self.market.version == before:
            return
        entry = {
            "market_version": self.market.version,
            "marks": {symbol: str(self.market.marks[symbol]) for symbol in sorted(moved)},
            "usd_prices": {coin: str(price) for coin, price in usd_prices.items()},
            "cause": cause,
        }
        self.truth.record("market", self._stamp() | entry)
        for follower in self.followers:
            follower.market_moved(sorted(moved))

    def _stamp(self) -> dict[str, float | int]:
        return {"t": self.clock.monotonic_s(), "wall_ms": self.clock.wall_ms()}
