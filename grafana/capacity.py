"""How much more fits, and what a user costs."""

from __future__ import annotations

from typing import Any

from grafana.panels import GREEN, RED, YELLOW, Curve, Steps, figure, graph, screen
from grafana.queries import largest, per_second, quantile, series, smallest, total


def dashboard() -> Any:
    return screen(
        "push-capacity",
        "How much more fits: users, connections, cores, memory; and what each costs.",
        ("Room", room()),
        ("Processes", processes()),
        ("Push workers", push_workers()),
        ("What it costs", costs()),
    )


def room() -> list[Any]:
    return [
        figure("Room for more users", "Users like the present ones that the exchange's budget would carry in addition. "
               "More: streams, EGRESS_PROXIES, RECONCILE_S.", "short",
               Curve(smallest("exchange_headroom_users"), "users"), runbook="PushBudgetNearlySpent"),
        figure("Users watched", "Users in the schedule.", "short", Curve(largest("schedule_users"), "users")),
        figure("Phones connected", "Signed-in connections.", "short", Curve(total("connections_open"), "phones")),
        figure("Budget limit", "Requests that all our addresses together may send in five seconds.", "short",
               Curve(largest("exchange_budget_limit"), "requests")),
        figure("Busiest event loop, p99", "How late timers are in the worst process.", "s",
               Curve(f"max({quantile(0.99, 'loop_lag_seconds', 'instance')})", "lag"),
               Steps(GREEN, ((0.1, YELLOW), (0.2, RED))), runbook="PushLoopLag"),
        figure("Free for metric files", "None left kills processes; a worker needs about 1 MB.", "bytes",
               Curve(smallest("metrics_free_bytes"), "free"), Steps(RED, ((33_554_432, YELLOW), (134_217_728, GREEN))),
               runbook="PushMetricsDiskLow"),
    ]  # fmt: skip


def processes() -> list[Any]:
    return [
        graph("CPU", "Cores used by each target. A process can use one: compare with the number of processes.", "short",
              Curve(per_second("process_cpu_seconds_total", "job", "instance"), "{{job}} {{instance}}"), width=6),
        graph("Memory", "Resident memory of each target, shared pages counted once per process.", "bytes",
              Curve(total("process_resident_bytes", "job", "instance"), "{{job}} {{instance}}"), width=6),
        graph("Open files", "Sockets included; the limit is in the unit file or container.", "short",
              Curve(total("process_open_files", "job", "instance"), "{{job}} {{instance}}"), width=6),
        graph("Processes and versions", "Processes of each job, and what runs.", "short",
              Curve(total("processes", "job"), "{{job}}"),
              Curve(f"count by (version, python) ({series('build_info')})", "version {{version}}, Python {{python}}"),
              width=6),
    ]  # fmt: skip


def push_workers() -> list[Any]:
    return [
        graph("Rounds under way", "Against what may be under way: full slots with idle cores ask for a higher "
              "WORKER_CONCURRENCY.", "short", Curve(total("rounds_in_flight"), "under way"),
              Curve(total("round_slots"), "allowed now"), Curve(total("round_slots_most"), "allowed at most"),
              runbook="PushScheduleLag"),
        graph("Requests under way", "Requests that wait for the exchange's answer.", "short",
              Curve(total("requests_in_flight", "instance"), "{{instance}}")),
        graph("Users per process", "Homes of each push worker; they spread by themselves.", "short",
              Curve(total("homes", "instance"), "{{instance}}")),
    ]  # fmt: skip


def costs() -> list[Any]:
    web_cpu = per_second("process_cpu_seconds_total", job="pushserver-web")
    return [
        graph("Requests per user and minute", "About 23 for a user who is polled, 2 for one with a healthy stream.",
              "short", Curve(f"60 * {per_second('fetch_requests_total')} / {largest('schedule_users')}", "requests")),
        graph("CPU per update delivered", "Of the web workers, everything else they do included.", "s",
              Curve(f"{web_cpu} / {per_second('updates_emitted_total')}", "per update")),
        graph("CPU per fetch round", "Of the push workers, streams and mark prices included.", "s",
              Curve(f"{per_second('process_cpu_seconds_total', job='pushserver-worker')}"
                    f" / {per_second('fetch_rounds_total')}", "per round")),
    ]  # fmt: skip
