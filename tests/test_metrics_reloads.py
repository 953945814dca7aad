"""What a thousand reloads of the web workers do to their metrics: nothing, but for the counts they leave.

A worker's files are those of a real one, put there again under other process ids.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from pushserver.metrics import SharedMetrics

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 8
RELOADS = 1_000
#: How much longer a scrape may take after them: reading one more file, that of the dead, takes about 1.1 times.
SLOWER_AT_MOST = 1.5
SCRAPES = 15
#: One connection, one push of 10 bytes within 5 ms.
WORKER = """
import os
from pushserver import observers as o
from pushserver.metrics import PrometheusObserver
from pushserver.model import DataType
observer = PrometheusObserver()
observer.record(o.ConnectionOpened("c", 4, "payload"))
observer.record(o.UpdatesPushed(DataType.BALANCE, 1, 10, {0.004: 1}))
observer.record(o.ConnectionsMeasured(connections=3, waiting=2, messages=5, stuck_s=0.5))
print(os.getpid())
"""
EMITTED = 'push_updates_emitted_total{kind="push",type="balance"}'
LATENCY = 'push_update_latency_seconds_bucket{le="0.005",type="balance"}'
SLOWEST = 'push_update_latency_seconds_count{type="balance"}'
GAUGES = {"push_connections_open": 1, "push_outbox_messages": 5}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a worker's metric files hold, by their names without the process id."""
    directory = tmp_path_factory.mktemp("original")
    result = subprocess.run(
        [sys.executable, "-c", WORKER],
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    ending = f"_{int(result.stdout)}.db"
    return {path.name.removesuffix(ending): path.read_bytes() for path in directory.iterdir()}


class Workers:
    """The web workers of a gunicorn, as its master sees them: files that come and an order to forget them."""

    def __init__(self, directory: Path, files: dict[str, bytes]) -> None:
        self._directory = directory
        self._files = files
        self._pids = itertools.count(100_001)
        self.metrics = SharedMetrics(directory)

    def start(self) -> int:
        pid = next(self._pids)
        for name, content in self._files.items():
            unfinished = self._directory / f"{name}_{pid}.part"
            unfinished.write_bytes(content)
            unfinished.rename(unfinished.with_suffix(".db"))
        return pid

    def reload(self) -> None:
        self.metrics.forget(self.start())

    def figure(self, series: str) -> float:
        return figure(self.metrics.exposition(), series)

    def scrape_s(self) -> float:
        started_s = time.perf_counter()
        self.metrics.exposition()
        return time.perf_counter() - started_s

    def names(self) -> set[str]:
        return {path.name for path in self._directory.iterdir()}


@pytest.fixture
def workers(tmp_path: Path, files: dict[str, bytes]) -> Workers:
    directory = tmp_path / "workers"
    directory.mkdir()
    return Workers(directory, files)


def figure(page: bytes, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", page.decode(), re.MULTILINE)
    assert found, f"{series} is not on the page"
    return float(found[1])


def counts(page: bytes) -> dict[str, float]:
    """Everything that never falls, by series."""
    found = re.findall(r"^(push_\w+(?:_total|_bucket|_count|_sum)(?:\{.*\})?) (\S+)$", page.decode(), re.MULTILINE)
    return {series: float(value) for series, value in found}


def test_a_thousand_reloads_leave_their_counts_no_file_and_a_scrape_as_fast_as_before(
    workers: Workers, tmp_path: Path, files: dict[str, bytes]
) -> None:
    (tmp_path / "fresh").mkdir()
    fresh = Workers(tmp_path / "fresh", files)
    for _ in range(WORKERS):
        fresh.start()
        workers.start()
    before = workers.names()
    for _ in range(RELOADS):
        workers.reload()
    assert workers.names() == before | {"counter_0.db", "histogram_0.db"}
    assert workers.figure(EMITTED) == workers.figure(LATENCY) == workers.figure(SLOWEST) == WORKERS + RELOADS
    # In turn, so that whatever else this machine does slows both.
    times_s = [(workers.scrape_s(), fresh.scrape_s()) for _ in range(SCRAPES)]
    old_s, fresh_s = (median(each) for each in zip(*times_s, strict=True))
    assert old_s / fresh_s < SLOWER_AT_MOST, f"{old_s * 1000:.1f} ms instead of {fresh_s * 1000:.1f} ms"


def test_gauges_of_the_dead_end_and_those_of_the_living_stay(workers: Workers) -> None:
    pids = [workers.start() for _ in range(WORKERS)]
    while pids:
        for gauge, of_each in GAUGES.items():
            assert workers.figure(gauge) == len(pids) * of_each
        assert workers.figure("push_connections_idlest") == workers.figure("push_connections_busiest") == 3
        workers.metrics.forget(pids.pop())
    assert not re.search(rf"^({'|'.join(GAUGES)}) ", workers.metrics.exposition().decode(), re.MULTILINE)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns so often that one comes between any two steps of another."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("eager_threads")
def test_no_counter_jumps_back_or_ahead_while_workers_die_during_scrapes(workers: Workers) -> None:
    pids = [workers.start() for _ in range(3)]
    pages: list[bytes] = []
    stopped = threading.Event()

    def scrape() -> None:
        while not stopped.is_set():
            pages.append(workers.metrics.exposition())

    started = len(pids)
    with ThreadPoolExecutor(1) as executor:
        scraping = executor.submit(scrape)
        while not scraping.done() and len(pages) < 60 and started < 2_000:
            pids.append(workers.start())
            started += 1
            workers.metrics.forget(pids.pop(0))
        stopped.set()
    scraping.result()
    pages.append(workers.metrics.exposition())
    history = [counts(page) for page in pages]
    for series in history[-1]:
        seen = [each[series] for each in history]
        assert seen == sorted(seen), f"{series} jumped back"
    for series in (EMITTED, LATENCY, SLOWEST):
        assert history[-1][series] == started, f"{series}: a dead worker's counts were lost or counted twice"
    assert len(pages) > 60, "there was hardly a scrape while workers died"
