"""Emits the payload of ``bench.publish`` at the same pace through the library's own write-only manager."""

from __future__ import annotations

import time

import click
import orjson
import socketio

from bench.pacing import batches
from bench.publish import changed_state, parse_users
from pushserver.events import encode_data, utc_seconds
from pushserver.model import DataType


def payload(user_id: int, number: int, now_ms: int, rows: int) -> dict[str, object]:
    """The fields of the contract, as a push service of this kind would build them."""
    data = orjson.loads(encode_data(changed_state(DataType.POSITIONS, now_ms % 1_000_000_000 + number, rows)))
    return {
        "type": "positions_update",
        "data": data,
        "timestamp": utc_seconds(now_ms),
        "user_id": user_id,
        "seq": now_ms,
        "as_of": now_ms,
    }


@click.command()
@click.option("--redis-url", required=True)
@click.option("--users", required=True)
@click.option("--rate", type=float, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--rows", type=int, default=3)
def main(redis_url: str, users: str, rate: float, seconds: float, rows: int) -> None:
    """Emit changed states to rooms positions_N."""
    manager = socketio.RedisManager(redis_url, channel="stock", write_only=True)
    user_ids = parse_users(users)
    published = 0
    start_s = time.monotonic()
    for numbers in batches(rate, seconds):
        for number in numbers:
            user_id = user_ids[number % len(user_ids)]
            now_ms = time.time_ns() // 1_000_000
            manager.emit("positions_update", payload(user_id, number, now_ms, rows), room=f"positions_{user_id}")
            published += 1
    print(f"published={published} failed=0 elapsed_ms={round((time.monotonic() - start_s) * 1000)}")


if __name__ == "__main__":
    main()
