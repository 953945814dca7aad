"""A push worker with budgets that its settings do not allow, until it is told to keep within them.

    BENCH_OVERRIDES=bybit_ip_requests_per_5s=2400 python -m bench.engine_worker

Everything else is the program as it is, read from the environment. SIGUSR1 puts the budget of requests back to what the
environment says, so that a benchmark need not wait for everybody's first round.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import os
import signal
import sys
from dataclasses import replace
from typing import Any

import gevent

from bench import engine_overrides
from pushserver.bus.budgets import Budget
from pushserver.settings import Settings
from pushserver.workers import run

#: What of a budget says how large it is.
SIZE = ("per_window", "burst", "_cost_us", "_fixed")
usual = Settings.from_env()
open_budget = run.budget_of


def budget_of(settings: Settings, *others: Any) -> Budget:
    generous, strict = open_budget(settings, *others), open_budget(usual, *others)
    sizes = {name: vars(strict)[name] for name in SIZE}
    gevent.signal_handler(signal.SIGUSR1, lambda: vars(generous).update(sizes))
    return generous


run.budget_of = budget_of
changes: dict[str, Any] = dict(engine_overrides.read(os.environ.get(engine_overrides.VARIABLE, "")))
sys.exit(run.run(replace(usual, **changes)))
