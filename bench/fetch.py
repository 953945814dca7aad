"""CPU of one fetch round beside three plain pybit calls: ``python -m bench.fetch``.

A round is what a push worker does for a user whose account did not change: wallet, positions and open orders are
signed, sent, parsed, mapped to our figures and compared with the last ones. The peer makes the same three calls with
pybit alone, a session per user, and throws the answers away. Both ask the same simulated exchange, in another process,
in turns, sequentially; CPU time is the process's own, user and system.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from bench.command import run_command, tell
from bench.fetching import exchange
from bench.peers.plain_pybit import fetch, session_of
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.model import Credentials, DataType, Market, Secret
from pushserver.observers import Observer
from pushserver.workers.figures import Figures

#: The most that a round may cost, as a part of the peer's three calls.
GOAL = 0.35
DEADLINE_S = 8.0
MARKETS = (Market("linear", "USDT"),)


class ProjectRounds:
    """Our rounds, without Redis."""

    def __init__(self, url: str, users: int) -> None:
        self._clock = SystemClock()
        self._exchange = BybitExchange(url, MARKETS, self._clock, Observer())
        self._figures = Figures(MARKETS)
        self._users = [
            Credentials(api_key, Secret(api_secret))
            for api_key, api_secret in map(demo_credentials, range(1, users + 1))
        ]
        self._digests: dict[tuple[int, DataType], str] = {}
        self.changes = 0

    def __len__(self) -> int:
        return len(self._users)

    def run(self, number: int) -> None:
        credentials = self._users[number]
        deadline_s = self._clock.monotonic_s() + DEADLINE_S
        wallet = self._exchange.wallet(credentials, deadline_s)
        positions = self._exchange.positions(credentials, deadline_s)
        orders = self._exchange.open_orders(credentials, deadline_s)
        self._figures.wallet_trace(wallet.rows)
        self._figures.positions_trace(positions.rows)
        self._compare(number, DataType.BALANCE, self._figures.balance(wallet.rows), wallet.as_of_ms)
        self._compare(number, DataType.POSITIONS, self._figures.positions(positions.rows), positions.as_of_ms)
        self._compare(number, DataType.ORDERS, self._figures.orders(orders.rows), orders.as_of_ms)

    def _compare(self, number: int, data_type: DataType, data: Any, as_of_ms: int) -> None:
        update = encode_update(data_type, number, data, as_of_ms, self._clock.wall_ms())
        if self._digests.get((number, data_type)) != update.digest:
            self._digests[number, data_type] = update.digest
            self.changes += 1


class PlainRounds:
    """Three calls of pybit, a session per user."""

    changes = 0

    def __init__(self, url: str, users: int) -> None:
        self._sessions = [session_of(url, number) for number in range(1, users + 1)]

    def __len__(self) -> int:
        return len(self._sessions)

    def run(self, number: int) -> None:
        fetch(self._sessions[number])


@dataclass(frozen=True, slots=True)
class Timed:
    rounds: int
    cpu_us: float


def timed(rounds: ProjectRounds | PlainRounds, seconds: float) -> Timed:
    """Rounds of all users in turn for so long; each user's first round was made before."""
    done, started_s, cpu_before_s = 0, time.monotonic(), time.process_time()
    while time.monotonic() - started_s < seconds:
        rounds.run(done % len(rounds))
        done += 1
    return Timed(done, (time.process_time() - cpu_before_s) / done * 1e6)


def compare(users: int, seconds: float, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """``runs`` of each, interleaved; medians of CPU µs per round, their ratio, and whether the goal is met."""
    with TemporaryDirectory(prefix="bench-") as folder, exchange(users, Path(folder)) as (url, _):
        SimControl(url).freeze()
        sides: dict[str, ProjectRounds | PlainRounds] = {
            "pushserver": ProjectRounds(url, users),
            "plain pybit": PlainRounds(url, users),
        }
        for side in sides.values():
            for number in range(users):
                side.run(number)
        first_changes = sides["pushserver"].changes
        measured: dict[str, list[Timed]] = {name: [] for name in sides}
        for run in range(runs):
            for name, side in sides.items():
                measured[name].append(timed(side, seconds))
                say(f"round {run + 1}/{runs}: {name}: {measured[name][-1].cpu_us:.0f} µs a round")
    ours, theirs = (median(each.cpu_us for each in measured[name]) for name in sides)
    changed = sides["pushserver"].changes - first_changes
    return {
        "users": users,
        "cpu_us_per_round": {name: [round(each.cpu_us, 1) for each in each_run] for name, each_run in measured.items()},
        "median_us": {"pushserver": round(ours, 1), "plain pybit": round(theirs, 1)},
        "ratio": round(ours / theirs, 3),
        "goal": GOAL,
        "problems": [f"{changed} answers changed although the market stood still"] if changed else [],
    }


@click.command()
@click.option("--users", type=click.IntRange(1, 5000), default=50, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=3, show_default=True, help="Of each run.")
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="Of each; medians are shown.")
def main(users: int, seconds: float, runs: int) -> int:
    """CPU per fetch round beside plain pybit."""
    result = compare(users, seconds, runs, tell)
    ours, theirs = result["median_us"].values()
    verdict = "met" if result["ratio"] <= GOAL else "MISSED"
    print(f"pushserver {ours} µs a round, plain pybit {theirs} µs: {result['ratio']} x (goal {GOAL}: {verdict})")
    for problem in result["problems"]:
        print(f"INVALID: {problem}")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    run_command(main)
