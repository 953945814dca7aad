"""The metric files of several processes, read without the client library, are what the library makes of them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from pushserver.metrics import SharedMetrics
from pushserver.metrics_catalogue.catalogue import BOTH, CATALOGUE, WEB
from pushserver.metrics_files import MODES, MetricFiles

ROOT = Path(__file__).resolve().parent.parent
WORKER = """
from pushserver.metrics import PrometheusObserver
from tests.test_metrics import ONE_OF_EACH
observer = PrometheusObserver()
for record in ONE_OF_EACH:
    observer.record(record)
"""
SEED = 20_261_123


def library_lines(directory: Path) -> list[str]:
    registry = CollectorRegistry(auto_describe=False)
    files = [str(path) for path in sorted(directory.glob("*.db"))]
    registry.register(type("Merged", (), {"collect": lambda self: MultiProcessCollector.merge(files)})())
    return sorted(generate_latest(registry).decode().splitlines())


def own_lines(metrics: SharedMetrics) -> list[str]:
    return sorted(metrics.exposition().decode().splitlines())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a real worker's files hold, by their names without the process id."""
    directory = tmp_path_factory.mktemp("original")
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", WORKER], env=environment, check=True, timeout=30)
    return {path.stem.rpartition("_")[0]: path.read_bytes() for path in directory.iterdir()}


def start_worker(directory: Path, original: dict[str, bytes], pid: int) -> None:
    for name, content in original.items():
        (directory / f"{name}_{pid}.db").write_bytes(content)


def work(directory: Path, pid: int, chance: random.Random) -> None:
    """New figures in half of all series."""
    for path in directory.glob(f"*_{pid}.db"):
        file = MmapedDict(str(path))
        for key, value, _ in list(file.read_all_values()):
            if chance.random() < 0.5:
                file.write_value(key, value + chance.randrange(1, 1_000) / 8, 0.0)
        file.close()


def test_the_page_is_the_librarys_line_by_line_while_workers_come_work_and_go(
    tmp_path: Path, original: dict[str, bytes]
) -> None:
    metrics, chance = SharedMetrics(tmp_path), random.Random(SEED)
    pids: list[int] = []
    for pid in range(101, 113):
        start_worker(tmp_path, original, pid)
        pids.append(pid)
        for each in pids:
            work(tmp_path, each, chance)
        if len(pids) > 4:
            metrics.forget(pids.pop(chance.randrange(len(pids))))
        assert own_lines(metrics) == library_lines(tmp_path), f"seed {SEED}, worker {pid}"
    assert len(own_lines(metrics)) > 500


def test_a_file_that_grows_and_one_that_another_process_writes_anew_are_read_anew(tmp_path: Path) -> None:
    metrics = SharedMetrics(tmp_path)
    path = tmp_path / "counter_7.db"
    for labels in ("balance", "pnl", 'quote " and \\'):
        file = MmapedDict(str(path))
        file.write_value(mmap_key("push_x", "push_x_total", ("type",), (labels,), "Text."), 3.0, 0.0)
        file.close()
        assert own_lines(metrics) == library_lines(tmp_path)
    metrics.forget(7)
    for name in ("push_y", "push_z"):
        file = MmapedDict(str(path))
        file.write_value(mmap_key(name, f"{name}_total", (), (), "Text."), 5.0, 0.0)
        file.close()
        assert own_lines(metrics) == library_lines(tmp_path)
        metrics.forget(7)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_gauges_of_each_mode_become_one_as_in_the_library(tmp_path: Path, mode: str) -> None:
    for pid, value in ((1, 5.0), (2, -3.0), (3, 9.5)):
        file = MmapedDict(str(tmp_path / f"gauge_{mode}_{pid}.db"))
        file.write_value(mmap_key("push_x", "push_x", (), (), "Text."), value, 0.0)
        file.close()
    assert own_lines(SharedMetrics(tmp_path)) == library_lines(tmp_path)


def test_every_gauge_of_the_web_has_a_mode_that_can_be_added_up() -> None:
    assert {row.mode for row in CATALOGUE if row.kind == "gauge" and row.side in (WEB, BOTH)} <= MODES


@pytest.mark.parametrize("used", [1, 9, 100, 4_000, 70_000, -5])
def test_a_torn_file_is_passed_over_and_the_others_count(tmp_path: Path, original: dict[str, bytes], used: int) -> None:
    files = MetricFiles()
    whole, torn = tmp_path / "counter_1.db", tmp_path / "counter_2.db"
    whole.write_bytes(original["counter"])
    expected = files.added_up([whole])
    for content in (b"", used.to_bytes(4, sys.byteorder, signed=True) + original["counter"][4:5_000][::-1]):
        torn.write_bytes(content)
        assert files.added_up([whole, torn]) == expected
    assert files.added_up([whole, tmp_path / "counter_3.db"]) == expected
