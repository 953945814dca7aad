"""What was closed today, by the way the rounds count it, of a day that is read whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pushserver.feeds.closed_pnl import ClosedDay, advance


def closed_today(
    rows: Iterable[Mapping[str, Any]], midnight_ms: int, inverse_marks: Mapping[str, Decimal]
) -> Decimal:  # fmt: skip
    sums, _ = advance(ClosedDay("2026-01-02", midnight_ms, 0), rows, midnight_ms)
    return sums.in_dollars(inverse_marks)
