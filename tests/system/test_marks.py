"""Mark prices end to end: the market moves, phones follow within moments, and the exchange is asked no more for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pushserver.exchange_sim.client import SimControl
from tests.system.harness import Stack, wait_until
from tests.system.phones import NodePhone

pytestmark = pytest.mark.system

#: Asked so often only without prices: while they are there, it is once a minute.
INTERVALS = "balance=6,positions=6,pnl=6,orders=30"
USER = 1
#: What stands between a mark and a push: a second at most until the user's turn, and the way.
FOLLOWS_S = 1.5
#: A machine shared with others; what follows by reconciling alone would take a minute.
PATIENCE_S = 6.0


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("marks")
    stack = Stack(folder, users=2, web_workers=1, push_workers=1, intervals=INTERVALS, streams=True, ticker=True)
    yield stack.start()
    stack.stop()


def within(shown: Any, truth: Any, scale: float = 0.0) -> bool:
    """Within 0.1 % of the exchange's figure."""
    return abs(float(shown) - float(truth)) <= max(abs(float(truth)), scale) / 1000


def follows(phone: NodePhone, truth: dict[str, Any]) -> bool:
    positions = phone.latest("positions")
    return (
        len(positions) == len(truth["positions"])
        and all(
            ours["mark_price"] == float(theirs["mark_price"])
            and within(ours["unrealized_pnl"], theirs["unrealized_pnl"])
            for ours, theirs in zip(positions, truth["positions"], strict=True)
        )
        and within(phone.latest("pnl")["unrealized_pnl"], truth["pnl"]["unrealized_pnl"])
        and within(phone.latest("pnl")["total_pnl"], truth["pnl"]["total_pnl"])
        and within(phone.latest("balance")["total_balance"], truth["balance"]["total_balance"])
        and within(phone.latest("balance")["available_balance"], truth["balance"]["available_balance"])
    )


def test_figures_follow_the_market_and_a_fetched_change_is_never_undone(stack: Stack) -> None:
    exchange = SimControl(stack.exchange_url)
    exchange.change(
        USER, drop=["wallet", "positions", "orders"], wallet={"USDT": "100000"}, margin_mode="REGULAR_MARGIN"
    )
    exchange.set_position(USER, "BTCUSDT", "Buy", "0.1", "61000")
    exchange.set_position(USER, "ETHUSDT", "Sell", "2", "3100")
    phone = NodePhone(stack.url, stack.token(USER), "payload")
    try:
        phone.call("subscribe_trading", {"types": ["balance", "positions", "pnl"]})
        wait_until(lambda: stack.workers_metric("mark_users") == 1, 20, "the home's figures at the market")
        mark = exchange.mark_counters()

        delays = [follows_after(phone, exchange, BTCUSDT=61_500 + 10 * step) for step in range(5)]
        print(f"mark price to push, s: {[round(delay, 2) for delay in delays]}")
        assert sorted(delays)[len(delays) // 2] <= FOLLOWS_S
        asked = exchange.counters(mark)
        assert asked["requests"] <= 6, f"following the market must not cost requests: {asked}"

        closed_while_all_moves(phone, exchange)
        dead_ticker(stack, phone, exchange)
        assert all(phone.seqs_grow(name) for name in ("balance", "positions", "pnl"))
    finally:
        phone.close()


def follows_after(phone: NodePhone, exchange: SimControl, **marks: Any) -> float:
    """Seconds until the phone shows what the exchange says after its market moved."""
    exchange.set_marks(**marks)
    began_s = time.monotonic()
    truth = exchange.figures(USER)
    wait_until(lambda: follows(phone, truth), PATIENCE_S, f"{truth} instead of {phone.latest('positions')}")
    return time.monotonic() - began_s


def closed_while_all_moves(phone: NodePhone, exchange: SimControl) -> None:
    """A position is closed while both prices move all the time: once it is gone it is gone."""
    stop = threading.Event()

    def move() -> None:
        step = 0
        while not stop.wait(0.1):
            step += 1
            exchange.set_marks(BTCUSDT=62_000 + step, ETHUSDT=3_000 + step)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        exchange.close_position(USER, "ETHUSDT")
        wait_until(lambda: len(phone.latest("positions")) == 1, 10, "the closed position to go")
        gone_at = len(phone.updates("positions"))
        wait_until(lambda: len(phone.updates("positions")) >= gone_at + 3, 10, "the other position to follow")
    finally:
        stop.set()
        mover.join()
    symbols = [[row["symbol"] for row in update["data"]] for update in phone.updates("positions")[gone_at - 1 :]]
    assert symbols == [["BTCUSDT"]] * len(symbols)
    wait_until(lambda: follows(phone, exchange.figures(USER)), PATIENCE_S, "the figures after the closing")


def dead_ticker(stack: Stack, phone: NodePhone, exchange: SimControl) -> None:
    """Without prices the user is polled at its interval again; figures come from there."""
    fault = exchange.stream_fault("refuse_handshake", stream="public")
    exchange.drop_streams(stream="public")
    mark = exchange.mark_counters()
    exchange.set_marks(BTCUSDT=60_000)
    wait_until(lambda: stack.workers_metric("mark_users") == 0, 10, "the marks to count as dead")
    truth = exchange.figures(USER)
    wait_until(lambda: follows(phone, truth), 10, f"polled figures {truth}")
    assert exchange.counters(mark)["requests"] > 0
    exchange.clear_stream_faults(fault)
