"""What an account's changes become on the private stream, and who is asked to leave: without sockets, time by hand."""

from __future__ import annotations

import hashlib
import hmac
from decimal import Decimal
from typing import Any

import orjson
import pytest

from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.streams.connects import ConnectGate
from pushserver.exchange_sim.streams.hub import idle_limit_s
from pushserver.exchange_sim.streams.private import PrivateSession
from pushserver.exchange_sim.streams.public import PublicSession
from tests.exchange_sim.conftest import Desk

Json = dict[str, Any]


class Paper:
    """An outlet that keeps what it is given; ``closed_with`` is None for a cut, 0 while it is open."""

    def __init__(self) -> None:
        self.messages: list[Json] = []
        self.closed_with: int | None = 0

    def send(self, text: str) -> None:
        self.messages.append(orjson.loads(text))

    def close(self, code: int) -> None:
        self.closed_with = code

    def cut(self) -> None:
        self.closed_with = None

    def rows(self, topic: str) -> list[Json]:
        return [row for message in self.messages if message.get("topic") == topic for row in message["data"]]


def attached(desk: Desk, user: int = 1, idle_s: float = 600.0, address: str = "127.0.0.1") -> PrivateSession:
    """An authenticated stream of a seeded user, subscribed to everything, its paper still white."""
    hub = desk.exchange.hub
    session = PrivateSession(
        desk.world, Paper(), 1, hub.misfortunes, idle_s, address=address, known=hub._knows  # type: ignore[arg-type]
    )  # fmt: skip
    hub._sessions[session] = None
    assert said(session, op="auth", args=auth_arguments(desk, user))["success"] is True
    topics = ["position", "order", "wallet", "execution"]
    assert said(session, op="subscribe", args=topics)["success"] is True
    paper(session).messages.clear()
    return session


def auth_arguments(desk: Desk, user: int, expires: Any = None) -> list[Any]:
    api_key, secret = demo_credentials(user)
    expires = desk.world.now_ms() + 10_000 if expires is None else expires
    return [api_key, expires, hmac.new(secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()]


def said(session: PrivateSession, **message: Any) -> Json:
    """The reply to one message of the client."""
    session.receive(orjson.dumps(message).decode())
    return paper(session).messages[-1]


def paper(session: Any) -> Paper:
    outlet = session.outlet
    assert isinstance(outlet, Paper)
    return outlet


@pytest.fixture
def empty(desk: Desk) -> Desk:
    """User 1 has nothing but money."""
    desk.done("PUT", "accounts/1", {"wallet": {"USDT": "1000", "USDC": "5"}})
    return desk


def test_an_execution_tells_price_fee_and_profit_of_its_own_order(empty: Desk) -> None:
    told = paper(attached(empty))
    empty.done(
        "POST", "accounts/1", {"trade": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02", "price": "60000"}]}
    )
    empty.done("POST", "accounts/1", {"close": [{"symbol": "BTCUSDT", "quantity": "0.01", "price": "61000"}]})
    opening, closing = told.rows("execution")
    assert (opening["execPrice"], opening["execQty"], opening["closedSize"], opening["execPnl"]) == (
        "60000", "0.02", "0", "0",
    )  # fmt: skip
    assert (closing["side"], closing["closedSize"], closing["execPnl"], closing["execFee"]) == (
        "Sell", "0.01", "10", "0.3355",
    )  # fmt: skip
    orders = told.rows("order")
    assert [row["orderStatus"] for row in orders] == ["Filled", "Filled"]
    assert [row["orderId"] for row in orders] == [opening["orderId"], closing["orderId"]]
    listed = empty.result("/v5/position/closed-pnl", "category=linear")["list"]
    assert orders[1]["closedPnl"] == listed[0]["closedPnl"] and orders[1]["orderId"] == listed[0]["orderId"]
    assert [row["size"] for row in told.rows("position")] == ["0.02", "0.01"]
    wallets = told.rows("wallet")
    assert [[coin["coin"] for coin in row["coin"]] for row in wallets] == [["USDT"], ["USDT"]]
    assert not empty.world.accounts[1].fills, "told and forgotten"


def test_every_state_of_an_order_is_told_and_each_time_the_position_too(empty: Desk) -> None:
    told = paper(attached(empty))
    placed = empty.done(
        "POST", "accounts/1", {"orders": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02", "price": "60000"}]}
    )
    order_id = placed["order_ids"][0]
    amended = {"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02", "price": "59000", "order_id": order_id}
    empty.done("POST", "accounts/1", {"orders": [amended]})
    empty.done("POST", "accounts/1", {"fill": [{"order_id": order_id, "quantity": "0.005"}]})
    empty.done("POST", "accounts/1", {"cancel": [order_id]})
    assert [row["orderStatus"] for row in told.rows("order")] == ["New", "New", "PartiallyFilled", "Cancelled"]
    assert [row["price"] for row in told.rows("order")][:2] == ["60000", "59000"]
    assert [row["size"] for row in told.rows("position")] == ["0", "0", "0.005", "0.005"]
    assert len(told.rows("wallet")) == 1, "placing and cancelling move no money"


def test_orders_that_vanish_and_legs_that_vanish_are_told(empty: Desk) -> None:
    position = {"symbol": "ETHUSDT", "side": "Sell", "size": "2", "avg_price": "3000"}
    order = {"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02", "price": "60000"}
    empty.done("POST", "accounts/1", {"positions": [position], "orders": [order]})
    told = paper(attached(empty))
    empty.done("POST", "accounts/1", {"drop": ["positions", "orders"]})
    assert [row["orderStatus"] for row in told.rows("order")] == ["Cancelled"]
    flat = next(row for row in told.rows("position") if row["symbol"] == "ETHUSDT")
    assert (flat["side"], flat["size"], flat["entryPrice"]) == ("", "0", "0")


def test_moving_prices_tell_the_private_stream_nothing(desk: Desk) -> None:
    told = paper(attached(desk))
    desk.done("POST", "market", {"marks": {"BTCUSDT": "1234"}})
    assert told.messages == []


def test_a_categorised_topic_tells_its_category_only(empty: Desk) -> None:
    session = attached(empty)
    said(session, op="unsubscribe", args=["position", "order", "wallet", "execution"])
    said(session, op="subscribe", args=["position.inverse"])
    paper(session).messages.clear()
    for symbol in ("BTCUSDT", "BTCUSD"):
        empty.done("POST", "accounts/1", {"trade": [{"symbol": symbol, "side": "Buy", "quantity": 1}]})
    assert [row["symbol"] for row in paper(session).rows("position")] == ["BTCUSD"]
    assert {message["topic"] for message in paper(session).messages} == {"position"}


def test_two_filled_messages_for_one_order(empty: Desk) -> None:
    told = paper(attached(empty))
    empty.done("POST", "stream-faults", {"kind": "filled_twice", "user": 1})
    empty.done("POST", "accounts/1", {"trade": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02"}]})
    first, second = told.rows("order")
    assert first["orderId"] == second["orderId"] and first["orderStatus"] == second["orderStatus"] == "Filled"
    assert (first["rejectReason"], second["rejectReason"]) == ("EC_NoError", "EC_OrigClOrdIDDoesNotExist")


def test_quiet_streams_are_closed_when_their_time_is_over(desk: Desk) -> None:
    short, long = attached(desk, 1, idle_s=30), attached(desk, 2)
    desk.clock.advance(29)
    desk.exchange.step(0.5)
    assert paper(short).closed_with == 0
    said(long, op="ping")
    desk.clock.advance(7)
    desk.exchange.step(0.5)
    assert (paper(short).closed_with, paper(long).closed_with) == (1000, 0)
    long.hears_ping_frame()
    desk.clock.advance(599)
    desk.exchange.step(0.5)
    assert paper(long).closed_with == 0
    desk.clock.advance(10)
    desk.exchange.step(0.5)
    assert paper(long).closed_with == 1000


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", 600),
        ("max_active_time=30s", 30),
        ("max_active_time=10m", 600),
        ("max_active_time=1m", 60),
        ("max_active_time=29s", 600),
        ("max_active_time=11m", 600),
        ("max_active_time=soon", 600),
    ],
)
def test_the_idle_time_can_be_asked_for_within_bounds(query: str, seconds: float) -> None:
    assert idle_limit_s(query) == seconds


def test_keys_that_rest_refuses_are_refused_here_too(desk: Desk) -> None:
    api_key, _ = demo_credentials(1)
    session = attached(desk)
    refusals = [
        ({"ips": ["10.0.0.1"]}, "Unmatched IP, please check your API key's bound IP addresses."),
        ({"ips": [], "expires_ms": desk.world.now_ms()}, "Your api key has expired."),
    ]
    for fields, text in refusals:
        desk.done("POST", f"keys/{api_key}", fields)
        assert said(session, op="auth", args=auth_arguments(desk, 1))["ret_msg"] == text
    desk.done("DELETE", f"keys/{api_key}")
    assert said(session, op="auth", args=auth_arguments(desk, 1))["ret_msg"] == "API key is invalid."
    assert said(session, op="auth", args=auth_arguments(desk, 2))["ret_msg"] == "Repeat auth"
    for expires in ("9" * 5000, "", "soon", [], None, -5, {"a": 1}):
        arguments = [demo_credentials(2)[0], expires, "x"]
        assert said(session, op="auth", args=arguments)["ret_msg"] == "Params Error"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"op":5}', '{"op":[]}', '{"op":"order.create"}'])
def test_nonsense_is_answered_and_survived(desk: Desk, text: str) -> None:
    session = attached(desk)
    session.receive(text)
    assert paper(session).messages[-1]["success"] is False
    assert said(session, op="ping")["op"] == "pong"


def test_only_the_named_topic_and_user_are_refused(desk: Desk) -> None:
    desk.done("POST", "stream-faults", {"kind": "refuse_topic", "options": {"topic": "wallet", "message": "no"}})
    first = PublicSession(desk.world, Paper(), 9, desk.exchange.hub.misfortunes, 600.0, category="linear")
    first.receive('{"op":"subscribe","args":["tickers.BTCUSDT"]}')
    assert [message.get("type") for message in paper(first).messages] == [None, "snapshot"]
    first.receive('{"op":"subscribe","args":["tickers.ETHUSDT"]}')
    assert first.topics == {"tickers.BTCUSDT", "tickers.ETHUSDT"}, "several frames add up"
    first.receive('{"op":"subscribe","args":["tickers.BTCUSD"]}')
    assert paper(first).messages[-1]["ret_msg"] == "Invalid symbol :[tickers.BTCUSD]"
    desk.done("POST", "stream-faults", {"kind": "refuse_auth", "user": 2, "options": {"message": "Params Error"}})
    second = PrivateSession(
        desk.world, Paper(), 2, desk.exchange.hub.misfortunes, 600.0, address="::1", known=lambda session: None  # type: ignore[arg-type]
    )  # fmt: skip
    assert said(second, op="auth", args=auth_arguments(desk, 2))["success"] is False
    assert said(second, op="auth", args=auth_arguments(desk, 1))["success"] is True
    assert said(second, op="subscribe", args=["order", "wallet"])["ret_msg"] == "no"
    assert said(second, op="subscribe", args=["order"])["success"] is True


def test_a_burst_and_forgeries_are_sent_past_all_faults(desk: Desk) -> None:
    told = paper(attached(desk))
    desk.done("POST", "stream-faults", {"kind": "mute"})
    assert desk.done("POST", "streams/say", {"what": "redundant", "user": 1, "times": 50}) == {"streams": 1}
    assert len(told.rows("position")) == 50 == len({message["id"] for message in told.messages})
    desk.done("POST", "streams/say", {"what": "forged_wallet"})
    assert told.messages[-1]["id"].startswith("999999999")
    assert desk.control("POST", "streams/say", {"what": "nothing"}).status == 400
    assert desk.control("POST", "streams/say", {"text": "x", "times": 10**9}).status == 400


def test_a_restart_cuts_streams_and_forgets_recent_orders(empty: Desk) -> None:
    empty.done("POST", "accounts/1", {"trade": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02"}]})
    query = "category=linear&symbol=BTCUSDT&openOnly=1"
    assert [row["orderStatus"] for row in empty.result("/v5/order/realtime", query)["list"]] == ["Filled"]
    told = paper(attached(empty))
    assert empty.done("POST", "restart", {"seconds": 5}) == {"dropped": 1}
    assert told.closed_with is None
    assert empty.get("/v5/order/realtime", query).payload["retCode"] == 10019
    empty.clock.advance(5.1)
    assert empty.result("/v5/order/realtime", query)["list"] == []


def test_answers_may_lag_behind_what_the_stream_told(empty: Desk) -> None:
    told = paper(attached(empty))
    empty.done("POST", "faults", {"kind": "stale", "options": {"ms": 1500}, "endpoint": "/v5/position/list"})
    empty.clock.advance(10)
    empty.done("POST", "accounts/1", {"trade": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.02"}]})
    query = "category=linear&settleCoin=USDT"
    assert told.rows("position")[0]["size"] == "0.02"
    assert empty.result("/v5/position/list", query)["list"] == []
    assert empty.done("GET", "truth", {"kind": "answer"})["entries"][-1]["version"] == 2
    empty.clock.advance(1.6)
    assert empty.result("/v5/position/list", query)["list"][0]["size"] == "0.02"
    assert empty.done("GET", "truth", {"kind": "answer"})["entries"][-1]["version"] == 3


def test_stream_messages_are_in_the_log_of_truth_only_when_asked_for(desk: Desk) -> None:
    attached(desk)
    desk.done("POST", "accounts/1", {"wallet": {"USDC": 1}})
    assert desk.done("GET", "truth", {"kind": "stream"})["entries"] == []
    desk.done("POST", "truth", {"keep_streams": True})
    desk.done("POST", "accounts/1", {"wallet": {"USDC": 2}})
    (entry,) = desk.done("GET", "truth", {"kind": "stream"})["entries"]
    assert (entry["user"], entry["topic"]) == (1, "wallet")
    assert entry["version"] == desk.done("GET", "accounts/1")["version"]


def test_the_connect_gate_is_a_rolling_window() -> None:
    gate = ConnectGate(most=2, window_s=300)
    assert [gate.ask("a", at_s) for at_s in (0.0, 1.0, 2.0)] == [True, True, False]
    assert gate.ask("b", 2.0), "another address"
    assert not gate.ask("a", 300.5), "those of 1 s and 2 s are still in the window, and refused ones count"
    assert gate.connects(301.5) == {"a": 2, "b": 1} and gate.most_in_a_window == {"a": 3, "b": 1}
    assert gate.ask("a", 602.0)


def test_stream_limits_are_set_beside_the_others(desk: Desk) -> None:
    limits = desk.done("POST", "limits", {"connects": 7, "connects_window_s": 10})
    assert (limits["connects"], limits["connects_window_s"], limits["requests"]) == (7, 10, 600)
    assert desk.done("POST", "limits", {})["connects"] == 7


def test_chance_follows_the_seed() -> None:
    def struck(seed: int) -> list[int]:
        desk = Desk(frozen=True, seed=seed)
        told = paper(attached(desk))
        desk.done("POST", "stream-faults", {"kind": "mute", "probability": 0.5})
        for amount in range(1, 31):
            desk.done("POST", "accounts/1", {"wallet": {"USDC": amount}})
        return [int(Decimal(row["coin"][0]["walletBalance"])) for row in told.rows("wallet")]

    assert struck(1) == struck(1) != struck(2)
    assert 0 < len(struck(1)) < 30


def test_a_symbol_that_stands_still_is_heard_of_all_the_same(desk: Desk) -> None:
    hub = desk.exchange.hub
    session = PublicSession(desk.world, Paper(), 9, hub.misfortunes, 600.0, category="linear")
    hub._public[session] = None
    session.receive('{"op":"subscribe","args":["tickers.BTCUSDT"]}')
    told = paper(session).messages
    told.clear()
    for _ in range(5):
        desk.clock.advance(6)
        desk.exchange.step(0.5)
    assert [message["data"].keys() for message in told] == [{"symbol", "bid1Size"}]
    desk.done("POST", "market", {"marks": {"BTCUSDT": "61451"}})
    assert told[-1]["data"]["markPrice"] == "61451"
    session.receive('{"op":"unsubscribe","args":["tickers.BTCUSDT"]}')
    told.clear()
    desk.clock.advance(30)
    desk.exchange.step(0.5)
    assert told == []
