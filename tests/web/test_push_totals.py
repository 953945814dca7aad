"""Pushes are added up: nothing is lost, nothing is told twice, and people still see some of them."""

from __future__ import annotations

from pushserver.model import DataType
from pushserver.observers import PushSampled, RecordingObserver, StageTimed, UpdatesPushed
from pushserver.web.push_totals import MAX_LATENCY_MS, SAMPLES, PushTotals


def pushed(observer: RecordingObserver) -> list[UpdatesPushed]:
    return [record for record in observer.records if isinstance(record, UpdatesPushed)]


def test_a_report_tells_each_type_once_with_everything_since_the_last_one() -> None:
    observer = RecordingObserver()
    totals = PushTotals(observer)
    totals.count(DataType.PNL, 4, connections=2, size_bytes=100, latency_ms=3)
    totals.count(DataType.PNL, 5, connections=1, size_bytes=50, latency_ms=3)
    totals.count(DataType.ORDERS, 4, connections=1, size_bytes=10, latency_ms=7)
    assert not pushed(observer)
    totals.report()
    totals.report()
    assert pushed(observer) == [
        UpdatesPushed(DataType.PNL, 3, 250, {0.003: 2}),
        UpdatesPushed(DataType.ORDERS, 1, 10, {0.007: 1}),
    ]


def test_the_time_on_the_bus_and_the_time_for_writing_are_told_apart() -> None:
    observer = RecordingObserver()
    totals = PushTotals(observer)
    totals.count(DataType.PNL, 4, connections=1, size_bytes=10, latency_ms=3)
    totals.count(DataType.PNL, 4, connections=1, size_bytes=10, latency_ms=9, writing_ms=6)
    totals.report()
    stages = {record.stage: record.times_s for record in observer.records if isinstance(record, StageTimed)}
    assert stages == {"commit_to_bus": {0.003: 2}, "bus_to_socket": {0.0: 1, 0.006: 1}}


def test_a_latency_beyond_all_sense_is_cut_to_the_range() -> None:
    observer = RecordingObserver()
    totals = PushTotals(observer)
    for latency_ms in (-5, 10**9, 10**9 + 1):
        totals.count(DataType.PNL, 4, 1, 1, latency_ms)
    totals.report()
    assert pushed(observer)[0].latencies_s == {0.0: 1, MAX_LATENCY_MS / 1000: 2}


def test_some_pushes_of_each_report_are_shown() -> None:
    observer = RecordingObserver()
    totals = PushTotals(observer)
    for _ in range(2):
        for _ in range(3 * SAMPLES):
            totals.count(DataType.PNL, 4, 1, 10, 2)
        totals.report()
    samples = [record for record in observer.records if isinstance(record, PushSampled)]
    assert samples == 2 * SAMPLES * [PushSampled(DataType.PNL, 4, 1, 10, 0.002)]
