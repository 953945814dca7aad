"""The engine's figures for a person, and what makes a run no proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.engine_ages import quantile

#: What no window may hold, whatever happens.
MOST_PAID = 480


def milliseconds(lags: Sequence[float]) -> dict[str, float | None]:
    """p50, p99 and the worst; none where nothing was seen."""
    if not lags:
        return {"p50": None, "p99": None, "worst": None}
    return {name: round(quantile(lags, part)) for name, part in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))}


def problems(result: dict[str, Any]) -> list[str]:
    found = []
    limit = result["plan"]["requests_per_5s"]
    if result["most_in_5s"] > limit:
        found.append(f"{result['most_in_5s']} requests arrived within 5 s, {limit} are allowed")
    if result["bans"]:
        found.append(f"the address was banned {result['bans']} times")
    if result["refused"]:
        found.append(f"{result['refused']} requests were refused as too many")
    if result["unknown"]:
        found.append(f"{result['unknown']} states were missing")
    return found


def lines(section: str, result: dict[str, Any]) -> list[str]:
    plan, cores = result["plan"], result["cores"]
    said = [
        f"{section}: {plan['users']} users, {plan['workers']} workers, {result['seconds']:g} s",
        f"  requests/s {result['requests_per_s']} (most in 5 s: {result['most_in_5s']}, headroom"
        f" {result['headroom']:.0%}), 10006 and bans: {result['refused']}, {result['bans']}",
        "  " + ", ".join(f"{name} {count}/s" for name, count in result["by_endpoint_per_s"].items()),
        "  cores: " + ", ".join(f"{name} {share:.2f}" for name, share in cores.items()),
        f"  hints/s {result['hints_per_s']}, rounds/s {result['rounds_per_s']}, updates/s {result['updates_per_s']}",
    ]
    for name, ages in result["ages"].items():
        said.append(
            f"  age of {name}: median {ages['age_s']['median']} s, p99 {ages['age_s']['p99']} s,"
            f" worst {ages['age_s']['worst']} s; worst user / median user {ages['stretch']}"
        )
    for name, lag in result["lag_ms"].items():
        said.append(f"  {name} shown after: p50 {lag['p50']} ms, p99 {lag['p99']} ms, worst {lag['worst']} ms,"
                    f" {lag['missed']} of {lag['deeds']} missed")  # fmt: skip
    if "live" in result:
        said.append(
            f"  streams live: {result['live']} of {plan['users']}; memory {result['pss_mb']} MB"
            f" (empty {result['pss_empty_mb']}), {result['pss_kb_per_user']} KB per user"
        )
        said.append(f"  kept fresh: {result['kept_fresh']}")
    said.append(f"  told: {result['statuses'] or 'nothing'}")
    return said + [f"  INVALID: {problem}" for problem in problems(result)]
