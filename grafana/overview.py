"""Is it healthy? And if not: which part broke."""

from __future__ import annotations

from typing import Any

from grafana.panels import GREEN, NONE_IS_GOOD, RED, YELLOW, Curve, Steps, figure, graph, screen
from grafana.queries import largest, per_second, quantile, series, smallest, total, while_shown, within

WEB, WORKER = "Web workers", "Push workers"


def dashboard() -> Any:
    return screen(
        "push-overview",
        "Is it healthy? The objectives, the parts that can break, and what users notice.",
        ("Healthy?", objectives()),
        ("What broke", parts()),
        ("What users notice", users()),
        ("Since when", history()),
    )


def objectives() -> list[Any]:
    late = while_shown("freshness_samples_total", result="late")
    judged = while_shown("freshness_samples_total", result="~fresh|late")
    return [
        figure("Changes pushed within 1 s", "Objective: 99 % of the changes of the time shown. Lower: see Delivery, "
               "stages.", "percentunit", Curve(within("1.0", "update_latency_seconds"), "within 1 s"),
               Steps(RED, ((0.99, YELLOW), (0.995, GREEN))), runbook="PushDeliverySloBurnFast"),
        figure("Data that is fresh", "Objective: 99.5 % of what watched users see was confirmed within twice its "
               "interval. Lower: see Exchange.", "percentunit", Curve(f"1 - {late} / {judged}", "fresh"),
               Steps(RED, ((0.995, GREEN),)), runbook="PushFreshnessSloBurnFast"),
        figure("Delivery: error budget left", "Of the time shown: 100 % nothing was late, 0 % as much as may be, below "
               "that too much.", "percentunit",
               Curve(f"1 - (1 - {within('1.0', 'update_latency_seconds')}) / 0.01", "left"),
               Steps(RED, ((0.0, YELLOW), (0.5, GREEN))), runbook="PushDeliverySloBurnSlow"),
        figure("Freshness: error budget left", "Of the time shown: 100 % nothing was old, 0 % as much as may be, below "
               "that too much.", "percentunit", Curve(f"1 - ({late} / {judged}) / 0.005", "left"),
               Steps(RED, ((0.0, YELLOW), (0.5, GREEN))), runbook="PushFreshnessSloBurnSlow"),
        figure("Phones connected", "Signed-in connections of all web workers now.", "short",
               Curve(total("connections_open"), "phones")),
        figure("Users watched", "Users in the push workers' schedule: somebody looks at them.", "short",
               Curve(largest("schedule_users"), "users")),
    ]  # fmt: skip


def parts() -> list[Any]:
    return [
        figure("Alerts firing", "Alerts of this program that fire now; each has a runbook.", "short",
               Curve('count(ALERTS{alertname=~"Push.*", alertstate="firing", job=~"$job"}) or vector(0)', "firing"),
               NONE_IS_GOOD),
        figure("Targets down", "Gunicorn masters and push workers that do not answer Prometheus.", "short",
               Curve('count(up{job=~"$job", instance=~"$instance"} == 0) or vector(0)', "down"), NONE_IS_GOOD,
               runbook="PushTargetDown"),
        figure("Deaf web workers", "Web workers that do not hear the bus: their phones get nothing.", "short",
               Curve(f"sum({series('processes')} - {series('bus_connected')})", "deaf"), NONE_IS_GOOD,
               runbook="PushDeafListener"),
        figure("Processes without Redis", "Processes from which Redis takes nothing.", "short",
               Curve(f"sum({series('processes')} - {series('redis_up')})", "without"), NONE_IS_GOOD,
               runbook="PushRedisDown"),
        figure("Exchange refuses us", "1 while nothing is asked because the exchange refused our address.", "short",
               Curve(largest("exchange_address_paused"), "paused"), NONE_IS_GOOD, runbook="PushAddressBanned"),
        figure("Fetches that fail", "Share of the requests to the exchange that failed, users' own keys left out.",
               "percentunit",
               Curve(f"{per_second('fetch_refusals_total', whose='~exchange|request|address')}"
                     f" / {per_second('fetch_requests_total')}", "failed"),
               Steps(GREEN, ((0.02, YELLOW), (0.1, RED))), runbook="PushFetchFailures"),
        figure("Budget left", "Share of the exchange's request budget unused in the last window.", "percentunit",
               Curve(smallest("exchange_budget_headroom"), "left"),
               Steps(RED, ((0.1, YELLOW), (0.2, GREEN))), runbook="PushBudgetNearlySpent"),
        figure("Keys refused", "Requests refused because of a user's key in the time shown. Those users "
               "are told; nobody else is touched.", "short",
               Curve(while_shown("fetch_refusals_total", whose="key"), "refusals"), Steps(GREEN, ((1, YELLOW),)),
               runbook="PushKeysRefused"),
        figure("Oldest sign of life on the bus", "Since the worst web worker heard its canary; normal is below 3 s.",
               "s", Curve(largest("bus_listener_age_seconds"), "age"), Steps(GREEN, ((4, YELLOW), (10, RED))),
               runbook="PushDeafListener"),
        figure("Event loops, p99", "How late timers are in the worst process; above 0.2 s everything there waits.", "s",
               Curve(f"max({quantile(0.99, 'loop_lag_seconds', 'instance')})", "lag"),
               Steps(GREEN, ((0.1, YELLOW), (0.2, RED))), runbook="PushLoopLag"),
        figure("Wait for a fetch, p99", "How long users wait beyond the moment they were due.", "s",
               Curve(quantile(0.99, "schedule_lag_seconds"), "lag"), Steps(GREEN, ((5, YELLOW), (30, RED))),
               runbook="PushScheduleLag"),
        figure("Starts", "Processes started in the time shown: releases and reloads, or crashes.", "short",
               Curve(while_shown("lifecycle_total", state="started"), "starts"), runbook="PushRestarting"),
    ]  # fmt: skip


def users() -> list[Any]:
    return [
        graph("Time from commit to the phones", "What a change takes from Redis to the sockets. Objective: 99 % "
              "within 1 s.", "s",
              Curve(quantile(0.5, "update_latency_seconds"), "p50"),
              Curve(quantile(0.99, "update_latency_seconds"), "p99"), limit=1, runbook="PushDeliverySloBurnFast"),
        graph("Age of what watched users see", "The exchange's own stamp to now, sampled by the web workers, by type.",
              "s", Curve(quantile(0.9, "watched_age_seconds", "type"), "p90 {{type}}"), runbook="PushStaleData"),
        graph("Pushes", "Updates handed to connections per second, by type.", "cps",
              Curve(per_second("updates_emitted_total", "type", kind="push"), "{{type}}"), stacked=True),
    ]  # fmt: skip


def history() -> list[Any]:
    return [
        graph("Freshness samples", "What web workers found when they looked at what their phones are shown. stopped: "
              "the user's own key.", "cps",
              Curve(per_second("freshness_samples_total", "result"), "{{result}}"), stacked=True,
              runbook="PushStaleData"),
        graph("Alerts", "Which alerts fired when.", "short",
              Curve('sum by (alertname) (ALERTS{alertname=~"Push.*", alertstate="firing", job=~"$job"})',
                    "{{alertname}}"), stacked=True),
        graph("Processes", "Processes that report, and those that hear the bus.", "short",
              Curve(total("processes", "job"), "{{job}}"), Curve(total("bus_connected"), "hear the bus")),
    ]  # fmt: skip
