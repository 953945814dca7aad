"""Balance: what the whole account is worth, what of it is free, what is used as margin; all in USD."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pushserver.errors import AnswerMalformed
from pushserver.feeds.coins import coins_of, in_dollars
from pushserver.feeds.numbers import decimal_at, is_blank, rows_at
from pushserver.model import Balance

#: The coins that are margin where every position has its own, whatever markets are configured: the balance is the
#: account's, not a market's.
ISOLATED_MARGIN_COINS = frozenset({"USDT", "USDC"})


def map_balance(account: Mapping[str, Any], settle_coins: frozenset[str]) -> Balance:
    """The figures of one UNIFIED account object.

    Cross and portfolio margin give all three. Isolated margin blanks what is available and what is used; both are
    then summed over ``settle_coins`` as far as the wallet lists them.

    Raises:
        AnswerMalformed: a figure is blank or no number.
    """
    total = decimal_at(account, "totalEquity")
    if is_blank(account.get("totalAvailableBalance")) and is_blank(account.get("totalInitialMargin")):
        available, used = _isolated(account, settle_coins)
        if total and not rows_at(account, "coin"):
            raise AnswerMalformed("coin is empty although the account is worth something")
        return Balance(total, available, used)
    return Balance(total, decimal_at(account, "totalAvailableBalance"), decimal_at(account, "totalInitialMargin"))


def _isolated(account: Mapping[str, Any], settle_coins: frozenset[str]) -> tuple[Decimal, Decimal]:
    """Available and used, coin by coin.

    What locked and bonus amounts take away from the available is no margin, so the two do not add up to the equity.
    """
    available = used = Decimal(0)
    for coin in coins_of(account, settle_coins):
        margin = decimal_at(coin, "totalPositionIM") + decimal_at(coin, "totalOrderIM")
        held_back = decimal_at(coin, "locked") + decimal_at(coin, "bonus")
        available += in_dollars(decimal_at(coin, "walletBalance") - margin - held_back, coin)
        used += in_dollars(margin, coin)
    return available, used
