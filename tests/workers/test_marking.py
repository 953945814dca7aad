"""Figures recomputed from mark prices against the exchange's own, for accounts and markets of every kind."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushserver.events import encode_data
from pushserver.exchange_sim.accounts import Account, Coin
from pushserver.exchange_sim.accounts import Position as SimPosition
from pushserver.exchange_sim.answers import position_row, wallet_row
from pushserver.exchange_sim.changes import with_coin, with_position
from pushserver.exchange_sim.figures import figures_of
from pushserver.exchange_sim.market import Market as SimMarket
from pushserver.feeds.balance import ISOLATED_MARGIN_COINS, map_balance
from pushserver.feeds.pnl import map_pnl
from pushserver.model import DataType, Market
from pushserver.workers.figures import Figures
from pushserver.workers.mark_bases import balance_base, base_from_bytes, pnl_base, positions_base, settle_coin
from pushserver.workers.marking import Book

NOW_MS = 1_767_268_800_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FIGURES = Figures([Market("linear", "USDT")])


def rows_of(account: Account, market: SimMarket):
    """The positions as our own exchange layer hands them on."""
    return [
        {**position_row(account, position, market), "category": market.instruments[position.symbol].category}
        for position in account.positions.values()
    ]


def told(
    account: Account, market: SimMarket, as_of_ms: int = NOW_MS, trace: str | None = None
) -> dict[DataType, bytes]:
    """The bases that a round would store."""
    rows, wallet = rows_of(account, market), wallet_row(account, market, None)
    trace = trace or FIGURES.positions_trace(rows)
    pnl = map_pnl(FIGURES.realized([wallet]), Decimal(0), rows)
    balance = map_balance(wallet, ISOLATED_MARGIN_COINS)
    return {
        DataType.POSITIONS: positions_base(rows, as_of_ms, trace),
        DataType.PNL: pnl_base(pnl, rows, as_of_ms, trace),
        DataType.BALANCE: balance_base(balance, wallet, as_of_ms, trace),
    }


def book_of(bases: dict[DataType, bytes], book: Book | None = None) -> Book:
    book = book or Book()
    for data_type, raw in bases.items():
        base = base_from_bytes(data_type, raw)
        assert base is not None
        book = book.replaced(base)
    return book


def account_of(*positions: SimPosition, wallet: str = "10000", **fields: object) -> Account:
    account = with_coin(Account(user=4, **fields), Coin("USDT", Decimal(wallet)))  # type: ignore[arg-type]
    for position in positions:
        account = with_position(account, position)
    return account


LONG = SimPosition("BTCUSDT", 0, "Buy", Decimal("0.5"), Decimal("61000.5"))
SHORT = SimPosition("ETHUSDT", 0, "Sell", Decimal("3.25"), Decimal("3100"))


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    hedge = draw(st.booleans())
    account = account_of(
        wallet=str(draw(st.integers(10_000, 1_000_000))),
        hedge=hedge,
        margin_mode=draw(st.sampled_from(["REGULAR_MARGIN", "ISOLATED_MARGIN", "PORTFOLIO_MARGIN"])),
    )
    market = SimMarket()
    for symbol in draw(st.sets(st.sampled_from(SYMBOLS))):
        for index in draw(st.sampled_from([(1,), (2,), (1, 2)])) if hedge else (0,):
            side = {1: "Buy", 2: "Sell"}.get(index) or draw(st.sampled_from(["Buy", "Sell"]))
            entry = market.marks[symbol] * draw(st.decimals("0.7", "1.3", places=4))
            value = Decimal(draw(st.integers(50, 20_000)))
            size = (value / entry).quantize(market.instruments[symbol].quantity_step) + Decimal("0.1")
            account = with_position(account, SimPosition(symbol, index, side, size, entry.quantize(Decimal("0.01"))))
    return account


moves = st.fixed_dictionaries({symbol: st.decimals("0.95", "1.05", places=5) for symbol in SYMBOLS})


def close(ours: Decimal, theirs: str, scale: Decimal) -> bool:
    """Within 0.1 % of the exchange's figure; figures near zero are differences of larger ones, which set the scale."""
    return abs(ours - Decimal(theirs)) <= max(abs(Decimal(theirs)), scale) / 1000


@settings(max_examples=150, deadline=None)
@given(account=accounts(), moved=moves)
def test_figures_after_any_move_are_the_exchanges_own(account, moved) -> None:
    market = SimMarket()
    book = book_of(told(account, market))
    assert book.is_complete
    assert book.is_whole
    used_then = wallet_row(account, market, None)["totalInitialMargin"] or "0"
    market.set_prices({symbol: market.marks[symbol] * factor for symbol, factor in moved.items()})
    theirs = figures_of(account, market, NOW_MS)

    positions = book.figures(DataType.POSITIONS, market.marks)
    assert [
        {name: Decimal(str(value)) if name not in ("symbol", "side") else value for name, value in asdict(row).items()}
        for row in positions
    ] == [
        {name: Decimal(value) if name not in ("symbol", "side") else value for name, value in row.items()}
        for row in theirs["positions"]
    ]
    pnl = book.figures(DataType.PNL, market.marks)
    assert pnl.unrealized_pnl == Decimal(theirs["pnl"]["unrealized_pnl"])
    assert pnl.total_pnl == Decimal(theirs["pnl"]["total_pnl"])
    balance = book.figures(DataType.BALANCE, market.marks)
    assert close(balance.total_balance, theirs["balance"]["total_balance"], Decimal(0))
    if account.margin_mode != "ISOLATED_MARGIN":
        # What is used as margin stays until the next answer, so it is taken as it was.
        used_since = Decimal(theirs["balance"]["used_margin"]) - Decimal(used_then)
        available = Decimal(theirs["balance"]["available_balance"]) + used_since
        assert close(balance.available_balance, str(available), balance.total_balance)


@settings(max_examples=60, deadline=None)
@given(account=accounts())
def test_at_the_marks_of_the_answer_the_figures_are_the_answers_to_the_digit(account) -> None:
    market = SimMarket()
    book = book_of(told(account, market))
    rows, wallet = rows_of(account, market), wallet_row(account, market, None)
    expected = {
        DataType.POSITIONS: FIGURES.positions(rows),
        DataType.PNL: map_pnl(FIGURES.realized([wallet]), Decimal(0), rows),
        DataType.BALANCE: map_balance(wallet, ISOLATED_MARGIN_COINS),
    }
    for data_type, data in expected.items():
        assert encode_data(book.figures(data_type, market.marks)) == encode_data(data)


def test_without_positions_nothing_moves_and_all_is_known() -> None:
    market = SimMarket()
    book = book_of(told(account_of(), market))
    assert (book.symbols, book.is_complete, book.is_whole) == (frozenset(), True, True)
    assert book.figures(DataType.POSITIONS, {}) == ()


def test_inverse_rows_stay_as_they_were_told_and_the_book_says_that_it_is_not_complete() -> None:
    market = SimMarket()
    account = with_coin(account_of(LONG), Coin("BTC", Decimal("0.1")))
    account = with_position(account, SimPosition("BTCUSD", 0, "Buy", Decimal(1000), Decimal(60000)))
    book = book_of(told(account, market))
    assert (book.is_complete, book.is_whole, book.symbols) == (False, False, {"BTCUSDT"})
    before = {row.symbol: row for row in book.figures(DataType.POSITIONS, market.marks)}
    pnl_before = book.figures(DataType.PNL, market.marks)
    after = {row.symbol: row for row in book.figures(DataType.POSITIONS, {"BTCUSDT": Decimal(62000)})}
    assert after["BTCUSD"] == before["BTCUSD"]
    change = after["BTCUSDT"].unrealized_pnl - before["BTCUSDT"].unrealized_pnl
    assert change == (Decimal(62000) - market.marks["BTCUSDT"]) * LONG.size
    pnl = book.figures(DataType.PNL, {"BTCUSDT": Decimal(62000)})
    assert pnl.unrealized_pnl - pnl_before.unrealized_pnl == change


def test_a_wallet_with_coins_that_move_by_themselves_is_not_whole() -> None:
    account = with_coin(account_of(LONG), Coin("BTC", Decimal("0.1")))
    book = book_of(told(account, SimMarket()))
    assert (book.is_complete, book.is_whole) == (True, False)


def test_what_is_available_moves_in_cross_margin_and_not_in_isolated_margin() -> None:
    for mode, moves_by in (("REGULAR_MARGIN", 500), ("ISOLATED_MARGIN", 0)):
        market = SimMarket()
        book = book_of(told(account_of(LONG, margin_mode=mode), market))
        before = book.figures(DataType.BALANCE, market.marks)
        after = book.figures(DataType.BALANCE, {"BTCUSDT": market.marks["BTCUSDT"] + 1000})
        assert after.total_balance - before.total_balance == 500
        assert after.available_balance - before.available_balance == moves_by
        assert after.used_margin == before.used_margin


def test_a_coin_that_is_not_worth_a_dollar_counts_at_the_wallets_rate() -> None:
    market = SimMarket()
    market.set_prices({}, {"USDT": Decimal("0.99")})
    book = book_of(told(account_of(LONG), market))
    before = book.figures(DataType.BALANCE, market.marks)
    after = book.figures(DataType.BALANCE, {"BTCUSDT": market.marks["BTCUSDT"] + 1000})
    assert after.total_balance - before.total_balance == Decimal("495.00")


def test_a_balance_of_other_holdings_than_the_positions_is_left_alone() -> None:
    market = SimMarket()
    book = book_of(told(account_of(LONG, SHORT), market))
    closed = told(account_of(LONG), market, NOW_MS + 1_000)
    del closed[DataType.BALANCE], closed[DataType.PNL]
    book = book_of(closed, book)
    # The pnl's own holdings are still those of the wallet.
    assert DataType.BALANCE in book.types()
    book = book.without(DataType.PNL)
    assert (book.types(), book.is_whole) == ((DataType.POSITIONS,), False)


def test_an_older_base_never_replaces_a_newer_one() -> None:
    market = SimMarket()
    book = book_of(told(account_of(LONG), market, NOW_MS))
    assert book_of(told(account_of(LONG, SHORT), market, NOW_MS), book) is book
    assert book_of(told(account_of(LONG, SHORT), market, NOW_MS + 1), book).symbols == {"BTCUSDT", "ETHUSDT"}


def test_an_entry_price_that_does_not_explain_the_pnl_leaves_only_the_change() -> None:
    row = {
        "category": "linear", "symbol": "BTCUSDT", "positionIdx": 0, "side": "Sell", "size": "2", "avgPrice": "100",
        "markPrice": "101", "unrealisedPnl": "5",
    }  # fmt: skip
    book = Book().replaced(base_from_bytes(DataType.POSITIONS, positions_base([row], NOW_MS, "x")))
    [position] = book.figures(DataType.POSITIONS, {"BTCUSDT": Decimal(102)})
    assert position.unrealized_pnl == 3


def test_a_wallet_without_open_pnl_per_coin_has_no_base() -> None:
    market = SimMarket()
    wallet = wallet_row(account_of(LONG), market, None)
    balance = map_balance(wallet, ISOLATED_MARGIN_COINS)
    assert balance_base(balance, wallet, NOW_MS, None) == b""
    wallet["coin"][0]["unrealisedPnl"] = ""
    assert balance_base(balance, wallet, NOW_MS, "trace") == b""


@pytest.mark.parametrize(
    ("category", "symbol", "coin"),
    [
        ("linear", "BTCUSDT", "USDT"), ("linear", "BTCUSDT-26DEC25", "USDT"), ("linear", "BTCPERP", "USDC"),
        ("linear", "BTC-26DEC25", "USDC"), ("inverse", "BTCUSD", ""), ("option", "BTC-26DEC25-90000-C-USDT", ""),
        ("linear", "NEWCOIN", ""), (None, "BTCUSDT", ""),
    ],
)  # fmt: skip
def test_the_coin_a_contract_is_settled_in_follows_from_its_name(category, symbol, coin) -> None:
    assert settle_coin(category, symbol) == coin


@pytest.mark.parametrize("data_type", list(DataType))
def test_damaged_bases_count_as_none(data_type) -> None:
    whole = told(account_of(LONG, SHORT), SimMarket()).get(data_type, b"[1]")
    assert data_type is DataType.ORDERS or base_from_bytes(data_type, whole) is not None
    damaged = [whole[:cut] for cut in range(0, len(whole), 3)]
    damaged += [whole.replace(b'"0.5"', b'"NaN"'), whole.replace(b'"Buy"', b'"both"'), b"[]", b"{}", b"null", b'"xyz"']
    damaged += [
        b'[1,"t",[["a","Buy","1","1","1","1",5]]]',
        b'["1","t",[]]',
        b"\xff" * 40,
        whole.replace(b'"0', b'"1e99'),
    ]
    for raw in damaged:
        if raw != whole:
            assert base_from_bytes(data_type, raw) is None
