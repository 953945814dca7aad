"""What moves by itself, and that the same seed tells the same story."""

import random
from decimal import Decimal as D

import pytest

from pushserver.clock import ManualClock
from pushserver.exchange_sim.activity import crossed_orders
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.market import Market, walk
from pushserver.exchange_sim.run import Exchange
from pushserver.exchange_sim.valuation import value_wallet
from tests.exchange_sim.conftest import Desk


def story(seed: int, steps: int = 60, users: int = 10) -> Exchange:
    exchange = Exchange(ManualClock(), seed, users, activity_s=2.0)
    for _ in range(steps):
        exchange.step(0.5)
    return exchange


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = story(7), story(7)
    assert first.world.accounts == second.world.accounts
    assert first.world.market.marks == second.world.market.marks
    other = story(8)
    assert other.world.accounts != first.world.accounts and other.world.market.marks != first.world.market.marks


def test_a_reset_starts_the_same_story_again() -> None:
    exchange = story(7)
    desk = Desk()
    desk.exchange, desk.world = exchange, exchange.world
    before = exchange.world.accounts
    desk.done("POST", "reset", {"users": 10, "seed": 7})
    for _ in range(60):
        exchange.step(0.5)
    assert exchange.world.accounts == before


def test_everything_happens_in_a_few_minutes() -> None:
    exchange = story(3, steps=600)
    causes = {part for e in exchange.world.truth.read(0, 10**6, "change") for part in e["cause"].split(", ")}
    assert {"placed", "cancelled", "opened", "closed", "transferred", "filled"} <= causes
    for account in exchange.world.accounts.values():
        wallet = value_wallet(account, exchange.world.market)
        assert wallet.total_equity == sum(c.usd_value for c in wallet.coins.values())
        assert len(account.orders) <= 8
        coin = account.coins["USDT"]
        fees = sum(p.open_fees for p in account.positions.values())
        assert coin.cum_realised_pnl == sum(r.closed_pnl for r in account.closed) - fees


def test_frozen_means_nothing_moves() -> None:
    desk = Desk(frozen=True)
    accounts, marks, seq = dict(desk.world.accounts), dict(desk.world.market.marks), desk.world.truth.last_seq
    for _ in range(20):
        desk.exchange.step(0.5)
    assert (desk.world.accounts, desk.world.market.marks, desk.world.truth.last_seq) == (accounts, marks, seq)


def test_market_and_customers_freeze_separately() -> None:
    desk = Desk(users=30)
    desk.done("POST", "market", {"market_frozen": True})
    marks, accounts = dict(desk.world.market.marks), dict(desk.world.accounts)
    for _ in range(40):
        desk.exchange.step(0.5)
    assert desk.world.market.marks == marks and desk.world.accounts != accounts
    desk.done("POST", "market", {"market_frozen": False, "activity_frozen": True})
    accounts = dict(desk.world.accounts)
    for _ in range(40):
        desk.exchange.step(0.5)
    assert desk.world.market.marks != marks and desk.world.accounts == accounts


def test_the_walk_stays_on_the_tick_and_above_zero() -> None:
    market = Market()
    market.set_prices({"DUSTUSDT": D("0.0001")})
    chance = random.Random(1)
    for _ in range(25):
        market.set_prices(walk(market, chance, 100_000_000.0))
        for symbol, mark in market.marks.items():
            assert mark > 0
            assert market.instruments[symbol].follows or mark % market.instruments[symbol].tick_size == 0
    assert market.marks["BTCUSDT"] == market.marks["BTCUSD"] == market.marks["BTCPERP"]


@pytest.mark.parametrize(("symbol", "settle_coin"), [("XRPUSDT", "USDT"), ("XRPPERP", "USDC"), ("XRPUSD", "XRP")])
def test_a_new_symbol_becomes_a_contract(symbol: str, settle_coin: str) -> None:
    market = Market()
    assert market.set_prices({symbol: D("0.5")}) == {symbol}
    assert market.instrument(symbol).settle_coin == settle_coin


def test_orders_are_filled_when_the_mark_reaches_them(desk: Desk) -> None:
    orders = [
        {"order_id": "limit", "symbol": "BTCUSDT", "side": "Buy", "quantity": "0.1", "price": "60000"},
        {"order_id": "stop", "symbol": "BTCUSDT", "side": "Sell", "quantity": "0.1", "order_type": "Market",
         "status": "Untriggered", "trigger_price": "59000", "trigger_direction": 2},
        {"order_id": "reduce", "symbol": "ETHUSDT", "side": "Sell", "quantity": "1", "price": "3000",
         "reduce_only": True},
    ]  # fmt: skip
    desk.done("PUT", "accounts/1", {"wallet": {"USDT": 10000}, "orders": orders})
    assert [o.order_id for o in crossed_orders(desk.world.accounts[1], desk.world.market)] == ["reduce"]
    desk.done("POST", "market", {"marks": {"BTCUSDT": 58000}, "activity_frozen": False})
    desk.exchange.step(0.0)
    account = desk.world.accounts[1]
    assert account.orders == {} and account.position("BTCUSDT", 0).size == 0
    assert {o.order_id: o.status for o in account.recent_orders} == {
        "limit": "Filled",
        "stop": "Filled",
        "reduce": "Cancelled",
    }
    assert account.closed[0].avg_exit_price == 58000


def test_seeded_users_show_every_margin_mode() -> None:
    accounts = Desk(users=10).world.accounts
    assert {user: a.margin_mode for user, a in accounts.items() if a.margin_mode != "REGULAR_MARGIN"} == {
        5: "ISOLATED_MARGIN",
        8: "PORTFOLIO_MARGIN",
    }
    assert [user for user, a in accounts.items() if a.hedge] == [6]
    assert all(any(p.size for p in a.positions.values()) and a.orders and a.closed for a in accounts.values())


def test_demo_credentials_are_the_same_everywhere() -> None:
    assert demo_credentials(1)[0] == "sim-key-00001" and demo_credentials(12345)[0] == "sim-key-12345"
    assert demo_credentials(1)[1] != demo_credentials(2)[1] and len(demo_credentials(1)[1]) == 36
    assert Desk(seed=9).world.keys["sim-key-00002"].secret == demo_credentials(2)[1]
    with pytest.raises(ValueError, match="numbered"):
        demo_credentials(0)
