"""The dashboards are what the code says, and keep the rules of Grafana's dashboard-linter.

The rules are named as there (github.com/grafana/dashboard-linter, docs/rules). Two exceptions, each with its reason:
``ALERTS`` has no instance where an alert sums over instances; and what is counted over the time on the screen uses
``$__range`` in ``increase``, where ``$__rate_interval`` would count something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grafana.build import FOLDER, dashboards
from pushserver.metrics_catalogue.catalogue import CATALOGUE

DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
UIDS = {
    "overview": "push-overview",
    "delivery": "push-delivery",
    "exchange": "push-exchange",
    "capacity": "push-capacity",
}
RUNBOOKS = FOLDER.parent.parent / "deploy/runbooks"
OF_PROMETHEUS = {"up", "ALERTS"}
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target


def selectors(expression: str) -> list[tuple[str, str]]:
    """Each metric of a PromQL expression with what stands in its braces."""
    return re.findall(r"\b([A-Za-z_:][A-Za-z0-9_:]*)\{([^}]*)\}", expression)


def variable(dashboard: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [each for each in dashboard["templating"]["list"] if each["name"] == name]
    return found


def test_the_files_are_what_the_code_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert written == dashboards(), "stale: python -m grafana.build"
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == UIDS


@each_dashboard
def test_template_datasource_rule(dashboard: dict[str, Any]) -> None:
    found = variable(dashboard, "datasource")
    assert (found["type"], found["query"], found["label"]) == ("datasource", "prometheus", "Data source")


@pytest.mark.parametrize("name", ["job", "instance"])
@each_dashboard
def test_template_job_rule_and_template_instance_rule(dashboard: dict[str, Any], name: str) -> None:
    found = variable(dashboard, name)
    assert found["type"] == "query"
    assert found["datasource"]["uid"] == "$datasource"
    assert found["label"] == name.capitalize()
    assert found["multi"]
    assert found["includeAll"]
    assert found["allValue"] == ".+"


@each_dashboard
def test_template_on_time_change_reload_rule(dashboard: dict[str, Any]) -> None:
    assert all(each["refresh"] == 2 for each in dashboard["templating"]["list"] if each["type"] == "query")


@each_dashboard
def test_uneditable_dashboard(dashboard: dict[str, Any]) -> None:
    assert dashboard["editable"] is False


@each_dashboard
def test_panel_datasource_rule(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "$datasource", panel["title"]
        assert all(target["datasource"]["uid"] == "$datasource" for target in panel["targets"]), panel["title"]


@each_dashboard
def test_panel_title_description_rule(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles)
    for panel in panels(dashboard):
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]


@each_dashboard
def test_panel_units_rule(dashboard: dict[str, Any]) -> None:
    known = {"short", "s", "percentunit", "cps", "reqps", "Bps", "bytes"}
    for panel in panels(dashboard):
        assert panel["fieldConfig"]["defaults"]["unit"] in known, panel["title"]


@each_dashboard
def test_panel_no_targets_rule_and_legends(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["targets"], panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDE"[: len(panel["targets"])])
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"], panel["title"]


@each_dashboard
def test_a_legend_names_every_label_that_is_kept_and_no_other(dashboard: dict[str, Any]) -> None:
    for title, target in targets(dashboard):
        outer = re.match(r"(?:sum|max|min|count)(?: by \(([^)]*)\))? \(", target["expr"])
        quantile = re.match(r"histogram_quantile\([^,]*, sum by \(([^)]*)\)", target["expr"])
        kept = (outer or quantile) and ((outer or quantile)[1] or "")  # type: ignore[index]
        if kept is None or title == "Processes and versions":
            continue
        names = {name.strip() for name in kept.split(",")} - {"", "le"}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == names, (title, target["expr"])


@each_dashboard
def test_target_job_rule_and_target_instance_rule(dashboard: dict[str, Any]) -> None:
    for title, target in targets(dashboard):
        found = selectors(target["expr"])
        assert found, title
        for name, matchers in found:
            assert 'job=~"$job"' in matchers, (title, name)
            assert 'instance=~"$instance"' in matchers or name == "ALERTS", (title, name)


@each_dashboard
def test_target_rate_interval_rule(dashboard: dict[str, Any]) -> None:
    for title, target in targets(dashboard):
        for function, window in re.findall(r"\b(rate|irate|increase)\([^\[]*\[([^\]]*)\]", target["expr"]):
            allowed = {"$__rate_interval"} | ({"$__range"} if function == "increase" else set())
            assert window in allowed, (title, target["expr"])


@each_dashboard
def test_target_counter_agg_rule(dashboard: dict[str, Any]) -> None:
    for title, target in targets(dashboard):
        for name, _ in selectors(target["expr"]):
            if name.endswith(("_total", "_bucket", "_sum", "_count")):
                assert re.search(rf"\b(rate|increase)\({name}\{{", target["expr"]), (title, name)
            else:
                assert not re.search(rf"\b(rate|increase)\({name}\{{", target["expr"]), (title, name)


@each_dashboard
def test_panels_fill_rows_of_the_screen_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len(taken) == 24 * len({y for _, y in taken}), "a row of panels is not full"


@each_dashboard
def test_links_lead_to_dashboards_and_pages_that_exist(dashboard: dict[str, Any]) -> None:
    others = {link["url"]: link for link in dashboard["links"] if link["url"].startswith("/d/")}
    assert set(others) == {f"/d/{uid}" for uid in UIDS.values()} - {f"/d/{dashboard['uid']}"}
    assert all(link["keepTime"] and link["includeVars"] for link in others.values())
    for panel in panels(dashboard):
        for link in panel.get("links") or []:
            alert = link["url"].removeprefix("https://runbooks.pushserver.example/")
            assert (RUNBOOKS / f"{alert}.md").exists(), link["url"]


@each_dashboard
def test_starts_and_releases_are_marked(dashboard: dict[str, Any]) -> None:
    marked = {each["name"]: each["expr"] for each in dashboard["annotations"]["list"]}
    assert set(marked) == {"Starts", "Releases"}
    assert "increase(push_lifecycle_total{" in marked["Starts"] and 'state="started"' in marked["Starts"]
    assert re.fullmatch(r"count by \(job, version\) \((.*)\) unless count by \(job, version\) \(\1 offset 1m\)",
                        marked["Releases"])  # fmt: skip
    assert all('job=~"$job"' in matchers for expr in marked.values() for _, matchers in selectors(expr))


def exported(row: Any) -> set[str]:
    return {f"{row.name}_{part}" for part in ("bucket", "sum", "count")} if row.buckets else {row.name}


def test_every_name_is_in_the_catalogue_and_every_metric_on_a_dashboard() -> None:
    used = {
        name
        for dashboard in DASHBOARDS.values()
        for _, target in targets(dashboard)
        for name, _ in selectors(target["expr"])
    }
    assert used <= {name for row in CATALOGUE for name in exported(row)} | OF_PROMETHEUS
    assert [row.name for row in CATALOGUE if not exported(row) & used] == []


def test_every_label_value_that_is_asked_for_exists() -> None:
    rows = {name: row for row in CATALOGUE for name in exported(row)}
    for dashboard in DASHBOARDS.values():
        for title, target in targets(dashboard):
            for name, matchers in selectors(target["expr"]):
                for label, values in re.findall(r'(\w+)=~?"([^"$]*)"', matchers):
                    if name in rows and label in rows[name].labels:
                        assert set(values.split("|")) <= set(rows[name].labels[label]), (title, label)
                    elif label == "le":
                        assert float(values) in rows[name].buckets, (title, values)


def test_every_runbook_is_linked_from_a_panel_that_shows_its_trouble() -> None:
    linked = {
        link["url"].rsplit("/", 1)[1]
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for link in panel.get("links") or []
    }
    assert linked == {path.stem for path in RUNBOOKS.glob("Push*.md")}


def test_grafana_finds_the_files() -> None:
    provider = (Path(FOLDER).parent / "provisioning/dashboards/pushserver.yml").read_text(encoding="utf-8")
    compose = (RUNBOOKS.parent / "compose.yml").read_text(encoding="utf-8")
    [path] = re.findall(r"path: (\S+)", provider)
    assert f"../grafana/dashboards:{path}:ro" in compose
    assert "../grafana/provisioning:/etc/grafana/provisioning:ro" in compose
