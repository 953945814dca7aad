"""The endpoints: parameters in, ``result`` out. Refusals for bad parameters are 10001, as Bybit's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pushserver.exchange_sim import answers, refusals
from pushserver.exchange_sim.accounts import Account, ApiKey, Position
from pushserver.exchange_sim.market import Instrument
from pushserver.exchange_sim.paging import CLOSED_ROWS, ORDERS, POSITIONS, cut_page
from pushserver.exchange_sim.refusals import Refusal
from pushserver.exchange_sim.world import World

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
FUNDING_INTERVAL_MS = 8 * 3_600_000

ANY_RIGHT = ("*", "*")
ANY_KEY = ("", "")


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose sender is known. ``key`` and ``account`` are None on public endpoints."""

    world: World
    params: dict[str, str]
    key: ApiKey | None
    account: Account | None
    now_ms: int

    @property
    def owner(self) -> Account:
        assert self.account is not None, "a private endpoint is called with an account"
        return self.account


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``limit_per_s`` None means public: no key, no limit but the address's.

    ``permission`` is (group, right) for contracts; ANY_RIGHT asks for some right, ANY_KEY for none.
    """

    path: str
    handle: Callable[[Call], dict[str, Any]]
    limit_per_s: int | None = 50
    permission: tuple[str, str] = ANY_RIGHT
    success_text: str = "OK"


def bad(message: str) -> Refusal:
    return Refusal(refusals.BAD_PARAMETER, f"params error: {message}")


def category_of(call: Call, allowed: tuple[str, ...]) -> str:
    category = call.params.get("category", "")
    if category not in allowed:
        raise bad("Category is invalid")
    return category


def number_of(call: Call, name: str, default: int, least: int, most: int) -> int:
    written = call.params.get(name, "")
    if not written:
        return default
    if not (written.isascii() and written.isdigit() and least <= int(written) <= most):
        raise bad(f"{name} must be a number from {least} to {most}")
    return int(written)


def market_time(call: Call) -> dict[str, Any]:
    return {"timeSecond": str(call.now_ms // 1000), "timeNano": str(call.now_ms * 1_000_000)}


def tickers(call: Call) -> dict[str, Any]:
    category = category_of(call, ("spot", "linear", "inverse", "option"))
    symbol = call.params.get("symbol", "")
    market = call.world.market
    wanted = [i for i in market.instruments.values() if i.category == category and symbol in ("", i.symbol)]
    if symbol and not wanted:
        raise bad("symbol invalid")
    next_funding_ms = (call.now_ms // FUNDING_INTERVAL_MS + 1) * FUNDING_INTERVAL_MS
    return {"category": category, "list": [answers.ticker_row(i, market, next_funding_ms) for i in wanted]}


def wallet_balance(call: Call) -> dict[str, Any]:
    if call.params.get("accountType") != "UNIFIED":
        raise Refusal(refusals.BAD_PARAMETER, "accountType only support UNIFIED.")
    coins = call.params.get("coin", "")
    if coins and not all(name.isalnum() and name == name.upper() for name in coins.split(",")):
        raise bad("coin must be upper case, separated by commas")
    only = frozenset(coins.split(",")) if coins else None
    return {"list": [answers.wallet_row(call.owner, call.world.market, only)]}


def account_info(call: Call) -> dict[str, Any]:
    return {
        "marginMode": call.owner.margin_mode,
        "unifiedMarginStatus": call.owner.unified_margin_status,
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
        "updatedTime": str(call.owner.updated_ms),
        "dcpStatus": "OFF",
        "timeWindow": 0,
        "smpGroup": 0,
    }


def position_list(call: Call) -> dict[str, Any]:
    category = category_of(call, ("linear", "inverse", "option"))
    symbol, settle_coin = call.params.get("symbol", ""), call.params.get("settleCoin", "")
    limit = number_of(call, "limit", 20, 1, 200)
    market = call.world.market
    if category == "linear" and not (symbol or settle_coin):
        raise bad("Missing some parameters that must be filled in, symbol or settleCoin")
    rows: list[Position]
    if symbol:
        instrument = market.instruments.get(symbol)
        if instrument is None or instrument.category != category:
            raise bad("symbol invalid")
        rows = legs_of(call.owner, instrument)
    else:
        rows = [
            position
            for position in call.owner.positions.values()
            if position.size and belongs(market.instruments[position.symbol], category, settle_coin)
        ]
    page, cursor = cut_page(POSITIONS.sort(rows), POSITIONS, limit, call.params.get("cursor", ""))
    shown = [answers.position_row(call.owner, position, market) for position in page]
    return {"category": category, "nextPageCursor": cursor, "list": shown}


def legs_of(account: Account, instrument: Instrument) -> list[Position]:
    """All legs of one symbol, the flat ones included, as asking by symbol shows them."""
    hedged = account.hedge and instrument.settle_coin == "USDT"
    indexes = {1, 2} if hedged else {0}
    indexes |= {idx for (symbol, idx), held in account.positions.items() if symbol == instrument.symbol and held.size}
    return [account.position(instrument.symbol, position_idx) for position_idx in indexes]


def belongs(instrument: Instrument, category: str, settle_coin: str) -> bool:
    return instrument.category == category and settle_coin in ("", instrument.settle_coin)


def closed_pnl(call: Call) -> dict[str, Any]:
    category = category_of(call, ("linear", "inverse"))
    symbol = call.params.get("symbol", "")
    limit = number_of(call, "limit", 50, 1, 100)
    start_ms, end_ms = time_span(call)
    rows = [
        row
        for row in call.owner.closed
        if row.category == category and symbol in ("", row.symbol) and start_ms <= row.updated_ms <= end_ms
    ]
    page, cursor = cut_page(CLOSED_ROWS.sort(rows), CLOSED_ROWS, limit, call.params.get("cursor", ""))
    return {"category": category, "nextPageCursor": cursor, "list": [answers.closed_row(row) for row in page]}


def time_span(call: Call) -> tuple[int, int]:
    """``startTime`` and ``endTime``: at most seven days; a missing end lies seven days from the other."""
    start_ms = number_of(call, "startTime", -1, 0, 10**15)
    end_ms = number_of(call, "endTime", -1, 0, 10**15)
    if start_ms < 0 and end_ms < 0:
        return call.now_ms - WEEK_MS, call.now_ms
    if start_ms < 0:
        return end_ms - WEEK_MS, end_ms
    if end_ms < 0:
        return start_ms, start_ms + WEEK_MS
    if not 0 <= end_ms - start_ms <= WEEK_MS:
        raise bad("The time range between startTime and endTime cannot exceed 7 days")
    return start_ms, end_ms


def order_realtime(call: Call) -> dict[str, Any]:
    category = category_of(call, ("spot", "linear", "inverse", "option"))
    params = call.params
    market = call.world.market
    if category == "linear" and not any(params.get(name) for name in ("symbol", "baseCoin", "settleCoin")):
        raise bad("Missing some parameters that must be filled in, symbol or settleCoin or baseCoin")
    if params.get("openOnly", "0") not in ("0", "1"):
        raise bad("openOnly is 0 or 1")
    limit = number_of(call, "limit", 20, 1, 50)
    orders = [*call.owner.orders.values()]
    if params.get("openOnly") == "1":
        orders += call.owner.recent_orders

    def wanted(symbol: str, order_id: str, order_link_id: str, order_category: str) -> bool:
        if order_category != category:
            return False
        if params.get("orderId"):
            return order_id == params["orderId"]
        if params.get("orderLinkId"):
            return order_link_id == params["orderLinkId"]
        if params.get("symbol"):
            return symbol == params["symbol"]
        instrument = market.instruments.get(symbol)
        settle_coin, base_coin = params.get("settleCoin", ""), params.get("baseCoin", "")
        if instrument is None or category == "spot":
            return True
        return settle_coin in ("", instrument.settle_coin) and base_coin in ("", instrument.base_coin)

    rows = ORDERS.sort([o for o in orders if wanted(o.symbol, o.order_id, o.order_link_id, o.category)])
    page, cursor = cut_page(rows, ORDERS, limit, params.get("cursor", ""))
    return {"category": category, "nextPageCursor": cursor, "list": [answers.order_row(order) for order in page]}


def query_api(call: Call) -> dict[str, Any]:
    key = call.key
    assert key is not None, "query-api is private"
    groups = (
        "ContractTrade",
        "Spot",
        "Wallet",
        "Options",
        "Derivatives",
        "CopyTrading",
        "BlockTrade",
        "Exchange",
        "NFT",
    )
    # Keys bound to addresses do not expire: Bybit shows that as a date in 1970 and a negative number of days.
    expires_ms = None if key.ips else key.expires_ms
    return {
        "id": str(1_000_000 + key.user),
        "note": key.note,
        "apiKey": key.api_key,
        "readOnly": 1 if key.read_only else 0,
        "secret": "",
        "permissions": {group: list(key.permissions.get(group, ())) for group in groups},
        "ips": list(key.ips) or ["*"],
        "type": 1,
        "deadlineDay": -2 if expires_ms is None else (expires_ms - call.now_ms) // DAY_MS,
        "expiredAt": iso(expires_ms or 0),
        "createdAt": iso(key.created_ms),
        "unified": 0,
        "uta": 1,
        "userID": key.user,
        "inviterID": 0,
        "vipLevel": "No VIP",
        "mktMakerLevel": "0",
        "affiliateID": 0,
        "rsaPublicKey": "",
        "isMaster": True,
        "parentUid": "0",
        "kycLevel": "LEVEL_DEFAULT",
        "kycRegion": "",
    }


def iso(stamp_ms: int) -> str:
    return datetime.fromtimestamp(stamp_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/v5/market/time", market_time, limit_per_s=None),
        Endpoint("/v5/market/tickers", tickers, limit_per_s=None),
        Endpoint("/v5/account/wallet-balance", wallet_balance),
        Endpoint("/v5/account/info", account_info, success_text=""),
        Endpoint("/v5/position/list", position_list, permission=("ContractTrade", "Position")),
        Endpoint("/v5/position/closed-pnl", closed_pnl, permission=("ContractTrade", "Position")),
        Endpoint("/v5/order/realtime", order_realtime, permission=("ContractTrade", "Order")),
        Endpoint("/v5/user/query-api", query_api, limit_per_s=10, permission=ANY_KEY, success_text=""),
    )
}
