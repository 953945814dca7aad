"""The catalogue of metrics, and the only file that knows Prometheus.

``CATALOGUE`` is closed: every name, kind, label and label value stands in it, so the number of series is known
before the first request and no input can add one. A value outside its set is counted as ``other``.

A push worker serves its own registry. The web workers of one gunicorn write into files of a shared directory
(the client library's multi-process mode), which the gunicorn master reads for all of them together.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import platform
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from pushserver import observers
from pushserver.events import CLIENT_EVENTS
from pushserver.metrics_endpoint import Address, MetricsEndpoint
from pushserver.model import DataType, Freshness

logger = logging.getLogger(__name__)

OTHER = "other"
#: Room that a process's metric files must find when it starts; they take about 1 MiB.
MIN_FREE_BYTES = 4 * 1024 * 1024
VERSION = "0.1.0"
#: Labels whose values come from an enum or from the build itself, so that nothing else can occur.
ENUM_LABELS = frozenset({"type", "version", "python"})

TYPES = tuple(data_type.value for data_type in DataType)
EMIT_KINDS = ("push", "snapshot", "resync", "reread", "status")
ENDPOINTS = (
    "account/info", "account/wallet-balance", "position/list", "position/closed-pnl", "order/realtime",
    "market/tickers", "market/time", "user/query-api",
)  # fmt: skip
KEY_CODES = (
    "key_invalid", "key_expired", "key_permission", "key_ip_not_allowed", "key_signature", "account_blocked",
    "key_unreadable", "key_missing",
)  # fmt: skip
FETCH_CODES = (
    *KEY_CODES, "exchange_rate_limited", "exchange_address_banned", "exchange_clock_skew", "exchange_unavailable",
    "exchange_answer_malformed", "exchange_request_rejected", "exchange_error", "server_busy", "internal_error",
)  # fmt: skip
TOKEN_CODES = ("token_missing", "token_invalid", "token_expired", "token_revoked", "token_mismatch", "user_disabled")
REFUSAL_CODES = (*TOKEN_CODES, "too_many_connections", "server_busy")
CLOSE_REASONS = (
    "client_disconnect", "server_disconnect", "ping_timeout", "transport_close", "transport_error",
    "protocol_error", "token_expired", "token_revoked", "user_disabled", "slow_client", "flood", "drain",
)  # fmt: skip
EVENT_RESULTS = ("ok", "invalid_payload", "unknown_type", "unknown_event", "rate_limited", "server_busy", *TOKEN_CODES)
HTTP_CODES = (
    "bad_request", "bad_upgrade", "body_too_large", "compressed_body", "headers_too_large", "not_found",
    "request_line_too_long", "request_timeout", "websocket_version",
)  # fmt: skip
DROP_REASONS = ("oversize", "malformed", "seq_ahead", "not_an_event")
BUS_STATES = ("connected", "lost", "deaf")

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8)
LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
AGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 300)
LIFETIME_BUCKETS = (1, 10, 60, 300, 1_800, 3_600, 14_400, 86_400)
LOOP_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. ``side``: who has it: web, worker or both.

    ``mode`` says how a gauge of several web workers becomes one figure; of the ``live`` ones only living workers count.
    """

    name: str
    kind: type[Counter] | type[Gauge] | type[Histogram]
    side: str
    help: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...] = ()
    mode: str = "livesum"

    def series(self) -> Iterable[tuple[str, ...]]:
        """Every combination of label values that can ever occur."""
        return itertools.product(
            *(known if name in ENUM_LABELS else (*known, OTHER) for name, known in self.labels.items())
        )


def _row(
    name: str, kind: Any, side: str, text: str, buckets: tuple[float, ...] = (), mode: str = "livesum", /,
    **labels: tuple[str, ...],
) -> Metric:  # fmt: skip
    return Metric(f"push_{name}", kind, side, text, labels, buckets, mode)


WEB, WORKER, BOTH = "web", "worker", "both"
CATALOGUE = (
    _row("users_claimed_total", Counter, WORKER, "Users taken from the schedule."),
    _row("schedule_lag_seconds", Histogram, WORKER, "How overdue the longest waiting claimed user was.", LAG_BUCKETS),
    _row("fetch_requests_total", Counter, WORKER, "Requests to the exchange.",
         endpoint=ENDPOINTS, result=("ok", *FETCH_CODES)),
    _row("fetch_request_seconds", Histogram, WORKER, "Time until a request to the exchange was answered or given up.",
         REQUEST_BUCKETS, endpoint=ENDPOINTS),
    _row("fetch_rounds_total", Counter, WORKER, "Fetch rounds, one per user and turn.",
         result=("ok", "failed", "idle", "lost")),
    _row("fetch_round_seconds", Histogram, WORKER, "Duration of a whole fetch round.", REQUEST_BUCKETS),
    _row("fetch_round_requests_total", Counter, WORKER, "Requests that rounds needed, for requests per round."),
    _row("fetch_errors_total", Counter, WORKER, "Types that could not be refreshed; the last good state stays.",
         code=FETCH_CODES, type=TYPES),
    _row("commits_total", Counter, WORKER, "Fetched states by what became of them.",
         result=("published", "unchanged", "stale"), type=TYPES),
    _row("data_age_seconds", Histogram, WORKER, "Exchange's own stamp of the data to our commit.", AGE_BUCKETS,
         type=TYPES),
    _row("freshness_changes_total", Counter, WORKER, "Changes of a type's freshness, all users.",
         state=tuple(state.value for state in Freshness), type=TYPES),
    _row("address_pauses_total", Counter, WORKER, "Times the exchange refused our address.",
         code=("exchange_address_banned", "exchange_rate_limited")),
    _row("address_pause_seconds_total", Counter, WORKER, "Seconds of silence towards the exchange that this ordered."),
    _row("http_requests_refused_total", Counter, WEB, "Requests that the application never saw.", code=HTTP_CODES),
    _row("connections_open", Gauge, WEB, "Accepted connections now."),
    _row("connections_opened_total", Counter, WEB, "Accepted connections by where the token was.",
         carrier=("payload", "header", "query")),
    _row("connections_refused_total", Counter, WEB, "Refused connections.", code=REFUSAL_CODES),
    _row("connections_closed_total", Counter, WEB, "Ended connections.", reason=CLOSE_REASONS),
    _row("connection_seconds", Histogram, WEB, "Lifetime of a connection.", LIFETIME_BUCKETS),
    _row("subscriptions_open", Gauge, WEB, "Subscribed types of accepted connections now.", type=TYPES),
    _row("events_received_total", Counter, WEB, "Events from clients.",
         event=tuple(sorted(CLIENT_EVENTS)), result=EVENT_RESULTS),
    _row("updates_emitted_total", Counter, WEB, "Updates handed to connections.", type=TYPES, kind=EMIT_KINDS),
    _row("update_bytes_total", Counter, WEB, "Bytes of these updates.", type=TYPES),
    _row("update_latency_seconds", Histogram, WEB, "Commit by a push worker to the connections' sockets.",
         LATENCY_BUCKETS, type=TYPES),
    _row("updates_conflated_total", Counter, WEB, "Waiting states replaced by a newer one on slow connections.",
         type=TYPES),
    _row("bus_connected", Gauge, WEB, "Processes whose bus listener hears its own canary."),
    _row("bus_changes_total", Counter, WEB, "Changes of the bus listener's state.", state=BUS_STATES),
    _row("bus_outage_seconds_total", Counter, WEB, "Time without a bus, counted when it is back."),
    _row("bus_messages_dropped_total", Counter, WEB, "Messages of the bus that were not what we send.",
         reason=DROP_REASONS),
    _row("logins_total", Counter, WEB, "Attempts to log in.",
         result=("ok", "invalid_credentials", "rate_limited", "unavailable")),
    _row("login_seconds", Histogram, WEB, "Time to answer an attempt to log in.", LATENCY_BUCKETS),
    _row("lifecycle_total", Counter, BOTH, "Starts and stops of components.",
         component=("web", "worker"), state=("started", "ready", "draining", "stopped")),
    _row("loop_lag_seconds", Histogram, BOTH, "How late the event loop woke a greenlet.", LOOP_BUCKETS),
    _row("processes", Gauge, BOTH, "Processes of this side that report metrics."),
    _row("build_info", Gauge, BOTH, "Always 1; the labels say what runs.", (), "max",
         version=(VERSION,), python=(platform.python_version(),)),
)  # fmt: skip


class _Nothing:
    """Stands in for the metrics of the other side."""

    def inc(self, amount: float = 1) -> None: ...

    def dec(self, amount: float = 1) -> None: ...

    def set(self, value: float) -> None: ...

    def observe(self, amount: float) -> None: ...


_NOTHING = _Nothing()


class PrometheusObserver(observers.Observer):
    """Turns records into metrics of ``registry`` (its own if none is given).

    ``side`` is ``web`` or ``worker`` and decides which rows of the catalogue exist; all their series start at zero.
    """

    def __init__(self, registry: CollectorRegistry | None = None, side: str = WEB) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        _keep_metrics_in_memory_if_disk_is_full()
        disable_created_metrics()  # a time stamp beside every counter would double the page
        self._rows = {row.name: row for row in CATALOGUE if row.side in (side, BOTH)}
        self._children = {row.name: self._create(row) for row in self._rows.values()}
        self._at("processes").set(1)
        self._at("build_info", VERSION, platform.python_version()).set(1)
        self._counters: Mapping[type[observers.Record], Callable[[Any], None]] = {
            observers.UsersClaimed: self._users_claimed,
            observers.RequestAnswered: self._request_answered,
            observers.RoundFinished: self._round_finished,
            observers.FetchFailed: self._fetch_failed,
            observers.StateCommitted: self._state_committed,
            observers.FreshnessChanged: self._freshness_changed,
            observers.AddressPaused: self._address_paused,
            observers.HttpRequestRefused: self._http_request_refused,
            observers.ConnectionOpened: self._connection_opened,
            observers.ConnectionRefused: self._connection_refused,
            observers.ConnectionClosed: self._connection_closed,
            observers.SubscriptionChanged: self._subscription_changed,
            observers.EventReceived: self._event_received,
            observers.UpdateEmitted: self._update_emitted,
            observers.UpdatesConflated: self._updates_conflated,
            observers.BusStateChanged: self._bus_state_changed,
            observers.BusMessageDropped: self._bus_message_dropped,
            observers.LoginAttempted: self._login_attempted,
            observers.LifecycleReported: self._lifecycle_reported,
            observers.LoopLagMeasured: self._loop_lag_measured,
        }

    def record(self, record: observers.Record) -> None:
        counter = self._counters.get(type(record))
        if counter is not None:
            counter(record)

    def _create(self, row: Metric) -> dict[tuple[str, ...], Any]:
        options: dict[str, Any] = {"registry": self.registry}
        if row.kind is Gauge:
            options["multiprocess_mode"] = row.mode
        if row.kind is Histogram:
            options["buckets"] = row.buckets
        metric = row.kind(row.name, row.help, tuple(row.labels), **options)
        return {series: metric.labels(*series) if series else metric for series in row.series()}

    def _at(self, name: str, *labels: str) -> Any:
        """The series of these label values, each that is not in the catalogue taken as ``other``."""
        children = self._children.get(f"push_{name}")
        if children is None:
            return _NOTHING
        child = children.get(labels)
        if child is None:
            known = self._rows[f"push_{name}"].labels.values()
            child = children[
                tuple(label if label in values else OTHER for label, values in zip(labels, known, strict=True))
            ]
        return child

    def _users_claimed(self, record: observers.UsersClaimed) -> None:
        self._at("users_claimed_total").inc(record.users)
        self._at("schedule_lag_seconds").observe(max(0.0, record.lag_s))

    def _request_answered(self, record: observers.RequestAnswered) -> None:
        endpoint = _endpoint(record.endpoint)
        self._at("fetch_requests_total", endpoint, record.result).inc()
        self._at("fetch_request_seconds", endpoint).observe(record.duration_s)

    def _round_finished(self, record: observers.RoundFinished) -> None:
        self._at("fetch_rounds_total", record.result).inc()
        self._at("fetch_round_seconds").observe(record.duration_s)
        self._at("fetch_round_requests_total").inc(record.requests)

    def _fetch_failed(self, record: observers.FetchFailed) -> None:
        self._at("fetch_errors_total", record.code, record.data_type.value).inc()

    def _state_committed(self, record: observers.StateCommitted) -> None:
        self._at("commits_total", record.result, record.data_type.value).inc()
        if record.result != "stale":
            self._at("data_age_seconds", record.data_type.value).observe(max(0.0, record.age_s))

    def _freshness_changed(self, record: observers.FreshnessChanged) -> None:
        self._at("freshness_changes_total", record.state.value, record.data_type.value).inc()

    def _address_paused(self, record: observers.AddressPaused) -> None:
        self._at("address_pauses_total", record.code).inc()
        self._at("address_pause_seconds_total").inc(record.seconds)

    def _http_request_refused(self, record: observers.HttpRequestRefused) -> None:
        self._at("http_requests_refused_total", record.code).inc()

    def _connection_opened(self, record: observers.ConnectionOpened) -> None:
        self._at("connections_opened_total", record.carrier).inc()
        self._at("connections_open").inc()

    def _connection_refused(self, record: observers.ConnectionRefused) -> None:
        self._at("connections_refused_total", record.code).inc()

    def _connection_closed(self, record: observers.ConnectionClosed) -> None:
        self._at("connections_closed_total", record.reason.replace(" ", "_")).inc()
        self._at("connections_open").dec()
        self._at("connection_seconds").observe(record.duration_s)

    def _subscription_changed(self, record: observers.SubscriptionChanged) -> None:
        self._at("subscriptions_open", record.data_type.value).inc(record.delta)

    def _event_received(self, record: observers.EventReceived) -> None:
        self._at("events_received_total", record.event, record.result).inc()

    def _update_emitted(self, record: observers.UpdateEmitted) -> None:
        data_type = record.data_type.value
        self._at("updates_emitted_total", data_type, record.kind).inc(record.connections)
        self._at("update_bytes_total", data_type).inc(record.size_bytes * record.connections)
        if record.latency_s is not None:
            self._at("update_latency_seconds", data_type).observe(max(0.0, record.latency_s))

    def _updates_conflated(self, record: observers.UpdatesConflated) -> None:
        self._at("updates_conflated_total", record.data_type.value).inc(record.count)

    def _bus_state_changed(self, record: observers.BusStateChanged) -> None:
        self._at("bus_changes_total", record.state).inc()
        self._at("bus_connected").set(1 if record.state == "connected" else 0)
        self._at("bus_outage_seconds_total").inc(record.outage_s)

    def _bus_message_dropped(self, record: observers.BusMessageDropped) -> None:
        self._at("bus_messages_dropped_total", record.reason).inc()

    def _login_attempted(self, record: observers.LoginAttempted) -> None:
        self._at("logins_total", record.result).inc()
        self._at("login_seconds").observe(record.duration_s)

    def _lifecycle_reported(self, record: observers.LifecycleReported) -> None:
        self._at("lifecycle_total", record.component, record.state).inc()

    def _loop_lag_measured(self, record: observers.LoopLagMeasured) -> None:
        self._at("loop_lag_seconds").observe(max(0.0, record.seconds))


def _endpoint(path: str) -> str:
    return path.removeprefix("/v5/")


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
        self._lock = threading.Lock()

    def exposition(self) -> bytes:
        """All workers' metrics together in Prometheus text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        with self._lock:
            return generate_latest(registry)

    def collect(self) -> Iterable[Family]:
        """For the client library. A file that a dying worker left half written is passed over."""
        files = [str(path) for path in self._directory.glob("*.db")]
        try:
            return list(MultiProcessCollector.merge(files))
        except _UNREADABLE:
            return list(MultiProcessCollector.merge([path for path in files if _is_readable(path)]))

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
