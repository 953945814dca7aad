"""What a process says of itself agrees with what the system says."""

from __future__ import annotations

import os
import tempfile

import psutil

from pushserver.observers import ProcessMeasured, RecordingObserver
from pushserver.process_probe import ProcessProbe, open_files, resident_bytes


def test_cpu_time_is_told_once() -> None:
    observer = RecordingObserver()
    probe = ProcessProbe(observer)
    probe.measure()
    before_s = sum(psutil.Process().cpu_times()[:2])
    while sum(psutil.Process().cpu_times()[:2]) < before_s + 0.1:
        pass
    probe.measure()
    first, second = (record for record in observer.records if isinstance(record, ProcessMeasured))
    assert abs(first.cpu_s - before_s) < 0.05
    assert 0.08 < second.cpu_s < 0.5


def test_memory_and_files_are_those_of_the_process() -> None:
    assert abs(resident_bytes() - psutil.Process(os.getpid()).memory_info().rss) < 20_000_000
    before = open_files()
    with tempfile.TemporaryFile(), tempfile.TemporaryFile():
        assert open_files() == before + 2
