"""Really captured bodies, documentation examples and mutations of both: right figures or a typed failure."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushserver.errors import AnswerMalformed, ExchangeError, ExchangeUnavailable, KeyRefused, PermissionMissing
from pushserver.events import encode_data
from pushserver.exchange.bybit_errors import RawAnswer, envelope_of
from pushserver.exchange.port import Endpoint
from pushserver.feeds.balance import map_balance
from pushserver.feeds.numbers import rows_at
from pushserver.feeds.orders import map_orders
from pushserver.feeds.pnl import map_pnl, realized
from pushserver.feeds.positions import map_positions
from pushserver.model import Balance, Order, Position
from tests.conftest import require
from tests.feeds.conftest import FIXTURES, recorded
from tests.feeds.today import closed_today

#: Captured bodies, kept beside the repository and not in it.
CASES = Path(__file__).resolve().parents[3] / "shared" / "bybit-cases.json"
USDT = frozenset({"USDT"})
COINS = frozenset({"USDT", "USDC", "BTC", "ETH"})
NOW_MS = 1_767_225_600_000

Body = Any


def result_of(body: Body) -> Any:
    """The way of every answer: raw bytes, envelope, result."""
    envelope = envelope_of(Endpoint.WALLET, RawAnswer(200, {}, json.dumps(body).encode()), NOW_MS)
    result = envelope.get("result")
    if not isinstance(result, dict):
        raise AnswerMalformed("no result")
    return result


def listed(body: Body) -> list[dict[str, Any]]:
    result = result_of(body)
    return [{**row, "category": result.get("category", "linear")} for row in rows_at(result, "list")]


def wallet_figures(body: Body) -> list[Any]:
    rows = listed(body)
    if not rows:
        raise AnswerMalformed("no account")
    return [map_balance(rows[0], COINS), realized(rows[0], COINS)]


def position_figures(body: Body) -> list[Any]:
    rows = listed(body)
    return [map_positions(rows), map_pnl(Decimal(0), Decimal(0), rows)]


def closed_figures(body: Body) -> list[Any]:
    return [closed_today(listed(body), 0, {})]


def order_figures(body: Body) -> list[Any]:
    return [map_orders(listed(body))]


MAPPINGS: dict[str, Callable[[Body], list[Any]]] = {
    "/v5/account/wallet-balance": wallet_figures,
    "/v5/position/list": position_figures,
    "/v5/position/closed-pnl": closed_figures,
    "/v5/pre-upgrade/position/closed-pnl": closed_figures,
    "/v5/order/realtime": order_figures,
    "/v5/order/history": order_figures,
}


def everything(body: Body) -> list[Any]:
    """What any of the mappings makes of a body; a foreign one is a failure, not a surprise."""
    found: list[Any] = []
    for mapping in MAPPINGS.values():
        try:
            found += mapping(body)
        except ExchangeError:
            continue
    return found


def is_finite(figure: Any) -> bool:
    if isinstance(figure, Decimal):
        return figure.is_finite()
    encode_data(figure)  # raises for what is no JSON number
    return True


@cache
def cases() -> list[dict[str, Any]]:
    require(CASES.is_file(), f"the captured bodies in {CASES.parent.name}/{CASES.name} beside the repository")
    loaded: list[dict[str, Any]] = json.loads(CASES.read_text(encoding="utf-8"))
    return loaded


def captured(endpoint: str, part_of_source: str, part_of_note: str = "") -> Body:
    found = [
        case["body"]
        for case in cases()
        if case["endpoint"] == endpoint
        and part_of_source in case["source"]
        and part_of_note in case.get("note", "")
    ]  # fmt: skip
    assert len(found) == 1, len(found)
    return found[0]


def test_H06_each_captured_body_gives_figures_or_a_typed_failure() -> None:
    assert len(cases()) == 166
    outcomes = {"figures": 0, "failures": 0}
    for case in cases():
        mapping = MAPPINGS.get(case["endpoint"], everything)
        try:
            figures = mapping(case["body"])
        except ExchangeError:
            outcomes["failures"] += 1
        else:
            outcomes["figures"] += 1
            assert all(map(is_finite, figures)), case["source"]
    # Streams and errors have no envelope with figures; everything the REST side sends does, but for the captures below.
    assert outcomes["figures"] > 100


#: What cannot be used of what was really captured or documented for our endpoints, and why.
UNUSABLE = {
    "veighna-global/vnpy_bybit issue 12": "a wallet never used",
    "comment in fetch_positions": "a blank pnl on an open position",
    "(verbatim)": "every number quoted, also the code",
}


@pytest.mark.parametrize("endpoint", sorted(MAPPINGS))
def test_captured_answers_of_our_endpoints_give_figures_but_for_known_ones(endpoint: str) -> None:
    for case in cases():
        if case["endpoint"] != endpoint or not case["kind"].startswith("captured"):
            continue
        if any(case["source"].endswith(known) for known in UNUSABLE):
            with pytest.raises(AnswerMalformed):
                MAPPINGS[endpoint](case["body"])
        else:
            assert MAPPINGS[endpoint](case["body"]), case["source"]


@pytest.mark.parametrize(
    ("source", "total", "available", "used"),
    [
        ("hirokisan/bybit", "79207.48963775", "78429.79924861", "0"),
        ("bybit.json @04890d69 fetchBalance", "92255.96988644", "89987.9688149", "54.3100333"),
    ],
)
def test_captured_cross_wallets_give_their_own_totals(source: str, total: str, available: str, used: str) -> None:
    account = listed(captured("/v5/account/wallet-balance", source))[0]
    assert map_balance(account, USDT) == Balance(Decimal(total), Decimal(available), Decimal(used))
    # The equity of an account is the sum of what its coins are worth, each of which was rounded.
    assert abs(sum(Decimal(coin["usdValue"]) for coin in account["coin"]) - Decimal(total)) < Decimal("1e-7")


def test_the_captured_isolated_wallet_gives_what_could_be_withdrawn() -> None:
    account = listed(captured("/v5/account/wallet-balance", "ccxt/ccxt issue 20948"))[0]
    coin = account["coin"][0]
    rate = Decimal(coin["usdValue"]) / Decimal(coin["equity"])
    balance = map_balance(account, USDT)
    assert balance.total_balance == Decimal("56.91663832")
    assert balance.available_balance == Decimal(coin["availableToWithdraw"]) * rate
    assert balance.used_margin == Decimal("11.5640358") * rate
    assert realized(account, USDT) == Decimal("0.114117")


def test_the_captured_spot_wallet_under_isolated_margin_counts_what_is_locked_as_gone() -> None:
    account = listed(captured("/v5/account/wallet-balance", "rotki/rotki"))[0]
    balance = map_balance(account, frozenset({"USDT", "USDC"}))
    rate = Decimal("19.07584719") / Decimal("19.07681")
    assert balance == Balance(Decimal("49.63415922"), Decimal("0.07681") * rate, Decimal(0))


def test_the_captured_portfolio_margin_position_has_its_figures() -> None:
    rows = listed(captured("/v5/position/list", "comment in fetch_positions_adl_rank"))
    figures = map(Decimal, ("0.01", "177489.6", "177188", "-3.016"))
    assert map_positions(rows) == (Position("BTCUSDT", "Buy", *figures),)
    assert Decimal("0.01") * (Decimal("177188") - Decimal("177489.6")) == Decimal("-3.016")


def test_the_captured_hedge_account_shows_its_live_leg() -> None:
    rows = listed(captured("/v5/position/list", "ccxt/ccxt pull 18712"))
    assert [(row.side, row.size, row.unrealized_pnl) for row in map_positions(rows)] == [
        ("Sell", Decimal("0.003"), Decimal("0.0063"))
    ]


def test_the_captured_flat_account_is_flat() -> None:
    assert map_positions(listed(captured("/v5/position/list", "hirokisan/bybit"))) == ()


def test_the_captured_closed_rows_have_their_figures() -> None:
    rows = listed(captured("/v5/position/closed-pnl", "hirokisan/bybit"))
    assert closed_today(rows, 1_680_525_485_078, {}) == Decimal("-0.2857676")
    assert closed_today(rows, 1_680_525_485_079, {}) == 0


def test_the_captured_spot_orders_have_no_price_of_their_own() -> None:
    body = captured("/v5/order/realtime", "fetchOrder", "qty is in quote coin")
    assert map_orders(listed(body)) == (
        Order("1609602210852247040", "BTCUSDT", "Buy", Decimal("50"), None, "PartiallyFilledCanceled"),
    )


def test_H04_each_captured_refusal_is_classified() -> None:
    classes: dict[int, type[ExchangeError]] = {}
    errors = [case["body"] for case in cases() if case["endpoint"] == "error"]
    for body in errors:
        with pytest.raises(ExchangeError) as caught:
            result_of(body)
        assert caught.value.exchange_code is not None
        classes[caught.value.exchange_code] = type(caught.value)
    assert len(errors) == 14
    assert {33004, 10003, 10010, -2015} == {code for code, failure in classes.items() if failure is KeyRefused}
    assert {10005} == {code for code, failure in classes.items() if failure is PermissionMissing}
    assert {10016, 10000} == {code for code, failure in classes.items() if failure is ExchangeUnavailable}


# Mutations: any answer, damaged anywhere.

DAMAGE = st.sampled_from(
    [None, "", "NaN", "Infinity", "-1", "0", 0, -1, 1.5, True, False, [], {}, [[]], "x", "1e400", "9" * 80, "\x00"]
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all keys and items."""
    found: list[tuple[Any, ...]] = []
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        found += [(*path, key), *places(child, (*path, key))]
    return found


def damaged(body: Body, seed: int, value: Any, drop: bool) -> Body:
    body = copy.deepcopy(body)
    path = random.Random(seed).choice(places(body))
    node = body
    for key in path[:-1]:
        node = node[key]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return body


OWN = sorted(path.stem for path in FIXTURES.glob("*.json"))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    name=st.sampled_from(OWN),
    wounds=st.lists(st.tuples(st.integers(0, 2**32), DAMAGE, st.booleans()), min_size=1, max_size=4),
)
def test_H06_a_damaged_answer_gives_finite_figures_or_a_typed_failure(
    name: str, wounds: list[tuple[int, Any, bool]]
) -> None:
    body: Body = recorded(name)
    for seed, value, drop in wounds:
        if places(body):
            body = damaged(body, seed, value, drop)
    for mapping in MAPPINGS.values():
        try:
            figures = mapping(body)
        except ExchangeError as error:
            assert error.message
        else:
            assert all(map(is_finite, figures))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_H06_a_lost_number_never_becomes_a_zero(seed: int) -> None:
    """Blank one field of a wallet or position: each figure is what it was, or there are none."""
    for name, mapping in (("wallet_cross", wallet_figures), ("positions_one_way", position_figures)):
        body = recorded(name)
        for blank in ("", None):
            wounded = damaged(body, seed, blank, drop=False)
            try:
                figures = mapping(wounded)
            except ExchangeError:
                continue
            assert figures == mapping(body)
