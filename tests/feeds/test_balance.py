"""Balance out of wallets in every margin mode."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pushserver.errors import AnswerMalformed
from pushserver.feeds.balance import map_balance
from pushserver.model import Balance

Account = Callable[[str], dict[str, Any]]
USDT = frozenset({"USDT"})
BOTH = frozenset({"USDT", "USDC"})


def test_cross_margin_gives_the_account_s_own_totals(account: Account) -> None:
    assert map_balance(account("wallet_cross"), USDT) == Balance(
        Decimal("8076.3256684"), Decimal("7793.58405918"), Decimal("182.04160922")
    )


def test_portfolio_margin_blanks_the_coins_only(account: Account) -> None:
    assert map_balance(account("wallet_portfolio_margin"), USDT) == Balance(
        Decimal("19990"), Decimal("18200.5"), Decimal("1789.5")
    )


def test_isolated_margin_sums_the_coins_in_dollars(account: Account) -> None:
    # (2002 - 150 - 50 - 100 - 2) and (150 + 50) USDT, at 1998 dollars for 2000 of them.
    rate = Decimal("1998") / Decimal("2000")
    expected = Balance(Decimal("2997"), 1700 * rate, 200 * rate)
    assert map_balance(account("wallet_isolated"), USDT) == expected


def test_isolated_margin_sums_all_settle_coins_of_the_wallet(account: Account) -> None:
    assert map_balance(account("wallet_isolated"), BOTH).available_balance == Decimal("1698.3") + 999


def test_isolated_margin_without_the_settle_coin_has_nothing_there(account: Account) -> None:
    wallet = account("wallet_isolated")
    assert map_balance(wallet, frozenset({"USDE"})) == Balance(Decimal("2997"), Decimal(0), Decimal(0))


def test_a_debt_is_a_negative_figure(account: Account) -> None:
    wallet = account("wallet_cross") | {"totalEquity": "-12.5", "totalAvailableBalance": "-20"}
    assert map_balance(wallet, USDT).total_balance == Decimal("-12.5")


def test_H06_a_wallet_never_used_is_no_zero(account: Account) -> None:
    with pytest.raises(AnswerMalformed):
        map_balance(account("wallet_never_used"), USDT)


@pytest.mark.parametrize("blank", ["", None, "missing", "NaN", True, [], "1,0"])
@pytest.mark.parametrize("field", ["totalEquity", "totalAvailableBalance", "totalInitialMargin"])
def test_H06_a_blank_total_is_a_failed_fetch(account: Account, field: str, blank: Any) -> None:
    wallet = account("wallet_cross") | {field: blank}
    if blank == "missing":
        del wallet[field]
    with pytest.raises(AnswerMalformed):
        map_balance(wallet, USDT)


@pytest.mark.parametrize("blank", ["", None, "missing", "\x00", True, []])
@pytest.mark.parametrize(
    "field", ["walletBalance", "totalPositionIM", "totalOrderIM", "locked", "bonus", "equity", "usdValue", "coin"]
)
def test_H06_a_blank_of_a_coin_is_a_failed_fetch_under_isolated_margin(
    account: Account, field: str, blank: Any
) -> None:
    wallet = account("wallet_isolated")
    coin = dict(wallet["coin"][0]) | {field: blank}
    if blank == "missing":
        del coin[field]
    with pytest.raises(AnswerMalformed):
        map_balance(wallet | {"coin": [coin]}, USDT)


@pytest.mark.parametrize("coins", [None, "missing", [], {}, "x", [None], [[]]])
def test_H06_isolated_margin_without_coins_is_a_failed_fetch(account: Account, coins: Any) -> None:
    wallet = account("wallet_isolated") | {"coin": coins}
    if coins == "missing":
        del wallet["coin"]
    with pytest.raises(AnswerMalformed):
        map_balance(wallet, USDT)


def test_H06_a_coin_listed_twice_is_a_failed_fetch(account: Account) -> None:
    wallet = account("wallet_isolated")
    with pytest.raises(AnswerMalformed):
        map_balance(wallet | {"coin": wallet["coin"] * 2}, USDT)


def test_a_coin_that_is_worth_nothing_has_no_rate_and_needs_none(account: Account) -> None:
    wallet = account("wallet_isolated")
    figures = ("equity", "usdValue", "walletBalance", "locked", "bonus", "totalPositionIM", "totalOrderIM")
    nothing = dict.fromkeys(figures, "0")
    coin = dict(wallet["coin"][0]) | nothing
    assert map_balance(wallet | {"coin": [coin]}, USDT).available_balance == 0
    with pytest.raises(AnswerMalformed):
        map_balance(wallet | {"coin": [coin | {"walletBalance": "5"}]}, USDT)
