"""The metrics that every process has."""

from __future__ import annotations

import platform

from pushserver import observers as o
from pushserver.metrics_catalogue.labels import STAGES
from pushserver.metrics_catalogue.rows import BOTH, COUNTER, GAUGE, HISTOGRAM, LOOP_BUCKETS, STAGE_BUCKETS, WEB, row

VERSION = "0.1.0"

COMMON_ROWS = (
    row("lifecycle_total", COUNTER, BOTH, "Starts and stops of components.", {o.LifecycleReported: 1},
        component=(WEB, "push_worker"), state=("started", "stopping", "stopped", "redis_lost", "redis_found")),
    row("loop_lag_seconds", HISTOGRAM, BOTH, "How late the event loop was for a timer.",
        {o.LoopLagMeasured: "lags_s"}, buckets=LOOP_BUCKETS),
    row("processes", GAUGE, BOTH, "Processes of this side that report metrics.", {}),
    row("build_info", GAUGE, BOTH, "Always 1; the labels say what runs.", {}, mode="max",
        version=(VERSION,), python=(platform.python_version(),)),
    row("stage_seconds", HISTOGRAM, BOTH, "Time that changes spent in each stage of their way from the exchange.",
        {o.StageTimed: "times_s"}, buckets=STAGE_BUCKETS, stage=STAGES),
    row("redis_up", GAUGE, BOTH, "Processes of this side from which Redis takes what they write.",
        {o.RedisTried: "is_up"}, verb="set"),
    row("process_cpu_seconds_total", COUNTER, BOTH, "CPU time of the processes of this side.",
        {o.ProcessMeasured: "cpu_s"}),
    row("process_resident_bytes", GAUGE, BOTH, "Memory of the processes of this side.",
        {o.ProcessMeasured: "resident_bytes"}, verb="set"),
    row("process_open_files", GAUGE, BOTH, "Open files and sockets of the processes of this side.",
        {o.ProcessMeasured: "open_files"}, verb="set"),
)  # fmt: skip
