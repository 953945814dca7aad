"""Money is conserved, whatever is traded."""

from dataclasses import replace
from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.exchange_sim.accounts import Account, Coin, Order, Position
from pushserver.exchange_sim.changes import (
    Trade,
    cancelled,
    closed,
    filled,
    traded,
    with_coin,
    with_order,
    with_position,
)
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.valuation import value_wallet

MARKET = Market()
START = with_coin(Account(1), Coin("USDT", D(10000)))


def trade(side: str, quantity: str, price: str, symbol: str = "BTCUSDT", position_idx: int = 0) -> Trade:
    return Trade(MARKET.instruments[symbol], side, D(quantity), D(price), f"{side}{quantity}@{price}", 5, position_idx)


TRADES = st.lists(
    st.tuples(
        st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDT"]),
        st.sampled_from(["Buy", "Sell"]),
        st.integers(1, 50).map(lambda n: D(n) / 1000),
        st.integers(100, 90_000).map(D),
    ),
    max_size=25,
)


@given(TRADES)
def test_wallet_positions_and_closed_rows_tell_the_same_story(trades: list) -> None:
    account = START
    for number, (symbol, side, quantity, price) in enumerate(trades):
        instrument = MARKET.instruments[symbol]
        account = traded(account, Trade(instrument, side, quantity, price, str(number), number))
    coin = account.coins["USDT"]
    held = account.positions.values()
    assert coin.wallet_balance == 10000 + coin.cum_realised_pnl
    assert coin.cum_realised_pnl == sum(p.cum_realised_pnl for p in held)
    assert coin.cum_realised_pnl == sum(r.closed_pnl for r in account.closed) - sum(p.open_fees for p in held)
    for row in account.closed:
        gross = (row.exit_value - row.entry_value) * (1 if row.side == "Sell" else -1)
        assert abs(gross - row.open_fee - row.close_fee - row.closed_pnl) <= D("0.00000002")
    wallet = value_wallet(account, MARKET)
    assert wallet.total_equity == sum(c.usd_value for c in wallet.coins.values())
    assert wallet.total_equity == coin.wallet_balance + wallet.total_unrealised_pnl
    assert wallet.total_available == wallet.total_margin_balance - wallet.total_initial_margin
    for position in held:
        assert (position.size > 0) == (position.side != "") == (position.avg_price > 0)


def test_adding_to_a_position_averages_its_price() -> None:
    account = traded(traded(START, trade("Buy", "1", "100")), trade("Buy", "3", "200"))
    assert account.positions["BTCUSDT", 0].avg_price == 175
    assert account.closed == ()


def test_adding_to_an_inverse_position_averages_by_coin() -> None:
    account = traded(traded(START, trade("Buy", "100", "100", "BTCUSD")), trade("Buy", "300", "300", "BTCUSD"))
    assert account.positions["BTCUSD", 0].avg_price == 200


def test_a_larger_opposite_trade_turns_the_position_and_leaves_one_row() -> None:
    account = traded(traded(START, trade("Buy", "1", "100")), trade("Sell", "3", "110"))
    position = account.positions["BTCUSDT", 0]
    assert (position.side, position.size, position.avg_price) == ("Sell", 2, 110)
    row = account.closed[0]
    assert (row.side, row.quantity, row.closed_pnl) == ("Sell", 1, D("10") - D("0.055") - D("0.0605"))


def test_a_hedge_leg_never_turns() -> None:
    hedged = replace(START, hedge=True)
    account = traded(hedged, trade("Buy", "1", "100", position_idx=1))
    account = traded(account, trade("Sell", "1", "100", position_idx=2))
    assert {key: p.side for key, p in account.positions.items()} == {("BTCUSDT", 1): "Buy", ("BTCUSDT", 2): "Sell"}
    with pytest.raises(ValueError, match="larger"):
        traded(account, trade("Sell", "2", "100", position_idx=1))


def test_a_closed_position_is_flat_and_keeps_its_history() -> None:
    account = traded(START, trade("Buy", "1", "100"))
    account = closed(account, MARKET.instruments["BTCUSDT"], 0, None, D(90), "c", 9)
    position = account.positions["BTCUSDT", 0]
    assert (position.side, position.size, position.avg_price, position.open_fees) == ("", 0, 0, 0)
    assert position.cum_realised_pnl == account.closed[0].closed_pnl == D("-10") - D("0.055") - D("0.0495")
    with pytest.raises(ValueError, match="to close"):
        closed(account, MARKET.instruments["BTCUSDT"], 0, None, D(90), "c", 9)


def test_an_order_fills_in_parts_and_then_moves_to_the_recent_ones() -> None:
    order = Order("o", "ETHUSDT", "Buy", D("1"), price=D(3000))
    account = filled(with_order(START, order), MARKET.instruments, "o", D("0.4"), D(3000), 5)
    assert (account.orders["o"].status, account.orders["o"].leaves_quantity) == ("PartiallyFilled", D("0.6"))
    account = filled(account, MARKET.instruments, "o", None, D(2990), 6)
    assert account.orders == {} and account.recent_orders[-1].status == "Filled"
    assert account.positions["ETHUSDT", 0].size == 1
    with pytest.raises(ValueError, match="no open order"):
        filled(account, MARKET.instruments, "o", None, D(2990), 7)


def test_a_cancelled_order_is_remembered() -> None:
    account = cancelled(with_order(START, Order("o", "ETHUSDT", "Buy", D(1), price=D(1))), "o", 7)
    assert account.orders == {} and account.recent_orders[0].status == "Cancelled"


def test_a_reduce_only_order_opens_nothing() -> None:
    order = Order("o", "ETHUSDT", "Buy", D(1), price=D(3000), reduce_only=True)
    with pytest.raises(ValueError, match="only reduce"):
        filled(with_order(START, order), MARKET.instruments, "o", None, D(3000), 5)


@pytest.mark.parametrize(
    "position",
    [
        Position("BTCUSDT", 0, "", D(1), D(1)),
        Position("BTCUSDT", 0, "Buy", D(0), D(1)),
        Position("BTCUSDT", 0, "Buy", D(-1), D(1)),
        Position("BTCUSDT", 0, "Buy", D(1), D(0)),
        Position("BTCUSDT", 1, "Sell", D(1), D(1)),
        Position("BTCUSDT", 3, "Buy", D(1), D(1)),
    ],
)
def test_contradictory_positions_are_refused(position: Position) -> None:
    with pytest.raises(ValueError, match=r"position|leg"):
        with_position(START, position)


def test_a_change_leaves_the_former_account_as_it_was() -> None:
    before = traded(START, trade("Buy", "1", "100"))
    closed(before, MARKET.instruments["BTCUSDT"], 0, None, D(90), "c", 9)
    assert before.positions["BTCUSDT", 0].size == 1 and before.closed == ()


def test_a_partial_close_carries_its_share_of_the_opening_fee() -> None:
    account = traded(START, trade("Buy", "4", "100"))
    account = closed(account, MARKET.instruments["BTCUSDT"], 0, D(1), D(100), "c", 9)
    assert (account.closed[0].open_fee, account.positions["BTCUSDT", 0].open_fees) == (D("0.055"), D("0.165"))
    assert account.positions["BTCUSDT", 0].cur_realised_pnl == D("-0.22") - D("0.055")
