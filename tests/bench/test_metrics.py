"""What metrics cost: shares of single runs, verdicts, and scrapes of real files."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from bench.metrics import lines
from bench.metrics_cpu import KINDS, summary
from bench.metrics_scrape import after_reloads

NAMES = [kind.name for kind in KINDS]


def test_a_share_is_the_median_of_the_runs_own_shares():
    runs = [dict(zip(NAMES, cpu, strict=True)) for cpu in ((20.0, 19.8, 19.0), (40.0, 39.2, 36.0), (10.0, 9.9, 9.7))]
    result = summary(runs, 8.0)
    assert (result["observer_percent"], result["everything_percent"]) == (1.0, 5.0)
    assert result["cpu_us_per_push"][NAMES[0]] == 20.0


def test_a_missed_goal_is_called_missed_and_a_thousand_reloads_leave_their_counts(tmp_path: Path):
    for pid in (1, 2):
        file = MmapedDict(str(tmp_path / f"counter_{pid}.db"))
        file.write_value(mmap_key("push_x", "push_x_total", (), (), "Text."), 3.0, 0.0)
        file.close()
    scraped = after_reloads(tmp_path, scrapes=3, reloads=5)
    assert (scraped["files"], scraped["files_after"]) == (2, 3)
    slow = {"p50_ms": 12.0, "p99_ms": 21.0}
    scrape = {
        **scraped, "load": {"workers": 8, "rate": 1_000, "reloads": 5}, "goal_ms": 20.0, "rest": slow, "pushing": slow,
        "master_cpu_ms": 4.0, "page_bytes": 34_000, "series": 500,
    }  # fmt: skip
    cpu = summary([dict(zip(NAMES, (20.0, 19.8, 19.0), strict=True))], 8.0)
    told = lines({"cpu": cpu, "scrape": scrape})
    assert sum("MISSED" in line for line in told) == 3
    assert any("1.0 %" in line and "met" in line for line in told)
