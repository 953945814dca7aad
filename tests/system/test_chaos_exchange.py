"""Rows E1, E2 and E4 to E8 of the fault matrix: what an exchange in trouble does to a deployment under load.

One deployment goes through all rows, one after the other; each row is judged by its own part of the logs. What
befalls some users must not be felt by the others: their figures are compared with a calm time before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import redis

from pushserver.exchange_sim.credentials import demo_credentials
from tests.system.blackbox import TYPES, ChaosRun, Fault, Spread, row
from tests.system.blackbox.ages import after_the_ban_was_told, most_in_a_window, readings, worst_ages
from tests.system.blackbox.figures import lag_within
from tests.system.blackbox.rules import ORDERS, POSITIONS, WALLET
from tests.system.harness import Stack
from tests.system.phones import PythonPhone
from tests.system.visitors import Elsewhere

pytestmark = pytest.mark.system

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
SCALED = Path(__file__).parent / "blackbox" / "scaled"
INTERVAL_S = 1.0
USERS = 12
STRICKEN = (1, 2, 3, 4)
OTHERS = tuple(user for user in range(1, USERS + 1) if user not in STRICKEN)
#: Nobody asks of these users' phones that they catch up soon.
REFUSED, A_DAY_AHEAD, RICH = USERS + 1, USERS + 2, USERS + 3
#: Of a push worker: more would hide that one user's trouble takes the others' slots, or connections.
SLOTS = 6
CALM_S = 20.0 if NIGHTLY else 4.0
#: How long the exchange keeps an address out, and how long the product believes that it wants silence.
BAN_S = 120.0 if NIGHTLY else 5.0
#: What the noise of a machine with other things to do adds to a time, seconds.
NOISE_S = 0.25


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosRun]:
    environ = {"WORKER_CONCURRENCY": str(SLOTS), "PYTHONPATH": str(SCALED), "PUSHSERVER_BAN_S": str(BAN_S)}
    intervals = ",".join(f"{name}={INTERVAL_S:g}" for name in TYPES)
    folder = tmp_path_factory.mktemp("exchange")
    stack = Stack(folder, users=RICH, intervals=intervals, environ=environ)
    try:
        stack.start()
        with ChaosRun(folder, users=USERS, changes_per_s=20.0, seed=31, stack=stack) as run:
            yield run
    finally:
        stack.stop()


class Freshness:
    """How users fare: at most how old their readings become, and how late their clients show a change."""

    def __init__(self, run: ChaosRun, users: tuple[int, ...], from_s: float, until_s: float) -> None:
        logs = run.logs()
        self.ages = Spread.of(list(worst_ages(logs.answers, users, from_s, until_s).values()))
        # What changed last has had no time to be shown.
        self.lags = lag_within(logs, from_s, until_s - 2 * INTERVAL_S, users)


@pytest.fixture(scope="module")
def calm(run: ChaosRun) -> Freshness:
    """Of those who never have any trouble of their own, before anybody had."""
    run.let_pass(CALM_S)
    return Freshness(run, OTHERS, run.now() - CALM_S, run.now())


def others_are_well(run: ChaosRun, calm: Freshness, most: float, fault: Fault | None = None) -> None:
    """During the fault (default: the last) their ages and lags were at most ``most`` times those of the calm time.

    What the machine itself stood still meanwhile is nobody's fault.
    """
    fault = fault or run.faults[-1]
    now = Freshness(run, OTHERS, fault.t_start, fault.t_end)
    stalled_s = run.stalls.in_all_s(fault.t_start, fault.t_end)
    print(
        f"{fault.kind} others: worst age {calm.ages.max:.2f} s in the calm, {now.ages.max:.2f} s now (median "
        f"{calm.ages.p50:.2f}, {now.ages.p50:.2f}); lag p99 {calm.lags.p99:.2f} s in the calm, {now.lags.p99:.2f} s "
        f"now; the machine stood still {stalled_s:.2f} s"
    )
    assert now.ages.p50 <= most * calm.ages.p50 + NOISE_S + stalled_s
    assert now.ages.max <= most * calm.ages.max + 2 * NOISE_S + stalled_s
    assert now.lags.p99 <= most * calm.lags.p99 + 2 * NOISE_S + stalled_s


@contextmanager
def faults(run: ChaosRun, kind: str, hold_s: float, **marks: object) -> Iterator[None]:
    """What is set within lasts so long and is then cleared."""
    with run.during(kind, "exchange", **marks):
        yield
        run.let_pass(hold_s)
        run.exchange.clear_faults()


def watch_orders(run: ChaosRun, user: int) -> PythonPhone:
    phone = PythonPhone(run.stack.url, run.stack.token(user))
    phone.wait_for("connected")
    phone.call("subscribe_trading", {"types": ["orders"]})
    phone.wait_for("orders_update")
    return phone


def test_E1_H01_rate_limits_silence_one_endpoint_of_a_user_until_its_reset(run: ChaosRun, calm: Freshness) -> None:
    hold_s, reset_s = 60 if NIGHTLY else 5, {1: 2.0, 2: 3.0, 3: 0.1, 4: 0.1}
    told = {"blocks": frozenset({"orders"}), "users": frozenset((1, 2))}
    phone = watch_orders(run, A_DAY_AHEAD)
    with row(run, 5.0), faults(run, "E1", hold_s, **told):
        for user, options in {
                1: {"reset_in_ms": 2000}, 2: {"reset_in_ms": 3000}, 3: {"reset": "past"}, 4: {"reset": "none"},
                A_DAY_AHEAD: {"reset_in_ms": 86_400_000},
            }.items():  # fmt: skip
            run.exchange.fault("rate_limited", options, user=user, endpoint=ORDERS)
    others_are_well(run, calm, 1.1)
    fault = run.faults[-1]
    during = [answer for answer in run.logs().answers if fault.t_start <= answer.t_in < fault.t_end]
    for user, least_s in reset_s.items():
        refused = [answer for answer in during if answer.user == user and answer.endpoint == ORDERS and answer.faults]
        assert len(refused) >= 2
        assert all(after.t_in - (before.t_out or 0) >= least_s - 0.02 for before, after in pairwise(refused)), user
    assert 1 <= sum(answer.user == A_DAY_AHEAD for answer in during) <= 1 + hold_s // 60, "it waits for a minute"
    assert {status["reason"] for status in phone.events("status_update")} == {"exchange_rate_limited"}
    phone.close()
    # The users' other endpoints go on as before.
    elsewhere = worst_ages(during, STRICKEN, fault.t_start, fault.t_end, POSITIONS)
    assert max(elsewhere.values()) <= 2 * INTERVAL_S + NOISE_S, elsewhere


def test_E2_H02_H11_a_ban_is_kept_by_all_processes_and_ends_without_a_herd(run: ChaosRun) -> None:
    with row(run, 8.0), run.during("E2", "exchange", ban=True, blocks=frozenset(TYPES)):
        run.exchange.ban(BAN_S)
        run.let_pass(BAN_S)
    ban = run.faults[-1]
    answers = run.logs().answers
    later = after_the_ban_was_told(answers, ban)
    told = [
        entry
        for entry in run.logs().entries
        if entry.event == "status" and entry.state == "delayed" and ban.t_start <= entry.t < ban.t_end
    ]
    told_s = max(entry.t for entry in told) - ban.t_start
    after = [answer for answer in answers if answer.t_in >= ban.t_end]
    print(f"E2 {len(later)} requests after the refusal, the last {max(later, default=0):.2f} s; told in {told_s:.1f} s")
    print(f"E2 ramp: at most {most_in_a_window(after, 1.0)} in a second, {most_in_a_window(after)} in 5 s")
    assert sum(after_s > 0.5 for after_s in later) == 0
    assert {entry.code for entry in told} == {"exchange_address_banned"}
    assert most_in_a_window(after) <= run.rules.address_requests


def test_E4_H05_H08_slow_and_hanging_answers_and_500_orders_cost_the_others_nothing(
    run: ChaosRun, calm: Freshness
) -> None:
    hung, *slow = STRICKEN
    order = {"symbol": "SOLUSDT", "side": "Sell", "quantity": "1", "price": "900"}
    run.exchange.change(RICH, orders=[order] * 500)
    rich = watch_orders(run, RICH)
    with row(run, 12.0), faults(run, "E4", 60 if NIGHTLY else 9.5):
        run.exchange.fault("hang", user=hung, endpoint=WALLET)
        for user in slow:
            run.exchange.fault("latency", {"seconds": 7}, user=user, probability=0.7)
    assert len(rich.latest("orders")) >= 500
    rich.close()
    others_are_well(run, calm, 1.1)
    # Whoever waits for an answer that never comes gives up at the round's deadline, and is served else.
    fault = run.faults[-1]
    ages = worst_ages(run.logs().answers, [hung], fault.t_start, fault.t_end, POSITIONS)
    assert ages[hung] <= 8.0 + 2 * INTERVAL_S + NOISE_S


def test_E5_H02_H04_H05_H08_one_users_trouble_is_no_one_elses(run: ChaosRun, calm: Freshness) -> None:
    """One sends what cannot be mapped, one has a revoked key, one is refused at the door, one meets broken servers."""
    poisoned, revoked, *broken = STRICKEN
    hold_s = 60 if NIGHTLY else 5
    pauses = run.stack.workers_metric("address_pauses_total")
    refused = watch_orders(run, REFUSED)
    with (
        row(run, 10.0),
        run.during("E5", "user with a revoked key", blocks=frozenset(TYPES), users=frozenset({revoked})),
    ):
        with faults(run, "E5", hold_s, blocks=frozenset({"positions"}), users=frozenset({poisoned})):
            run.exchange.fault("null_fields", user=poisoned, endpoint=POSITIONS)
            run.exchange.revoke_key(demo_credentials(revoked)[0])
            run.exchange.fault("http_status", {"status": 403, "body": "Forbidden"}, user=REFUSED)
            for user in broken:
                for kind, options in (("http_status", {"status": 502}), ("cut", {}), ("html", {"status": 503})):
                    run.exchange.fault(kind, options, user=user, probability=0.2)
        put_another_key(run, revoked)
    fault = next(fault for fault in run.faults[-2:] if poisoned in (fault.users or ()))
    others_are_well(run, calm, 1.1, fault)
    assert run.stack.workers_metric("address_pauses_total") == pauses, "one user's 403 is no ban"
    assert {status["reason"] for status in refused.events("status_update")} == {"exchange_request_rejected"}
    refused.close()
    asked = [a for a in run.logs().answers if a.api_key == demo_credentials(revoked)[0] and a.t_in > fault.t_start]
    after = [answer for answer in asked if answer.ret_code == 10003 and answer.t_in > asked[0].t_in + 1.0]
    assert not after, "a revoked key was asked with again"
    statuses = [entry for entry in run.logs().entries if entry.event == "status" and entry.t >= fault.t_start]
    stopped = {(entry.user, entry.type, entry.code) for entry in statuses if entry.state == "stopped"}
    assert stopped == {(revoked, name, "key_invalid") for name in TYPES}
    tries = sum(answer.user == poisoned and "null_fields" in answer.faults for answer in run.logs().answers)
    logs = "".join(worker.log() for worker in run.stack.push_workers)
    lines = len(re.findall(rf"event=fetch_failed user={poisoned} .*type=positions .*malformed", logs))
    print(f"E5 {tries} tries of the poisoned user, {lines} lines of log")
    assert 2 <= tries <= 3 + hold_s, "it backs off"
    assert lines <= tries


def put_another_key(run: ChaosRun, user: int) -> None:
    key, secret = "sim-key-of-another-time", "s" * 36
    run.exchange.put_key(key, secret, user)
    arguments = ("users", "set-key", f"user{user}", "--api-key", key, "--api-secret-stdin")
    run.stack.command(*arguments, given=f"{secret}\n")


def test_E6_H06_rubbish_is_never_shown_and_costs_no_memory(run: ChaosRun) -> None:
    """Every user gets another kind. What a client shows is compared with the truth, so rubbish would be invented."""
    workers = [psutil.Process(worker.pid) for worker in run.stack.push_workers if worker.popen.poll() is None]
    with closing(Elsewhere()) as elsewhere, row(run, 15.0):
        kinds = {
            1: ("html", {}), 2: ("truncated", {}), 3: ("array", {}), 4: ("null", {}), 5: ("nan", {}),
            6: ("nan", {"as_string": True}), 7: ("blank_numbers", {}), 8: ("drip", {"bytes_per_s": 1}),
            9: ("huge_body", {"bytes": 100_000_000}), 10: ("gzip_bomb", {"bytes": 1_000_000_000}),
            11: ("redirect", {"location": f"http://127.0.0.1:{elsewhere.port}/"}), 12: ("missing_list", {}),
        }  # fmt: skip
        failures = run.stack.workers_metric("fetch_errors_total")
        before = [worker.memory_info().rss for worker in workers]
        most = list(before)
        with faults(run, "E6", 0):
            for user, (kind, options) in kinds.items():
                run.exchange.fault(kind, options, user=user)
            for _ in range(60 if NIGHTLY else 8):
                run.let_pass(0.5)
                most = [max(rss, worker.memory_info().rss) for rss, worker in zip(most, workers, strict=True)]
    grown = [(now - then) / 1e6 for now, then in zip(most, before, strict=True)]
    failures = run.stack.workers_metric("fetch_errors_total") - failures
    print(f"E6 memory of the workers grew by {grown} MB, {failures:.0f} failures were counted")
    assert max(grown) <= 20
    assert elsewhere.visits == 0
    fault = run.faults[-1]
    stricken = {a.user for a in run.logs().answers if a.faults and fault.t_start <= a.t_in < fault.t_end}
    assert stricken == set(kinds) and failures >= len(kinds)


def test_E7_H07_I02_answers_that_come_late_never_replace_newer_ones(run: ChaosRun) -> None:
    """Who reads whom is forgotten while rounds wait, so that older answers of one worker meet newer ones of another."""
    stale = run.stack.workers_metric("commits_total", result="stale")
    lost = run.stack.workers_metric("fetch_rounds_total", result="lost")
    with row(run, 5.0), closing(redis.Redis.from_url(run.stack.redis_url)) as admin:
        for _ in range(10 if NIGHTLY else 2):
            with faults(run, "E7", 1.5):
                run.exchange.fault("latency", {"seconds": 1.2}, endpoint=ORDERS, probability=0.5)
                run.let_pass(1.0)
                leases = list(admin.scan_iter("push:{due-*}:leases"))
                due = list(admin.scan_iter("push:{due-*}:due"))
                for key in leases:
                    admin.delete(key)
                for key in due:
                    for user in admin.zrange(key, 0, -1):
                        admin.zadd(key, {user: 0})
    stale = run.stack.workers_metric("commits_total", result="stale") - stale
    lost = run.stack.workers_metric("fetch_rounds_total", result="lost") - lost
    print(f"E7 late commits refused: {stale:.0f}; rounds that had lost their user: {lost:.0f}")
    assert stale >= 1
    assert lost >= 1


@pytest.mark.parametrize("skew_ms", [-60_000, 60_000, *([-3_600_000, 3_600_000] if NIGHTLY else [])])
def test_E8_H03_the_exchanges_clock_may_be_wrong(run: ChaosRun, skew_ms: int) -> None:
    # Answers that are stamped ahead of us are not believed, and whoever gets such ones backs off.
    with row(run, 5.0 if skew_ms < 0 else 10.0):
        with run.during("E8", f"clock {skew_ms} ms"):
            run.exchange.skew_clock(skew_ms)
            run.let_pass(3 * INTERVAL_S)
            run.exchange.skew_clock(0)
        run.let_pass(INTERVAL_S)
    fault = run.faults[-1]
    refused = [a.user for a in run.logs().answers if a.ret_code == 10002 and a.t_in >= fault.t_start]
    print(f"E8 {skew_ms} ms: {len(refused)} requests refused for their time, {len(set(refused))} users")
    assert len(refused) <= 4 * USERS


def test_E8_H07_one_answer_from_the_future_blocks_nobody(run: ChaosRun) -> None:
    with row(run, 5.0), faults(run, "E8", 3 * INTERVAL_S):
        for user in STRICKEN:
            run.exchange.fault("time_skew", {"ms": 3_600_000}, user=user, times=1)
    fault = run.faults[-1]
    for endpoint in (POSITIONS, ORDERS, WALLET):
        good = readings(run.logs().answers, endpoint)
        assert all(any(fault.t_start < t < fault.t_end for t in good[user]) for user in STRICKEN)
