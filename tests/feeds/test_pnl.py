"""Realised, today, open and total."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pushserver.errors import AnswerMalformed
from pushserver.feeds.coins import settle_coins
from pushserver.feeds.pnl import map_pnl, realized
from pushserver.model import Market, Pnl
from tests.feeds.today import closed_today

Account = Callable[[str], dict[str, Any]]
Rows = Callable[[str], list[dict[str, Any]]]
USDT = frozenset({"USDT"})
#: 00:00 UTC of the day of ``closed_pnl_two_days``.
MIDNIGHT_MS = 1_766_966_400_000


def test_realised_is_the_settle_coin_s_own_figure(account: Account) -> None:
    assert realized(account("wallet_cross"), USDT) == Decimal("-12.4410")
    assert realized(account("wallet_isolated"), USDT) == Decimal("77.5")
    assert realized(account("wallet_portfolio_margin"), USDT) == Decimal("311.125")


def test_realised_of_an_inverse_coin_counts_at_the_wallet_s_rate(account: Account) -> None:
    # 0.0004 BTC at 3070 dollars for 0.05.
    assert realized(account("wallet_cross"), frozenset({"USDT", "BTC"})) == Decimal("-12.4410") + Decimal("24.56")


def test_a_settle_coin_that_is_not_in_the_wallet_has_realised_nothing(account: Account) -> None:
    assert realized(account("wallet_cross"), frozenset({"USDC"})) == 0


def test_H06_a_wallet_never_used_has_no_realised_pnl(account: Account) -> None:
    with pytest.raises(AnswerMalformed):
        realized(account("wallet_never_used"), USDT)


@pytest.mark.parametrize("blank", ["", None, "missing", "NaN"])
def test_H06_a_blank_of_a_settle_coin_is_a_failed_fetch_and_of_another_is_none(account: Account, blank: Any) -> None:
    wallet = account("wallet_cross")
    usdt, btc = dict(wallet["coin"][0]), dict(wallet["coin"][1])
    for coin in (usdt, btc):
        coin["cumRealisedPnl"] = blank
        if blank == "missing":
            del coin["cumRealisedPnl"]
    assert realized(wallet | {"coin": [wallet["coin"][0], btc]}, USDT) == Decimal("-12.4410")
    with pytest.raises(AnswerMalformed):
        realized(wallet | {"coin": [usdt, wallet["coin"][1]]}, USDT)


def test_today_counts_from_midnight_and_a_repeated_row_once(rows: Rows) -> None:
    # 3.3323 (twice in the list), -1.5 at midnight itself, 0.25 stamped in nanoseconds, -0.0823 stamped as a number.
    expected = Decimal("3.3323") - Decimal("1.5") + Decimal("0.25") - Decimal("0.0823")
    assert closed_today(rows("closed_pnl_two_days"), MIDNIGHT_MS, {}) == expected


def test_two_different_rows_of_one_order_both_count(rows: Rows) -> None:
    row = rows("closed_pnl_two_days")[0]
    assert closed_today([row, row | {"closedPnl": "1"}], MIDNIGHT_MS, {}) == Decimal("4.3323")


def test_nothing_closed_is_nought() -> None:
    assert closed_today([], MIDNIGHT_MS, {}) == 0


def test_an_inverse_row_counts_at_the_mark(rows: Rows) -> None:
    row = rows("closed_pnl_two_days")[0] | {"category": "inverse", "symbol": "BTCUSD", "closedPnl": "-0.001"}
    assert closed_today([row], MIDNIGHT_MS, {"BTCUSD": Decimal("61450")}) == Decimal("-61.45")
    with pytest.raises(AnswerMalformed):
        closed_today([row], MIDNIGHT_MS, {})
    assert closed_today([row | {"closedPnl": "0"}], MIDNIGHT_MS, {}) == 0


@pytest.mark.parametrize("blank", ["", None, "missing", "NaN", True])
@pytest.mark.parametrize("field", ["closedPnl", "updatedTime"])
def test_H06_a_blank_of_a_closed_row_is_a_failed_fetch(rows: Rows, field: str, blank: Any) -> None:
    row = rows("closed_pnl_two_days")[0] | {field: blank}
    if blank == "missing":
        del row[field]
    with pytest.raises(AnswerMalformed):
        closed_today([row], MIDNIGHT_MS, {})


def test_open_pnl_is_the_sum_of_the_positions_and_total_adds_what_was_realised(rows: Rows) -> None:
    assert map_pnl(Decimal("-12.4410"), Decimal("2"), rows("positions_hedge")) == Pnl(
        total_pnl=Decimal("425.584"),
        today_pnl=Decimal("2"),
        unrealized_pnl=Decimal("438.025"),
        realized_pnl=Decimal("-12.4410"),
    )


def test_flat_rows_add_nothing(rows: Rows) -> None:
    assert map_pnl(Decimal(5), Decimal(0), rows("positions_flat_rows")).total_pnl == 5


def test_an_open_inverse_position_counts_at_its_own_mark(rows: Rows) -> None:
    pnl = map_pnl(Decimal(0), Decimal(0), rows("positions_inverse"))
    assert pnl.unrealized_pnl == Decimal("-0.00039328") * 61450


def test_H06_a_blank_open_pnl_is_a_failed_fetch(rows: Rows) -> None:
    with pytest.raises(AnswerMalformed):
        map_pnl(Decimal(0), Decimal(0), [rows("positions_one_way")[0] | {"unrealisedPnl": ""}])


def test_markets_settle_in_their_coins() -> None:
    assert settle_coins([Market("linear", "USDT")]) == {"USDT"}
    assert settle_coins([Market("linear", "USDT"), Market("linear", "USDC"), Market("spot")]) == {"USDT", "USDC"}
    assert {"BTC", "ETH"} <= settle_coins([Market("inverse")])
    assert settle_coins([Market("option")]) == {"USDT", "USDC"}
