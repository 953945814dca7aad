"""What the exchange holds of one customer. All records are frozen: a change makes a new account (see changes.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from pushserver.exchange_sim.market import Instrument
from pushserver.exchange_sim.money import ZERO

MARGIN_MODES = ("REGULAR_MARGIN", "ISOLATED_MARGIN", "PORTFOLIO_MARGIN")
OPEN_STATUSES = frozenset({"New", "PartiallyFilled", "Untriggered"})

#: How many filled or cancelled orders ``order/realtime`` with ``openOnly=1`` still shows.
RECENT_ORDERS = 500

#: Fraction of the traded value taken at each fill.
TRADING_FEE = Decimal("0.00055")
MAINTENANCE_MARGIN_RATE = Decimal("0.005")


@dataclass(frozen=True, slots=True)
class Coin:
    """One coin of the wallet. ``cum_realised_pnl`` is all-time, net of fees, in the coin itself."""

    coin: str
    wallet_balance: Decimal = ZERO
    locked: Decimal = ZERO
    spot_borrow: Decimal = ZERO
    accrued_interest: Decimal = ZERO
    bonus: Decimal = ZERO
    cum_realised_pnl: Decimal = ZERO
    margin_collateral: bool = True
    collateral_switch: bool = True


@dataclass(frozen=True, slots=True)
class Position:
    """One leg: ``position_idx`` 0 one-way, 1 hedge long, 2 hedge short. Flat: side "" and size 0.

    ``open_fees`` is what opening the part still held has cost, in the settle coin.
    """

    symbol: str
    position_idx: int = 0
    side: str = ""
    size: Decimal = ZERO
    avg_price: Decimal = ZERO
    leverage: Decimal = Decimal(10)
    cur_realised_pnl: Decimal = ZERO
    cum_realised_pnl: Decimal = ZERO
    open_fees: Decimal = ZERO
    take_profit: str = ""
    stop_loss: str = ""
    liq_price: str = ""
    position_status: str = "Normal"
    created_ms: int = 0
    updated_ms: int = 0
    opened_ms: int = 0
    trade_sequence: int = -1

    @property
    def direction(self) -> int:
        return {"Buy": 1, "Sell": -1}.get(self.side, 0)


@dataclass(frozen=True, slots=True)
class Order:
    """An order; it keeps its id for life. ``price`` 0 means none (spot market, conditional market orders)."""

    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    category: str = "linear"
    order_type: str = "Limit"
    price: Decimal = ZERO
    order_link_id: str = ""
    status: str = "New"
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    filled_fee: Decimal = ZERO
    reduce_only: bool = False
    close_on_trigger: bool = False
    position_idx: int = 0
    trigger_price: Decimal = ZERO
    trigger_direction: int = 0
    stop_order_type: str = ""
    time_in_force: str = "GTC"
    cancel_type: str = "UNKNOWN"
    created_ms: int = 0
    updated_ms: int = 0

    @property
    def open(self) -> bool:
        return self.status in OPEN_STATUSES

    @property
    def leaves_quantity(self) -> Decimal:
        return self.quantity - self.filled_quantity if self.open else ZERO


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """What one closing order realised. ``side`` is the closing side: Sell means a long was closed."""

    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    entry_value: Decimal
    exit_value: Decimal
    avg_entry_price: Decimal
    avg_exit_price: Decimal
    closed_pnl: Decimal
    open_fee: Decimal = ZERO
    close_fee: Decimal = ZERO
    order_price: Decimal = ZERO
    order_type: str = "Market"
    exec_type: str = "Trade"
    leverage: Decimal = Decimal(10)
    category: str = "linear"
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. ``closed_quantity`` of it reduced a position and earned ``pnl``, before fees."""

    order_id: str
    symbol: str
    category: str
    side: str
    quantity: Decimal
    price: Decimal
    value: Decimal
    fee: Decimal
    closed_quantity: Decimal
    pnl: Decimal
    order_type: str
    order_price: Decimal
    at_ms: int
    trade_sequence: int


PositionKey = tuple[str, int]


def nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Account:
    """One customer (a Bybit UID). ``version`` grows by one with every change; unlike ``margin_mode`` and ``hedge``
    it is never set by hand. ``fills`` are the executions of a change that is under way; the world keeps none."""

    user: int
    margin_mode: str = "REGULAR_MARGIN"
    hedge: bool = False
    unified_margin_status: int = 5
    coins: Mapping[str, Coin] = field(default_factory=nothing)
    positions: Mapping[PositionKey, Position] = field(default_factory=nothing)
    orders: Mapping[str, Order] = field(default_factory=nothing)
    recent_orders: tuple[Order, ...] = ()
    closed: tuple[ClosedRow, ...] = ()
    fills: tuple[Fill, ...] = ()
    version: int = 0
    updated_ms: int = 0

    def position(self, symbol: str, position_idx: int) -> Position:
        """The leg, flat where nothing was ever traded."""
        return self.positions.get((symbol, position_idx)) or Position(symbol, position_idx)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of one user. ``ips`` empty means not bound to addresses."""

    api_key: str
    secret: str = field(repr=False)
    user: int = 0
    read_only: bool = True
    permissions: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType({"ContractTrade": ("Order", "Position"), "Spot": ("SpotTrade",)})
    )
    ips: tuple[str, ...] = ()
    created_ms: int = 0
    expires_ms: int | None = None
    note: str = "simulated"


def contract_value(instrument: Instrument, size: Decimal, price: Decimal) -> Decimal:
    """Value in the settle coin of ``size`` at ``price``."""
    return size / price if instrument.inverse else size * price


def profit(instrument: Instrument, direction: int, size: Decimal, entry: Decimal, price: Decimal) -> Decimal:
    """Profit in the settle coin of ``size`` held from ``entry`` to ``price``; ``direction`` +1 long, -1 short."""
    if instrument.inverse:
        return size * (1 / entry - 1 / price) * direction
    return (price - entry) * size * direction
