"""Every value that a label can have; whatever else occurs counts as ``other``."""

from __future__ import annotations

from pushserver.exchange.port import Endpoint
from pushserver.model import DataType

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
STAGES = ("exchange_to_answer", "answer_to_commit", "commit_to_bus", "bus_to_socket")
SAMPLE_RESULTS = ("fresh", "late", "stopped")
BREAKER_STATES = ("closed", "throttled", "open")
