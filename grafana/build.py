"""Writes ``grafana/dashboards/*.json``. Run it after every change here: ``python -m grafana.build``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import capacity, delivery, exchange, overview

FOLDER = Path(__file__).resolve().parent / "dashboards"


def dashboards() -> Mapping[str, str]:
    """File name to content."""
    made = {
        "overview": overview.dashboard(),
        "delivery": delivery.dashboard(),
        "exchange": exchange.dashboard(),
        "capacity": capacity.dashboard(),
    }
    return {
        f"{name}.json": json.dumps(content, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, content in made.items()
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
