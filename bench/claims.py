"""How claims scale with the schedule: ``python -m bench.claims``; and what a push worker holds in memory.

One Valkey, one client. Everybody is due all the time, which is the worst there can be: each claim takes 50 users and
each of them is completed. The time of the scripts is Valkey's own (``INFO commandstats``), so it is one core's, and
neither the client nor the network is in it. Beside it claims that find nobody due, as most do.

Memory: a worker that polls 5,000 users without limits, once everybody had a round, beside one with nobody to serve.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import redis

from bench import report
from bench.command import parse_numbers, run_command, tell
from bench.engine_stack import Plan, engine
from bench.fetching import UNLIMITED, listeners
from bench.processes import wait_until
from bench.valkey import valkey
from pushserver.bus.connection import connect
from pushserver.bus.schedule import Claim, Schedule, by_shard, schedule_keys
from pushserver.model import Secret

LEASE_S = 600.0
#: As many as a worker takes at once.
BATCH = 50
SHARDS = 4
SIZES = (1_000, 10_000, 100_000)
#: Users that are completed are due again after this, so that all keep being due.
AT_ONCE_S = 0.0
LATER_MS = 3_600_000


def fill(client: redis.Redis, users: int, due_in_ms: int) -> None:
    """Everybody scheduled; neighbours fall due one ms after the other, before or after ``due_in_ms`` from now."""
    seconds, _ = client.time()
    pipeline = client.pipeline(transaction=False)
    for shard, members in by_shard(range(1, users + 1), SHARDS):
        pipeline.zadd(schedule_keys(shard)[0], {member: seconds * 1000 + due_in_ms + member for member in members})
    pipeline.execute()


def script_us(client: redis.Redis) -> tuple[int, float]:
    """Calls of scripts since the figures were reset, and Valkey's µs for all of them."""
    stats = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return int(stats["calls"]), float(stats["usec"])


def measure(users: int, batches: int) -> dict[str, Any]:
    """µs per user claimed, per user completed, and per claim that finds nobody; users a second on one core."""
    with valkey() as url, redis.Redis.from_url(url) as client:
        schedule = Schedule(connect(Secret(url)), shards=SHARDS)
        fill(client, users, -LATER_MS)
        took: list[list[Claim]] = [schedule.claim(BATCH, LEASE_S, "bench")]
        client.config_resetstat()
        for _ in range(min(batches, users // BATCH - 1)):
            took.append(schedule.claim(BATCH, LEASE_S, "bench"))
        claimed = sum(map(len, took[1:]))
        calls, claim_us = script_us(client)
        client.config_resetstat()
        started_s = time.monotonic()
        for claims in took:
            for claim in claims:
                schedule.complete(claim, AT_ONCE_S)
        elapsed_s = time.monotonic() - started_s
        completed, complete_us = script_us(client)
        client.flushall()
        fill(client, users, LATER_MS)
        client.config_resetstat()
        for _ in range(batches):
            schedule.claim(BATCH, LEASE_S, "bench")
        idle_calls, idle_us = script_us(client)
        memory = client.info("memory")["used_memory"]
    per_user = claim_us / claimed + complete_us / completed
    return {
        "users": users,
        "claim_us_per_user": round(claim_us / claimed, 2),
        "claim_us_per_call": round(claim_us / calls, 1),
        "complete_us_per_user": round(complete_us / completed, 2),
        "idle_us_per_call": round(idle_us / idle_calls, 2),
        "users_per_s_of_one_core": round(1e6 / per_user),
        "completed_per_s_by_one_client": round(completed / elapsed_s),
        "redis_mb": round(memory / 1e6, 1),
    }


def worker_memory(users: int) -> dict[str, Any]:
    """PSS in MB of a worker with nobody to serve, and of one that has polled so many users."""
    plan = Plan(users, workers=1, activity_s=1e9, requests_per_5s=UNLIMITED)
    with engine(plan) as stack:
        paths = ("account/wallet-balance", "position/list", "position/closed-pnl", "order/realtime")
        stack.sim.set_limits(requests=UNLIMITED, per_endpoint={f"/v5/{path}": UNLIMITED for path in paths})
        time.sleep(2.0)
        idle_mb = stack.worker_pss_bytes()[0] / 1e6
        with listeners(stack.redis_url, users):
            Schedule(connect(Secret(stack.redis_url))).ensure(range(1, users + 1))
            wait_until(
                lambda: (
                    stack.client().zcard("push:{due-0}:due")
                    and stack.metric("push_fetch_rounds_total", 'result="ok"') >= users
                ),
                120.0,
                "a round of everybody",
            )
            time.sleep(2.0)
            busy_mb = stack.worker_pss_bytes()[0] / 1e6
    return {
        "users": users,
        "idle_mb": round(idle_mb, 1),
        "busy_mb": round(busy_mb, 1),
        "kb_per_user": round((busy_mb - idle_mb) * 1000 / users, 2),
    }


def measure_all(sizes: Sequence[int], batches: int, memory_users: int) -> dict[str, Any]:
    """Without the worker's memory when ``memory_users`` is 0."""
    result: dict[str, Any] = {"scale": []}
    for size in sizes:
        result["scale"].append(measure(size, batches))
        tell(f"claims: {size} users done")
    if memory_users:
        result["memory"] = worker_memory(memory_users)
    return result


def lines(result: dict[str, Any]) -> list[str]:
    heads = ("scheduled", "claim, µs a user", "complete, µs a user", "nobody due, µs a call", "users/s on one core",
             "Redis MB")  # fmt: skip
    rows = [heads] + [
        (
            f"{row['users']:,}", f"{row['claim_us_per_user']:.2f}", f"{row['complete_us_per_user']:.2f}",
            f"{row['idle_us_per_call']:.2f}", f"{row['users_per_s_of_one_core']:,}", f"{row['redis_mb']:.1f}",
        )
        for row in result["scale"]
    ]  # fmt: skip
    said = list(report.aligned(rows))
    if memory := result.get("memory"):
        said += [
            "",
            f"push worker: {memory['idle_mb']} MB with nobody, {memory['busy_mb']} MB with {memory['users']:,} users"
            f" polled: {memory['kb_per_user']} KB a user",
        ]
    return said


@click.command()
@click.option("--quick", is_flag=True, help="Few batches and users: an impression.")
@click.option("--users", default=",".join(map(str, SIZES)), show_default=True, help="Scheduled users.")
@click.option("--batches", default=400, show_default=True, help="Claims of 50 users.")
@click.option("--memory-users", default=5000, show_default=True, help="0 leaves the worker's memory out.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=report.RESULTS, show_default=True)
def main(quick: bool, users: str, batches: int, memory_users: int, output: Path) -> int:
    """Script time of claims by scheduled users, and a worker's memory."""
    sizes = parse_numbers(users)
    if quick:
        batches, memory_users = min(batches, 20), min(memory_users, 200)
    result = measure_all(sizes, batches, memory_users)
    results = report.read(output) or report.started()
    results["claims"] = {**report.started(), **result}
    report.write(results, output)
    print("\n".join(lines(result)))
    return 0


if __name__ == "__main__":
    run_command(main)
