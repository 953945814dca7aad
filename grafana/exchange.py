"""From the exchange to Redis: the push workers."""

from __future__ import annotations

from typing import Any

from grafana.panels import GREEN, NONE_IS_GOOD, RED, YELLOW, Curve, Steps, figure, graph, screen
from grafana.queries import largest, per_second, quantile, smallest, total


def dashboard() -> Any:
    return screen(
        "push-exchange",
        "From the exchange to Redis: requests, errors, budget, streams, mark prices, keys.",
        ("Budget and pauses", budget()),
        ("Requests", requests()),
        ("Errors", errors()),
        ("Schedule and commits", schedule()),
        ("Streams and homes", streams()),
        ("Mark prices", marks()),
        ("Keys", keys()),
    )


def budget() -> list[Any]:
    return [
        figure("Exchange refuses us", "1 while nothing is asked because the exchange refused our address.", "short",
               Curve(largest("exchange_address_paused"), "paused"), NONE_IS_GOOD, runbook="PushAddressBanned"),
        figure("Budget left", "Share of the request budget unused in the last window, tightest address.", "percentunit",
               Curve(smallest("exchange_budget_headroom"), "left"), Steps(RED, ((0.1, YELLOW), (0.2, GREEN))),
               runbook="PushBudgetNearlySpent"),
        figure("Budget is short", "1 while payments wait, so that all intervals stretch.", "short",
               Curve(largest("exchange_budget_short"), "short"), Steps(GREEN, ((1, YELLOW),)),
               runbook="PushBudgetNearlySpent"),
        figure("Room for more users", "Users like the present ones that the budget would carry in addition.", "short",
               Curve(smallest("exchange_headroom_users"), "users"), runbook="PushBudgetNearlySpent"),
        figure("Fewer rounds than usual", "Push workers whose rounds are throttled because the exchange is out of "
               "reach.", "short", Curve(total("breaker_state", state="throttled"), "throttled"),
               Steps(GREEN, ((1, YELLOW),)), runbook="PushFetchFailures"),
        figure("Exchange's clock", "Its clock less ours. Beyond a second either way requests are refused.", "s",
               Curve(largest("exchange_clock_offset_seconds"), "offset"),
               Steps(RED, ((-1, GREEN), (1, RED)))),
        graph("Budget left over time", "Falls to 0 when as much is asked as may be; 100 % during a ban.", "percentunit",
              Curve(smallest("exchange_budget_headroom", "instance"), "{{instance}}"), width=6,
              runbook="PushBudgetNearlySpent"),
        graph("Waiting for the budget", "How long requests waited to be paid for.", "s",
              Curve(quantile(0.5, "exchange_payment_wait_seconds"), "p50"),
              Curve(quantile(0.99, "exchange_payment_wait_seconds"), "p99"), width=6),
        graph("Paid for", "Requests paid out of the budget, and payments that came too late to be used.", "reqps",
              Curve(per_second("exchange_budget_tokens_granted_total"), "granted"),
              Curve(per_second("exchange_budget_tokens_forfeited_total"), "forfeited"), width=6),
        graph("Refusals of our address", "Times the exchange refused us, by code, and the silence this ordered.", "cps",
              Curve(per_second("address_pauses_total", "code"), "{{code}}"),
              Curve(per_second("address_pause_seconds_total"), "seconds ordered"), width=6,
              runbook="PushAddressBanned"),
    ]  # fmt: skip


def requests() -> list[Any]:
    return [
        graph("Requests by endpoint", "Sent to the exchange, whatever the result.", "reqps",
              Curve(per_second("fetch_requests_total", "endpoint"), "{{endpoint}}"), stacked=True,
              runbook="PushNoSuccessfulFetch"),
        graph("Requests by result", "ok, or the code of the failure.", "reqps",
              Curve(per_second("fetch_requests_total", "result"), "{{result}}"), stacked=True,
              runbook="PushFetchFailures"),
        graph("Time of a request, p95", "Until it was answered or given up, by endpoint.", "s",
              Curve(quantile(0.95, "fetch_request_seconds", "endpoint"), "{{endpoint}}")),
    ]  # fmt: skip


def errors() -> list[Any]:
    return [
        graph("Failed requests by whose problem", "key and user: nobody else is touched. exchange, address, request: "
              "everybody may be.", "reqps", Curve(per_second("fetch_refusals_total", "whose"), "{{whose}}"),
              stacked=True, width=6, runbook="PushFetchFailures"),
        graph("Types that could not be refreshed", "By code; the last good state stays.", "cps",
              Curve(per_second("fetch_errors_total", "code"), "{{code}}"), stacked=True, width=6,
              runbook="PushFetchFailures"),
        graph("Put off", "Parts of accounts put off after a failure, by its code; and for how long on average.", "cps",
              Curve(per_second("backoffs_total", "code"), "{{code}}"),
              Curve(f"{per_second('backoff_seconds_total')} / {per_second('backoffs_total')}", "seconds each"),
              width=6),
        graph("Breaker", "Push workers by the state of their breaker.", "short",
              Curve(total("breaker_state", "state"), "{{state}}"), stacked=True, width=6,
              runbook="PushFetchFailures"),
    ]  # fmt: skip


def schedule() -> list[Any]:
    return [
        graph("Wait beyond the due time", "Of the longest waiting user of each claim.", "s",
              Curve(quantile(0.5, "schedule_lag_seconds"), "p50"), Curve(quantile(0.99, "schedule_lag_seconds"), "p99"),
              width=6, runbook="PushScheduleLag"),
        graph("Rounds", "By result, users claimed, and requests per round.", "cps",
              Curve(per_second("fetch_rounds_total", "result"), "{{result}}"),
              Curve(per_second("users_claimed_total"), "claimed"),
              Curve(f"{per_second('fetch_round_requests_total')} / {per_second('fetch_rounds_total')}",
                    "requests per round"), width=6),
        graph("Duration of a round", "From claim to the last commit, waiting for the budget included.", "s",
              Curve(quantile(0.5, "fetch_round_seconds"), "p50"), Curve(quantile(0.99, "fetch_round_seconds"), "p99"),
              width=6),
        graph("Commits", "Fetched states by what became of them; stale ones came after something newer.", "cps",
              Curve(per_second("commits_total", "result"), "{{result}}"), stacked=True, width=6),
        graph("Age of data at commit, p95", "The exchange's stamp to our commit, by type.", "s",
              Curve(quantile(0.95, "data_age_seconds", "type"), "{{type}}"), width=12),
        graph("Told to phones", "Changes of freshness: delayed and stopped, and live again.", "cps",
              Curve(per_second("freshness_changes_total", "state"), "{{state}}"), width=12, runbook="PushStaleData"),
    ]  # fmt: skip


def streams() -> list[Any]:
    return [
        graph("Streams", "Private streams by state, and the users whose home is here. A user without a live stream is "
              "polled.", "short", Curve(total("streams", "state"), "{{state}}"), Curve(total("homes"), "homes"),
              width=6),
        graph("Connects and losses", "Streams begun, and ended by reason.", "cps",
              Curve(per_second("stream_connects_total"), "begun"),
              Curve(per_second("stream_losses_total", "reason"), "{{reason}}"),
              Curve(per_second("homes_swept_total"), "homes swept"), width=6),
        graph("Hints", "Changes the streams told of, and repetitions.", "cps",
              Curve(per_second("stream_hints_total", "topic"), "{{topic}}"),
              Curve(per_second("stream_repeats_total", "topic"), "again {{topic}}"),
              Curve(per_second("stream_oddities_total", "kind"), "odd: {{kind}}"), width=6),
        graph("From a hint to its round", "How long a change waits until somebody looks.", "s",
              Curve(quantile(0.5, "hint_claim_seconds"), "p50"), Curve(quantile(0.99, "hint_claim_seconds"), "p99"),
              width=6),
    ]  # fmt: skip


def marks() -> list[Any]:
    return [
        graph("Ticker", "Since each push worker last heard the ticker.", "s",
              Curve(largest("ticker_age_seconds", "instance"), "{{instance}}"), width=6),
        graph("Symbols", "Wanted by the users of each process, and those with a current price; losses of the "
              "connection.", "short", Curve(total("ticker_symbols_wanted"), "wanted"),
              Curve(total("ticker_symbols_fresh"), "fresh"),
              Curve(per_second("ticker_losses_total", "reason"), "lost {{reason}}"), width=6),
        graph("Computed states", "States computed from mark prices by what became of them.", "cps",
              Curve(per_second("mark_commits_total", "result"), "{{result}}"), stacked=True, width=6),
        graph("Effort", "Users that follow the ticker; share of a core it takes; how late the last of them was.",
              "short", Curve(total("mark_users"), "users"),
              Curve(per_second("mark_recompute_seconds_total"), "cores"),
              Curve(largest("mark_behind_seconds"), "seconds behind"), width=6),
    ]  # fmt: skip


def keys() -> list[Any]:
    return [
        graph("Keys by days left", "Over all workers; expired ones stop their users.", "short",
              Curve(largest("keys", "days_left"), "{{days_left}}"), stacked=True, runbook="PushKeysExpiring"),
        graph("Keys that can do too much", "We need read only: keys that may trade or withdraw.", "short",
              Curve(largest("keys_too_mighty", "right"), "{{right}}")),
        graph("Key checks", "Daily looks at keys, by what was found; and requests refused because of keys.", "cps",
              Curve(per_second("key_checks_total", "result"), "{{result}}"),
              Curve(per_second("fetch_refusals_total", whose="key"), "refused"), runbook="PushKeysRefused"),
    ]  # fmt: skip
