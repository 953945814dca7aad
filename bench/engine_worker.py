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

from pushserver.settings import Settings
from pushserver.workers import run


def overrides(text: str) -> dict[str, Any]:
    """``name=number,name=number``."""
    pairs = (part.split("=", 1) for part in text.split(",") if part)
    return {name: int(value) for name, value in pairs}


if __name__ == "__main__":
    sys.exit(run.run(replace(Settings.from_env(), **overrides(os.environ.get("BENCH_OVERRIDES", "")))))
