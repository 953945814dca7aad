"""Row E9 of the fault matrix: the exchange's private streams lie, fall silent and stay away. The truth is REST."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.system.blackbox import TYPES, ChaosRun, row
from tests.system.blackbox.figures import lag_within
from tests.system.harness import Stack, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
INTERVAL_S = 2.0
USERS = 8
#: With a healthy stream everything is read again at least so often.
RECONCILE_S = 60.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosRun]:
    folder = tmp_path_factory.mktemp("streams")
    intervals = ",".join(f"{name}={INTERVAL_S:g}" for name in TYPES)
    stack = Stack(folder, users=USERS, intervals=intervals, streams=True)
    try:
        stack.start()
        with ChaosRun(folder, users=USERS, changes_per_s=8.0, seed=9, stack=stack) as run:
            wait_until(lambda: streams(run) == USERS, 30, "a private stream for everybody")
            yield run
    finally:
        stack.stop()


def streams(run: ChaosRun) -> int:
    return len(run.exchange.streams()["users"])


def print_lag(run: ChaosRun, what: str, from_s: float) -> float:
    """Its 99th percentile."""
    lag = lag_within(run.logs(), from_s, run.now() - INTERVAL_S - 1.0)
    print(f"E9 {what}: lag p50 {lag.p50:.2f} s, p99 {lag.p99:.2f} s, max {lag.max:.2f} s (n {lag.count})")
    assert lag.count > 0
    return lag.p99


def test_E9_H10_duplicates_disorder_and_unknown_messages_change_nothing(run: ChaosRun) -> None:
    began_s = run.now()
    run.let_pass(4.0)
    assert print_lag(run, "healthy streams", began_s) <= 0.5 * INTERVAL_S, "no faster than reading in turn"
    began_s = run.now()
    with row(run, INTERVAL_S + 1):
        with run.during("E9", "lying streams"):
            run.exchange.stream_fault("duplicate", {"copies": 3}, stream="private")
            run.exchange.stream_fault("reorder", stream="private")
            run.exchange.stream_fault("precede", stream="private")
            run.let_pass(30.0 if NIGHTLY else 6.0)
            run.exchange.clear_stream_faults()
        # What was held back for good would only be found by the next reconciliation.
        run.load.change_everybody()
    print_lag(run, "lying streams", began_s)


def test_E9_H10_streams_that_are_refused_ten_times_are_replaced_by_polling_and_return(run: ChaosRun) -> None:
    wait_until(lambda: streams(run) == USERS, 90, "a private stream for everybody")
    began_s = run.now()
    with row(run, INTERVAL_S + 3), run.during("E9", "refused streams"):
        run.exchange.stream_fault("refuse_handshake", times=10)
        run.exchange.drop_streams(stream="private")
        run.let_pass(30.0 if NIGHTLY else 6.0)
        run.exchange.clear_stream_faults()
    assert print_lag(run, "refused streams", began_s) <= INTERVAL_S + 1.0
    wait_until(lambda: streams(run) == USERS, 90, "the streams to return")


@pytest.mark.skipif(not NIGHTLY, reason="takes over a minute: PUSHSERVER_NIGHTLY=1")
@pytest.mark.parametrize("kind", ["mute", "silent"])
def test_E9_H10_what_a_silent_stream_does_not_tell_is_read_within_a_minute(run: ChaosRun, kind: str) -> None:
    """A mute one is alive and tells nothing: only the reconciliation can know. A silent one is given up after 30 s."""
    wait_until(lambda: streams(run) == USERS, 90, "a private stream for everybody")
    with row(run, 5.0, settle_s=RECONCILE_S + 10), run.during("E9", f"{kind} streams"):
        run.exchange.stream_fault(kind, stream="private")
        run.let_pass(1.0)
        run.load.stop()
        took_s = run.wait_caught_up(RECONCILE_S + INTERVAL_S + 3)
        print(f"E9 {kind} streams: everybody held the truth after {took_s:.1f} s")
        run.load.start()
        run.exchange.clear_stream_faults()
        run.exchange.drop_streams(stream="private")
