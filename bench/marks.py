"""CPU of keeping users at the market: one process with its share of the users, every price moving every second.

All users listen to all types, so each second writes and publishes three states of each. The time is what the process
spent on a core, the share of Redis is its own process's.
"""

from __future__ import annotations

import sys
import time
from decimal import Decimal

import click

from bench.valkey import valkey, valkey_cpu_s
from pushserver.bus import keys
from pushserver.bus.bases import Bases
from pushserver.bus.connection import connect
from pushserver.bus.homes import Live
from pushserver.bus.states import Commit, States
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.mark_records import MarksCommitted
from pushserver.model import AccountData, Balance, DataType, Pnl, Secret
from pushserver.observers import RecordingObserver
from pushserver.workers.mark_bases import balance_base, pnl_base, positions_base
from pushserver.workers.marks import SHARES, Marks

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")
ENTRY = Decimal("100")


class Ticker:
    """Prices that all move each second."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self.step = 0

    def want(self, symbols: object) -> None:
        pass

    def mark(self, symbol: str) -> tuple[Decimal, int]:
        return ENTRY + Decimal(self.step) / 100, self._clock.wall_ms()

    def is_fresh(self, symbol: str) -> bool:
        return True


class Homes:
    def __init__(self, users: int) -> None:
        self._users = range(1, users + 1)

    def homes(self) -> range:
        return self._users

    def set_live(self, user_id: int, bit: Live, on: bool) -> None:
        pass


class NoEars:
    """Nothing is published but by ourselves."""

    def subscribe(self, channels: object, timeout_s: float) -> bool:
        return True

    def unsubscribe(self, channels: object) -> None:
        pass


def commits_of(user_id: int, rows: int, now_ms: int) -> list[Commit]:
    """What a round commits of an account with so many positions."""
    held = [
        {"category": "linear", "symbol": symbol, "side": "Buy", "size": "0.5", "avgPrice": "100", "markPrice": "100",
         "unrealisedPnl": "0"}
        for symbol in SYMBOLS[:rows]
    ]  # fmt: skip
    coin = {"coin": "USDT", "equity": "1000", "usdValue": "1000", "unrealisedPnl": "0"}
    account = {"totalAvailableBalance": "800", "coin": [coin]}
    balance, pnl = Balance(Decimal(1000), Decimal(800), Decimal(200)), Pnl(*(Decimal(0),) * 4)
    bases: dict[DataType, tuple[AccountData, bytes]] = {
        DataType.BALANCE: (balance, balance_base(balance, account, now_ms, "t")),
        DataType.POSITIONS: ((), positions_base(held, now_ms, "t")),
        DataType.PNL: (pnl, pnl_base(pnl, held, now_ms, "t")),
    }
    return [
        Commit(user_id, data_type, encode_update(data_type, user_id, data, now_ms, now_ms), now_ms, "", base)
        for data_type, (data, base) in bases.items()
    ]


def measure(users: int, rows: int, seconds: int) -> dict[str, float]:
    """``us_per_user``: of our process per user and second; ``redis_us_per_user`` of Redis's."""
    with valkey() as url:
        clock, observer = SystemClock(), RecordingObserver()
        client = connect(Secret(url))
        states, ticker = States(client, clock), Ticker(clock)
        for user_id in range(1, users + 1):
            states.commit_many(commits_of(user_id, rows, clock.wall_ms()))
        listener = client.pubsub()
        for user_id in range(1, users + 1):
            listener.ssubscribe(*(keys.update_channel(user_id, data_type) for data_type in DataType))
        marks = Marks(ticker, Homes(users), states, Bases(client), lambda users: None, clock, observer)
        marks.listener = NoEars()  # type: ignore[assignment]
        marks.sync_once()
        began_s, redis_began_s = time.process_time(), valkey_cpu_s(url)
        for _ in range(seconds):
            ticker.step += 1
            for share in range(SHARES):
                marks.visit(share)
        spent_s, redis_spent_s = time.process_time() - began_s, valkey_cpu_s(url) - redis_began_s
        marks.measure()
        published = sum(r.states for r in observer.records if isinstance(r, MarksCommitted) and r.result == "published")
        return {
            "published_per_user": published / users / seconds,
            "us_per_user": spent_s / users / seconds * 1e6,
            "redis_us_per_user": redis_spent_s / users / seconds * 1e6,
        }


@click.command()
@click.option("--users", default=1000, help="Users of one process; 2,000 users on two processes are the goal.")
@click.option("--rows", default=3, help="Positions of each.")
@click.option("--seconds", default=5)
def main(users: int, rows: int, seconds: int) -> None:
    figures = measure(users, rows, seconds)
    share = figures["us_per_user"] * users / 1e6
    print(" ".join(f"{name}={value:.1f}" for name, value in figures.items()), f"share_of_a_core={share:.1%}")
    sys.exit(0 if share <= 0.30 else 1)


if __name__ == "__main__":
    main()
