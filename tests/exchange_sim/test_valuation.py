from decimal import Decimal as D

import pytest

from pushserver.exchange_sim.accounts import Account, Coin, Order, Position
from pushserver.exchange_sim.changes import with_coin, with_order, with_position
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.money import text
from pushserver.exchange_sim.valuation import value_order, value_position, value_wallet


@pytest.fixture
def market() -> Market:
    return Market()


LONG = Position("BTCUSDT", 0, "Buy", D("0.02"), D("61000"))


def test_a_long_has_the_margins_of_a_recorded_one(market: Market) -> None:
    figures = value_position(LONG, market)
    shown = [
        text(f) for f in (figures.value, figures.unrealised_pnl, figures.initial_margin, figures.maintenance_margin)
    ]
    assert shown == ["1220", "9", "123.508355", "6.753355"]


def test_an_order_has_the_margin_of_a_recorded_one(market: Market) -> None:
    order = Order("o", "BTCUSDT", "Buy", D("0.01"), price=D("58000"))
    assert text(value_order(order, D(10), market)) == "58.6061"


@pytest.mark.parametrize(
    "fields", [{"reduce_only": True}, {"category": "spot"}, {"status": "Untriggered"}, {"price": D(0)}]
)
def test_orders_that_open_nothing_now_need_no_margin(market: Market, fields: dict) -> None:
    order = Order(**{"order_id": "o", "symbol": "BTCUSDT", "side": "Buy", "quantity": D(1), "price": D(1), **fields})
    assert value_order(order, D(10), market) == 0


def test_a_short_earns_when_the_mark_falls(market: Market) -> None:
    short = Position("BTCUSDT", 0, "Sell", D("0.02"), D("61950"))
    assert text(value_position(short, market).unrealised_pnl) == "10"


def test_an_inverse_position_is_valued_in_its_coin(market: Market) -> None:
    market.set_prices({"BTCUSD": D(50000)})
    held = Position("BTCUSD", 0, "Buy", D(40000), D(40000))
    figures = value_position(held, market)
    assert (text(figures.value), text(figures.unrealised_pnl)) == ("1", "0.2")


def test_the_wallet_of_the_recorded_account_adds_up(market: Market) -> None:
    market.set_prices({}, {"USDT": D("0.9996")})
    account = with_position(with_coin(Account(1), Coin("USDT", D("4999.329"))), LONG)
    account = with_order(account, Order("o", "BTCUSDT", "Buy", D("0.01"), price=D("58000")))
    wallet = value_wallet(account, market)
    assert text(wallet.total_equity) == "5006.3256684"
    assert text(wallet.total_wallet_balance) == "4997.3292684"
    assert text(wallet.total_margin_balance) == "5006.3256684"
    assert text(wallet.total_unrealised_pnl) == "8.9964"
    assert text(wallet.total_initial_margin) == "182.04160922"
    assert text(wallet.total_available) == "4824.28405918"
    assert text(wallet.total_maintenance_margin) == "6.75065366"


def test_collateral_ratios_lower_the_balance_but_not_the_equity(market: Market) -> None:
    account = with_coin(Account(1), Coin("BTC", D(1)))
    wallet = value_wallet(account, market)
    assert wallet.total_equity == market.marks["BTCUSDT"]
    assert wallet.total_margin_balance == wallet.total_wallet_balance == market.marks["BTCUSDT"] * D("0.99")


def test_a_coin_switched_off_as_collateral_is_not_available(market: Market) -> None:
    account = with_coin(Account(1), Coin("BTC", D(1), collateral_switch=False))
    wallet = value_wallet(account, market)
    assert (wallet.total_available, wallet.total_equity) == (0, market.marks["BTCUSDT"])


def test_a_debt_makes_the_equity_negative(market: Market) -> None:
    wallet = value_wallet(with_coin(Account(1), Coin("USDT", D(5), spot_borrow=D(8))), market)
    assert wallet.total_equity == -3


@pytest.mark.parametrize(
    ("value", "shown"), [("1.500", "1.5"), ("1E+3", "1000"), ("-0.0", "0"), ("1E-8", "0.00000001")]
)
def test_figures_are_written_plainly(value: str, shown: str) -> None:
    assert text(D(value)) == shown
