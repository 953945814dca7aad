"""From what a private stream tells to what is to be looked at: REST is the truth, a stream only says where to look.

Pure. Nothing in a row can make this raise: a row that cannot be read counts as news.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from pushserver.exchange.stream_messages import Happening, Topic
from pushserver.workers.hints import CLOSED_PNL, ORDERS, POSITIONS, WALLET

#: Rows remembered per user and kind, to recognise what is told again.
REMEMBERED = 64
#: A user is woken at most so often, however much happens.
WAKE_EVERY_S = 0.5
#: Who is woken more often than this in so many seconds no longer passes others: or a few accounts that trade all the
#: time would use up what all share.
BUSY_WAKES, BUSY_WINDOW_S = 10, 20.0

_POSITION_FIGURES = ("side", "size", "entryPrice", "leverage", "cumRealisedPnl", "positionStatus")
_ORDER_FIGURES = ("orderStatus", "price", "qty", "leavesQty", "cumExecQty", "triggerPrice")


class AccountNews:
    """What one stream has told, so that repetitions and latecomers are recognised."""

    __slots__ = ("_executions", "_orders", "_positions")

    def __init__(self) -> None:
        self._positions: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._orders: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._executions: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def hints(self, happening: Happening) -> int:
        """The resources to look at, as bits; 0 when it tells nothing new."""
        hints = 0
        for row in happening.rows:
            if happening.topic is Topic.WALLET:
                hints |= WALLET
            elif happening.topic is Topic.POSITION:
                hints |= self._position(row)
            elif happening.topic is Topic.ORDER:
                hints |= self._order(row)
            else:
                hints |= self._execution(row)
        return hints

    def _position(self, row: Mapping[str, Any]) -> int:
        """Told after every change of an order as well, although nothing about the position changed.

        What is held, and what is ordered, binds margin, whether or not the wallet is told of.
        """
        leg = f"{row.get('category')} {row.get('symbol')} {row.get('positionIdx')}"
        if not _is_news(self._positions, leg, _number(row.get("seq")), _figures(row, _POSITION_FIGURES)):
            return 0
        return POSITIONS | WALLET | (CLOSED_PNL if row.get("size") in ("0", "") else 0)

    def _order(self, row: Mapping[str, Any]) -> int:
        order = f"{row.get('category')} {row.get('orderId')}"
        news = _is_news(self._orders, order, _number(row.get("updatedTime")), _figures(row, _ORDER_FIGURES))
        return ORDERS | WALLET if news else 0

    def _execution(self, row: Mapping[str, Any]) -> int:
        """A fill changes the order, the position and the wallet; one that closes something also the closed pnl."""
        name = row.get("execId")
        if isinstance(name, str) and name and not _is_news(self._executions, name[:100], 0, ""):
            return 0
        opened_only = row.get("closedSize") in ("0", "") and row.get("execPnl") in ("0", "")
        return POSITIONS | WALLET | ORDERS | (0 if opened_only else CLOSED_PNL)


def _is_news(known: OrderedDict[str, tuple[int, str]], name: str, order: int, figures: str) -> bool:
    """Whether something changed; ``order`` grows with time, and what is older than what is known is none."""
    before = known.get(name)
    if before is not None and (order < before[0] or figures == before[1]):
        return False
    known[name] = (order, figures)
    known.move_to_end(name)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
    return True


def _figures(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return " ".join(str(row.get(name))[:40] for name in names)


def _number(value: object) -> int:
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else 0


class HintQueue:
    """Hints on their way to the schedule: those of one user are gathered, so that it is woken at most twice a second.

    Told the time; does nothing by itself.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        self._woken_s: dict[int, float] = {}
        #: When the user's window began, and the wakes since.
        self._windows: dict[int, tuple[float, int]] = {}

    def add(self, user_id: int, hints: int) -> None:
        self._waiting[user_id] = self._waiting.get(user_id, 0) | hints

    def take(self, now_s: float) -> dict[tuple[int, bool], list[int]]:
        """Whom to wake now: hints, and whether it is one of those who are woken all the time, to users."""
        self._woken_s = {user: woken_s for user, woken_s in self._woken_s.items() if now_s - woken_s < WAKE_EVERY_S}
        self._windows = {
            user: window for user, window in self._windows.items() if now_s - window[0] < BUSY_WINDOW_S
        }  # fmt: skip
        ready = [user for user in self._waiting if user not in self._woken_s]
        batches: dict[tuple[int, bool], list[int]] = {}
        for user in ready:
            began_s, wakes = self._windows.get(user, (now_s, 0))
            self._windows[user] = (began_s, wakes + 1)
            batches.setdefault((self._waiting.pop(user), wakes >= BUSY_WAKES), []).append(user)
            self._woken_s[user] = now_s
        return batches

    def put_back(self, batches: Mapping[tuple[int, bool], Iterable[int]]) -> None:
        """They could not be woken after all."""
        for (hints, _), user_ids in batches.items():
            for user_id in user_ids:
                self.add(user_id, hints)
                self._woken_s.pop(user_id, None)

    def wait_s(self, now_s: float) -> float | None:
        """Until ``take`` gives something; None while nothing waits."""
        if not self._waiting:
            return None
        first_s = min(self._woken_s.get(user, now_s - WAKE_EVERY_S) for user in self._waiting)
        return max(0.0, first_s + WAKE_EVERY_S - now_s)

    def forget(self, user_id: int) -> None:
        self._waiting.pop(user_id, None)
