"""The comparison of a fetch round with plain calls: that it measures what it says."""

from __future__ import annotations

from bench import fetch, report


def test_both_sides_are_measured_in_turns_and_nothing_changes_meanwhile() -> None:
    told: list[str] = []
    result = fetch.compare(users=2, seconds=0.2, runs=2, say=told.append)
    assert result["problems"] == []
    assert [line.split(":")[1].strip() for line in told] == ["pushserver", "plain pybit"] * 2
    ours, theirs = result["median_us"]["pushserver"], result["median_us"]["plain pybit"]
    assert ours > 0 and result["ratio"] == round(ours / theirs, 3)
    # The goal is 0.35; here the machine may be busy, and the runs are short.
    assert result["ratio"] < 0.7


def test_the_table_names_the_goal_and_an_invalid_run() -> None:
    measured = {
        "cpu_us_per_round": {"pushserver": [400.0], "plain pybit": [1_000.0]},
        "median_us": {"pushserver": 400.0, "plain pybit": 1_000.0},
        "ratio": 0.4,
        "goal": 0.35,
        "problems": ["3 answers changed"],
    }
    results = {**report.started(), "round": measured}
    text = report.table(results)
    assert "goal at most 0.35 x: MISSED" in text and "0.4 x" in text
    assert "INVALID run: round: 3 answers changed" in text
