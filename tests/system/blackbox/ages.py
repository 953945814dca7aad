"""How old what was read of each user became, and how the requests of an address were spread; pure."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median

from tests.system.blackbox.exchange_verdicts import FORBIDDEN
from tests.system.blackbox.logs import Answer, Fault
from tests.system.blackbox.rules import POSITIONS


def readings(answers: Iterable[Answer], endpoint: str = POSITIONS) -> dict[int, list[float]]:
    """Per user, when requests were made that were answered as they should, oldest first."""
    good: dict[int, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.endpoint == endpoint and answer.user is not None and answer.ret_code == 0 and answer.status == 200:
            good[answer.user].append(answer.t_in)
    for own in good.values():
        own.sort()
    return good


def worst_ages(
    answers: Iterable[Answer], users: Iterable[int], from_s: float, until_s: float, endpoint: str = POSITIONS
) -> dict[int, float]:
    """Per user, how old the newest reading of an endpoint became at most within that time.

    A user that was never read before ``from_s`` ages from then on.
    """
    good = readings(answers, endpoint)
    ages = {}
    for user in users:
        own = good.get(user, [])
        first, last = bisect.bisect_right(own, from_s), bisect.bisect_right(own, until_s)
        began = own[first - 1] if first else from_s
        moments = [began, *own[first:last], until_s]
        ages[user] = max(later - earlier for earlier, later in itertools.pairwise(moments))
    return ages


def unfairness(ages: dict[int, float]) -> float:
    """The worst-off user's age by the median user's; 1.0 when all are served alike."""
    return max(ages.values()) / median(ages.values())


def most_in_a_window(answers: Sequence[Answer], window_s: float = 5.0) -> int:
    """The most requests of one address in any sliding window, whatever they asked."""
    windows: dict[str, deque[float]] = defaultdict(deque)
    most = 0
    for answer in sorted(answers, key=lambda answer: answer.t_in):
        window = windows[answer.address]
        window.append(answer.t_in)
        while window[0] <= answer.t_in - window_s:
            window.popleft()
        most = max(most, len(window))
    return most


def after_the_ban_was_told(answers: Sequence[Answer], ban: Fault) -> list[float]:
    """How long after the first refusal of a ban each further request came, seconds, until the ban was over."""
    during = sorted(answer.t_in for answer in answers if ban.t_start <= answer.t_in < ban.t_end)
    told = min((a.t_out or a.t_in for a in answers if a.status == FORBIDDEN and a.t_in >= ban.t_start), default=None)
    return [] if told is None else [t - told for t in during if t > told]
