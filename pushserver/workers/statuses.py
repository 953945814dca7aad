"""Tells phones how fresh a type is, and never the same thing twice."""

from __future__ import annotations

from pushserver.bus.states import States
from pushserver.model import DataType, Freshness
from pushserver.observers import FreshnessChanged, Observer
from pushserver.workers.memo import Memo

#: For so long the memo is believed; then the stored status is compared, in case another worker's word came last.
TRUSTED_MS = 60_000
#: What a person reads beside the code.
MESSAGES = {
    "": "Up to date",
    "exchange_unavailable": "The exchange does not answer; the last known figures are shown",
    "exchange_timeout": "The exchange does not answer in time; the last known figures are shown",
    "exchange_answer_malformed": "The exchange's answer could not be used; the last known figures are shown",
    "exchange_rate_limited": "The exchange limits requests for this account; updates are slower",
    "exchange_address_banned": "The exchange pauses requests from this server",
    "exchange_region_blocked": "The exchange does not serve this server's region",
    "exchange_clock_skew": "The server's clock and the exchange's disagree",
    "exchange_request_rejected": "The exchange refuses this request for this account",
    "exchange_unsettled": "The account changes faster than it can be read",
    "server_busy": "The server is busy; updates are slower",
    "key_missing": "No exchange key is stored for this account",
    "key_unreadable": "The stored exchange key cannot be read; store it again",
    "key_invalid": "The exchange does not accept the key; store a new one",
    "key_expired": "The exchange key has expired; store a new one",
    "key_permission": "The exchange key lacks a permission; store one that may read the account",
    "key_ip_not_allowed": "The exchange key does not allow this server's address",
    "key_signature": "The exchange does not accept the key's secret; store the key again",
    "account_blocked": "The exchange has blocked this account",
}
FALLBACK_MESSAGE = "Updates are interrupted; the last known figures are shown"


class Statuses:
    def __init__(self, states: States, observer: Observer) -> None:
        self._states = states
        self._observer = observer

    def tell(
        self,
        user_id: int,
        memo: Memo,
        now_ms: int,
        data_type: DataType,
        state: Freshness,
        reason: str = "",
        until_ms: int | None = None,
        fence: str = "",
    ) -> None:
        """Publish what is new and remember it in the memo; ``fence`` is the round's. Raises StoreUnavailable."""
        row = memo.types[data_type]
        known = (row.status, row.reason, row.until_ms) == (state.value, reason, until_ms)
        if known and 0 <= now_ms - row.told_ms < TRUSTED_MS:
            return
        message = MESSAGES.get(reason, FALLBACK_MESSAGE)
        changed = self._states.set_status(user_id, data_type, state, reason, message, until_ms, fence)
        row.status, row.reason, row.until_ms, row.told_ms = state.value, reason, until_ms, now_ms
        if changed:
            self._observer.record(FreshnessChanged(user_id, data_type, state, reason))
