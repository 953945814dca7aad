"""The body of a control call into one change of an account: all of it, or (ValueError) nothing.

Keys are applied in this order, whatever the order in the body; each may be left out:

- ``margin_mode``, ``hedge``, ``unified_margin_status``: values.
- ``wallet``: ``{"USDT": "1000"}`` or ``{"USDT": {"wallet_balance": "1000", "locked": "5", …fields of Coin}}``;
  named coins are changed, others stay.
- ``positions``: rows of ``Position`` fields (``symbol``, ``side``, ``size``, ``avg_price``, …): each replaces fields of
  that leg without touching the wallet; size 0 makes it flat.
- ``orders``: rows of ``Order`` fields: placed. Without ``order_id`` one is made up.
- ``cancel``: order ids.
- ``fill``: ``{"order_id", "quantity"?, "price"?}``: default all that is left, at the order's price or else the mark.
- ``trade``: ``{"symbol", "side", "quantity", "price"?, "position_idx"?}``: a market order, executed.
- ``close``: ``{"symbol", "position_idx"?, "quantity"?, "price"?}``: with wallet booking and closed-pnl row.
- ``closed``: rows of ``ClosedRow`` fields, recorded without touching the wallet.
- ``drop``: names among ``wallet``, ``positions``, ``orders``, ``closed``, emptied before anything else.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from pushserver.exchange_sim.accounts import MARGIN_MODES, Account, ClosedRow, Coin, Order
from pushserver.exchange_sim.changes import (
    Trade,
    cancelled,
    closed,
    filled,
    market_order,
    open_order,
    with_closed_row,
    with_coin,
    with_order,
    with_position,
)
from pushserver.exchange_sim.money import ZERO
from pushserver.exchange_sim.specs import decimal_of, optional_decimal, text_of, update
from pushserver.exchange_sim.world import World

LISTS = ("positions", "orders", "cancel", "fill", "trade", "close", "closed", "drop")
MODES = ("margin_mode", "hedge", "unified_margin_status")
KEYS = frozenset((*LISTS, *MODES, "wallet"))


class AccountChange:
    """Applies one body to one account, at one instant."""

    def __init__(self, world: World, account: Account) -> None:
        self._world = world
        self._market = world.market
        self._account = account
        self._now_ms = world.now_ms()
        #: Ids of the orders placed, in the order of the body.
        self.placed: list[str] = []

    def apply(self, body: dict[str, Any]) -> Account:
        """The changed account, not yet committed. Raises ValueError."""
        unknown = set(body) - KEYS
        if unknown:
            raise ValueError(f"unknown key {', '.join(sorted(unknown))}; there are {', '.join(sorted(KEYS))}")
        for name in LISTS:
            if not isinstance(body.get(name, []), list):
                raise ValueError(f"{name} must be a list")
        for name in body.get("drop", []):
            self._drop(name)
        self._account = update(self._account, {name: body[name] for name in MODES if name in body})
        if self._account.margin_mode not in MARGIN_MODES:
            raise ValueError(f"margin_mode is one of {', '.join(MARGIN_MODES)}")
        self._set_wallet(body.get("wallet", {}))
        steps = {
            "positions": self._set_position,
            "orders": self._place,
            "cancel": self._cancel,
            "fill": self._fill,
            "trade": self._trade,
            "close": self._close,
            "closed": self._record_closed,
        }
        for name, step in steps.items():
            for row in body.get(name, []):
                step(row)
        return self._account

    def _drop(self, name: Any) -> None:
        emptied = {
            "wallet": {"coins": {}},
            "positions": {"positions": {}},
            "orders": {"orders": {}},
            "closed": {"closed": ()},
        }
        if name not in emptied:
            raise ValueError(f"drop names {', '.join(emptied)}")
        self._account = replace(self._account, **emptied[name])  # type: ignore[arg-type]

    def _set_wallet(self, spec: Any) -> None:
        if not isinstance(spec, dict):
            raise ValueError("wallet must be an object of coins")
        for name, wanted in spec.items():
            self._market.usd_price(name)
            fields = wanted if isinstance(wanted, dict) else {"wallet_balance": wanted}
            coin = self._account.coins.get(name) or Coin(name)
            self._account = with_coin(self._account, update(coin, fields, skip=frozenset({"coin"})))

    def _set_position(self, spec: Any) -> None:
        symbol = text_of(spec, "symbol")
        self._market.instrument(symbol)
        position_idx = spec.get("position_idx", self._default_leg(spec.get("side")))
        position = update(self._account.position(symbol, position_idx), spec)
        if not position.size:
            position = replace(position, side="", avg_price=ZERO, open_fees=ZERO)
        position = replace(
            position,
            position_idx=position_idx,
            created_ms=position.created_ms or self._now_ms,
            opened_ms=position.opened_ms or self._now_ms,
            updated_ms=spec.get("updated_ms", self._now_ms),
            trade_sequence=spec.get("trade_sequence", max(position.trade_sequence, 0) + 1),
        )
        self._account = with_position(self._account, position)

    def _default_leg(self, side: Any) -> int:
        return {"Buy": 1, "Sell": 2}.get(side, 0) if self._account.hedge else 0

    def _place(self, spec: Any) -> None:
        symbol = text_of(spec, "symbol")
        spot = spec.get("category") == "spot"
        category = "spot" if spot else self._market.instrument(symbol).category
        order = Order(
            order_id=spec.get("order_id") or self._world.new_order_id(),
            symbol=symbol,
            side="Buy",
            quantity=ZERO,
            category=category,
            position_idx=0 if spot else self._default_leg(spec.get("side")),
            created_ms=self._now_ms,
            updated_ms=self._now_ms,
        )
        self._account = with_order(self._account, update(order, spec, skip=frozenset({"category"})))
        self.placed.append(order.order_id)

    def _cancel(self, order_id: Any) -> None:
        self._account = cancelled(self._account, str(order_id), self._now_ms)

    def _fill(self, spec: Any) -> None:
        order_id = text_of(spec, "order_id")
        order = open_order(self._account, order_id)
        price = optional_decimal(spec, "price") or order.price or self._mark(order.symbol)
        quantity = optional_decimal(spec, "quantity")
        self._account = filled(self._account, self._market.instruments, order_id, quantity, price, self._now_ms)

    def _trade(self, spec: Any) -> None:
        symbol = text_of(spec, "symbol")
        trade = Trade(
            instrument=self._market.instrument(symbol),
            side=text_of(spec, "side"),
            quantity=decimal_of(spec.get("quantity"), "quantity"),
            price=optional_decimal(spec, "price") or self._mark(symbol),
            order_id=self._world.new_order_id(),
            at_ms=self._now_ms,
            position_idx=int(spec.get("position_idx", self._default_leg(spec.get("side")))),
        )
        if trade.side not in ("Buy", "Sell") or trade.quantity <= ZERO or trade.price <= ZERO:
            raise ValueError("a trade is Buy or Sell, with quantity and price above zero")
        self._account = market_order(self._account, trade)

    def _close(self, spec: Any) -> None:
        symbol = text_of(spec, "symbol")
        instrument = self._market.instrument(symbol)
        price = optional_decimal(spec, "price") or self._mark(symbol)
        order_id = spec.get("order_id") or self._world.new_order_id()
        quantity = optional_decimal(spec, "quantity")
        position_idx = int(spec.get("position_idx", 0))
        self._account = closed(self._account, instrument, position_idx, quantity, price, order_id, self._now_ms)

    def _record_closed(self, spec: Any) -> None:
        symbol = text_of(spec, "symbol")
        blank = ClosedRow(
            order_id=self._world.new_order_id(),
            symbol=symbol,
            side="Sell",
            quantity=ZERO,
            entry_value=ZERO,
            exit_value=ZERO,
            avg_entry_price=ZERO,
            avg_exit_price=ZERO,
            closed_pnl=ZERO,
            category=self._market.instrument(symbol).category,
            created_ms=self._now_ms,
            updated_ms=self._now_ms,
        )
        self._account = with_closed_row(self._account, update(blank, spec))

    def _mark(self, symbol: str) -> Decimal:
        self._market.instrument(symbol)
        return self._market.marks[symbol]
