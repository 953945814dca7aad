"""Recorded-shape answers by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "bybit"


def recorded(name: str) -> dict[str, Any]:
    """The envelope in ``tests/fixtures/bybit/NAME.json``."""
    envelope: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return envelope


@pytest.fixture
def rows() -> Callable[[str], list[dict[str, Any]]]:
    """The rows of a recorded answer, each with the category the client adds."""

    def load(name: str) -> list[dict[str, Any]]:
        result = recorded(name)["result"]
        return [{**row, "category": result.get("category", "")} for row in result["list"]]

    return load


@pytest.fixture
def account() -> Callable[[str], dict[str, Any]]:
    return lambda name: dict(recorded(name)["result"]["list"][0])
