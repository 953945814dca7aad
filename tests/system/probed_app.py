"""The web side as ``wsgi:app`` makes it, with two doors for tests.

``TEST_PING`` (``interval,timeout`` in whole seconds) shortens the heartbeat. On SIGUSR2 the worker counts what it
holds and writes it to ``TEST_PROBE_FOLDER/PID.json``: living greenlets, and objects of each class of the program.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import collections  # noqa: E402 - nothing may be imported before the patching
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402

import greenlet  # noqa: E402

from pushserver.web import engine  # noqa: E402

if "TEST_PING" in os.environ:
    engine.PING_INTERVAL_S, engine.PING_TIMEOUT_S = map(int, os.environ["TEST_PING"].split(","))

from pushserver.web.app import create_app_from_environment  # noqa: E402


def count(number: int, frame: object) -> None:
    """Ring references are collected first: what then is left, somebody holds."""
    gc.collect()
    counts: collections.Counter[str] = collections.Counter()
    for each in gc.get_objects():
        if isinstance(each, greenlet.greenlet):
            counts["greenlets"] += bool(each)
        elif str(type(each).__module__).startswith("pushserver."):
            counts[type(each).__name__] += 1
    path = Path(os.environ["TEST_PROBE_FOLDER"]) / f"{os.getpid()}.json"
    path.with_suffix(".new").write_text(json.dumps(counts))
    path.with_suffix(".new").rename(path)


app = create_app_from_environment()
signal.signal(signal.SIGUSR2, count)
