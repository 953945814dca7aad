"""How long Prometheus waits for the page of eight web workers, and what reading it costs gunicorn's master.

At rest after all of them have pushed, and while they push. Then the same files again, beside what a thousand reloaded
workers left behind.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.delivery import START_TIMEOUT_S, Crowd
from bench.engine_ages import quantile
from bench.processes import BenchmarkFailed, free_port, running
from bench.targets import Project
from bench.valkey import valkey
from pushserver.metrics import SharedMetrics
from pushserver.metrics_endpoint import DIRECTORY_PREFIX, MetricsEndpoint

#: What a scrape may take, its 99th percentile, with so many web workers that are at rest.
GOAL_MS = 20.0
WORKERS = 8
CLIENTS = 400
#: States a second while they push; half a core of this and the other processes is left.
RATE = 1_000
SCRAPES = 50
SCRAPES_PER_S = 10
RELOADS = 1_000

Scrape = Callable[[], bytes]


def measure(scrapes: int = SCRAPES, reloads: int = RELOADS) -> dict[str, Any]:
    """``rest``, ``pushing`` and ``reloaded`` hold ms of a scrape; the page's size and series, and the master's CPU."""
    target, ports = Project(), [free_port()]
    with TemporaryDirectory(prefix="bench-") as name, valkey() as redis_url, ExitStack() as stack:
        folder = Path(name)
        master = stack.enter_context(running(target.start(redis_url, ports, WORKERS, folder)))
        master.wait_for(lambda: len(master.children()) == WORKERS, START_TIMEOUT_S, f"{WORKERS} workers")
        page = _scraper(target.metrics_port)
        master.wait_for(lambda: _figure(page(), "push_processes") == WORKERS, START_TIMEOUT_S, "all metrics")
        crowd = Crowd(ports, folder)
        stack.enter_context(running(crowd.process))
        crowd.connect(target, range(1, CLIENTS + 1))
        pushing_s = scrapes / SCRAPES_PER_S
        with running(target.publisher(redis_url, CLIENTS, RATE, pushing_s + 2.0, folder)):
            crowd.collect(CLIENTS)
            pushing = timed(page, scrapes, 1 / SCRAPES_PER_S)
        crowd.collect(round(RATE * (pushing_s + 2.0)))
        before_s = _cpu_s(master.pid)
        rest = timed(page, scrapes)
        master_ms = (_cpu_s(master.pid) - before_s) * 1000 / scrapes
        content = page()
        if not _figure(content, "push_connections_idlest"):
            raise BenchmarkFailed("a worker had nobody to push to")
        shutil.copytree(_metrics_directory(master.children()), folder / "metrics")
        return {
            "load": {"workers": WORKERS, "clients": CLIENTS, "rate": RATE, "scrapes": scrapes, "reloads": reloads},
            "goal_ms": GOAL_MS,
            "rest": rest,
            "pushing": pushing,
            "master_cpu_ms": round(master_ms, 1),
            "page_bytes": len(content),
            "series": sum(not line.startswith(b"#") for line in content.splitlines()),
            **after_reloads(folder / "metrics", scrapes, reloads),
        }


def after_reloads(directory: Path, scrapes: int, reloads: int) -> dict[str, Any]:
    """A scrape of these files before and after copies of them, of ``reloads`` workers, were merged; ms for one."""
    metrics = SharedMetrics(directory)
    with served(metrics) as page:
        fresh = timed(page, scrapes)
        [one, *_] = sorted({path.stem.rsplit("_", 1)[1] for path in directory.iterdir()})
        contents = {path.stem.removesuffix(one): path.read_bytes() for path in directory.glob(f"*_{one}.db")}
        files = len(list(directory.iterdir()))
        spent_s = 0.0
        for pid in itertools.islice(itertools.count(10_000_000), reloads):
            for kind, content in contents.items():
                (directory / f"{kind}{pid}.db").write_bytes(content)
            started_s = time.perf_counter()
            metrics.forget(pid)
            spent_s += time.perf_counter() - started_s
        return {
            "unloaded": fresh,
            "reloaded": timed(page, scrapes),
            "files": files,
            "files_after": len(list(directory.iterdir())),
            "merge_ms": round(spent_s * 1000 / max(1, reloads), 2),
        }


@contextmanager
def served(metrics: SharedMetrics) -> Iterator[Scrape]:
    """The page of these metrics, over HTTP as gunicorn's master serves it."""
    endpoint = MetricsEndpoint(metrics.exposition)
    try:
        yield _scraper(endpoint.serve("127.0.0.1", 0))
    finally:
        endpoint.close()


def timed(page: Scrape, scrapes: int, pause_s: float = 0.0) -> dict[str, float]:
    """ms from connecting to the last byte."""
    took_ms = []
    for _ in range(scrapes):
        started_s = time.perf_counter()
        page()
        took_ms.append((time.perf_counter() - started_s) * 1000)
        time.sleep(pause_s)
    took_ms.sort()
    return {"p50_ms": round(quantile(took_ms, 0.5), 1), "p99_ms": round(quantile(took_ms, 0.99), 1)}


def _scraper(port: int) -> Scrape:
    def scrape() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return bytes(answer.read())
        except OSError:
            return b""

    return scrape


def _cpu_s(pid: int) -> float:
    """With what threads used that are gone: each scrape has one."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _figure(page: bytes, name: str) -> float:
    """The sum of this metric's series."""
    return sum(float(value) for value in re.findall(rb"^%s(?:\{.*\})? (\S+)$" % name.encode(), page, re.MULTILINE))


def _metrics_directory(workers: list[int]) -> Path:
    """Where these workers write, as their memory shows it."""
    paths: Iterator[str] = (mapped.path for pid in workers for mapped in psutil.Process(pid).memory_maps())
    return next(Path(path).parent for path in paths if DIRECTORY_PREFIX in path)
