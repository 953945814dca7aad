"""The wallet's coins: which of them settle the configured markets, and what they are worth in dollars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pushserver.errors import AnswerMalformed
from pushserver.feeds.numbers import decimal_at, rows_at, text_at
from pushserver.model import Market

#: Coins that stand for a dollar: their figures are dollars as they are.
DOLLAR_COINS = frozenset({"USD", "USDT", "USDC", "USDE"})
#: Inverse contracts settle in the coin they are about; these are the ones Bybit has had contracts on.
INVERSE_COINS = frozenset({"BTC", "ETH", "EOS", "XRP", "DOT", "ADA", "LTC", "MANA", "SOL", "BIT", "MNT", "DOGE"})


def settle_coins(markets: Iterable[Market]) -> frozenset[str]:
    """The coins in which profit and loss of these markets is booked; spot has none."""
    coins: set[str] = set()
    for market in markets:
        if market.settle_coin:
            coins.add(market.settle_coin)
        elif market.category == "inverse":
            coins |= INVERSE_COINS
        elif market.category == "option":
            coins |= {"USDT", "USDC"}
    return frozenset(coins)


def coins_of(account: Mapping[str, Any], settle_coins: frozenset[str]) -> tuple[Mapping[str, Any], ...]:
    """The account's rows for these coins. A coin without assets or debts is not listed, so none is possible.

    Raises:
        AnswerMalformed: the list is missing, a row is no coin, or a coin is listed twice.
    """
    rows = rows_at(account, "coin")
    names = [text_at(row, "coin") for row in rows]
    if len(set(names)) != len(names):
        raise AnswerMalformed("coin is listed twice")
    return tuple(row for row, name in zip(rows, names, strict=True) if name in settle_coins)


def in_dollars(amount: Decimal, coin: Mapping[str, Any]) -> Decimal:
    """``amount`` of a coin at the rate the wallet itself uses.

    Raises:
        AnswerMalformed: the row holds no rate, since nothing of the coin is left, and the amount is not zero.
    """
    if amount == 0:
        return Decimal(0)
    equity = decimal_at(coin, "equity")
    if equity == 0:
        raise AnswerMalformed("equity is zero, so the coin has no rate")
    return amount * decimal_at(coin, "usdValue") / equity
