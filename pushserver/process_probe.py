"""What this process costs: CPU time, memory, open files."""

from __future__ import annotations

import logging
import os
import resource

import gevent

from pushserver.observers import Observer, ProcessMeasured

logger = logging.getLogger(__name__)

PROBE_EVERY_S = 5.0


class ProcessProbe:
    """Reports every few seconds, beginning at once with what the start cost."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._reported_cpu_s = 0.0

    def start(self) -> None:
        gevent.spawn(self._run)

    def measure(self) -> None:
        """Report once. Raises OSError where the system does not tell."""
        cpu_s = cpu_seconds()
        used_s, self._reported_cpu_s = cpu_s - self._reported_cpu_s, cpu_s
        self._observer.record(ProcessMeasured(used_s, resident_bytes(), open_files()))

    def _run(self) -> None:
        while True:
            try:
                self.measure()
            except OSError as error:
                logger.debug("this process cannot be measured: %s", error.strerror)
            gevent.sleep(PROBE_EVERY_S)


def cpu_seconds() -> float:
    """Of this process since it was started, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_bytes() -> int:
    """Memory of this process that is in RAM, shared pages included."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read often, a Path costs more
        return int(statm.read().split()[1]) * resource.getpagesize()


def open_files() -> int:
    """Open descriptors; newer kernels tell their number without listing thousands of them."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # noqa: PTH116, PTH208 - as above
