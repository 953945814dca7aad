"""The pages that Prometheus reads, of both sides, as its own parser and linter see them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from pushserver.metrics import PrometheusObserver, SharedMetrics, serve_worker_metrics
from pushserver.metrics_catalogue.catalogue import BOTH, CATALOGUE, WEB, WORKER
from pushserver.metrics_endpoint import MetricsEndpoint
from pushserver.settings import Address
from tests.conftest import require

ROOT = Path(__file__).resolve().parent.parent
WEB_WORKER = """
from pushserver.metrics import PrometheusObserver
from tests.test_metrics import ONE_OF_EACH
observer = PrometheusObserver()
for record in ONE_OF_EACH:
    observer.record(record)
"""


def scraped(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.read()


def worker_page() -> bytes:
    from tests.test_metrics import ONE_OF_EACH

    observer = PrometheusObserver(side=WORKER)
    port = serve_worker_metrics(Address("127.0.0.1", 0), observer.registry)
    for record in ONE_OF_EACH:
        observer.record(record)
    return scraped(port)


def web_page(directory: Path) -> bytes:
    """Of two workers, one of them dead."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WEB_WORKER],
            env={"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    metrics = SharedMetrics(directory)
    metrics.forget(workers[0].pid)
    endpoint = MetricsEndpoint(metrics.exposition)
    try:
        return scraped(endpoint.serve("127.0.0.1", 0))
    finally:
        endpoint.close()


@pytest.fixture(scope="module", params=[WEB, WORKER])
def side_and_page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    return request.param, web_page(tmp_path_factory.mktemp("web")) if request.param == WEB else worker_page()


def families(page: bytes) -> dict[str, Family]:
    return {family.name: family for family in text_string_to_metric_families(page.decode())}


def test_a_page_holds_the_rows_of_its_side_and_is_read_as_what_they_are(side_and_page: tuple[str, bytes]) -> None:
    side, page = side_and_page
    found = families(page)
    rows = {row.name.removesuffix("_total"): row for row in CATALOGUE if row.side in (side, BOTH)}
    assert {name for name in found if name.startswith("push_")} == rows.keys()
    for name, row in rows.items():
        assert (found[name].type, found[name].documentation) == (row.kind, row.help)
        labels = {tuple(sorted(sample.labels.keys() - {"le"})) for sample in found[name].samples}
        assert labels == {tuple(sorted(row.labels))}
        assert {sample.timestamp for sample in found[name].samples} == {None}


def test_no_series_is_on_a_page_twice(side_and_page: tuple[str, bytes]) -> None:
    _, page = side_and_page
    series = [line.rsplit(" ", 1)[0] for line in page.decode().splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_histograms_only_rise_and_end_with_the_count_of_all(side_and_page: tuple[str, bytes]) -> None:
    _, page = side_and_page
    for family in families(page).values():
        if family.type != "histogram":
            continue
        of_series: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        for sample in family.samples:
            labels = tuple(sorted(item for item in sample.labels.items() if item[0] != "le"))
            edge = sample.labels.get("le", sample.name.removeprefix(family.name))
            of_series.setdefault(labels, {})[edge] = sample.value
        for values in of_series.values():
            count, _ = values.pop("_count"), values.pop("_sum")
            assert list(values)[-1] == "+Inf"
            assert list(values.values()) == sorted(values.values())
            assert values["+Inf"] == count


def test_the_linter_of_prometheus_has_nothing_to_say(side_and_page: tuple[str, bytes]) -> None:
    promtool = shutil.which("promtool")
    require(promtool, "promtool is not installed (Debian: prometheus)")
    _, page = side_and_page
    result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=20, check=False)
    assert (result.returncode, result.stdout.decode(), result.stderr.decode()) == (0, "", "")
