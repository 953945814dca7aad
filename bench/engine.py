"""The exchange engine behind one address, at the simulated exchange with Bybit's limits.

    python -m bench.engine polling
    python -m bench.engine streams --users 2000
    python -m bench.engine streams --quick

Everybody listens to everything. Prints what was measured and puts it into ``bench/results.json``.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench import engine_report, report
from bench.command import run_command, tell
from bench.engine_ages import Ages
from bench.engine_deeds import Deeds
from bench.engine_listener import Listener
from bench.engine_stack import Plan, Stack, engine
from bench.engine_window import Window
from bench.processes import BenchmarkFailed, wait_until
from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.homes import Live
from pushserver.bus.schedule import Schedule
from pushserver.model import DataType, Secret

HOLDERS = 100
#: As the workers have it.
SHARDS = 4
JUMP_EVERY_S = 4.0
POLLED, STREAMED = 600, 2_000
#: Streams opened in five minutes, where Bybit allows 500: filling would take 25 minutes.
CONNECTS = 30_000
#: The budget of requests until everybody has a stream; with the usual one that takes two minutes.
FILLING_PER_5S = 2_400
FILL_S = 130.0
#: Between two deeds of one customer, on average: six an hour while the phone is open.
ACTIVITY_S = 600.0


def first_rounds(stack: Stack, timeout_s: float) -> float:
    """Everybody falls due for the first time; seconds until everybody has all types."""
    users, client = stack.plan.users, stack.client()
    started_s = time.monotonic()
    Schedule(connect(Secret(stack.redis_url))).ensure(range(1, users + 1))

    def all_there() -> bool:
        time.sleep(0.5)
        wanted = users * len(DataType)
        found = sum(1 for _ in client.scan_iter("push:{*}:*:state", count=5000))
        return found >= wanted

    wait_until(all_there, timeout_s, "the first round of everybody")
    return round(time.monotonic() - started_s, 1)


def measured(
    stack: Stack, listener: Listener, deeds: Deeds, seconds: float, per_s: float, sample_every_s: float
) -> dict[str, Any]:
    """Do ``per_s`` deeds a second for so long, and look; deeds must be shown within the patience that follows."""
    ages = Ages(stack.client(), stack.plan.users)
    window = Window(stack, listener.heard)
    started_s = now_s = time.monotonic()
    deed_s, sample_s, jump_s = started_s, started_s + sample_every_s / 2, started_s + JUMP_EVERY_S
    while now_s < started_s + seconds:
        if now_s >= deed_s:
            deeds.act()
            deed_s += 1 / per_s
        if deeds.holders and now_s >= jump_s:
            deeds.jump()
            jump_s += JUMP_EVERY_S
        if now_s >= sample_s:
            ages.sample()
            sample_s += sample_every_s
        time.sleep(0.01)
        now_s = time.monotonic()
    result = window.close()
    result["ages"] = ages.summary()
    result["unknown"] = ages.unknown
    return result


def lags(deeds: Deeds, listener: Listener, patience_s: float) -> dict[str, Any]:
    """Waits so long for what was done last; ms by what was changed."""
    until_ms = time.time() * 1000
    time.sleep(patience_s)
    result: dict[str, Any] = {}
    for name in ("orders", "positions"):
        found, missed = deeds.lags_ms(listener.heard, name, until_ms)
        result[name] = {**engine_report.milliseconds(found), "deeds": len(found) + missed, "missed": missed}
    if deeds.holders:
        found, missed = deeds.mark_lags_ms(listener.heard, until_ms)
        result["marks"] = {**engine_report.milliseconds(found), "deeds": len(found) + missed, "missed": missed}
    return result


def polling(users: int, seconds: float, per_s: float) -> dict[str, Any]:
    """Default intervals, two workers, neither streams nor mark prices."""
    plan = Plan(users)
    with engine(plan) as stack, Listener(stack.redis_url, users) as listener:
        first_s = first_rounds(stack, 120.0)
        tell(f"polling: everybody has everything after {first_s} s; measuring for {seconds:g} s")
        time.sleep(5.0)
        deeds = Deeds(stack.sim, users)
        result = measured(stack, listener, deeds, seconds, per_s, 1.0)
        result["lag_ms"] = lags(deeds, listener, 30.0)
        return {"plan": asdict(plan), "first_s": first_s, "deeds_per_s": per_s, **result}


def streams(plan: Plan, seconds: float, per_s: float, fill_s: float, plain: bool) -> dict[str, Any]:
    """Private streams and mark prices for everybody."""
    users = plan.users
    with engine(plan) as stack, Listener(stack.redis_url, users) as listener:
        if plain:
            make_plain(stack)
        empty = stack.worker_pss_bytes()
        first_s = first_rounds(stack, fill_s)
        started_s = time.monotonic()
        tell(f"streams: everybody has everything after {first_s} s, {stack.sim.streams()['open']}")
        try:
            wait_until(lambda: live(stack) >= users, fill_s, "streams of everybody")
        except BenchmarkFailed:
            tell(f"streams: only {live(stack)} of {users} are live; measuring all the same")
        filled_s = round(time.monotonic() - started_s, 1)
        tell(f"streams: {live(stack)} live {filled_s} s later; measuring for {seconds:g} s")
        if plan.filling_per_5s:
            stack.be_strict()
        deeds = Deeds(stack.sim, users)
        if plan.marks:
            deeds.hold(random.Random(7).sample(range(1, users + 1), min(HOLDERS, users)))
            time.sleep(5.0)
        result = measured(stack, listener, deeds, seconds, per_s, 5.0)
        full = stack.worker_pss_bytes()
        result["lag_ms"] = lags(deeds, listener, 5.0)
        result["live"] = live(stack)
        result["kept_fresh"] = kept_fresh(stack)
        result["plain"] = plain
        result["pss_mb"] = [round(each / 1e6, 1) for each in full]
        result["pss_empty_mb"] = [round(each / 1e6, 1) for each in empty]
        result["pss_kb_per_user"] = round((sum(full) - sum(empty)) / 1024 / max(1, result["live"]), 1)
        return {"plan": asdict(plan), "first_s": first_s, "filled_s": filled_s, "deeds_per_s": per_s, **result}


def measure_all(quick: bool) -> dict[str, Any]:
    """Both parts with their defaults."""
    users, seconds = (60, 10.0) if quick else (POLLED, 90.0)
    streamed = Plan(60 if quick else STREAMED, 2, CONNECTS, True, ACTIVITY_S, filling_per_5s=FILLING_PER_5S)
    return {
        "polling": polling(users, seconds, 2.0),
        "streams": streams(streamed, 10.0 if quick else 130.0, 1.0, FILL_S, plain=True),
    }


def make_plain(stack: Stack) -> None:
    """Cross margin and nothing but USDT: accounts whose balance can follow the ticker."""
    for user_id in range(1, stack.plan.users + 1):
        stack.sim.change(user_id, drop=["wallet"], wallet={"USDT": 20_000}, margin_mode="REGULAR_MARGIN")


def kept_fresh(stack: Stack) -> dict[str, int]:
    """Users by what their home keeps fresh: by the stream, by marks, by both with the balance."""
    client = stack.client()
    bits = [int(value) for shard in range(SHARDS) for value in client.hvals(keys.home_live(shard))]
    return {each.name or "": sum(bool(value & each) for value in bits) for each in Live}


def live(stack: Stack) -> int:
    """Users whose stream is live now."""
    time.sleep(0.5)
    return int(stack.metric("push_streams", 'state="live"'))


def keep(section: str, result: dict[str, Any], output: Path) -> int:
    """Into the results file, and what a person wants to know onto the terminal; the exit code."""
    results = report.read(output) or report.started()
    results.setdefault("engine", {})[section] = {**report.started(), **result}
    report.write(results, output)
    print("\n".join(engine_report.lines(section, result)))
    return 1 if engine_report.problems(result) else 0


OUTPUT = click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=report.RESULTS, show_default=True
)
QUICK = click.option("--quick", is_flag=True, help="Few users, a short time: an impression, no figures.")


@click.group()
def main() -> None:
    """Measure the exchange engine."""


@main.command("polling")
@QUICK
@click.option("--users", default=POLLED, show_default=True)
@click.option("--seconds", default=90.0, show_default=True)
@click.option("--deeds", default=2.0, show_default=True, help="Deeds a second beside the customers' own.")
@OUTPUT
def polling_command(quick: bool, users: int, seconds: float, deeds: float, output: Path) -> int:
    """600 users without streams."""
    if quick:
        users, seconds = min(users, 60), min(seconds, 10.0)
    return keep("polling", polling(users, seconds, deeds), output)


@main.command("streams")
@QUICK
@click.option("--users", default=STREAMED, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--seconds", default=130.0, show_default=True)
@click.option("--deeds", default=1.0, show_default=True, help="Deeds a second beside the customers' own.")
@click.option("--activity-s", default=ACTIVITY_S, show_default=True, help="Between two deeds of one customer.")
@click.option("--connects", default=CONNECTS, show_default=True, help="Streams opened in five minutes; really 400.")
@click.option("--fill-s", default=FILL_S, show_default=True, help="At most, until everybody has a stream.")
@click.option("--marks/--no-marks", default=True, show_default=True)
@click.option("--mixed", is_flag=True, help="Accounts as seeded: half with BTC, some in isolated or portfolio margin.")
@OUTPUT
def streams_command(
    quick: bool, users: int, workers: int, seconds: float, deeds: float, activity_s: float, connects: int,
    fill_s: float, marks: bool, mixed: bool, output: Path,
) -> int:  # fmt: skip
    """2,000 users with streams and mark prices."""
    if quick:
        users, seconds = min(users, 60), min(seconds, 10.0)
    plan = Plan(users, workers, connects, marks, activity_s, filling_per_5s=FILLING_PER_5S)
    return keep("streams, mixed" if mixed else "streams", streams(plan, seconds, deeds, fill_s, not mixed), output)


if __name__ == "__main__":
    run_command(main)
