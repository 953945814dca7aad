"""Composition of the process: the world, its two faces (REST and control), the walk of the market, the signals."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import gevent
from gevent.event import Event

from pushserver.clock import Clock, SystemClock
from pushserver.exchange_sim.activity import activity_step
from pushserver.exchange_sim.control import Control
from pushserver.exchange_sim.http_messages import Answer, Request
from pushserver.exchange_sim.http_server import HttpServer
from pushserver.exchange_sim.market import walk
from pushserver.exchange_sim.rest import Rest
from pushserver.exchange_sim.seeding import seed_users
from pushserver.exchange_sim.streams.hub import Hub
from pushserver.exchange_sim.world import World

STEP_S = 0.5

#: Seconds between two deeds of one account, on average.
DEFAULT_ACTIVITY_S = 8.0


class Exchange:
    """A world with its REST and control side; ``step`` lets time do its work in it."""

    def __init__(
        self,
        clock: Clock,
        seed: int,
        users: int,
        frozen: bool = False,
        activity_s: float = DEFAULT_ACTIVITY_S,
        ban_s: float = 600.0,
    ) -> None:
        self.world = World(clock, seed, frozen)
        self.rest = Rest(self.world, ban_s)
        self.hub = Hub(self.world)
        self.control = Control(self.world, self.rest, self.hub)
        self._activity_s = activity_s
        seed_users(self.world, users)

    def handle(self, request: Request) -> Answer:
        if request.path.startswith("/control"):
            return self.control.handle(request)
        return self.rest.answer(request)

    def step(self, elapsed_s: float) -> None:
        """One step of market and customers, as far as they are not frozen."""
        world = self.world
        self.hub.tend()
        if not world.market_frozen:
            world.change_market(walk(world.market, world.chance, elapsed_s), {}, "walk")
        if not world.activity_frozen:
            accounts = list(world.accounts.values())
            probability = min(1.0, elapsed_s / self._activity_s)
            for account, cause in activity_step(accounts, world.market, world.chance, world.now_ms(), probability):
                world.commit(account, cause)


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal; 0 after a clean end, 1 when the address is taken."""
    options = parse(arguments)
    exchange = Exchange(SystemClock(), options.seed, options.users, options.frozen, options.activity_s, options.ban_s)
    server = HttpServer(options.host, options.port, exchange.handle, exchange.hub)
    try:
        server.start()
    except OSError as error:
        sys.stderr.write(f"exchange_sim cannot listen on {options.host}:{options.port}: {error}\n")
        return 1
    stopped = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopped.set)
    sys.stdout.write(f"exchange_sim listening on http://{options.host}:{server.port}\n")
    sys.stdout.flush()
    while not stopped.wait(STEP_S):
        exchange.step(STEP_S)
    server.stop()
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pushserver.exchange_sim", description="A simulated Bybit.")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--seed", type=int, default=1, help="of accounts, market and misfortune")
    parser.add_argument("--users", type=int, default=3, help="seeded users 1..N with keys sim-key-00001…")
    parser.add_argument("--frozen", action="store_true", help="nothing moves until the control API says so")
    parser.add_argument(
        "--activity-s", type=float, default=DEFAULT_ACTIVITY_S, help="seconds between two deeds of one account"
    )
    parser.add_argument("--ban-s", type=float, default=600.0, help="how long an address stays banned")
    return parser.parse_args(arguments)
