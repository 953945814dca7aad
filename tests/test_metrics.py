"""The catalogue, the observer that feeds it, and the page that shows it (one process or all web workers)."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from pushserver import observers as o
from pushserver.errors import ExchangeError
from pushserver.exchange.bybit_errors import MEANINGS
from pushserver.metrics import PrometheusObserver, SharedMetrics, serve_worker_metrics
from pushserver.metrics_catalogue.catalogue import BOTH, CATALOGUE, VERSION, WEB, WORKER
from pushserver.metrics_catalogue.page import page
from pushserver.metrics_endpoint import MetricsEndpoint, SharedDirectory
from pushserver.model import DataType, Freshness
from pushserver.settings import Address

ROOT = Path(__file__).resolve().parent.parent
LOCAL = Address("127.0.0.1", 0)

ONE_OF_EACH = (
    o.UsersClaimed(users=3, lag_s=0.2),
    o.RequestAnswered("positions", "ok", 0.03),
    o.RoundFinished(4, "r1", "ok", 0.2, requests=2),
    o.FetchFailed(4, "r1", DataType.PNL, "key_invalid", "positions", 10003, "text", 5.0),
    o.StateCommitted(4, "r1", DataType.BALANCE, "published", age_s=0.4, listeners=2),
    o.FreshnessChanged(4, DataType.ORDERS, Freshness.STOPPED, "key_invalid"),
    o.AddressPaused("exchange_address_banned", 600.0),
    o.HttpRequestRefused("bad_request"),
    o.ConnectionOpened("c1", 4, "payload"),
    o.ConnectionRefused("c2", "token_expired"),
    o.ConnectionClosed("c1", 4, "ping timeout", 12.0),
    o.SubscriptionChanged(DataType.BALANCE, +1),
    o.EventReceived("subscribe_trading", "ok"),
    o.UpdateEmitted(DataType.BALANCE, "snapshot", 4, connections=2, size_bytes=300),
    o.UpdatesConflated(DataType.PNL, 5),
    o.BusStateChanged("connected", outage_s=1.5),
    o.BusMessageDropped("malformed"),
    o.LoginAttempted("ok", 0.05),
    o.LifecycleReported("web", "started"),
    o.LoopLagMeasured("web", {0.002: 3}),
    o.ExchangeClockMeasured(0.2),
    o.RequestsPaid(3, 0.05),
    o.PaymentForfeited(3),
    o.BudgetMeasured(headroom=0.6, is_short=True, is_paused=False),
    o.KeyChecked("warning"),
    o.KeysCounted("7", 3),
    o.KeysTooMighty("withdraw", 1),
    o.StreamStarted(),
    o.StreamEnded(4, "silent"),
    o.StreamOddity("malformed"),
    o.StreamsCounted("live", 3),
    o.StreamHinted("wallet", is_news=True),
    o.HintServed(0.02),
    o.HomesCounted(3),
    o.HomesSwept(2),
    o.TickerMeasured(age_s=0.2, wanted=3, fresh=2),
    o.MarksCommitted(DataType.PNL, "published", states=3),
    o.MarksMeasured(users=2, busy_s=0.01, behind_s=0.2),
    o.TickerEnded("closed"),
    o.StageTimed("commit_to_bus", {0.002: 3}),
    o.PingsAnswered({0.04: 2}),
    o.CanaryHeard(0.001),
    o.ListenerAged(1.5),
    o.ConnectionsMeasured(connections=3, waiting=2, messages=5, stuck_s=0.5),
    o.WatchSampled(DataType.PNL, "late", 17.0),
    o.RedisTried(is_up=True),
    o.RoundsMeasured(rounds=2, slots=9, most_slots=10, requests=4),
    o.ScheduleMeasured(users=50, headroom_users=900, limit=480),
    o.BreakerMeasured("throttled", is_it=True),
    o.BackoffBegun("exchange_timeout", 4.0),
    o.ProcessMeasured(cpu_s=0.2, resident_bytes=50_000_000, open_files=70),
    o.MetricsRoomMeasured(free_bytes=1_000_000),
    o.UpdatesPushed(DataType.BALANCE, connections=5, size_bytes=600, latencies_s={0.005: 1, 7.0: 2, 60.0: 4}),
    o.PushSampled(DataType.BALANCE, 4, connections=2, size_bytes=300, latency_s=0.004),
)
#: Each of these is counted in another record as well.
FOR_PEOPLE_ONLY = (o.PushSampled,)


class Page:
    """An observer of one side and what its page says."""

    def __init__(self, side: str) -> None:
        self.observer = PrometheusObserver(side=side)

    def figures(self) -> dict[str, float]:
        samples = (sample for family in self.observer.registry.collect() for sample in family.samples)
        return {
            sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
            for sample in samples
        }

    def changes(self, record: o.Record) -> dict[str, float]:
        before = self.figures()
        self.observer.record(record)
        after = self.figures()
        assert after.keys() == before.keys(), "a record made a new series"
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def all_records() -> set[type[o.Record]]:
    return {kind for kind in vars(o).values() if isinstance(kind, type) and issubclass(kind, o.Record)} - {o.Record}


def test_every_record_of_the_program_changes_some_metric() -> None:
    assert {type(record) for record in ONE_OF_EACH} == all_records()
    for record in ONE_OF_EACH:
        changed = any(Page(side).changes(record) for side in (WEB, WORKER))
        assert changed != isinstance(record, FOR_PEOPLE_ONLY), type(record).__name__


@pytest.mark.parametrize(
    ("side", "record", "expected"),
    [
        (WORKER, ONE_OF_EACH[1], {"push_fetch_requests_total endpoint=positions result=ok": 1}),
        (
            WORKER,
            o.RequestAnswered("positions", "key_expired", 0.03, "key"),
            {
                "push_fetch_requests_total endpoint=positions result=key_expired": 1,
                "push_fetch_refusals_total whose=key": 1,
            },
        ),
        (WORKER, ONE_OF_EACH[2], {"push_fetch_round_requests_total": 2, "push_fetch_rounds_total result=ok": 1}),
        (WORKER, ONE_OF_EACH[3], {"push_fetch_errors_total code=key_invalid type=pnl": 1}),
        (WORKER, ONE_OF_EACH[5], {"push_freshness_changes_total state=stopped type=orders": 1}),
        (WORKER, ONE_OF_EACH[6], {"push_address_pause_seconds_total": 600}),
        (WEB, ONE_OF_EACH[8], {"push_connections_open": 1, "push_connections_opened_total carrier=payload": 1}),
        (WEB, ONE_OF_EACH[10], {"push_connections_open": -1, "push_connections_closed_total reason=ping_timeout": 1}),
        (
            WEB,
            ONE_OF_EACH[13],
            {
                "push_updates_emitted_total kind=snapshot type=balance": 2,
                "push_update_bytes_total type=balance": 600,
            },
        ),
        (
            WEB,
            ONE_OF_EACH[-2],
            {
                "push_updates_emitted_total kind=push type=balance": 5,
                "push_update_bytes_total type=balance": 600,
                "push_update_latency_seconds_count type=balance": 7,
                "push_update_latency_seconds_sum type=balance": 254.005,
                "push_update_latency_seconds_bucket le=0.0025 type=balance": 0,
                "push_update_latency_seconds_bucket le=0.005 type=balance": 1,
                "push_update_latency_seconds_bucket le=5.0 type=balance": 1,
                "push_update_latency_seconds_bucket le=10.0 type=balance": 3,
            },
        ),
        (WEB, ONE_OF_EACH[15], {"push_bus_connected": 1, "push_bus_outage_seconds_total": 1.5}),
    ],
)
def test_a_record_changes_exactly_the_series_it_is_about(
    side: str, record: o.Record, expected: dict[str, float]
) -> None:
    changes = Page(side).changes(record)
    assert {name: changes.get(name, 0) for name in expected} == expected


def test_a_lost_bus_is_not_connected_and_a_deaf_one_neither() -> None:
    page = Page(WEB)
    page.observer.record(o.BusStateChanged("connected"))
    assert page.changes(o.BusStateChanged("lost"))["push_bus_connected"] == -1
    page.observer.record(o.BusStateChanged("connected"))
    assert page.changes(o.BusStateChanged("deaf"))["push_bus_connected"] == -1


def test_an_old_answer_says_nothing_about_the_age_of_data() -> None:
    changes = Page(WORKER).changes(o.StateCommitted(4, "r", DataType.PNL, "stale", age_s=99.0))
    assert changes == {"push_commits_total result=stale type=pnl": 1}


def test_an_update_without_latency_leaves_the_latency_alone() -> None:
    changes = Page(WEB).changes(o.UpdateEmitted(DataType.PNL, "snapshot", 4, 1, 10))
    assert not [name for name in changes if "latency" in name]


@pytest.mark.parametrize("side", [WEB, WORKER])
def test_I07_no_input_adds_a_series(side: str) -> None:
    page = Page(side)
    before = page.figures().keys()
    for record in ONE_OF_EACH:
        bombs = {
            field.name: f"user_4_{record}"
            for field in dataclasses.fields(record)
            if field.type in ("str", str) and field.name not in ("message", "detail")
        }
        page.observer.record(dataclasses.replace(record, **bombs))
    assert page.figures().keys() == before
    assert "user_4" not in " ".join(page.figures())


def test_I07_an_unknown_value_counts_as_other() -> None:
    changes = Page(WEB).changes(o.EventReceived("__class__", "ok"))
    assert changes == {"push_events_received_total event=other result=ok": 1}


@pytest.mark.parametrize("side", [WEB, WORKER])
def test_every_series_starts_at_zero(side: str) -> None:
    constant = ("push_processes", "push_build_info")
    assert {
        name: value for name, value in Page(side).figures().items() if value and not name.startswith(constant)
    } == {}


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_a_row_keeps_the_rules_of_naming(row: object) -> None:
    assert re.fullmatch(r"push_[a-z_]+", row.name)
    assert row.help.endswith(".")
    assert row.name.endswith("_total") == (row.kind == "counter")
    assert row.kind != "histogram" or row.name.endswith("_seconds")
    assert not re.search(r"_(ms|millis|kb|minutes)\b", row.name)
    assert not {"user", "user_id", "symbol", "token", "message", "le", "quantile"} & row.labels.keys()
    assert row.side in (WEB, WORKER, BOTH)
    assert list(row.buckets) == sorted(row.buckets)
    assert len(list(row.series())) <= 250


def test_every_code_of_a_failed_fetch_has_a_series_of_its_own() -> None:
    def codes(kind: type[ExchangeError]) -> set[str]:
        return {kind.code}.union(*(codes(special) for special in kind.__subclasses__()))

    known = next(row for row in CATALOGUE if row.name == "push_fetch_errors_total").labels["code"]
    assert codes(ExchangeError) | {meaning.code for meaning in MEANINGS.values()} <= set(known)


def test_names_are_unique() -> None:
    assert len({row.name for row in CATALOGUE}) == len(CATALOGUE)


def test_push_latency_has_an_edge_at_one_second_for_the_objective() -> None:
    assert 1 in next(row for row in CATALOGUE if row.name == "push_update_latency_seconds").buckets


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_push_worker_serves_its_metrics_and_its_own_memory() -> None:
    observer = PrometheusObserver(side=WORKER)
    port = serve_worker_metrics(LOCAL, observer.registry)
    observer.record(o.UsersClaimed(7, 0.1))
    status, page = get(port, "/metrics")
    assert status == 200
    assert "push_users_claimed_total 7.0" in page
    assert "process_resident_memory_bytes" in page
    assert "push_connections_open" not in page


@pytest.mark.parametrize("path", ["/", "/metrics/", "/admin", "/../metrics", "/api/auth/login"])
def test_B09_nothing_but_metrics_and_health_is_on_the_metrics_address(path: str) -> None:
    endpoint = MetricsEndpoint(lambda: b"page")
    port = endpoint.serve("127.0.0.1", 0)
    try:
        assert get(port, path)[0] == 404
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/metrics?x=1") == (200, "page")
    finally:
        endpoint.close()


def test_a_second_push_worker_on_the_same_port_takes_a_free_one() -> None:
    first = serve_worker_metrics(LOCAL, PrometheusObserver(side=WORKER).registry)
    second = serve_worker_metrics(Address("127.0.0.1", first), PrometheusObserver(side=WORKER).registry)
    assert second != first
    assert get(second, "/healthz")[0] == 200


def test_a_page_that_cannot_be_made_is_a_500_and_the_next_one_works() -> None:
    pages = [b"second"]

    def render() -> bytes:
        if pages[-1] == b"second":
            pages.append(b"third")
            raise RuntimeError("torn file")
        return pages[-1]

    endpoint = MetricsEndpoint(render)
    port = endpoint.serve("127.0.0.1", 0)
    try:
        assert get(port, "/metrics")[0] == 500
        assert get(port, "/metrics") == (200, "third")
    finally:
        endpoint.close()


WORKER_SCRIPT = """
import sys
from pushserver import observers as o
from pushserver.metrics import PrometheusObserver
from pushserver.model import DataType
observer = PrometheusObserver()
observer.record(o.ConnectionOpened("c", 4, "payload"))
observer.record(o.UpdatesPushed(DataType.BALANCE, 1, 10, {0.004: 1}))
import os; print(os.getpid())
"""


def run_worker(directory: Path, script: str = WORKER_SCRIPT) -> int:
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return int(result.stdout)


EMITTED = 'push_updates_emitted_total{kind="push",type="balance"}'
LATENCY = 'push_update_latency_seconds_bucket{le="0.005",type="balance"}'


def value(page: bytes, series: str) -> float:
    return float(re.search(rf"^{re.escape(series)} (\S+)$", page.decode(), re.MULTILINE)[1])


def test_web_workers_add_up_and_a_dead_ones_counts_stay_while_its_gauges_end(tmp_path: Path) -> None:
    metrics = SharedMetrics(tmp_path)
    first, second = run_worker(tmp_path), run_worker(tmp_path)
    page = metrics.exposition()
    assert (value(page, EMITTED), value(page, LATENCY), value(page, "push_connections_open")) == (2, 2, 2)
    metrics.forget(first)
    page = metrics.exposition()
    assert (value(page, EMITTED), value(page, LATENCY), value(page, "push_connections_open")) == (2, 2, 1)
    metrics.forget(second)
    page = metrics.exposition()
    assert (value(page, EMITTED), value(page, LATENCY)) == (2, 2)
    assert "push_connections_open 1" not in page.decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_0.db", "histogram_0.db"]


def test_many_reloads_leave_no_more_files_than_one(tmp_path: Path) -> None:
    metrics = SharedMetrics(tmp_path)
    original = run_worker(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    metrics.forget(original)
    for pid in range(900_001, 900_101):
        for name, content in files.items():
            (tmp_path / name.replace(str(original), str(pid))).write_bytes(content)
        metrics.forget(pid)
    assert value(metrics.exposition(), EMITTED) == 101
    assert len(list(tmp_path.iterdir())) == 2


def test_a_torn_file_of_a_dying_worker_does_not_hide_the_others(tmp_path: Path) -> None:
    metrics = SharedMetrics(tmp_path)
    run_worker(tmp_path)
    (tmp_path / "counter_999999.db").write_bytes(b"")
    (tmp_path / "histogram_999999.db").write_bytes(b"\xff\xff\x00\x00\x00\x00\x00\x00\x77\x77\x77\x77garbage")
    assert value(metrics.exposition(), EMITTED) == 1
    metrics.forget(999_999)
    assert value(metrics.exposition(), EMITTED) == 1
    assert not list(tmp_path.glob("*999999*"))


def test_I05_on_a_full_disk_a_worker_keeps_its_metrics_in_memory(tmp_path: Path) -> None:
    script = "import pushserver.metrics as m; m.MIN_FREE_BYTES = 1 << 60\n" + WORKER_SCRIPT
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "no room" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_I05_metric_files_are_whole_as_soon_as_the_observer_exists(tmp_path: Path) -> None:
    # A file that grew later, on a disk that has become full, would kill the process.
    idle = WORKER_SCRIPT.replace("observer.record", "(lambda record: None)")
    run_worker(tmp_path, idle)
    before = sorted(name_and_keys(path) for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        path.unlink()
    run_worker(tmp_path, WORKER_SCRIPT + "import tests.test_metrics as t\nfor r in t.ONE_OF_EACH: observer.record(r)\n")
    assert sorted(name_and_keys(path) for path in tmp_path.iterdir()) == before


def name_and_keys(path: Path) -> tuple[str, list[str]]:
    return path.name.rsplit("_", 1)[0], [key for key, *_ in MmapedDict.read_all_values_from_file(str(path))]


def test_the_shared_directory_is_fresh_private_and_gone_at_the_end(tmp_path: Path) -> None:
    abandoned = tmp_path / "pushserver-metrics-old"
    abandoned.mkdir()
    (abandoned / "counter_1.db").write_bytes(b"x")
    first = SharedDirectory(tmp_path)
    second = SharedDirectory(tmp_path)
    assert first.path.stat().st_mode & 0o777 == 0o700
    assert not abandoned.exists()
    assert first.path.exists(), "a directory in use was taken for an abandoned one"
    first.remove()
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_I05_the_shared_directory_goes_elsewhere_when_memory_has_no_room(tmp_path: Path) -> None:
    directory = SharedDirectory(tmp_path / "missing")
    try:
        assert directory.path.is_dir()
    finally:
        directory.remove()


def test_the_page_of_metrics_is_that_of_the_catalogue() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == page(CATALOGUE), (
        "stale: python -m pushserver.metrics_catalogue > docs/metrics.md"
    )


def test_the_page_tells_every_label_value_and_how_web_workers_are_added_up() -> None:
    text = page(CATALOGUE)
    for row in CATALOGUE:
        [line] = [line for line in text.splitlines() if line.startswith(f"| `{row.name}` |")]
        assert all(value in line for label, known in row.labels.items() if label != "python" for value in known
                   if row.name != "push_build_info")  # fmt: skip
    assert "`push_connections_idlest` | gauge, smallest of all web workers" in text
