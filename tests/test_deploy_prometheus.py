"""The rules in deploy/prometheus: valid, tested by promtool, each with a page that says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pushserver.metrics_catalogue.catalogue import CATALOGUE
from tests.conftest import require

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy/prometheus"
RULES = [FOLDER / name for name in ("recording.yml", "slo.yml", "alerts.yml")]
RUNBOOKS = ROOT / "deploy/runbooks"
DASHBOARDS = ("push-overview", "push-delivery", "push-exchange", "push-capacity")
#: Made by Prometheus itself or by the client library.
NOT_OURS = {"up", "process_start_time_seconds"}


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def promtool(*arguments: str, cwd: Path = FOLDER) -> str:
    found = shutil.which("promtool")
    require(found, "promtool is not installed (Debian: prometheus)")
    assert found is not None
    done = subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration_and_every_rule() -> None:
    out = promtool("check", "config", "prometheus.yml")
    assert all(path.name in out for path in RULES)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", "alerts_test.yml", "slo_test.yml", cwd=FOLDER / "tests")


def test_every_alert_is_tested_firing_and_silent() -> None:
    names = [
        test["name"]
        for path in (FOLDER / "tests").glob("*.yml")
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    ]
    for alert in ALERTS:
        assert any(name.startswith(f"{alert} fires;") for name in names), alert
        assert any(name.startswith(f"{alert} is silent;") for name in names), alert


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_happened_and_where_to_look(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert notes["runbook_url"] == f"https://runbooks.pushserver.example/{name}"
    assert notes["dashboard_url"].rsplit("/", 1)[1] in DASHBOARDS
    assert notes["description"] != notes["summary"]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_page_that_says_what_it_means_where_to_look_and_what_to_do(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    for part in ("## What it means", "## Look here", "## Do this", "## It is over when"):
        assert part in page, part
    assert f"({name}.md)" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


def test_no_page_is_left_over() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*ALERTS, "README"}


def known_names() -> set[str]:
    names = set(NOT_OURS) | RECORDED
    for row in CATALOGUE:
        names |= {f"{row.name}_{part}" for part in ("bucket", "sum", "count")} if row.buckets else {row.name}
    return names


def test_rules_name_only_metrics_that_exist() -> None:
    for rule in rules():
        expression = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", rule["expr"])
        named = set(re.findall(r"\b(?:job:|instance:)?(?:push|process|up)[a-z0-9_:]*\b", expression))
        assert named, rule
        assert named <= known_names(), (named - known_names(), rule["expr"])


def test_pages_name_only_metrics_and_settings_that_exist() -> None:
    settings = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "deploy/env.example").read_text("utf-8")
    settings += (ROOT / "pushserver/settings.py").read_text(encoding="utf-8")
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\bpush_[a-z_]+", text):
            assert name in known_names() | {row.name for row in CATALOGUE}, (page.name, name)
        for name in re.findall(r"`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", text):
            assert name in settings, (page.name, name)
