"""What happens where figures are kept at the market, as records for observers."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.model import DataType
from pushserver.worker_records import Record


@dataclass(frozen=True, slots=True)
class MarksCommitted(Record):
    """So many ``states`` computed from mark prices were published, unchanged or stale (an answer came meanwhile)."""

    data_type: DataType
    result: str
    states: int


@dataclass(frozen=True, slots=True)
class MarksMeasured(Record):
    """In the last second: ``users`` whose figures follow the market, the time that recomputing took, and how late a
    user was visited at worst."""

    users: int
    busy_s: float
    behind_s: float
