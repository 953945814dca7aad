"""What the exchange saw: too many requests, requests during a ban, the same thing asked twice."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl

from tests.system.blackbox.logs import Answer, Entry, Fault
from tests.system.blackbox.rules import Finding, Rules

FORBIDDEN = 403


def over_budget(answers: Sequence[Answer], faults: Sequence[Fault], rules: Rules) -> Iterator[Finding]:
    """More than the address or a user may ask in a sliding window, or anything at all during a known ban."""
    windows: dict[tuple[str, object], deque[float]] = defaultdict(deque)
    for answer in sorted(answers, key=lambda answer: answer.t_in):
        limits = [(("address", answer.address), rules.address_requests, rules.address_window_s)]
        if answer.user is not None:
            limits.append((("user", (answer.user, answer.endpoint)), rules.user_requests_per_s, 1.0))
        for key, most, window_s in limits:
            window = windows[key]
            window.append(answer.t_in)
            while window[0] <= answer.t_in - window_s:
                window.popleft()
            if len(window) == most + 1:
                yield Finding("over_budget", answer.t_in, f"{key[0]} {key[1]}: over {most} requests in {window_s:g} s")
    for fault in faults:
        if fault.ban:
            yield from _during_ban(answers, fault, rules)


def _during_ban(answers: Sequence[Answer], fault: Fault, rules: Rules) -> Iterator[Finding]:
    during = [answer for answer in answers if fault.t_start <= answer.t_in < fault.t_end]
    told = min((answer.t_in for answer in during if answer.status == FORBIDDEN), default=None)
    for answer in during:
        if told is not None and answer.t_in > told + rules.ban_told_s:
            late_s = answer.t_in - told
            yield Finding("over_budget", answer.t_in, f"{answer.endpoint} {late_s:.1f} s after a ban was told")


def double_fetch(
    answers: Sequence[Answer], entries: Sequence[Entry], faults: Sequence[Fault], rules: Rules
) -> Iterator[Finding]:
    """The same user's endpoint twice within half its interval, without a fault and without news to be verified.

    A reading that shows a new version of the account may be followed by readings that make sure that what belongs
    together was read together, a few times; so may one that failed, and the first of a type nobody watched before.
    """
    first_watched = _first_watched(entries)
    readings: dict[tuple[int, str, str], list[Answer]] = defaultdict(list)
    for answer in sorted(answers, key=lambda answer: answer.t_in):
        if answer.user is None or rules.endpoint_interval_s(answer.endpoint) is None:
            continue
        own = readings[answer.user, answer.endpoint, _what(answer.query)]
        own.append(answer)
        if _is_double(own, rules) and not _excused(answer, faults, first_watched.get(answer.user, []), rules):
            gap_s = answer.t_in - own[-2].t_in
            text = f"user {answer.user}: {answer.endpoint} again after {gap_s:.3f} s"
            yield Finding("double_fetch", answer.t_in, text)


def _is_double(own: Sequence[Answer], rules: Rules) -> bool:
    now = own[-1]
    half_s = rules.double_within_s(now.endpoint)
    recent = [answer for answer in own[-rules.most_readings - 1 : -1] if now.t_in - answer.t_in < half_s]
    if not recent or recent[-1].ret_code != 0 or recent[-1].faults:
        return False
    if len(recent) >= rules.most_readings:
        return True
    older = own[-len(recent) - 2] if len(own) > len(recent) + 1 else None
    return older is not None and older.version == recent[-1].version == now.version


def _what(query: str) -> str:
    """The query without what differs from reading to reading."""
    fixed = [(name, value) for name, value in parse_qsl(query) if name not in ("startTime", "endTime")]
    return "&".join(f"{name}={value}" for name, value in sorted(fixed))


def _first_watched(entries: Sequence[Entry]) -> dict[int, list[float]]:
    """When each of a user's types was subscribed for the first time."""
    first: dict[tuple[int, str], float] = {}
    for entry in entries:
        if entry.event == "subscribed":
            for name in entry.types:
                first[entry.user, name] = min(entry.t, first.get((entry.user, name), entry.t))
    moments: dict[int, list[float]] = defaultdict(list)
    for (user, _), t in first.items():
        moments[user].append(t)
    return moments


def _excused(answer: Answer, faults: Sequence[Fault], first_watched: Sequence[float], rules: Rules) -> bool:
    # The subscription is served before it is answered, by as long as the bus takes to confirm its channels.
    longest_s = max(rules.intervals_s.values())
    if any(t - rules.slack_s <= answer.t_in <= t + longest_s for t in first_watched):
        return True
    return any(fault.t_start <= answer.t_in <= fault.t_end + rules.fault_memory_s for fault in faults)
