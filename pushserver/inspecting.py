"""Everything that is known of one user's trouble, from Redis and the database, as a program or a person wants it.

Pure: ``report`` is given what was read, ``as_text`` what ``report`` made of it. Nothing in it is secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pushserver.accounts.records import User
from pushserver.bus.health import StoredHealth
from pushserver.bus.homes import Live
from pushserver.bus.states import StoredState
from pushserver.bus.user_traces import PauseTrace, UserTrace
from pushserver.model import DataType
from pushserver.workers.memo import Memo
from pushserver.workers.timing import NEEDS, Moment, Timing, failing_code


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read at about the same moment. ``states`` in the order of DataType; ``egress`` is the user's address."""

    user: User
    trace: UserTrace
    states: Sequence[StoredState]
    memo: Memo
    health: StoredHealth | None
    egress: str
    pause: PauseTrace | None


def report(seen: Seen, timing: Timing) -> dict[str, Any]:
    """JSON-ready. Ages and times to come are seconds; what is not known is None."""
    trace, memo = seen.trace, seen.memo
    watched = frozenset(kind for kind, workers in trace.listeners.items() if workers)
    moment = Moment(trace.now_ms, datetime.fromtimestamp(trace.now_ms / 1000, UTC).date().isoformat(), trace.live)
    return {
        "user_id": seen.user.id,
        "name": seen.user.name,
        "disabled": seen.user.disabled,
        "api_key": seen.user.api_key,
        "watched": [kind.value for kind in DataType if kind in watched],
        "types": {
            kind.value: _type(seen, state, timing, watched, moment, kind)
            for kind, state in zip(DataType, seen.states, strict=True)
        },
        "schedule": {
            "scheduled": trace.due_ms is not None,
            "due_in_s": None if trace.served_by else _until_s(trace.due_ms, trace.now_ms),
            "overdue_s": _overdue_s(trace.due_ms, trace.now_ms),
            "served_by": trace.served_by or None,
            "woken_ago_s": _since_s(trace.woken_ms, trace.now_ms),
            "crashes": memo.crashes,
            "late_rounds": memo.late_rounds,
        },
        "home": _home(trace),
        "stopped": None
        if memo.stop is None
        else {"code": memo.stop.code, "since_s": _since_s(memo.stop.at_ms, trace.now_ms)},
        "key_health": None
        if seen.health is None
        else {
            "state": seen.health.payload["state"],
            "problems": [problem["code"] for problem in seen.health.payload["problems"]],
            "days_left": seen.health.payload["days_left"],
            "checked_ago_s": _since_s(seen.health.checked_ms, trace.now_ms),
        },
        "egress": {"name": seen.egress, "pause": _pause(seen.pause, trace.now_ms)},
    }


def _type(
    seen: Seen, state: StoredState, timing: Timing, watched: frozenset[DataType], moment: Moment, kind: DataType
) -> dict[str, Any]:
    memo, now_ms = seen.memo, seen.trace.now_ms
    row, parts = memo.types[kind], [memo.resources[part] for part in NEEDS[kind]]
    retry_ms = max(row.retry_ms, *(part.retry_ms for part in parts))
    return {
        "web_workers": seen.trace.listeners[kind],
        "seq": state.seq or None,
        "age_s": _since_s(state.confirmed_ms, now_ms),
        "state": state.status.value,
        "reason": state.reason or None,
        "next_fetch_in_s": _until_s(timing.type_due_ms(memo, kind, watched, moment), now_ms)
        if kind in watched and memo.stop is None
        else None,
        "last_error": failing_code(memo, kind) or None,
        "failures": max(row.failures, *(part.failures for part in parts)),
        "retry_in_s": _until_s(retry_ms, now_ms) if retry_ms > now_ms else None,
    }


def _home(trace: UserTrace) -> dict[str, Any] | None:
    if not trace.home or trace.home_ends_ms is None:
        return None
    # What a home kept fresh counts no more when its lease is over.
    live = trace.live if trace.home_ends_ms > trace.now_ms else 0
    return {
        "worker": trace.home,
        "lease_left_s": _until_s(trace.home_ends_ms, trace.now_ms),
        "ended_ago_s": _overdue_s(trace.home_ends_ms, trace.now_ms),
        "stream_live": bool(live & Live.STREAM),
        "marks_live": bool(live & Live.MARKS),
        "balance_live": bool(live & Live.BALANCE),
    }


def _pause(pause: PauseTrace | None, now_ms: int) -> dict[str, Any] | None:
    if pause is None or pause.until_ms <= now_ms:
        return None
    return {"code": pause.code, "left_s": _until_s(pause.until_ms, now_ms)}


def _since_s(at_ms: int | None, now_ms: int) -> float | None:
    return None if not at_ms else round((now_ms - at_ms) / 1000, 1)


def _until_s(at_ms: int | None, now_ms: int) -> float | None:
    """0 for what is due already."""
    return None if at_ms is None else round(max(0, at_ms - now_ms) / 1000, 1)


def _overdue_s(at_ms: int | None, now_ms: int) -> float | None:
    """None for what is still to come."""
    return None if at_ms is None or at_ms > now_ms else round((now_ms - at_ms) / 1000, 1)


def as_text(found: Mapping[str, Any]) -> str:
    """A report as lines for a person."""
    account = "disabled" if found["disabled"] else "enabled"
    lines = [f"user {found['user_id']} {found['name']}: {account}, exchange key {found['api_key'] or 'none'}"]
    if found["stopped"]:
        stop = found["stopped"]
        lines.append(f"STOPPED: {stop['code']} since {_age(stop['since_s'])}; nothing is asked until the key changes")
    lines.append(f"watched: {', '.join(found['watched']) or 'nothing: no phone has subscribed'}")
    lines.append(f"{'type':<10} {'workers':>7} {'seq':>14} {'age':>8} {'told':<8} {'next fetch':>10}  trouble")
    lines += [_type_line(kind, row) for kind, row in found["types"].items()]
    lines.append(f"schedule: {_schedule_text(found['schedule'])}")
    lines.append(f"home: {_home_text(found['home'])}")
    lines.append(f"key: {_key_text(found['key_health'])}")
    pause = found["egress"]["pause"]
    told = f"PAUSED for {_age(pause['left_s'])}: {pause['code']}" if pause else "may ask"
    lines.append(f"address {found['egress']['name']}: {told}")
    return "\n".join(lines)


def _type_line(kind: str, row: Mapping[str, Any]) -> str:
    trouble = ""
    if row["last_error"]:
        trouble = f"{row['last_error']}, {row['failures']} in a row"
        if row["retry_in_s"] is not None:
            trouble += f", again in {_age(row['retry_in_s'])}"
    elif row["reason"]:
        trouble = row["reason"]
    return (
        f"{kind:<10} {row['web_workers']:>7} {row['seq'] or '-':>14} {_age(row['age_s']):>8} {row['state']:<8} "
        f"{_age(row['next_fetch_in_s']):>10}  {trouble}"
    ).rstrip()


def _schedule_text(row: Mapping[str, Any]) -> str:
    if not row["scheduled"]:
        return "not scheduled: nobody listens, or Redis lost it (then it is back within seconds)"
    if row["served_by"] and row["overdue_s"] is not None:
        text = f"{row['served_by']} died serving it; waiting for another worker since {_age(row['overdue_s'])}"
    elif row["served_by"]:
        text = f"being served by {row['served_by']}"
    elif row["overdue_s"] is not None:
        text = f"overdue by {_age(row['overdue_s'])}"
    else:
        text = f"due in {_age(row['due_in_s'])}"
    if row["woken_ago_s"] is not None:
        text += f", woken {_age(row['woken_ago_s'])} ago"
    if row["crashes"]:
        text += f", its last {row['crashes']} rounds crashed"
    return text + (f", {row['late_rounds']} late rounds in a row" if row["late_rounds"] else "")


def _home_text(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "none: the user is polled"
    if row["ended_ago_s"] is not None:
        return f"{row['worker']} was, until {_age(row['ended_ago_s'])} ago: the user is polled"
    kept = [name for name, on in (("stream", row["stream_live"]), ("marks", row["marks_live"]),
                                  ("balance", row["balance_live"])) if on]  # fmt: skip
    return f"{row['worker']}, for {_age(row['lease_left_s'])} more; live: {', '.join(kept) or 'nothing yet'}"


def _key_text(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not checked yet"
    days = "" if row["days_left"] is None else f", {row['days_left']} days left"
    problems = f" ({', '.join(row['problems'])})" if row["problems"] else ""
    return f"{row['state']}{problems}{days}, checked {_age(row['checked_ago_s'])} ago"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"
