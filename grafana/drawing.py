"""Draws single panels in the look of Grafana's dark theme. Knows matplotlib and pixels, not Prometheus."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FuncFormatter, MaxNLocator

from grafana.units import written

DPI = 100
SCREEN_COLOUR, PANEL_COLOUR, EDGE_COLOUR = "#111217", "#181b1f", "#2c3036"
TEXT_COLOUR, FAINT_COLOUR, GRID_COLOUR = "#d8d9da", "#8e8e99", "#26292e"
#: Colours of curves in their order, as Grafana's classic palette has them.
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
    "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477",
)  # fmt: skip
BACKGROUNDS = {"green": "#2b6a35", "yellow": "#b8860b", "red": "#c4162a", "blue": "#1f60c4"}
FOREGROUNDS = {"green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "blue": "#5794f2"}
#: Pixels: the head of a panel, the left axis, a line of the legend.
HEAD, LEFT_AXIS, LEGEND_LINE = 27, 68, 17
LEGEND_POINTS = 8.5
MOST_LEGEND_LINES = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: ``values`` at the common times, NaN where there is none."""

    legend: str
    values: Any


@dataclass(frozen=True, slots=True)
class Box:
    """Where a panel is, in pixels from the upper left corner."""

    left: float
    top: float
    width: float
    height: float


class Canvas:
    """A screen of ``width`` x ``height`` pixels; ``times`` are Unix seconds, common to all curves."""

    def __init__(self, width: int, height: int, times: Any, marks_s: Sequence[float]) -> None:
        """``marks_s``: moments that are marked in every graph."""
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=SCREEN_COLOUR)
        self._width, self._height = width, height
        self._times = times
        self._marks_s = marks_s

    def text(self, left: float, top: float, text: str, points: float, colour: str = TEXT_COLOUR, **more: Any) -> None:
        """With its upper left corner there, unless ``more`` says otherwise."""
        more = {"ha": "left", "va": "top"} | more
        self.figure.text(left / self._width, 1 - top / self._height, text, fontsize=points, color=colour, **more)

    def row(self, box: Box, title: str) -> None:
        self.text(box.left + 4, box.top + box.height / 2, f"⌄  {title}", 11, weight="bold", va="center")

    def stat(self, box: Box, panel: dict[str, Any], lines: Sequence[Line]) -> None:
        """A large figure on the colour of its value, its course behind it."""
        defaults = panel["fieldConfig"]["defaults"]
        known = [value for line in lines for value in line.values if not math.isnan(value)]
        value = known[-1] if known else math.nan
        colour = _colour(value, defaults["thresholds"]["steps"])
        coloured = panel["options"]["colorMode"] == "background" and bool(known)
        self._rectangle(box, BACKGROUNDS[colour] if coloured else PANEL_COLOUR)
        front = "#ffffff" if coloured else FOREGROUNDS[colour]
        if len(known) > 1:
            axes = self._axes(Box(box.left, box.top + box.height * 0.62, box.width, box.height * 0.38))
            axes.axis("off")
            axes.fill_between(self._times, lines[0].values, color=front, alpha=0.22, linewidth=0)
            axes.plot(self._times, lines[0].values, color=front, alpha=0.6, linewidth=1)
            axes.set_xlim(self._times[0], self._times[-1])
            axes.set_ylim(*_room(min(known), max(known)))
        text = written(value, defaults["unit"]) if known else "No data"
        self.text(box.left + 10, box.top + 8, panel["title"], 9.5)
        self.text(box.left + box.width / 2, box.top + box.height * 0.49, text, 24 if known else 13,
                  front if known else FAINT_COLOUR, ha="center", va="center", weight="bold")  # fmt: skip

    def graph(self, box: Box, panel: dict[str, Any], lines: Sequence[Line]) -> None:
        """Curves over time with their legend below."""
        self._rectangle(box, PANEL_COLOUR)
        self.text(box.left + 10, box.top + 8, panel["title"], 9.5)
        custom = panel["fieldConfig"]["defaults"]["custom"]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        colours = [colour_of(panel, line, number) for number, line in enumerate(lines)]
        listed = [(line.legend, colour) for line, colour in zip(lines, colours, strict=True)
                  if shown_in_legend(panel, line)]  # fmt: skip
        legend = self._legend(listed, box)
        bottom = 24 + LEGEND_LINE * legend
        height = box.height - HEAD - bottom - 6
        axes = self._axes(Box(box.left + LEFT_AXIS, box.top + HEAD + 6, box.width - LEFT_AXIS - 12, height))
        self._dress(axes, unit)
        if not lines:
            axes.text(0.5, 0.5, "No data", color=FAINT_COLOUR, fontsize=11, ha="center", transform=axes.transAxes)
        below = np.zeros(len(self._times))
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        for line, colour in zip(lines, colours, strict=True):
            values = below + np.nan_to_num(line.values) if stacked else line.values
            axes.plot(self._times, values, color=colour, linewidth=1.3 * custom["lineWidth"], solid_joinstyle="round")
            axes.fill_between(self._times, below, values, color=colour, linewidth=0,
                              alpha=custom.get("fillOpacity", 0) / 100)  # fmt: skip
            below = values if stacked else below
        self._scale(axes, panel, lines, below if stacked else None)
        for mark_s in self._marks_s:
            axes.axvline(mark_s, color=FOREGROUNDS["blue"], linewidth=1, linestyle=(0, (4, 3)), alpha=0.9)

    def _scale(self, axes: Axes, panel: dict[str, Any], lines: Sequence[Line], stack: Any | None) -> None:
        tops = [np.nanmax(line.values) for line in lines if not np.all(np.isnan(line.values))]
        top = float(np.max(stack)) if stack is not None else float(max(tops, default=0.0))
        bottom = float(min((np.nanmin(line.values) for line in lines if not np.all(np.isnan(line.values))), default=0))
        axes.set_ylim(min(0.0, bottom * 1.05), top * 1.08 if top > 0 else 1.0)
        defaults = panel["fieldConfig"]["defaults"]
        if defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed":
            for step in defaults["thresholds"]["steps"]:
                if step["value"] is not None:
                    axes.axhline(step["value"], color=FOREGROUNDS[step["color"]], linewidth=1.2, linestyle="--")

    def _dress(self, axes: Axes, unit: str) -> None:
        axes.set_facecolor(PANEL_COLOUR)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.grid(True, color=GRID_COLOUR, linewidth=0.8)
        axes.tick_params(colors=FAINT_COLOUR, labelsize=7.5, length=0)
        axes.set_xlim(self._times[0], self._times[-1])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))
        axes.set_xticks(_round_times(self._times[0], self._times[-1], 5 if axes.bbox.width > 300 else 4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))

    def _legend(self, entries: Sequence[tuple[str, str]], box: Box) -> int:
        """Write them at the panel's foot; the number of lines."""
        lines: list[list[tuple[str, str]]] = [[]]
        taken = 0.0
        for legend, colour in entries:
            width = entry_width(legend)
            if lines[-1] and taken + width > box.width - 20:
                lines.append([])
                taken = 0.0
            lines[-1].append((legend, colour))
            taken += width
        drawn = lines[:MOST_LEGEND_LINES]
        for number, line in enumerate(drawn):
            top = box.top + box.height - 6 - LEGEND_LINE * (len(drawn) - number)
            left = box.left + 12
            for legend, colour in line:
                self.text(left, top, "▬", 8, colour)
                self.text(left + 14, top, legend, LEGEND_POINTS)
                left += entry_width(legend)
        return len(drawn)

    def _rectangle(self, box: Box, colour: str) -> None:
        self.figure.add_artist(
            Rectangle(
                (box.left / self._width, 1 - (box.top + box.height) / self._height),
                box.width / self._width, box.height / self._height,
                facecolor=colour, edgecolor=EDGE_COLOUR, linewidth=0.8, zorder=-1,
            )
        )  # fmt: skip

    def _axes(self, box: Box) -> Axes:
        return self.figure.add_axes(
            (
                box.left / self._width, 1 - (box.top + box.height) / self._height,
                box.width / self._width, box.height / self._height,
            )
        )  # fmt: skip


def entry_width(legend: str) -> float:
    """Pixels of an entry of a legend, its mark and the space behind it included."""
    width, _, _ = TextToPath().get_text_width_height_descent(legend, FontProperties(size=LEGEND_POINTS), False)
    return 28 + float(width) * DPI / 72


def colour_of(panel: dict[str, Any], line: Line, number: int) -> str:
    """What an override of the panel gives to that name, else the next of the palette."""
    for each in panel["fieldConfig"]["overrides"]:
        if each["matcher"] == {"id": "byName", "options": line.legend}:
            return FOREGROUNDS[each["properties"][0]["value"]["fixedColor"]]
    return PALETTE[number % len(PALETTE)]


def shown_in_legend(panel: dict[str, Any], line: Line) -> bool:
    """Not what an override of the panel hides: a curve that is zero all the time."""
    hides_zeros = any(
        each["matcher"]["id"] == "byValue" and each["matcher"]["options"]["reducer"] == "allIsZero"
        for each in panel["fieldConfig"]["overrides"]
    )
    return not hides_zeros or bool(np.any(np.nan_to_num(line.values) != 0))


def _colour(value: float, steps: Sequence[dict[str, Any]]) -> str:
    colour = steps[0]["color"]
    for step in steps[1:]:
        if value >= step["value"]:
            colour = step["color"]
    return str(colour)


def _room(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.1 or abs(high) or 1.0
    return min(low, 0.0) if low >= 0 and low < high / 2 else low - margin, high + margin


def _round_times(start_s: float, end_s: float, most: int) -> list[float]:
    steps = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400)
    step = next((step for step in steps if (end_s - start_s) / step <= most), steps[-1])
    first = math.ceil(start_s / step) * step
    return [first + step * number for number in range(int((end_s - first) // step) + 1)]


def _clock(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%H:%M:%S")
