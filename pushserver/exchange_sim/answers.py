"""The rows of Bybit's answers, made from the account: the only place that knows Bybit's field names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pushserver.exchange_sim.accounts import Account, ClosedRow, Coin, Order, Position
from pushserver.exchange_sim.market import Instrument, Market
from pushserver.exchange_sim.money import ONE, ZERO, rounded, text
from pushserver.exchange_sim.valuation import CoinFigures, WalletFigures, value_position, value_wallet

Row = dict[str, Any]

#: What isolated margin leaves blank on the account level.
BLANK_WHEN_ISOLATED = (
    "accountIMRate",
    "accountIMRateByMp",
    "accountMMRate",
    "accountMMRateByMp",
    "accountLTV",
    "totalMarginBalance",
    "totalAvailableBalance",
    "totalInitialMargin",
    "totalInitialMarginByMp",
    "totalMaintenanceMargin",
    "totalMaintenanceMarginByMp",
)
BLANK_COIN_FIELDS_OF_PORTFOLIO_MARGIN = ("totalOrderIM", "totalPositionIM", "totalPositionMM")
BLANK_POSITION_FIELDS_OF_PORTFOLIO_MARGIN = (
    "leverage",
    "riskLimitValue",
    "positionIM",
    "positionIMByMp",
    "positionMM",
    "positionMMByMp",
    "liqPrice",
    "positionBalance",
)
RATE_PLACES = Decimal("0.0001")


def wallet_row(account: Account, market: Market, only: frozenset[str] | None) -> Row:
    """One ``wallet-balance`` entry; ``only`` names the coins asked for. A wallet never used has blank totals."""
    if not account.coins and not account.positions and not account.orders:
        return unused_wallet_row()
    figures = value_wallet(account, market)
    row = {
        "accountType": "UNIFIED",
        "accountIMRate": rate(figures.total_initial_margin, figures.total_margin_balance),
        "accountMMRate": rate(figures.total_maintenance_margin, figures.total_margin_balance),
        "accountLTV": "0",
        "totalEquity": text(figures.total_equity),
        "totalWalletBalance": text(figures.total_wallet_balance),
        "totalMarginBalance": text(figures.total_margin_balance),
        "totalAvailableBalance": text(figures.total_available),
        "totalPerpUPL": text(figures.total_unrealised_pnl),
        "totalInitialMargin": text(figures.total_initial_margin),
        "totalMaintenanceMargin": text(figures.total_maintenance_margin),
    }
    for name in ("accountIMRate", "accountMMRate", "totalInitialMargin", "totalMaintenanceMargin"):
        row[f"{name}ByMp"] = row[name]
    if account.margin_mode == "ISOLATED_MARGIN":
        row.update(dict.fromkeys(BLANK_WHEN_ISOLATED, ""))
    return row | {"coin": coin_rows(account, figures, only)}


def unused_wallet_row() -> Row:
    totals = ("totalEquity", "totalWalletBalance", "totalPerpUPL", *BLANK_WHEN_ISOLATED)
    return {"accountType": "UNIFIED", **dict.fromkeys(totals, ""), "coin": []}


def rate(part: Decimal, whole: Decimal) -> str:
    return text(rounded(part / whole, RATE_PLACES)) if whole > ZERO else "0"


def coin_rows(account: Account, figures: WalletFigures, only: frozenset[str] | None) -> list[Row]:
    rows = []
    for name, coin_figures in figures.coins.items():
        if only is not None and name not in only:
            continue
        row = coin_row(account.coins.get(name) or Coin(name), coin_figures)
        if account.margin_mode == "PORTFOLIO_MARGIN":
            row.update(dict.fromkeys(BLANK_COIN_FIELDS_OF_PORTFOLIO_MARGIN, ""))
        rows.append(row)
    return rows


def coin_row(coin: Coin, figures: CoinFigures) -> Row:
    return {
        "coin": coin.coin,
        "equity": text(figures.equity),
        "usdValue": text(figures.usd_value),
        "walletBalance": text(coin.wallet_balance),
        "locked": text(coin.locked),
        "spotHedgingQty": "0",
        "borrowAmount": text(coin.spot_borrow),
        "spotBorrow": text(coin.spot_borrow),
        "accruedInterest": text(coin.accrued_interest),
        "totalOrderIM": text(figures.order_margin),
        "totalPositionIM": text(figures.position_margin),
        "totalPositionMM": text(figures.maintenance_margin),
        "unrealisedPnl": text(figures.unrealised_pnl),
        "cumRealisedPnl": text(coin.cum_realised_pnl),
        "bonus": text(coin.bonus),
        "marginCollateral": coin.margin_collateral,
        "collateralSwitch": coin.collateral_switch,
        "colRes": "0",
        "availableToWithdraw": "",
        "availableToBorrow": "",
    }


def position_row(account: Account, position: Position, market: Market) -> Row:
    figures = value_position(position, market)
    flat = not position.size
    isolated = account.margin_mode == "ISOLATED_MARGIN"
    row = {
        "positionIdx": position.position_idx,
        "riskId": 1,
        "riskLimitValue": "2000000",
        "symbol": position.symbol,
        "side": position.side,
        "size": text(position.size),
        "avgPrice": text(position.avg_price),
        "positionValue": "" if flat else text(figures.value),
        "tradeMode": 1 if isolated else 0,
        "positionStatus": position.position_status,
        "autoAddMargin": 0,
        "adlRankIndicator": 0 if flat else 2,
        "leverage": text(position.leverage),
        "breakEvenPrice": "" if flat else text(position.avg_price),
        "positionBalance": text(figures.initial_margin) if isolated else "0",
        "markPrice": text(figures.mark),
        "liqPrice": position.liq_price,
        "bustPrice": "",
        "positionMM": text(figures.maintenance_margin),
        "positionMMByMp": text(figures.maintenance_margin),
        "positionIM": text(figures.initial_margin),
        "positionIMByMp": text(figures.initial_margin),
        "tpslMode": "Full",
        "takeProfit": position.take_profit,
        "stopLoss": position.stop_loss,
        "trailingStop": "0",
        "unrealisedPnl": "" if flat else text(figures.unrealised_pnl),
        "curRealisedPnl": text(position.cur_realised_pnl),
        "cumRealisedPnl": text(position.cum_realised_pnl),
        "seq": position.trade_sequence,
        "isReduceOnly": False,
        "mmrSysUpdatedTime": "",
        "leverageSysUpdatedTime": "",
        "sessionAvgPrice": "",
        "createdTime": str(position.created_ms),
        "updatedTime": str(position.updated_ms),
        "openTime": position.opened_ms,
    }
    if account.margin_mode == "PORTFOLIO_MARGIN":
        row.update(dict.fromkeys(BLANK_POSITION_FIELDS_OF_PORTFOLIO_MARGIN, ""), riskId=0)
    return row


def order_row(order: Order) -> Row:
    average = rounded(order.filled_value / order.filled_quantity) if order.filled_quantity else None
    return {
        "orderId": order.order_id,
        "orderLinkId": order.order_link_id,
        "parentOrderLinkId": "",
        "blockTradeId": "",
        "symbol": order.symbol,
        "price": text(order.price),
        "qty": text(order.quantity),
        "side": order.side,
        "isLeverage": "0" if order.category == "spot" else "",
        "positionIdx": order.position_idx,
        "orderStatus": order.status,
        "createType": "CreateByUser",
        "cancelType": order.cancel_type,
        "rejectReason": "EC_NoError",
        "avgPrice": "" if average is None else text(average),
        "leavesQty": text(order.leaves_quantity),
        "leavesValue": text(order.leaves_quantity * order.price),
        "cumExecQty": text(order.filled_quantity),
        "cumExecValue": text(order.filled_value),
        "cumExecFee": text(order.filled_fee),
        "cumFeeDetail": {},
        "timeInForce": order.time_in_force,
        "orderType": order.order_type,
        "stopOrderType": order.stop_order_type,
        "orderIv": "",
        "marketUnit": "",
        "triggerPrice": text(order.trigger_price) if order.trigger_price else "",
        "takeProfit": "",
        "stopLoss": "",
        "tpslMode": "",
        "ocoTriggerBy": "",
        "tpLimitPrice": "0",
        "slLimitPrice": "0",
        "tpTriggerBy": "",
        "slTriggerBy": "",
        "triggerDirection": order.trigger_direction,
        "triggerBy": "MarkPrice" if order.trigger_price else "",
        "lastPriceOnCreated": "",
        "basePrice": "",
        "reduceOnly": order.reduce_only,
        "closeOnTrigger": order.close_on_trigger,
        "placeType": "",
        "smpType": "None",
        "smpGroup": 0,
        "smpOrderId": "",
        "extraFees": "",
        "createdTime": str(order.created_ms),
        "updatedTime": str(order.updated_ms),
    }


def closed_row(row: ClosedRow) -> Row:
    return {
        "symbol": row.symbol,
        "orderId": row.order_id,
        "side": row.side,
        "qty": text(row.quantity),
        "orderPrice": text(row.order_price),
        "orderType": row.order_type,
        "execType": row.exec_type,
        "closedSize": text(row.quantity),
        "cumEntryValue": text(row.entry_value),
        "avgEntryPrice": text(row.avg_entry_price),
        "cumExitValue": text(row.exit_value),
        "avgExitPrice": text(row.avg_exit_price),
        "closedPnl": text(row.closed_pnl),
        "fillCount": "1",
        "leverage": text(row.leverage),
        "openFee": text(row.open_fee),
        "closeFee": text(row.close_fee),
        "createdTime": str(row.created_ms),
        "updatedTime": str(row.updated_ms),
    }


def ticker_row(instrument: Instrument, market: Market, next_funding_ms: int) -> Row:
    mark = market.marks[instrument.symbol]
    opening = market.opening_marks.get(instrument.symbol, mark)
    bid, ask = max(mark - instrument.tick_size, instrument.tick_size), mark + instrument.tick_size
    return {
        "symbol": instrument.symbol,
        "lastPrice": text(mark),
        "indexPrice": text(mark),
        "markPrice": text(mark),
        "prevPrice24h": text(opening),
        "price24hPcnt": text(rounded(mark / opening - ONE, Decimal("0.000001"))),
        "highPrice24h": text(max(mark, opening)),
        "lowPrice24h": text(min(mark, opening)),
        "prevPrice1h": text(opening),
        "openInterest": "52000",
        "openInterestValue": text(rounded(mark * 52000)),
        "turnover24h": text(rounded(mark * 91000)),
        "volume24h": "91000",
        "fundingRate": "0.0001",
        "nextFundingTime": str(next_funding_ms),
        "fundingIntervalHour": "8",
        "bid1Price": text(bid),
        "bid1Size": "3.2",
        "ask1Price": text(ask),
        "ask1Size": "2.7",
        "basis": "",
        "deliveryTime": "0",
    }
