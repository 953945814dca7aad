"""The fan-out benchmark: its goals, its picture, its peers and what it says about a profile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.delivery import Load, measure
from bench.fanout import PARTS, plan, section
from bench.fanout_plot import draw
from bench.goals import goals
from bench.profiling import top
from bench.targets import NODE_FOLDER, NodeSocketIO, Project, StockFlaskSocketIO
from tests.conftest import require


def row(target: str, workers: int, cpu: float, clients: int = 1000, **more: object) -> dict[str, object]:
    figures = {"cpu_us_per_push": cpu, "p99_ms": 5.0, "connection_pss_kb": 20.0, "saturated_runs": 0}
    return {"target": target, "workers": workers, "clients": clients, **figures, **more}


GOOD = [
    row(Project.name, 1, 20.0),
    row(Project.name, 4, 30.0),
    row(NodeSocketIO.name, 4, 100.0),
    row(StockFlaskSocketIO.name, 4, 320.0, saturated_runs=3),
]
CURVE = [row(Project.name, 4, 30.0), row(Project.name, 4, 33.0, clients=8000)]


def test_all_goals_are_met_by_good_figures():
    assert [goal.verdict for goal in goals(GOOD, CURVE)] == ["met"] * 7


@pytest.mark.parametrize(
    ("place", "changed"),
    [
        (0, row(Project.name, 1, 17.0)),
        (0, row(Project.name, 1, 20.0, p99_ms=11.0)),
        (1, row(Project.name, 4, 30.0, connection_pss_kb=36.0)),
        (2, row(NodeSocketIO.name, 4, 80.0)),
        (3, row(StockFlaskSocketIO.name, 4, 290.0)),
    ],
)
def test_one_bad_figure_misses_one_goal(place, changed):
    rows = [changed if number == place else each for number, each in enumerate(GOOD)]
    assert [goal.verdict for goal in goals(rows, CURVE)].count("MISSED") == 1


def test_a_curve_that_rises_or_falls_too_far_misses_its_goal():
    for cpu in (25.0, 35.0):
        assert goals(GOOD, [CURVE[0], row(Project.name, 4, cpu, clients=8000)])[-1].verdict == "MISSED"


def test_what_was_not_measured_is_not_called_met():
    assert {goal.verdict for goal in goals([], [])} == {"not measured"}


def test_a_part_alone_measures_nothing_else():
    assert plan(["curve"], quick=False, runs=3).targets == []
    assert list(plan(["node"], quick=False, runs=3).curve) == []
    assert [target.name for target in plan(PARTS, quick=True, runs=3).targets] == [
        Project.name, NodeSocketIO.name, StockFlaskSocketIO.name
    ]  # fmt: skip


@pytest.mark.parametrize(("summary", "curve"), [(GOOD, CURVE), (GOOD[:1], []), ([], CURVE)])
def test_the_picture_is_drawn_of_whatever_was_measured(tmp_path: Path, summary, curve):
    draw({"load": {"rate": 4000, "clients": 1000}, "summary": summary, "curve": curve}, tmp_path / "fanout.png")
    assert (tmp_path / "fanout.png").read_bytes().startswith(b"\x89PNG")


def test_a_profile_leaves_waiting_threads_out_and_counts_a_recursion_once():
    collapsed = "run (a.py:1);send (b.py:2) 6\nrun (a.py:1);run (a.py:1) 2\n"
    waiting = "_WorkerGreenlet.run (gevent/threadpool.py:216);wait (x.py:1) 50\n"
    assert top(collapsed + waiting).splitlines() == [
        "8 samples",
        "  75.0% own  send (b.py:2)",
        "  25.0% own  run (a.py:1)",
        " 100.0% with callees  run (a.py:1)",
        "  75.0% with callees  send (b.py:2)",
    ]


def test_a_short_run_of_the_node_peer_delivers_everything():
    require(shutil.which("node"), "Node")
    require((NODE_FOLDER / "node_modules").is_dir(), "the packages of bench/peers/node")
    load = Load(clients=20, devices=1, rate=100, seconds=0.5, warm_up_s=0.2)
    run = measure(NodeSocketIO(), 2, load)
    assert run.problems == []
    assert run.pushes == run.expected == load.published
    assert sorted(run.connections_per_worker) == [10, 10]
    results = section(load, [run], [])
    assert results["summary"][0]["cpu_us_per_push"] > 0
