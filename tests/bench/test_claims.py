"""The time of claims is Valkey's own, and what is measured really claims everybody."""

from __future__ import annotations

import redis

from bench.claims import BATCH, fill, lines, measure, script_us
from pushserver.bus.connection import connect
from pushserver.bus.schedule import Schedule
from pushserver.model import Secret


def test_a_filled_schedule_is_due_or_not_as_told(redis_url):
    schedule = Schedule(connect(Secret(redis_url)))
    with redis.Redis.from_url(redis_url) as client:
        fill(client, 200, 3_600_000)
        assert (schedule.depth(), schedule.claim(BATCH, 10, "bench")) == (200, [])
        fill(client, 200, -3_600_000)
        client.config_resetstat()
        assert len(schedule.claim(BATCH, 10, "bench")) == BATCH
        calls, spent_us = script_us(client)
    assert calls >= 4
    assert spent_us > 0


def test_claims_are_measured_without_the_client():
    row = measure(300, 3)
    assert 0 < row["claim_us_per_user"] < row["claim_us_per_call"]
    assert row["users_per_s_of_one_core"] > row["completed_per_s_by_one_client"]
    memory = {"users": 5_000, "idle_mb": 70.0, "busy_mb": 90.0, "kb_per_user": 4.0}
    told = "\n".join(lines({"scale": [row], "memory": memory}))
    assert "4.0 KB a user" in told
    assert f"{row['claim_us_per_user']:.2f}" in told
