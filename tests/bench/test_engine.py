"""The engine's benchmark hears every frame however it is cut, times what was done, and says when a run is no proof."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from bench import engine_overrides
from bench.engine_ages import Ages, quantile, spread_of
from bench.engine_deeds import HIGH, LOW, PATIENCE_MS, Deeds
from bench.engine_listener import Heard, Listener
from bench.engine_report import lines, milliseconds, problems
from bench.engine_stack import Plan, overrides
from bench.engine_window import most_in
from bench.processes import BenchmarkFailed, wait_until
from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.model import DataType, Freshness, Order, Position, Secret

ORDER = Order("id", "SOLUSDT", "Buy", Decimal(1001), Decimal(1), "open")
POSITION = Position("SOLUSDT", "long", Decimal(1002), Decimal(148), Decimal(149), Decimal(0))
JUMPER = Position("XRPUSDT", "long", Decimal(1), Decimal(100), Decimal(199), Decimal(0))


class SilentSocket:
    """What a listener that is only fed is connected to."""


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setattr("socket.create_connection", lambda *args, **options: SilentSocket())
    return Listener("redis://127.0.0.1:1/0", 1)


def smessage(user_id, data_type, payload):
    channel = keys.update_channel(user_id, data_type).encode()
    return b"*3\r\n$8\r\nsmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(channel), channel, len(payload), payload)


def message(user_id, data_type, data):
    """As Valkey sends what ``commit.lua`` publishes."""
    update = encode_update(data_type, user_id, data, 5, 5)
    return smessage(user_id, data_type, b"u 1 5\n" + update.head + b"1" + update.tail)


def test_messages_cut_anywhere_are_each_heard_once(listener):
    stream = (
        message(7, DataType.ORDERS, (ORDER,))
        + smessage(7, DataType.PNL, b's delayed exchange_timeout\n42["status_update",{}]')
        + message(8, DataType.POSITIONS, (POSITION, JUMPER))
        + smessage(7, DataType.PNL, b's live \n42["status_update",{}]')
    )
    for cut in range(len(stream)):
        listener.heard = heard = Heard()
        listener.read(stream[:cut], 10.0)
        listener.read(stream[cut:], 20.0)
        assert heard.updates == {"orders": 1, "positions": 1}
        assert set(heard.numbers) == {("orders", 7, 1001), ("positions", 8, 1002)}
        assert heard.statuses == {("pnl", "delayed", "exchange_timeout"): 1, ("pnl", "live", ""): 1}


def test_a_mark_is_told_when_it_crosses_the_middle_and_not_again(listener):
    for at_ms, mark in enumerate((100, 101, 199, 200, 99)):
        row = Position("XRPUSDT", "long", Decimal(1), Decimal(100), Decimal(mark), Decimal(0))
        listener.read(message(8, DataType.POSITIONS, (row,)), at_ms)
    assert listener.heard.marks == [(8, False, 0), (8, True, 2), (8, False, 4)]


def test_a_real_commit_is_heard_and_aged(redis_url):
    client, clock = connect(Secret(redis_url)), SystemClock()
    states, as_of_ms = States(client, clock), clock.wall_ms() - 3_000
    with Listener(redis_url, 2) as listener:
        for data_type, data in ((DataType.ORDERS, (ORDER,)), (DataType.POSITIONS, (POSITION,))):
            states.commit(2, data_type, encode_update(data_type, 2, data, as_of_ms, as_of_ms), as_of_ms)
        states.set_status(2, DataType.ORDERS, Freshness.DELAYED, "exchange_timeout", "text")
        wait_until(lambda: listener.heard.statuses, 5, "the messages")
        assert set(listener.heard.numbers) == {("orders", 2, 1001), ("positions", 2, 1002)}
    ages = Ages(client, 2)
    ages.sample()
    assert ages.unknown == 6
    assert ages.oldest[2, DataType.ORDERS] == pytest.approx(3, abs=2)


class ExchangeThatObeys:
    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.append((name, args, options))


def test_a_deed_is_timed_until_it_was_shown_and_missed_when_it_never_was():
    deeds = Deeds(ExchangeThatObeys(), 5)
    for _ in range(4):
        deeds.act()
    shown, hidden = [key for key in deeds.done if key[0] == "orders"]
    heard = Heard(numbers={shown: deeds.done[shown] + 30})
    lags, missed = deeds.lags_ms(heard, "orders", time.time() * 1000 + 1)
    assert (lags, missed) == ([pytest.approx(30)], 1)
    assert deeds.lags_ms(heard, "orders", deeds.done[hidden])[1] == 0, "done too late to be judged"
    assert len({number for _, _, number in deeds.done}) == 4


def test_each_holder_is_timed_at_each_jump():
    deeds = Deeds(ExchangeThatObeys(), 5)
    deeds.hold([1, 2])
    deeds.jumps += [(True, 1_000.0), (False, 9_000.0)]
    heard = Heard(marks=[(1, False, 10), (1, True, 1_400), (1, False, 9_900), (2, True, 1_001 + PATIENCE_MS)])
    assert deeds.mark_lags_ms(heard, 10_000) == ([400, 900], 2)


def test_marks_jump_from_one_side_of_the_middle_to_the_other():
    deeds = Deeds(ExchangeThatObeys(), 5)
    deeds.hold([1])
    deeds.jump()
    deeds.jump()
    marks = [options["XRPUSDT"] for name, _, options in deeds.sim.calls if name == "set_marks"]
    assert marks == [LOW, HIGH, LOW]
    assert LOW < Listener.MARK_MIDDLE < HIGH


def test_quantiles_are_of_what_was_measured():
    assert spread_of(range(1, 101)) == {"median": 51, "p99": 100, "worst": 100}
    assert milliseconds([]) == {"p50": None, "p99": None, "worst": None}
    with pytest.raises(BenchmarkFailed):
        quantile([], 0.5)


def a_result(**changes):
    age = {"median": 1, "p99": 2, "worst": 3}
    return {
        "plan": {"users": 5, "workers": 2, "requests_per_5s": 480}, "seconds": 9, "requests_per_s": 80.0,
        "by_endpoint_per_s": {"list": 40.0}, "most_in_5s": 480, "bans": 0, "refused": 0, "unknown": 0, "headroom": 0.1,
        "updates_per_s": {"pnl": 1.0}, "hints_per_s": 0, "rounds_per_s": 1, "cores": {"workers": 0.5},
        "statuses": {}, "ages": {"pnl": {"age_s": age, "oldest_s": age, "stretch": 1.1}},
        "lag_ms": {"orders": {"p50": 30, "p99": 60, "worst": 60, "deeds": 9, "missed": 0}},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"most_in_5s": 481}, "481 requests arrived within 5 s"),
        ({"bans": 1}, "banned"),
        ({"refused": 2}, "refused"),
        ({"unknown": 3}, "missing"),
    ],
)
def test_a_run_that_asked_too_much_is_no_proof(changes, said):
    found = problems(a_result(**changes))
    assert bool(found) == bool(said)
    assert all(said in line for line in found)
    told = "\n".join(lines("polling", a_result(**changes)))
    assert ("INVALID" in told) == bool(said)
    assert "p99 60 ms" in told


def test_workers_are_told_budgets_that_settings_would_refuse():
    plan = Plan(5, stream_connects=12_000)
    assert engine_overrides.read(engine_overrides.written(overrides(plan))) == {
        "bybit_ip_requests_per_5s": 480,
        "bybit_stream_connects_per_5min": 12_000,
    }
    assert engine_overrides.read("") == {}


def test_the_fullest_window_is_found():
    assert most_in(5.0, []) == 0
    assert most_in(5.0, [0, 9, 1, 4.9, 5.0, 20]) == 3
    assert most_in(5.0, [1.0] * 4) == 4
