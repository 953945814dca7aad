"""A push worker with budgets that its settings do not allow: how a benchmark is told to be short.

    BENCH_OVERRIDES=bybit_stream_connects_per_5min=12000 python -m bench.engine_worker

Everything else is the program as it is, read from the environment.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import os
import sys
from dataclasses import replace
from typing import Any

from bench import engine_overrides
from pushserver.settings import Settings
from pushserver.workers import run

changes: dict[str, Any] = dict(engine_overrides.read(os.environ.get(engine_overrides.VARIABLE, "")))
sys.exit(run.run(replace(Settings.from_env(), **changes)))
