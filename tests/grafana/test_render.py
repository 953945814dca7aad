"""Pictures of dashboards: what stands on them, without a Prometheus."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grafana.build import FOLDER
from grafana.drawing import BACKGROUNDS, FOREGROUNDS, PALETTE, Line, colour_of, shown_in_legend
from grafana.render import WIDTH, picture, place
from grafana.units import written


class StillView:
    """Every expression has one curve of the same value all the time."""

    def __init__(self, value: float) -> None:
        self.times = np.arange(1_700_000_000.0, 1_700_000_060.0)
        self._value = value

    def lines(self, targets: Sequence[Mapping[str, Any]]) -> list[Line]:
        return [Line(target["legendFormat"], np.full(60, self._value)) for target in targets]

    def beginnings(self, expression: str) -> list[float]:
        return [1_700_000_030.0]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9987, "percentunit", "99.9%"), (1, "percentunit", "100%"), (0.0123, "s", "12.3 ms"), (0, "s", "0 s"),
        (90, "s", "90 s"), (180, "s", "3 min"), (0.00002, "s", "20 µs"), (2_500_000, "bytes", "2.38 MiB"),
        (1500, "Bps", "1.5 kB/s"), (0.5, "cps", "0.5 c/s"), (12_000, "reqps", "12 K req/s"), (16, "short", "16"),
        (100, "short", "100"), (math.nan, "short", "–"), (-3, "percentunit", "-300%"),
    ],
)  # fmt: skip
def test_values_are_written_as_grafana_does(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


@pytest.mark.parametrize(("value", "colour"), [(0, "green"), (1, "red"), (math.nan, None)])
def test_a_figure_has_the_colour_of_its_value_and_none_without_data(value: float, colour: str | None) -> None:
    dashboard = json.loads((FOLDER / "overview.json").read_text(encoding="utf-8"))
    [panel] = [panel for panel in dashboard["panels"] if panel["title"] == "Deaf web workers"]
    drawn = Image.open(io.BytesIO(picture({**dashboard, "panels": [panel]}, StillView(value)))).convert("RGB")
    box = place(panel["gridPos"])
    corner = drawn.getpixel((int(box.left) + 4, int(box.top) + 4))
    distances = {
        name: sum(abs(int(code[1 + 2 * part : 3 + 2 * part], 16) - corner[part]) for part in range(3))
        for name, code in BACKGROUNDS.items()
    }
    nearest = min(distances, key=lambda name: distances[name])
    assert (nearest if distances[nearest] < 12 else None) == colour


def test_a_whole_dashboard_fits_its_picture() -> None:
    dashboard = json.loads((FOLDER / "capacity.json").read_text(encoding="utf-8"))
    drawn = Image.open(io.BytesIO(picture(dashboard, StillView(0.5))))
    lowest = max((place(panel["gridPos"]) for panel in dashboard["panels"]), key=lambda box: box.top + box.height)
    assert drawn.width == WIDTH
    assert 0 <= drawn.height - (lowest.top + lowest.height) < 20


def test_the_legend_leaves_out_what_an_override_hides() -> None:
    override = {"matcher": {"id": "byValue", "options": {"reducer": "allIsZero", "op": "gte", "value": 0}}}
    panel = {"fieldConfig": {"overrides": [override]}}
    assert not shown_in_legend(panel, Line("zero", np.array([0.0, math.nan])))
    assert shown_in_legend(panel, Line("once", np.array([0.0, 1.0])))
    assert shown_in_legend({"fieldConfig": {"overrides": []}}, Line("zero", np.array([0.0])))


def test_results_have_the_colour_of_their_meaning_and_other_curves_that_of_the_palette() -> None:
    dashboard = json.loads((FOLDER / "exchange.json").read_text(encoding="utf-8"))
    [panel] = [panel for panel in dashboard["panels"] if panel["title"] == "Requests by result"]
    assert colour_of(panel, Line("ok", np.array([1.0])), 4) == FOREGROUNDS["green"]
    assert colour_of(panel, Line("key_expired", np.array([1.0])), 4) == PALETTE[4]
