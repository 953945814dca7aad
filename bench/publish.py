"""Commits changed states at a steady rate through the real commit path.

    python -m bench.publish --redis-url URL --users 1-1000 --type positions --rate 4000 --seconds 10

Round robin over the users; ``as_of`` is now in ms, so that a client can tell the latency.
"""

from gevent import monkey

monkey.patch_all()

import sys
import time
from decimal import Decimal

import click
import gevent
from gevent.pool import Pool

from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
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


def publish(states: States, users: range, data_type: DataType, rate: float, seconds: float, rows: int) -> dict:
    """Publish for so long; counts of what became of it."""
    clock = SystemClock()
    results: dict[str, int] = {"published": 0, "unchanged": 0, "stale": 0, "failed": 0}
    pool = Pool(64)

    def commit(number: int) -> None:
        user_id = users[number % len(users)]
        now_ms = clock.wall_ms()
        data = changed_state(data_type, now_ms % 1_000_000_000 + number, rows)
        results[
            states.commit(user_id, data_type, encode_update(data_type, user_id, data, now_ms, now_ms), now_ms).result
        ] += 1

    start = time.monotonic()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        wait = due - time.monotonic()
        if wait > 0.001:
            gevent.sleep(wait)
        elif number % 32 == 0:
            gevent.sleep(0)
        pool.spawn(commit, number)
    pool.join(timeout=10)
    results["elapsed_ms"] = round((time.monotonic() - start) * 1000)
    results["failed"] = int(rate * seconds) - results["published"] - results["unchanged"] - results["stale"]
    return results


def parse_users(text: str) -> range:
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
    states = States(connect(Secret(redis_url)), SystemClock())
    results = publish(states, parse_users(users), DataType(type_name), rate, seconds, rows)
    print(" ".join(f"{name}={count}" for name, count in results.items()))
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
