"""Values as Grafana writes them, for the units that the dashboards use."""

from __future__ import annotations

import math

SECONDS = ((1e-6, 1e-6, "µs"), (1e-3, 1e-3, "ms"), (1.0, 1.0, "s"), (120.0, 60.0, "min"), (7200.0, 3600.0, "hours"))
THOUSANDS = ((1.0, 1.0, ""), (1e3, 1e3, "K"), (1e6, 1e6, "Mil"))
BINARY = ((1.0, 1.0, "B"), (2.0**10, 2.0**10, "KiB"), (2.0**20, 2.0**20, "MiB"), (2.0**30, 2.0**30, "GiB"))
DECIMAL_RATE = ((1.0, 1.0, "B/s"), (1e3, 1e3, "kB/s"), (1e6, 1e6, "MB/s"))


def written(value: float, unit: str) -> str:
    """``value`` in Grafana's ``unit`` with at most three digits of interest."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{_rounded(value * 100)}%"
    if unit == "s":
        return _scaled(value, SECONDS)
    if unit == "bytes":
        return _scaled(value, BINARY)
    if unit == "Bps":
        return _scaled(value, DECIMAL_RATE)
    return _scaled(value, THOUSANDS) + {"cps": " c/s", "reqps": " req/s"}.get(unit, "")


def _scaled(value: float, scales: tuple[tuple[float, float, str], ...]) -> str:
    """With the largest scale whose beginning the value has reached."""
    fitting = [scale for scale in scales if abs(value) >= scale[0]]
    _, divisor, name = fitting[-1] if fitting else next(scale for scale in scales if scale[1] == 1.0)
    return f"{_rounded(value / divisor)} {name}".strip()


def _rounded(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
