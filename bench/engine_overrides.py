"""Budgets that a worker's settings would refuse, as one environment variable."""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "BENCH_OVERRIDES"


def written(wanted: Mapping[str, int]) -> str:
    """``name=number,name=number``, the names of fields of Settings."""
    return ",".join(f"{name}={value}" for name, value in wanted.items())


def read(text: str) -> dict[str, int]:
    pairs = (part.split("=", 1) for part in text.split(",") if part)
    return {name: int(value) for name, value in pairs}
