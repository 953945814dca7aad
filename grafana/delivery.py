"""From the bus to the phones: the web workers."""

from __future__ import annotations

from typing import Any

from grafana.panels import Curve, graph, screen
from grafana.queries import largest, per_second, quantile, smallest, total


def dashboard() -> Any:
    return screen(
        "push-delivery",
        "From the bus to the phones: connections, pushes, the bus, slow clients.",
        ("Stages", stages()),
        ("Bus", bus()),
        ("Connections", connections()),
        ("Pushes", pushes()),
        ("Outboxes", outboxes()),
        ("Clients", clients()),
    )


def stages() -> list[Any]:
    return [
        graph("Commit to sockets, p99 by type", "Objective: 99 % within 1 s.", "s",
              Curve(quantile(0.99, "update_latency_seconds", "type"), "{{type}}"), limit=1,
              runbook="PushDeliverySloBurnFast"),
        graph("Stages, p99", "Where a change spends its time. commit_to_bus large: Redis or the ears; bus_to_socket "
              "large: the web worker; answer_to_commit large: the push worker.", "s",
              Curve(quantile(0.99, "stage_seconds", "stage", stage="~exchange_to_answer|answer_to_commit|commit_to_bus"
                    "|bus_to_socket"), "{{stage}}"), limit=1, runbook="PushDeliverySloBurnFast"),
        graph("Event loops of web workers, p99", "How late timers are. Above 0.2 s pushes wait.", "s",
              Curve(quantile(0.99, "loop_lag_seconds", "instance"), "{{instance}}"), limit=0.2, runbook="PushLoopLag"),
    ]  # fmt: skip


def bus() -> list[Any]:
    return [
        graph("Web workers that hear the bus", "All of them should; one less means phones without updates.", "short",
              Curve(total("bus_connected", "instance"), "hear {{instance}}"),
              Curve(f"{total('processes', 'instance')} and {total('bus_connected', 'instance')}", "all {{instance}}"),
              width=6, runbook="PushDeafListener"),
        graph("Age of the canary", "Since the worst web worker of each master heard its own canary; sung every 2 s.",
              "s", Curve(largest("bus_listener_age_seconds", "instance"), "{{instance}}"), width=6, limit=15,
              runbook="PushDeafListener"),
        graph("Bus lag", "From sending the canary to hearing it: the way over Redis and back.", "s",
              Curve(quantile(0.5, "bus_lag_seconds"), "p50"), Curve(quantile(0.99, "bus_lag_seconds"), "p99"), width=6),
        graph("Bus interruptions", "Changes of the listeners' state, messages that were refused, time without a bus.",
              "cps", Curve(per_second("bus_changes_total", "state"), "{{state}}"),
              Curve(per_second("bus_messages_dropped_total", "reason"), "dropped {{reason}}"),
              Curve(per_second("bus_outage_seconds_total"), "seconds without"), width=6),
    ]  # fmt: skip


def connections() -> list[Any]:
    return [
        graph("Connections", "Signed-in phones now, by gunicorn master.", "short",
              Curve(total("connections_open", "instance"), "{{instance}}"), width=6),
        graph("Spread over web workers", "The fullest and the emptiest worker; near each other under load.", "short",
              Curve(largest("connections_busiest"), "busiest"), Curve(smallest("connections_idlest"), "idlest"),
              width=6, runbook="PushWorkerSkew"),
        graph("Opened and closed", "Closed by reason. ping_timeout: phones that vanished; server_restart: our reloads.",
              "cps", Curve(per_second("connections_opened_total", "carrier"), "opened {{carrier}}"),
              Curve(per_second("connections_closed_total", "reason"), "closed {{reason}}"), width=6),
        graph("Refused", "Connections and requests refused, by code.", "cps",
              Curve(per_second("connections_refused_total", "code"), "{{code}}"),
              Curve(per_second("http_requests_refused_total", "code"), "HTTP {{code}}"), width=6),
    ]  # fmt: skip


def pushes() -> list[Any]:
    return [
        graph("Updates by type", "Updates handed to connections.", "cps",
              Curve(per_second("updates_emitted_total", "type"), "{{type}}"), stacked=True, width=6),
        graph("Updates by occasion", "push: news; snapshot: a new subscriber; resync: the app asked; reread: after the "
              "bus was lost.", "cps", Curve(per_second("updates_emitted_total", "kind"), "{{kind}}"), stacked=True,
              width=6),
        graph("Bytes", "Sent with updates, by type.", "Bps",
              Curve(per_second("update_bytes_total", "type"), "{{type}}"), stacked=True, width=6),
        graph("Subscriptions", "Subscribed types of connected phones.", "short",
              Curve(total("subscriptions_open", "type"), "{{type}}"), width=6),
    ]  # fmt: skip


def outboxes() -> list[Any]:
    return [
        graph("Slow clients", "Connections that do not take what we send at once, and what waits for them.", "short",
              Curve(total("outbox_connections"), "connections"), Curve(total("outbox_messages"), "messages"),
              runbook="PushSlowClients"),
        graph("Longest without progress", "Closed as slow_client when it takes too long.", "s",
              Curve(largest("outbox_stuck_seconds"), "longest"), runbook="PushSlowClients"),
        graph("Conflated, and closed for slowness", "Waiting states that a newer one replaced: nobody misses them.",
              "cps", Curve(per_second("updates_conflated_total", "type"), "conflated {{type}}"),
              Curve(per_second("connections_closed_total", reason="slow_client"), "closed"), runbook="PushSlowClients"),
    ]  # fmt: skip


def clients() -> list[Any]:
    return [
        graph("Round trip to phones", "From a ping to its answer: the mobile network, mostly.", "s",
              Curve(quantile(0.5, "client_round_trip_seconds"), "p50"),
              Curve(quantile(0.95, "client_round_trip_seconds"), "p95"), width=6),
        graph("Events from phones", "By event and result; anything but ok deserves a look at the app.", "cps",
              Curve(per_second("events_received_total", "event", "result"), "{{event}} {{result}}"), width=6),
        graph("Logins", "Attempts by result, and how long they took.", "cps",
              Curve(per_second("logins_total", "result"), "{{result}}"),
              Curve(quantile(0.95, "login_seconds"), "p95 seconds"), width=6),
        graph("Lifetime of connections, median", "Short lives mean bad networks, crashes, or a reload.", "s",
              Curve(quantile(0.5, "connection_seconds"), "p50"), width=6),
    ]  # fmt: skip
