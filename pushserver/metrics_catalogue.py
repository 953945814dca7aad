"""The catalogue of metrics: every name, kind, label and label value, and the records that change each.

It is closed, so the number of series is known before the first request and no input can add one: a value outside its
set counts as ``other``. A new metric is one row here. How rows become Prometheus metrics is in ``metrics``.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pushserver import observers as o
from pushserver.errors import Whose
from pushserver.events import CLIENT_EVENTS
from pushserver.exchange.port import Endpoint
from pushserver.model import DataType, Freshness

WEB, WORKER, BOTH = "web", "worker", "both"
OTHER = "other"
VERSION = "0.1.0"
#: Labels whose values come from an enum or from the build itself, so that nothing else can occur.
ENUM_LABELS = frozenset({"type", "version", "python"})

TYPES = tuple(data_type.value for data_type in DataType)
EMIT_KINDS = ("push", "snapshot", "resync", "reread", "status")
ENDPOINTS = tuple(endpoint.value for endpoint in Endpoint)
KEY_CODES = (
    "key_invalid", "key_expired", "key_permission", "key_ip_not_allowed", "key_signature", "account_blocked",
    "key_unreadable", "key_missing",
)  # fmt: skip
FETCH_CODES = (
    *KEY_CODES, "exchange_rate_limited", "exchange_address_banned", "exchange_clock_skew", "exchange_unavailable",
    "exchange_answer_malformed", "exchange_request_rejected", "exchange_region_blocked", "exchange_redirect",
    "exchange_time_ahead", "exchange_timeout", "exchange_error", "server_busy", "internal_error",
)  # fmt: skip
TOKEN_CODES = ("token_missing", "token_invalid", "token_expired", "token_revoked", "token_mismatch", "user_disabled")
REFUSAL_CODES = (
    *TOKEN_CODES, "too_many_connections", "server_busy", "invalid_namespace", "never_signed_in", "protocol_error",
)  # fmt: skip
CLOSE_REASONS = (
    "client_disconnect", "server_disconnect", "ping_timeout", "transport_close", "transport_error",
    "protocol_error", "token_expired", "token_revoked", "user_disabled", "slow_client",
    "flood", "server_restart",
)  # fmt: skip
EVENT_RESULTS = (
    "ok", "invalid_payload", "unknown_type", "unknown_event", "rate_limited", "unasked_ack",
    "server_busy", *TOKEN_CODES,
)  # fmt: skip
HTTP_CODES = (
    "bad_request", "bad_upgrade", "body_too_large", "compressed_body", "headers_too_large", "not_found",
    "origin_not_allowed", "request_line_too_long", "request_timeout", "server_busy", "too_many_connections",
    "transport_not_supported", "websocket_version",
)  # fmt: skip
DROP_REASONS = (
    "oversize", "malformed", "seq_ahead", "not_an_event", "misaddressed", "method_not_allowed", "room_not_allowed",
)  # fmt: skip

STREAM_STATES = ("connecting", "authenticating", "subscribing", "live")
STREAM_LOSSES = (
    "unreachable", "handshake", "auth", "subscription", "unanswered", "silent", "closed", "broken", "stopped",
)  # fmt: skip
STREAM_TOPICS = ("position", "order", "wallet", "execution")
STREAM_ODDITIES = ("malformed", "foreign_topic", "early", "duplicate")
DAYS_LEFT = ("expired", "1", "7", "30", "90", "more", "never")

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8)
LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
AGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 300)
LIFETIME_BUCKETS = (1, 10, 60, 300, 1_800, 3_600, 14_400, 86_400)
LOOP_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 5)


Amount = float | str | Callable[[Any], float | None]
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
#: What a record does to a series of each kind; a row may say otherwise.
_VERBS = {COUNTER: "inc", GAUGE: "inc", HISTOGRAM: "observe"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. ``kind`` is counter, gauge or histogram.

    ``side`` is who has it: web, worker or both. ``feeds`` says which records change it and by how much: a number, the
    name of a field, or a function of the record (None: not this time); for a histogram also how many observations there
    were of each value. Labels are read from the record's fields of
    the same name. ``mode`` says how a gauge of several web workers becomes one figure.
    """

    name: str
    kind: str
    side: str
    help: str
    feeds: Mapping[type[o.Record], Amount]
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...]
    verb: str
    mode: str

    def series(self) -> Iterable[tuple[str, ...]]:
        """Every combination of label values that can ever occur."""
        return itertools.product(
            *(known if name in ENUM_LABELS else (*known, OTHER) for name, known in self.labels.items())
        )

    def known(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The series that counts for these values, whatever they are."""
        words = (str(label).replace(" ", "_") for label in labels)
        return tuple(word if word in known else OTHER for word, known in zip(words, self.labels.values(), strict=True))


def _row(
    name: str, kind: str, side: str, text: str, feeds: Mapping[type[o.Record], Amount], /, *,
    buckets: tuple[float, ...] = (), verb: str = "", mode: str = "livesum", **labels: tuple[str, ...],
) -> Metric:  # fmt: skip
    return Metric(f"push_{name}", kind, side, text, feeds, labels, buckets, verb or _VERBS[kind], mode)


CATALOGUE = (
    _row("users_claimed_total", COUNTER, WORKER, "Users taken from the schedule.", {o.UsersClaimed: "users"}),
    _row("schedule_lag_seconds", HISTOGRAM, WORKER, "How overdue the longest waiting claimed user was.",
         {o.UsersClaimed: "lag_s"}, buckets=LAG_BUCKETS),
    _row("fetch_requests_total", COUNTER, WORKER, "Requests to the exchange.", {o.RequestAnswered: 1},
         endpoint=ENDPOINTS, result=("ok", *FETCH_CODES)),
    _row("fetch_refusals_total", COUNTER, WORKER, "Requests to the exchange that failed, by whose problem it is.",
         {o.RequestAnswered: lambda record: 1 if record.whose else None}, whose=tuple(Whose)),
    _row("exchange_clock_offset_seconds", GAUGE, WORKER, "The exchange's clock less ours: alarm beyond 1 or -1.",
         {o.ExchangeClockMeasured: "offset_s"}, verb="set"),
    _row("fetch_request_seconds", HISTOGRAM, WORKER, "Time until a request to the exchange was answered or given up.",
         {o.RequestAnswered: "duration_s"}, buckets=REQUEST_BUCKETS, endpoint=ENDPOINTS),
    _row("fetch_rounds_total", COUNTER, WORKER, "Fetch rounds, one per user and turn.", {o.RoundFinished: 1},
         result=("ok", "failed", "idle", "lost")),
    _row("fetch_round_seconds", HISTOGRAM, WORKER, "Duration of a whole fetch round.",
         {o.RoundFinished: "duration_s"}, buckets=REQUEST_BUCKETS),
    _row("fetch_round_requests_total", COUNTER, WORKER, "Requests that rounds needed, for requests per round.",
         {o.RoundFinished: "requests"}),
    _row("fetch_errors_total", COUNTER, WORKER, "Types that could not be refreshed; the last good state stays.",
         {o.FetchFailed: 1}, code=FETCH_CODES, type=TYPES),
    _row("commits_total", COUNTER, WORKER, "Fetched states by what became of them.", {o.StateCommitted: 1},
         result=("published", "unchanged", "stale"), type=TYPES),
    _row("data_age_seconds", HISTOGRAM, WORKER, "Exchange's own stamp of the data to our commit.",
         {o.StateCommitted: lambda record: None if record.result == "stale" else record.age_s},
         buckets=AGE_BUCKETS, type=TYPES),
    _row("freshness_changes_total", COUNTER, WORKER, "Changes of a type's freshness, all users.",
         {o.FreshnessChanged: 1}, state=tuple(state.value for state in Freshness), type=TYPES),
    _row("address_pauses_total", COUNTER, WORKER, "Times the exchange refused our address.", {o.AddressPaused: 1},
         code=("exchange_address_banned", "exchange_region_blocked", "exchange_rate_limited")),
    _row("address_pause_seconds_total", COUNTER, WORKER, "Seconds of silence towards the exchange that this ordered.",
         {o.AddressPaused: "seconds"}),
    _row("exchange_budget_tokens_granted_total", COUNTER, WORKER, "Requests that were paid for out of the budget.",
         {o.RequestsPaid: "count"}),
    _row("exchange_payment_wait_seconds", HISTOGRAM, WORKER, "How long requests waited for the budget.",
         {o.RequestsPaid: "wait_s"}, buckets=REQUEST_BUCKETS),
    _row("exchange_budget_tokens_forfeited_total", COUNTER, WORKER, "Requests paid for and not sent in time.",
         {o.PaymentForfeited: "count"}),
    _row("exchange_budget_headroom", GAUGE, WORKER, "Share of the address's budget unused in the last window.",
         {o.BudgetMeasured: "headroom"}, verb="set"),
    _row("exchange_budget_short", GAUGE, WORKER, "1 while payments wait, so that all intervals stretch.",
         {o.BudgetMeasured: "is_short"}, verb="set"),
    _row("exchange_address_paused", GAUGE, WORKER, "1 while the exchange is not asked at all.",
         {o.BudgetMeasured: "is_paused"}, verb="set"),
    _row("key_checks_total", COUNTER, WORKER, "Exchange keys looked at by what was found.", {o.KeyChecked: 1},
         result=("ok", "warning", "critical", "failed")),
    _row("keys", GAUGE, WORKER, "Users' keys by days left, over all workers: take max, not sum.",
         {o.KeysCounted: "keys"}, verb="set", days_left=DAYS_LEFT),
    _row("keys_too_mighty", GAUGE, WORKER, "Users' keys that can do more than read, over all workers: take max.",
         {o.KeysTooMighty: "keys"}, verb="set", right=("trade", "withdraw")),
    _row("streams", GAUGE, WORKER, "Private streams of this process.", {o.StreamsCounted: "streams"}, verb="set",
         state=STREAM_STATES),
    _row("stream_connects_total", COUNTER, WORKER, "Connections begun for private streams.", {o.StreamStarted: 1}),
    _row("stream_losses_total", COUNTER, WORKER, "Private streams that ended, refusals included.", {o.StreamEnded: 1},
         reason=STREAM_LOSSES),
    _row("stream_oddities_total", COUNTER, WORKER, "Input of private streams that means nothing to us.",
         {o.StreamOddity: 1}, kind=STREAM_ODDITIES),
    _row("stream_hints_total", COUNTER, WORKER, "Changes that private streams told of.",
         {o.StreamHinted: lambda record: record.is_news}, topic=STREAM_TOPICS),
    _row("stream_repeats_total", COUNTER, WORKER, "Events of private streams that told nothing new.",
         {o.StreamHinted: lambda record: not record.is_news}, topic=STREAM_TOPICS),
    _row("hint_claim_seconds", HISTOGRAM, WORKER, "From a hint's wake to the claim that looks after it.",
         {o.HintServed: "delay_s"}, buckets=REQUEST_BUCKETS),
    _row("homes", GAUGE, WORKER, "Users whose home this process is.", {o.HomesCounted: "homes"}, verb="set"),
    _row("homes_swept_total", COUNTER, WORKER, "Homes of other processes that ended without a word.",
         {o.HomesSwept: "homes"}),
    _row("ticker_age_seconds", GAUGE, WORKER, "Since the ticker was last heard.", {o.TickerMeasured: "age_s"},
         verb="set"),
    _row("ticker_symbols_wanted", GAUGE, WORKER, "Symbols that users of this process hold.",
         {o.TickerMeasured: "wanted"}, verb="set"),
    _row("ticker_symbols_fresh", GAUGE, WORKER, "Of these, symbols with a current mark price.",
         {o.TickerMeasured: "fresh"}, verb="set"),
    _row("ticker_losses_total", COUNTER, WORKER, "Ticker connections that ended.", {o.TickerEnded: 1},
         reason=STREAM_LOSSES),
    _row("mark_commits_total", COUNTER, WORKER, "States computed from mark prices by what became of them.",
         {o.MarksCommitted: "states"}, result=("published", "unchanged", "stale"), type=TYPES),
    _row("mark_users", GAUGE, WORKER, "Users whose figures follow the ticker.", {o.MarksMeasured: "users"}, verb="set"),
    _row("mark_recompute_seconds_total", COUNTER, WORKER, "Time spent on recomputing figures.",
         {o.MarksMeasured: "busy_s"}),
    _row("mark_behind_seconds", GAUGE, WORKER, "How late users were brought to the market in the last second.",
         {o.MarksMeasured: "behind_s"}, verb="set"),
    _row("http_requests_refused_total", COUNTER, WEB, "Requests that the application never saw.",
         {o.HttpRequestRefused: 1}, code=HTTP_CODES),
    _row("connections_open", GAUGE, WEB, "Accepted connections now.",
         {o.ConnectionOpened: 1, o.ConnectionClosed: -1}),
    _row("connections_opened_total", COUNTER, WEB, "Accepted connections by where the token was.",
         {o.ConnectionOpened: 1}, carrier=("payload", "header", "url")),
    _row("connections_refused_total", COUNTER, WEB, "Refused connections.", {o.ConnectionRefused: 1},
         code=REFUSAL_CODES),
    _row("connections_closed_total", COUNTER, WEB, "Ended connections.", {o.ConnectionClosed: 1},
         reason=CLOSE_REASONS),
    _row("connection_seconds", HISTOGRAM, WEB, "Lifetime of a connection.", {o.ConnectionClosed: "duration_s"},
         buckets=LIFETIME_BUCKETS),
    _row("subscriptions_open", GAUGE, WEB, "Subscribed types of accepted connections now.",
         {o.SubscriptionChanged: "delta"}, type=TYPES),
    _row("events_received_total", COUNTER, WEB, "Events from clients.", {o.EventReceived: 1},
         event=tuple(sorted(CLIENT_EVENTS)), result=EVENT_RESULTS),
    _row("updates_emitted_total", COUNTER, WEB, "Updates handed to connections.",
         {o.UpdateEmitted: "connections", o.UpdatesPushed: "connections"}, type=TYPES, kind=EMIT_KINDS),
    _row("update_bytes_total", COUNTER, WEB, "Bytes of these updates.",
         {o.UpdateEmitted: lambda record: record.size_bytes * record.connections, o.UpdatesPushed: "size_bytes"},
         type=TYPES),
    _row("update_latency_seconds", HISTOGRAM, WEB, "Commit by a push worker to the connections' sockets.",
         {o.UpdatesPushed: "latencies_s"}, buckets=LATENCY_BUCKETS, type=TYPES),
    _row("updates_conflated_total", COUNTER, WEB, "Waiting states replaced by a newer one on slow connections.",
         {o.UpdatesConflated: "count"}, type=TYPES),
    _row("bus_connected", GAUGE, WEB, "Processes whose bus listener hears its own canary.",
         {o.BusStateChanged: lambda record: record.state == "connected"}, verb="set"),
    _row("bus_changes_total", COUNTER, WEB, "Changes of the bus listener's state.", {o.BusStateChanged: 1},
         state=("connected", "lost", "deaf")),
    _row("bus_outage_seconds_total", COUNTER, WEB, "Time without a bus, counted when it is back.",
         {o.BusStateChanged: "outage_s"}),
    _row("bus_messages_dropped_total", COUNTER, WEB, "Messages of the bus that were not what we send.",
         {o.BusMessageDropped: 1}, reason=DROP_REASONS),
    _row("logins_total", COUNTER, WEB, "Attempts to log in.", {o.LoginAttempted: 1},
         result=("ok", "invalid_credentials", "rate_limited", "unavailable")),
    _row("login_seconds", HISTOGRAM, WEB, "Time to answer an attempt to log in.", {o.LoginAttempted: "duration_s"},
         buckets=LATENCY_BUCKETS),
    _row("lifecycle_total", COUNTER, BOTH, "Starts and stops of components.", {o.LifecycleReported: 1},
         component=(WEB, "push_worker"), state=("started", "stopping", "stopped", "redis_lost", "redis_found")),
    _row("loop_lag_seconds", HISTOGRAM, BOTH, "How late the event loop was for a timer.",
         {o.LoopLagMeasured: "lags_s"}, buckets=LOOP_BUCKETS),
    _row("processes", GAUGE, BOTH, "Processes of this side that report metrics.", {}),
    _row("build_info", GAUGE, BOTH, "Always 1; the labels say what runs.", {}, mode="max",
         version=(VERSION,), python=(platform.python_version(),)),
)  # fmt: skip
