"""Metrics in Prometheus's form, and the only file that knows Prometheus: the observer and what serves its figures.

A push worker serves its own registry. The web workers of one gunicorn write into files of a shared directory
(the client library's multi-process mode), which the gunicorn master reads for all of them together.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.process_collector import ProcessCollector

from pushserver import observers as o
from pushserver.metrics_catalogue.catalogue import BOTH, CATALOGUE, WEB, Amount, Metric
from pushserver.metrics_endpoint import Address, MetricsEndpoint
from pushserver.metrics_files import MetricFiles, Series

logger = logging.getLogger(__name__)

#: Room that a process's metric files must find when it starts; they take about 1 MiB.
MIN_FREE_BYTES = 4 * 1024 * 1024
#: Labels that are not called as the records' field they are read from.
_FIELDS = {"type": "data_type"}

_KINDS: Mapping[str, type[Counter] | type[Gauge] | type[Histogram]] = {
    "counter": Counter,
    "gauge": Gauge,
    "histogram": Histogram,
}


class PrometheusObserver(o.Observer):
    """Turns records into metrics of ``registry`` (its own if none is given).

    ``side`` is ``web`` or ``worker`` and decides which rows of the catalogue exist; all their series start at zero.
    """

    def __init__(self, registry: CollectorRegistry | None = None, side: str = WEB) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._feeds: dict[type[o.Record], list[Callable[[Any], None]]] = {}
        _keep_metrics_in_memory_if_disk_is_full()
        disable_created_metrics()  # a time stamp beside every counter would double the page
        for row in CATALOGUE:
            if row.side in (side, BOTH):
                self._add(row)

    def record(self, record: o.Record) -> None:
        for feed in self._feeds.get(type(record), ()):
            feed(record)

    def _add(self, row: Metric) -> None:
        options: dict[str, Any] = {"registry": self.registry}
        if row.kind == "gauge":
            options["multiprocess_mode"] = row.mode
        if row.kind == "histogram":
            options["buckets"] = row.buckets
        metric = _KINDS[row.kind](row.name, row.help, tuple(row.labels), **options)
        children = {series: metric.labels(*series) if series else metric for series in row.series()}
        if not row.feeds:  # a constant
            for child in children.values():
                child.set(1)  # type: ignore[union-attr]
        for record_type, amount in row.feeds.items():
            self._feeds.setdefault(record_type, []).append(_feed(row, children, amount))


def _feed(row: Metric, children: Mapping[tuple[str, ...], Any], amount: Amount) -> Callable[[Any], None]:
    labels_of = _reader([_FIELDS.get(label, label) for label in row.labels])
    changes = {series: _change(child, row.verb) for series, child in children.items()}
    if isinstance(amount, str):
        amount = attrgetter(amount)

    def feed(record: Any) -> None:
        value = amount(record) if callable(amount) else amount
        if value is None:
            return
        labels = labels_of(record)
        change = changes.get(labels) or changes[row.known(labels)]
        change(value)

    return feed


def _change(child: Any, verb: str) -> Callable[[Any], None]:
    return partial(_observe, child) if verb == "observe" else getattr(child, verb)


def _observe(histogram: Any, value: float | Mapping[float, int]) -> None:
    """One observation, or many at once, which the client library has no call for."""
    if not isinstance(value, Mapping):
        histogram.observe(value)
        return
    for amount, times in value.items():
        histogram._sum.inc(amount * times)
        histogram._buckets[bisect_left(histogram._upper_bounds, amount)].inc(times)


def _reader(names: Sequence[str]) -> Callable[[Any], tuple[str, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda record: (getattr(record, names[0]),)) if names else (lambda record: ())


def serve_worker_metrics(address: Address, registry: CollectorRegistry) -> int:
    """Serve ``registry`` and this process's own figures (memory, files, garbage collector); the port it got.

    A busy port is replaced by a free one, so that several push workers fit on one machine.
    """
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return MetricsEndpoint(lambda: generate_latest(registry)).serve_or_replace(address)


class SharedMetrics:
    """The metric files of all web workers of one gunicorn, read and kept small by its master.

    The files of a worker that died are added to one file of the dead, or the reading of a thousand reloads' files
    would slow every scrape. Adding and reading exclude each other: seen in between, counters would jump.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = MetricFiles()
        self._lock = threading.Lock()

    def exposition(self) -> bytes:
        """All workers' metrics together in Prometheus text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        with self._lock:
            return generate_latest(registry)

    def collect(self) -> Iterable[Family]:
        """For the client library."""
        families: dict[str, Family] = {}
        for kind, figures in self._files.added_up(sorted(self._directory.glob("*.db"))).items():
            buckets: dict[tuple[str, ...], list[tuple[float, Series, float]]] = {}
            for key, figure in figures.items():
                series = self._files.series[key]
                if series.metric not in families:
                    families[series.metric] = Family(series.metric, series.help, kind)
                if "le" in series.labels:
                    others = (series.metric, *(value for name, value in series.labels.items() if name != "le"))
                    buckets.setdefault(others, []).append((float(series.labels["le"]), series, figure))
                else:
                    families[series.metric].add_sample(series.sample, series.labels, figure)
            for edges in buckets.values():
                _add_buckets(families[edges[0][1].metric], edges)
        return families.values()

    def forget(self, pid: int) -> None:
        """A worker is gone: its gauges end, its counts stay."""
        with self._lock:
            for path in self._directory.glob(f"*_{pid}.db"):
                kind = path.name.split("_")[0]
                if kind != "gauge" and _is_readable(str(path)):
                    dead = MmapedDict(str(self._directory / f"{kind}_0.db"))
                    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                        dead.write_value(key, dead.read_value(key)[0] + value, 0.0)
                    dead.close()
                path.unlink()
                self._files.forget(path)


def _add_buckets(family: Family, edges: list[tuple[float, Series, float]]) -> None:
    """Files count each observation in one bucket, pages in all buckets above as well."""
    count = 0.0
    for _, series, figure in sorted(edges, key=itemgetter(0)):
        count += figure
        family.add_sample(series.sample, series.labels, count)
    others = {name: value for name, value in series.labels.items() if name != "le"}
    family.add_sample(f"{family.name}_count", others, count)


_UNREADABLE = (struct.error, RuntimeError, ValueError, OSError)


def _is_readable(path: str) -> bool:
    try:
        for key, _, _, _ in MmapedDict.read_all_values_from_file(path):
            json.loads(key)
    except _UNREADABLE as error:
        logger.warning("metric file %s is passed over: %s", Path(path).name, error)
        return False
    return True


def _keep_metrics_in_memory_if_disk_is_full() -> None:
    """Writing to a memory-mapped file on a full disk kills the process; better no metrics than no pushes.

    All series are created at once, so their pages are there before the disk can fill up later.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not directory:
        return
    space = os.statvfs(directory)
    if space.f_bavail * space.f_frsize < MIN_FREE_BYTES:
        logger.error("no room in %s: this process keeps its metrics to itself", directory)
        values.ValueClass = values.MutexValue
