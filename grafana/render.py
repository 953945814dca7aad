"""Draws a dashboard as a picture, so that it can be looked at without Grafana.

    python -m grafana.render --prometheus http://127.0.0.1:9090 --minutes 30 --into pictures [overview …]

Evaluates each panel's expressions against that Prometheus and draws all panels where the dashboard has them. The
variables are "All"; ``$__rate_interval`` is four scrapes as in Grafana, unless told. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from grafana.build import FOLDER
from grafana.drawing import FAINT_COLOUR, Box, Canvas, Line

#: Pixels of the screen, of its head, of a unit of the grid's height, between two panels.
WIDTH, SCREEN_HEAD, UNIT_HEIGHT, GAP = 1600, 56, 29, 8
GRID_UNITS = 24
#: Points of time in a picture.
POINTS = 300


class View:
    """What is looked at: a Prometheus, and a range of time in Unix seconds."""

    def __init__(self, prometheus_url: str, start_s: float, end_s: float, rate_interval_s: float) -> None:
        self._url = prometheus_url.rstrip("/")
        self._step_s = max(1.0, (end_s - start_s) / POINTS)
        self.times = np.arange(start_s, end_s + 1e-6, self._step_s)
        self._variables = {
            "$__rate_interval": f"{math.ceil(rate_interval_s + self._step_s)}s",
            "$__range": f"{max(1, round(end_s - start_s))}s",
            "$job": ".+",
            "$instance": ".+",
        }

    def lines(self, targets: Sequence[Mapping[str, Any]]) -> list[Line]:
        """The curves of all targets, in their order. Raises urllib.error.HTTPError for a wrong expression."""
        return [
            Line(self._legend(target["legendFormat"], labels), values)
            for target in targets
            for labels, values in self._evaluated(target["expr"])
        ]

    def beginnings(self, expression: str) -> list[float]:
        """The moments at which an annotation's expression begins to have a value."""
        found = []
        for _, values in self._evaluated(expression):
            there = ~np.isnan(values)
            found += [float(at) for at in self.times[1:][there[1:] & ~there[:-1]]]
        return sorted(set(found))

    def _evaluated(self, expression: str) -> list[tuple[dict[str, str], Any]]:
        for name, value in self._variables.items():
            expression = expression.replace(name, value)
        parameters = {
            "query": expression, "start": str(self.times[0]), "end": str(self.times[-1]), "step": str(self._step_s)
        }  # fmt: skip
        url = f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the address is the caller's own
            rows = json.load(answer)["data"]["result"]
        return [(row["metric"], self._aligned(row["values"])) for row in rows]

    def _aligned(self, points: Sequence[tuple[float, str]]) -> Any:
        """At the view's times; NaN where there is no value."""
        values = np.full(len(self.times), np.nan)
        for at_s, value in points:
            values[round((at_s - self.times[0]) / self._step_s)] = float(value)
        values[np.isinf(values)] = np.nan
        return values

    @staticmethod
    def _legend(template: str, labels: Mapping[str, str]) -> str:
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), template)


def picture(dashboard: Mapping[str, Any], view: View) -> bytes:
    """A PNG of the whole dashboard."""
    panels = dashboard["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    annotations = [each["expr"] for each in dashboard["annotations"]["list"] if "expr" in each]
    marks_s = [at_s for expression in annotations for at_s in view.beginnings(expression)]
    canvas = Canvas(WIDTH, SCREEN_HEAD + bottom * UNIT_HEIGHT + GAP, view.times, marks_s)
    canvas.text(GAP + 4, 12, dashboard["title"], 17, weight="bold")
    canvas.text(GAP + 4, 38, dashboard["description"], 9.5, FAINT_COLOUR)
    times = [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s)) for at_s in (view.times[0], view.times[-1])]
    canvas.text(WIDTH - GAP, 16, f"{times[0]} to {times[1][11:]} UTC", 10, FAINT_COLOUR, ha="right")
    for panel in panels:
        box = place(panel["gridPos"])
        if panel["type"] == "row":
            canvas.row(box, panel["title"])
            continue
        draw = {"stat": canvas.stat, "timeseries": canvas.graph}[panel["type"]]
        draw(box, panel, view.lines(panel["targets"]))
    return small(canvas)


def place(grid: Mapping[str, int]) -> Box:
    unit = (WIDTH - GAP) / GRID_UNITS
    return Box(
        GAP + grid["x"] * unit,
        SCREEN_HEAD + grid["y"] * UNIT_HEIGHT,
        grid["w"] * unit - GAP,
        grid["h"] * UNIT_HEIGHT - GAP,
    )


def small(canvas: Canvas) -> bytes:
    """With a palette of 256 colours: a third of the bytes, and nobody sees it."""
    raw, done = io.BytesIO(), io.BytesIO()
    canvas.figure.savefig(raw, format="png")
    Image.open(raw).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(done, format="png", optimize=True)
    return done.getvalue()


def render(view: View, names: Sequence[str], folder: Path) -> list[Path]:
    """Write ``dashboard-<name>.png`` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        dashboard = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        path = folder / f"dashboard-{name}.png"
        path.write_bytes(picture(dashboard, view))
        written.append(path)
    return written


def main() -> None:
    every = [path.stem for path in sorted(FOLDER.glob("*.json"))]
    parser = argparse.ArgumentParser(prog="python -m grafana.render", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dashboards", nargs="*", metavar="NAME", help=f"default: {' '.join(every)}")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=30.0, help="how much time is shown (%(default)s)")
    parser.add_argument("--end", type=float, default=None, metavar="UNIX_S", help="until when (now)")
    parser.add_argument("--scrape-s", type=float, default=10.0, help="Prometheus's scrape interval (%(default)s)")
    parser.add_argument("--into", type=Path, default=Path(), metavar="FOLDER")
    given = parser.parse_args()
    end_s = time.time() if given.end is None else given.end
    view = View(given.prometheus, end_s - 60 * given.minutes, end_s, 4 * given.scrape_s)
    for path in render(view, given.dashboards or every, given.into):
        print(path)  # noqa: T201 - the paths are its output


if __name__ == "__main__":
    main()
