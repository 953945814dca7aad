"""The few kinds of panels and the frame that all dashboards have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from grafana.queries import SCOPE

RUNBOOKS = "https://runbooks.pushserver.example"
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
#: Width of the whole screen, heights of the two kinds of panels, in grid units.
SCREEN, GRAPH_HEIGHT, STAT_HEIGHT = 24, 8, 4
#: The other dashboards are linked from each.
DASHBOARDS = {
    "push-overview": "Overview",
    "push-delivery": "Delivery",
    "push-exchange": "Exchange",
    "push-capacity": "Capacity",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One query of a panel. ``legend`` may name labels: ``{{type}}``."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Steps:
    """Colours of values: ``first`` below the first edge, then each colour from its edge on."""

    first: str
    edges: tuple[tuple[float, str], ...] = ()

    def build(self) -> builders.ThresholdsConfig:
        steps = [models.Threshold(value=None, color=self.first)]
        steps += [models.Threshold(value=edge, color=colour) for edge, colour in self.edges]
        return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


#: Every label's value has a series from the start; most stay at zero, and would bury the legend.
ALWAYS_ZERO = models.MatcherConfig(id_val="byValue", options={"reducer": "allIsZero", "op": "gte", "value": 0})
NOT_LISTED = models.DynamicConfigValue(id_val="custom.hideFrom", value={"legend": True, "tooltip": True, "viz": False})
#: Results and states that say by themselves whether all is well; the others take colours as they come.
MEANINGS = {
    "ok": GREEN, "fresh": GREEN, "live": GREEN, "closed": GREEN, "connected": GREEN,
    "stopped": YELLOW, "throttled": YELLOW, "warning": YELLOW,
    "late": RED, "delayed": RED, "failed": RED, "open": RED, "deaf": RED, "critical": RED,
}  # fmt: skip
#: Red as soon as there is any.
NONE_IS_GOOD = Steps(GREEN, ((1, RED),))
PLAIN = Steps(BLUE)


def graph(
    title: str,
    description: str,
    unit: str,
    *curves: Curve,
    width: int = 8,
    stacked: bool = False,
    runbook: str = "",
    limit: float | None = None,
) -> Any:
    """Curves over time. ``limit`` draws a line that had better not be crossed."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).datasource(DATASOURCE)
    # In a stack the line of what is zero would be seen on top, as if it were something.
    panel = panel.height(GRAPH_HEIGHT).span(width).min(0).fill_opacity(60 if stacked else 8)
    panel = panel.line_width(0 if stacked else 1)
    panel = panel.show_points(common_models.VisibilityMode.NEVER)
    panel = panel.tooltip(
        common.VizTooltipOptions()
        .mode(common_models.TooltipDisplayMode.MULTI)
        .sort(common_models.SortOrder.DESCENDING)
    )  # fmt: skip
    if any("{{" in curve.legend for curve in curves):
        panel = panel.with_override(ALWAYS_ZERO, [NOT_LISTED])
    if any(curve.legend in ("{{result}}", "{{state}}") for curve in curves):
        for name, colour in MEANINGS.items():
            fixed = {"mode": "fixed", "fixedColor": colour}
            panel = panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    panel = panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if limit is not None:
        panel = panel.thresholds(Steps(GREEN, ((limit, RED),)).build())
        panel = panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    if runbook:
        panel = panel.links([_runbook(runbook)])
    for target in _targets(curves):
        panel = panel.with_target(target)
    return panel


def figure(
    title: str, description: str, unit: str, curve: Curve, steps: Steps = PLAIN, *, width: int = 4, runbook: str = ""
) -> Any:
    """One large number, its background in the colour of its value, with its course behind it."""
    panel = stat.Panel().title(title).description(description).unit(unit).datasource(DATASOURCE)
    panel = panel.height(STAT_HEIGHT).span(width).thresholds(steps.build())
    panel = panel.color_mode(
        common_models.BigValueColorMode.VALUE if steps == PLAIN else common_models.BigValueColorMode.BACKGROUND
    )
    panel = panel.graph_mode(common_models.BigValueGraphMode.AREA)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if runbook:
        panel = panel.links([_runbook(runbook)])
    for target in _targets([curve]):
        panel = panel.with_target(target)
    return panel


def screen(uid: str, description: str, *rows: tuple[str, Sequence[Any]]) -> models.Dashboard:
    """A dashboard of titled rows of panels."""
    made = (
        builders.Dashboard(f"pushserver / {DASHBOARDS[uid]}")
        .uid(uid)
        .description(description)
        .tags(["pushserver"])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("utc")
        .with_variable(_datasource())
        .with_variable(_label("job", "label_values(push_build_info, job)"))
        .with_variable(_label("instance", 'label_values(push_build_info{job=~"$job"}, instance)'))
        .annotation(_starts())
        .annotation(_releases())
    )
    for other, title in DASHBOARDS.items():
        if other != uid:
            made = made.link(builders.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/{other}")
                             .keep_time(True).include_vars(True))  # fmt: skip
    made = made.link(builders.DashboardLink("Runbooks").type(models.DashboardLinkType.LINK).url(RUNBOOKS)
                     .target_blank(True))  # fmt: skip
    for title, panels in rows:
        made = made.with_row(builders.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    return made.build()


def _targets(curves: Sequence[Curve]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .expr(curve.expression)
        .legend_format(curve.legend)
        .ref_id(chr(ord("A") + number))
        .datasource(DATASOURCE)
        .range()
        for number, curve in enumerate(curves)
    ]


def _runbook(alert: str) -> builders.DashboardLink:
    return (
        builders.DashboardLink(f"Runbook: {alert}")
        .type(models.DashboardLinkType.LINK)
        .url(f"{RUNBOOKS}/{alert}")
        .target_blank(True)
    )


def _datasource() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _label(name: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _starts() -> builders.AnnotationQuery:
    """A line wherever processes were started: releases, reloads, crashes."""
    started = f'push_lifecycle_total{{{SCOPE}, state="started"}}'
    return _annotation("Starts", BLUE, f"sum by (job) (increase({started}[1m])) > 0")


def _releases() -> builders.AnnotationQuery:
    """A line wherever a version appears that did not run a minute before."""
    running = f"count by (job, version) (push_build_info{{{SCOPE}}})"
    before = f"count by (job, version) (push_build_info{{{SCOPE}}} offset 1m)"
    return _annotation("Releases", "purple", f"{running} unless {before}")


def _annotation(name: str, colour: str, expression: str) -> builders.AnnotationQuery:
    made = builders.AnnotationQuery().name(name).datasource(DATASOURCE).enable(True)
    return made.icon_color(colour).expr(expression)
