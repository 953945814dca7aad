"""Commits changed states at a steady rate through the real commit path.

    python -m bench.publish --redis-url URL --users 1-1000 --type positions --rate 4000 --seconds 10

Round robin over the users; ``as_of`` is now in ms, so that a client can tell the latency. What falls due within the
same millisecond goes to Redis in one round trip, so the rate costs the publisher little.
"""

from __future__ import annotations

import sys
import time
from decimal import Decimal

import click

from bench.pacing import batches
from pushserver.bus.connection import connect
from pushserver.bus.states import Commit, States
from pushserver.clock import Clock, SystemClock
from pushserver.errors import StoreUnavailable
from pushserver.events import encode_update
from pushserver.model import AccountData, Balance, DataType, Order, Pnl, Position, Secret

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "AVAXUSDT", "LINKUSDT")


def changed_state(data_type: DataType, version: int, rows: int) -> AccountData:
    """A plausible state that differs from that of every other version."""
    step = Decimal(version) / 1_000_000
    if data_type is DataType.BALANCE:
        return Balance(10_000 + step, 8_000 + step, Decimal("2000"))
    if data_type is DataType.PNL:
        return Pnl(150 + step, Decimal("12.5"), 50 + step, Decimal("100"))
    names = [SYMBOLS[row % len(SYMBOLS)] + ("" if row < len(SYMBOLS) else str(row)) for row in range(rows)]
    if data_type is DataType.POSITIONS:
        return tuple(
            Position(name, "Buy", Decimal("0.01") + step, Decimal("61000"), 61_450 + step, 4 + step) for name in names
        )
    return tuple(
        Order(f"0f1c2d3e-{row:04d}", name, "Sell", Decimal("0.01") + step, Decimal("62000"), "New")
        for row, name in enumerate(names)
    )


class Publisher:
    """Commits numbered states round robin over ``users``; the number makes each state differ from the last one."""

    def __init__(self, states: States, users: range, data_type: DataType, rows: int, clock: Clock) -> None:
        self._states = states
        self._users = users
        self._data_type = data_type
        self._rows = rows
        self._clock = clock
        # Another run over the same Redis must not begin with the states that are stored there.
        self._first_version = clock.wall_ms() % 1_000_000_000
        self.results = {"published": 0, "unchanged": 0, "stale": 0, "failed": 0}

    def commit(self, numbers: range) -> None:
        """Commit these states, each with ``as_of`` = now; what Redis does not take counts as failed."""
        commits = [self._commit(number) for number in numbers]
        try:
            for committed in self._states.commit_many(commits):
                self.results[committed.result] += 1
        except StoreUnavailable:
            self.results["failed"] += len(commits)

    def _commit(self, number: int) -> Commit:
        user_id = self._users[number % len(self._users)]
        data = changed_state(self._data_type, self._first_version + number, self._rows)
        now_ms = self._clock.wall_ms()
        update = encode_update(self._data_type, user_id, data, now_ms, now_ms)
        return Commit(user_id, self._data_type, update, now_ms)


def parse_users(text: str) -> range:
    """``7-9`` (both included) or ``7``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


@click.command()
@click.option("--redis-url", required=True)
@click.option("--users", required=True, help="FIRST-LAST, both included.")
@click.option(
    "--type", "type_name", type=click.Choice([data_type.value for data_type in DataType]), default="positions"
)
@click.option("--rate", type=click.FloatRange(min=0.1), required=True, help="Commits a second, all users together.")
@click.option("--seconds", type=click.FloatRange(min=0.1), required=True)
@click.option("--rows", type=click.IntRange(0, 500), default=3, help="Rows of positions or orders.")
def main(redis_url: str, users: str, type_name: str, rate: float, seconds: float, rows: int) -> None:
    """Commit changed states through the real commit path."""
    clock = SystemClock()
    states = States(connect(Secret(redis_url)), clock)
    publisher = Publisher(states, parse_users(users), DataType(type_name), rows, clock)
    start_s = time.monotonic()
    for numbers in batches(rate, seconds):
        publisher.commit(numbers)
    elapsed_ms = round((time.monotonic() - start_s) * 1000)
    print(" ".join(f"{name}={count}" for name, count in publisher.results.items()), f"elapsed_ms={elapsed_ms}")
    sys.exit(1 if publisher.results["failed"] else 0)


if __name__ == "__main__":
    main()
