"""Messages nobody should ever get, ready to be sent on a stream by a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from pushserver.exchange_sim.accounts import Account, Position
from pushserver.exchange_sim.answers import Row
from pushserver.exchange_sim.streams.account_events import stream_position
from pushserver.exchange_sim.world import World

#: An account number that no simulated user has.
STRANGER = 999_999_999
SYMBOL = "BTCUSDT"


def message(topic: str, user: int, world: World, number: int, rows: list[Row]) -> str:
    """A message of the private stream, as JSON; ``number`` makes its id its own."""
    now_ms = world.now_ms()
    content: dict[str, Any] = {"id": f"{user}{topic}{now_ms:x}-{number:x}", "topic": topic, "creationTime": now_ms}
    return orjson.dumps(content | {"data": rows}).decode()


def redundant(world: World, user: int | None, number: int) -> str:
    """The first position the user holds, as it is; a flat one when there is none or the stream has no user."""
    account = world.accounts.get(user or 0) or Account(user or 0)
    held = next((leg for leg in account.positions.values() if leg.size), Position(SYMBOL))
    return message("position", account.user, world, number, [stream_position(account, held, world.market)])


def forged_position(world: World, user: int | None, number: int) -> str:
    leg = {"category": "linear", "symbol": SYMBOL, "positionIdx": 0, "side": "Buy", "size": "1000", "entryPrice": "1"}
    return message("position", STRANGER, world, number, [leg | {"seq": 1, "unrealisedPnl": "1000000"}])


def forged_wallet(world: World, user: int | None, number: int) -> str:
    coin = {"coin": "USDT", "equity": "666666666", "walletBalance": "666666666", "usdValue": "666666666"}
    totals = {"totalEquity": "666666666", "totalAvailableBalance": "666666666", "totalInitialMargin": "0"}
    return message("wallet", STRANGER, world, number, [{"accountType": "UNIFIED", **totals, "coin": [coin]}])


#: Name to what makes the text, told the world, the stream's user and how many were sent before.
FORGERIES: dict[str, Callable[[World, int | None, int], str]] = {
    "redundant": redundant,
    "forged_position": forged_position,
    "forged_wallet": forged_wallet,
    "unknown_topic": lambda world, user, number: message("weather", user or 0, world, number, [{"rain": True}]),
    "no_topic": lambda world, user, number: '{"id":"1","creationTime":1,"data":[{"symbol":"BTCUSDT"}]}',
    "no_data": lambda world, user, number: '{"id":"1","topic":"position","creationTime":1}',
    "malformed": lambda world, user, number: '{"topic":"position","data":[{"symbol":',
    "array": lambda world, user, number: "[1,2,3]",
    "null": lambda world, user, number: "null",
    "deep": lambda world, user, number: '{"topic":"position","data":' + "[" * 5000 + "]" * 5000 + "}",
}
