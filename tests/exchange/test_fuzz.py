"""C4: recorded answers, mutated, come to a whole state or a typed failure, and never to a zero made of a blank."""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from pushserver.clock import ManualClock
from pushserver.errors import ExchangeError
from pushserver.events import encode_data
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange.bybit_errors import RawAnswer
from pushserver.exchange.port import Answer, Endpoint
from pushserver.model import Credentials, Market, Secret
from pushserver.observers import Observer
from pushserver.workers.figures import Figures
from tests.feeds.today import closed_today

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "bybit"
MARKETS = (Market("linear", "USDT"), Market("inverse"))
INPUTS = 100_000 if os.environ.get("PUSHSERVER_NIGHTLY") == "1" else 8_000
KEY = Credentials("some-key", Secret("some-secret"))
#: The stand-in gives closed rows for every category that is asked, so each symbol may count as inverse.
MARKS = {symbol: Decimal(1) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSD", "ETHUSD")}

#: What a field may turn into.
RUBBISH: tuple[Any, ...] = (
    "", None, "NaN", "Infinity", "-Infinity", "1e999", "0x10", "１２", " 1", "1_000", "--1", "abc", "1" * 5000, True,
    [], {}, [[]], {"a": 1}, -0.0, 1e308, 2**63, "\x00", "💥", float(10**15),
)  # fmt: skip


class Transport:
    """Gives the body it was told last, to whatever is asked."""

    def __init__(self) -> None:
        self.raw = RawAnswer(200, {}, b"")

    def get(
        self, endpoint: Endpoint, target: str, headers: Mapping[str, str], seconds: float, _: Callable[[bool], None]
    ) -> RawAnswer:
        return self.raw

    def close(self) -> None:
        pass


def exchange_with(transport: Transport, clock: ManualClock) -> BybitExchange:
    exchange = BybitExchange("http://127.0.0.1:1", MARKETS, clock, Observer())
    exchange._line = replace(exchange._line, transport=transport)  # type: ignore[arg-type]
    return exchange


def recorded_now(name: str, clock: ManualClock) -> Any:
    """A recorded answer as if it were given now, about today."""
    envelope = orjson.loads((FIXTURES / f"{name}.json").read_bytes()) | {"time": clock.wall_ms()}
    for row in envelope["result"]["list"] if name.startswith("closed") else ():
        row["updatedTime"] = str(clock.wall_ms() - 1000)
    return envelope


def spots(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below a JSON value."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from spots(node[key])


def mutated(envelope: Any, chance: random.Random) -> bytes:
    """One to three changes anywhere in it; now and then of its bytes too."""
    value = copy.deepcopy(envelope)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(list(spots(value)))
        change = chance.random()
        if change < 0.15:
            del container[key]
        elif change < 0.25 and isinstance(container, list):
            container.append(container[key])
        else:
            container[key] = copy.deepcopy(chance.choice(RUBBISH))
        if not list(spots(value)):
            break
    body = orjson.dumps(value)
    if chance.random() < 0.2:
        at = chance.randrange(len(body))
        body = body[:at] + bytes([chance.randrange(256)]) * chance.randint(0, 3) + body[at + chance.randint(0, 5) :]
    return body


def readers(exchange: BybitExchange, clock: ManualClock) -> dict[str, Callable[[], Any]]:
    """For each kind of recorded answer: ask, map to figures, and make them ready for the wire."""
    figures = Figures(MARKETS)

    def asked(answer: Answer, use: Callable[[Any], Any]) -> Any:
        return use(answer.rows)

    def wallet(rows: Any) -> Any:
        figures.realized(rows), figures.wallet_trace(rows)
        return figures.balance(rows)

    def positions(rows: Any) -> Any:
        figures.positions_trace(rows)
        return figures.positions(rows)

    def closed(rows: Any) -> Any:
        figures.needs_inverse_marks(rows)
        return closed_today(rows, 0, MARKS)

    def deadline_s() -> float:
        return clock.monotonic_s() + 8

    return {
        "wallet": lambda: asked(exchange.wallet(KEY, deadline_s()), wallet),
        "positions": lambda: asked(exchange.positions(KEY, deadline_s()), positions),
        "orders": lambda: asked(exchange.open_orders(KEY, deadline_s()), figures.orders),
        "closed": lambda: asked(exchange.closed_pnl(KEY, clock.wall_ms() - 86_400_000, deadline_s()), closed),
    }


def test_C4_H06_mutated_answers_give_a_whole_state_or_a_typed_failure() -> None:
    clock, transport, chance = ManualClock(), Transport(), random.Random(4)
    exchange = exchange_with(transport, clock)
    read = readers(exchange, clock)
    recorded = [(path.name.split("_")[0], recorded_now(path.stem, clock)) for path in sorted(FIXTURES.glob("*.json"))]
    outcomes: Counter[str] = Counter()
    for _ in range(INPUTS):
        kind, envelope = chance.choice(recorded)
        transport.raw = RawAnswer(200, {}, mutated(envelope, chance))
        try:
            state = read[kind]()
        except ExchangeError as error:
            outcomes[error.code] += 1
            continue
        outcomes["state"] += 1
        if kind != "closed":
            encode_data(state)
    # Both ends were really visited: harmless changes pass, harmful ones are told apart.
    assert outcomes["state"] > INPUTS / 10, outcomes
    assert outcomes["exchange_answer_malformed"] > INPUTS / 10, outcomes


NEEDED = {
    "wallet_cross": ("wallet", ("totalEquity", "totalAvailableBalance", "totalInitialMargin")),
    "positions_one_way": ("positions", ("size", "avgPrice", "markPrice", "unrealisedPnl")),
    "orders_every_kind": ("orders", ("qty",)),
    "closed_pnl_two_days": ("closed", ("closedPnl", "updatedTime")),
}


@pytest.mark.parametrize("blank", ["", None])
@pytest.mark.parametrize("name", NEEDED)
def test_C4_H06_a_blank_is_never_a_zero(name: str, blank: Any) -> None:
    clock, transport = ManualClock(), Transport()
    kind, fields = NEEDED[name]
    read = readers(exchange_with(transport, clock), clock)[kind]
    envelope = recorded_now(name, clock)
    transport.raw = RawAnswer(200, {}, orjson.dumps(envelope))
    assert read()
    for field in fields:
        spoiled = copy.deepcopy(envelope)
        spoiled["result"]["list"][0][field] = blank
        transport.raw = RawAnswer(200, {}, orjson.dumps(spoiled))
        with pytest.raises(ExchangeError):
            read()
