"""Parameters, refusals and shapes of each endpoint, without sockets."""

import orjson
import pytest

from pushserver.exchange_sim.accounts import ApiKey
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.http_messages import Request
from tests.exchange_sim.conftest import Desk

WALLET, POSITIONS = "/v5/account/wallet-balance", "/v5/position/list"
CLOSED, ORDERS = "/v5/position/closed-pnl", "/v5/order/realtime"
TIME, TICKERS = "/v5/market/time", "/v5/market/tickers"
INFO, KEY_INFO = "/v5/account/info", "/v5/user/query-api"
DAY_MS = 86_400_000

GOOD = {
    WALLET: "accountType=UNIFIED",
    INFO: "",
    POSITIONS: "category=linear&settleCoin=USDT",
    CLOSED: "category=linear",
    ORDERS: "category=linear&settleCoin=USDT",
    KEY_INFO: "",
}


def code(desk: Desk, path: str, query: str = "", user: int = 1) -> int:
    answer = desk.get(path, query, user)
    assert answer.status == 200
    return int(answer.payload["retCode"])


@pytest.mark.parametrize(("path", "query"), [*GOOD.items(), (TIME, ""), (TICKERS, "category=linear")])
def test_a_right_request_gets_an_envelope_with_the_exchanges_time(desk: Desk, path: str, query: str) -> None:
    desk.world.skew_ms = 12_345
    answer = desk.get(path, query)
    body = orjson.loads(answer.body())
    assert (answer.status, body["retCode"], body["retExtInfo"]) == (200, 0, {})
    assert body["time"] == desk.clock.wall_ms() + 12_345
    assert body["retMsg"] in ("OK", "")
    assert answer.headers["Ret_code"] == "0" and answer.headers["Timenow"] == str(body["time"])


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (WALLET, ""),
        (WALLET, "accountType=CONTRACT"),
        (WALLET, "accountType=UNIFIED&coin=usdt"),
        (POSITIONS, ""),
        (POSITIONS, "category=linear"),
        (POSITIONS, "category=spot"),
        (POSITIONS, "category=linear&settleCoin=USDT&limit=201"),
        (POSITIONS, "category=linear&settleCoin=USDT&limit=0"),
        (POSITIONS, "category=linear&settleCoin=USDT&limit=ten"),
        (POSITIONS, "category=linear&symbol=NOPE"),
        (POSITIONS, "category=inverse&symbol=BTCUSDT"),
        (POSITIONS, "category=linear&settleCoin=USDT&cursor=nonsense"),
        (CLOSED, ""),
        (CLOSED, "category=option"),
        (CLOSED, "category=linear&limit=101"),
        (CLOSED, "category=linear&startTime=x"),
        (CLOSED, f"category=linear&startTime=0&endTime={7 * DAY_MS + 1}"),
        (CLOSED, "category=linear&startTime=10&endTime=9"),
        (ORDERS, ""),
        (ORDERS, "category=linear"),
        (ORDERS, "category=linear&settleCoin=USDT&limit=51"),
        (ORDERS, "category=linear&settleCoin=USDT&openOnly=2"),
        (TICKERS, ""),
        (TICKERS, "category=linear&symbol=NOPE"),
    ],
)
def test_bad_parameters_are_refused_with_10001(desk: Desk, path: str, query: str) -> None:
    assert code(desk, path, query) == 10001


@pytest.mark.parametrize(("path", "query"), GOOD.items())
def test_private_endpoints_ask_for_a_signature(desk: Desk, path: str, query: str) -> None:
    unsigned = desk.get(path, query, user=None)
    assert (unsigned.status, unsigned.body()) == (401, b"")
    forged = desk.get(path, query, x_bapi_sign="0" * 64)
    assert forged.payload["retCode"] == 10004
    assert forged.payload["result"] == {}
    assert desk.rest.counters.refused_signatures == 2


def test_public_endpoints_do_not(desk: Desk) -> None:
    assert desk.get(TIME, user=None).payload["retCode"] == 0
    assert "X-Bapi-Limit" not in desk.get(TICKERS, "category=linear", user=None).headers


def test_a_wrong_path_a_wrong_verb_and_a_get_with_a_body_fail_at_the_edge(desk: Desk) -> None:
    assert desk.get("/v5/nothing").status == 404
    headers = {"x-bapi-api-key": "sim-key-00001"}
    assert desk.exchange.handle(Request("POST", WALLET, "", headers, b"{}", "127.0.0.1")).status == 400
    assert desk.exchange.handle(Request("GET", WALLET, "", headers, b"{}", "127.0.0.1")).status == 403


@pytest.mark.parametrize(
    ("permissions", "refused"),
    [
        ({}, {WALLET, INFO, POSITIONS, CLOSED, ORDERS}),
        ({"Spot": ("SpotTrade",)}, {POSITIONS, CLOSED, ORDERS}),
        ({"ContractTrade": ("Position",)}, {ORDERS}),
        ({"ContractTrade": ("Order", "Position")}, set()),
    ],
)
def test_each_endpoint_asks_for_its_permission(desk: Desk, permissions: dict, refused: set[str]) -> None:
    api_key, secret = demo_credentials(1)
    desk.world.keys[api_key] = ApiKey(api_key, secret, 1, permissions=permissions)
    assert {path for path, query in GOOD.items() if code(desk, path, query) == 10005} == refused


def test_spot_orders_ask_for_the_spot_permission(desk: Desk) -> None:
    api_key, secret = demo_credentials(1)
    desk.world.keys[api_key] = ApiKey(api_key, secret, 1, permissions={"ContractTrade": ("Order", "Position")})
    assert code(desk, ORDERS, "category=spot") == 10005


def test_the_fifty_first_request_in_a_second_is_refused_with_a_reset_time(desk: Desk) -> None:
    answers = [desk.get(WALLET, GOOD[WALLET]) for _ in range(51)]
    assert [a.payload["retCode"] for a in answers] == [0] * 50 + [10006]
    assert [int(a.headers["X-Bapi-Limit-Status"]) for a in answers] == [*range(49, -1, -1), 0]
    assert {a.headers["X-Bapi-Limit"] for a in answers} == {"50"}
    now_ms = desk.world.now_ms()
    assert answers[0].headers["X-Bapi-Limit-Reset-Timestamp"] == str(now_ms)
    assert answers[50].headers["X-Bapi-Limit-Reset-Timestamp"] == str(now_ms + 1000)
    assert code(desk, POSITIONS, GOOD[POSITIONS]) == 0
    desk.clock.advance(1.0)
    assert code(desk, WALLET, GOOD[WALLET]) == 0


def test_the_key_endpoint_has_a_smaller_limit(desk: Desk) -> None:
    assert [code(desk, KEY_INFO) for _ in range(11)] == [0] * 10 + [10006]


def test_601_requests_in_five_seconds_ban_the_address_for_everybody_behind_it(desk: Desk) -> None:
    for index in range(600):
        assert desk.get(TIME, user=None).status == 200, index
    banned = desk.get(TIME, user=None)
    assert banned.status == 403 and b"access too frequent" in banned.body()
    assert desk.get(WALLET, GOOD[WALLET], user=2).status == 403
    assert desk.get(TIME, user=None, address="127.0.0.2").status == 200
    desk.clock.advance(599)
    assert desk.get(TIME, user=None).status == 403
    desk.clock.advance(2)
    assert desk.get(TIME, user=None).status == 200


# Shapes and contents


def trader(desk: Desk, **parts: object) -> None:
    """User 1 with just these parts and his seeded key."""
    desk.done("PUT", "accounts/1", {"wallet": {"USDT": "1000"}, **parts})


LONG = {"symbol": "BTCUSDT", "side": "Buy", "size": "0.02", "avg_price": "61000"}


def test_a_wallet_has_bybits_fields_and_types(desk: Desk) -> None:
    trader(desk, wallet={"USDT": {"wallet_balance": "4999.329", "cum_realised_pnl": "-12.441"}}, positions=[LONG])
    row = desk.result(WALLET, GOOD[WALLET])["list"][0]
    coin = row.pop("coin")[0]
    assert all(isinstance(value, str) for value in row.values())
    assert {name for name, value in coin.items() if not isinstance(value, str)} == {
        "marginCollateral",
        "collateralSwitch",
    }
    assert (row["totalEquity"], row["totalPerpUPL"]) == ("5008.329", "9")
    assert (coin["unrealisedPnl"], coin["cumRealisedPnl"], coin["availableToWithdraw"]) == ("9", "-12.441", "")


def test_the_coin_parameter_narrows_the_coins_but_not_the_totals(desk: Desk) -> None:
    trader(desk, wallet={"USDT": "10", "USDC": "5"})
    row = desk.result(WALLET, "accountType=UNIFIED&coin=USDC")["list"][0]
    assert [coin["coin"] for coin in row["coin"]] == ["USDC"]
    assert row["totalEquity"] == "15"


def test_isolated_margin_blanks_the_account_level(desk: Desk) -> None:
    trader(desk, margin_mode="ISOLATED_MARGIN", positions=[LONG])
    row = desk.result(WALLET, GOOD[WALLET])["list"][0]
    blank = {name for name, value in row.items() if value == ""}
    assert {"totalAvailableBalance", "totalInitialMargin", "totalMarginBalance", "accountIMRate", "accountLTV"} <= blank
    assert row["totalEquity"] == "1009" and row["totalPerpUPL"] == "9"
    assert row["coin"][0]["totalPositionIM"] == "123.508355"
    assert desk.result(INFO)["marginMode"] == "ISOLATED_MARGIN"


def test_portfolio_margin_blanks_coins_and_positions(desk: Desk) -> None:
    trader(desk, margin_mode="PORTFOLIO_MARGIN", positions=[LONG])
    row = desk.result(WALLET, GOOD[WALLET])["list"][0]
    assert row["totalInitialMargin"] == "123.508355"
    assert row["coin"][0]["totalPositionIM"] == row["coin"][0]["totalOrderIM"] == ""
    position = desk.result(POSITIONS, GOOD[POSITIONS])["list"][0]
    assert position["leverage"] == position["positionIM"] == position["liqPrice"] == "" and position["riskId"] == 0


def test_an_unused_wallet_has_blank_totals(desk: Desk) -> None:
    desk.done("PUT", "accounts/1", {})
    row = desk.result(WALLET, GOOD[WALLET])["list"][0]
    assert row.pop("accountType") == "UNIFIED" and row.pop("coin") == []
    assert set(row.values()) == {""}


def test_positions_by_symbol_show_flat_rows_and_by_coin_only_open_ones(desk: Desk) -> None:
    trader(desk, positions=[LONG])
    flat = desk.result(POSITIONS, "category=linear&symbol=ETHUSDT")["list"]
    assert [(row["side"], row["size"], row["unrealisedPnl"], row["positionValue"]) for row in flat] == [
        ("", "0", "", "")
    ]
    rows = desk.result(POSITIONS, GOOD[POSITIONS])["list"]
    assert [(row["symbol"], row["side"], row["unrealisedPnl"]) for row in rows] == [("BTCUSDT", "Buy", "9")]
    integers = {"positionIdx", "riskId", "tradeMode", "autoAddMargin", "adlRankIndicator", "seq", "openTime"}
    assert {name for name, value in rows[0].items() if type(value) is int} == integers


def test_hedge_mode_shows_both_legs(desk: Desk) -> None:
    short = {"symbol": "BTCUSDT", "side": "Sell", "size": "0.01", "avg_price": "62000"}
    trader(desk, hedge=True, positions=[LONG, short])
    rows = desk.result(POSITIONS, GOOD[POSITIONS])["list"]
    assert [(row["positionIdx"], row["side"]) for row in rows] == [(1, "Buy"), (2, "Sell")]
    assert len(desk.result(POSITIONS, "category=linear&symbol=ETHUSDT")["list"]) == 2


def test_settle_coins_and_categories_are_apart(desk: Desk) -> None:
    usdc = LONG | {"symbol": "BTCPERP"}
    inverse = LONG | {"symbol": "BTCUSD", "size": "1000"}
    trader(desk, positions=[LONG, usdc, inverse])
    symbols = {
        query: [row["symbol"] for row in desk.result(POSITIONS, query)["list"]]
        for query in ("category=linear&settleCoin=USDT", "category=linear&settleCoin=USDC", "category=inverse")
    }
    assert list(symbols.values()) == [["BTCUSDT"], ["BTCPERP"], ["BTCUSD"]]


def test_orders_are_newest_first_and_paged(desk: Desk) -> None:
    orders = [
        {"order_id": f"o{n:03d}", "symbol": "BTCUSDT", "side": "Buy", "quantity": 1, "price": 5, "created_ms": n}
        for n in range(45)
    ]
    trader(desk, orders=orders)
    first = desk.result(ORDERS, GOOD[ORDERS])
    assert [row["orderId"] for row in first["list"]] == [f"o{n:03d}" for n in range(44, 24, -1)]
    second = desk.result(ORDERS, f"{GOOD[ORDERS]}&cursor={first['nextPageCursor']}")
    third = desk.result(ORDERS, f"{GOOD[ORDERS]}&cursor={second['nextPageCursor']}")
    assert [len(page["list"]) for page in (second, third)] == [20, 5]
    assert third["nextPageCursor"]
    fourth = desk.result(ORDERS, f"{GOOD[ORDERS]}&cursor={third['nextPageCursor']}")
    assert (fourth["list"], fourth["nextPageCursor"]) == ([], "")


def test_orders_can_be_asked_for_one_by_one_and_with_the_recently_closed(desk: Desk) -> None:
    order = {"order_id": "a", "order_link_id": "mine", "symbol": "BTCUSDT", "side": "Buy", "quantity": 1, "price": 5}
    spot = {"order_id": "17", "symbol": "XYZUSDT", "side": "Buy", "quantity": 1, "price": 5, "category": "spot"}
    trader(desk, orders=[order, order | {"order_id": "b", "order_link_id": ""}, spot])
    assert [r["orderId"] for r in desk.result(ORDERS, "category=linear&symbol=BTCUSDT&orderId=b")["list"]] == ["b"]
    assert [r["orderId"] for r in desk.result(ORDERS, "category=linear&symbol=X&orderLinkId=mine")["list"]] == ["a"]
    assert [r["orderId"] for r in desk.result(ORDERS, "category=spot")["list"]] == ["17"]
    desk.done("POST", "accounts/1", {"cancel": ["a"]})
    assert [r["orderId"] for r in desk.result(ORDERS, GOOD[ORDERS])["list"]] == ["b"]
    both = desk.result(ORDERS, GOOD[ORDERS] + "&openOnly=1")["list"]
    assert {r["orderId"]: r["orderStatus"] for r in both} == {"a": "Cancelled", "b": "New"}


def test_closed_rows_lie_in_the_asked_week(desk: Desk) -> None:
    now_ms = desk.world.now_ms()
    rows = [
        {"order_id": f"c{days}", "symbol": "BTCUSDT", "closed_pnl": days, "updated_ms": now_ms - days * DAY_MS}
        for days in (0, 3, 8, 15)
    ]
    trader(desk, closed=rows)

    def ids(query: str = "") -> list[str]:
        return [row["orderId"] for row in desk.result(CLOSED, f"category=linear{query}")["list"]]

    assert ids() == ["c0", "c3"]
    assert ids(f"&startTime={now_ms - 9 * DAY_MS}") == ["c3", "c8"]
    assert ids(f"&endTime={now_ms - 4 * DAY_MS}") == ["c8"]
    assert ids(f"&startTime={now_ms - 16 * DAY_MS}&endTime={now_ms - 10 * DAY_MS}") == ["c15"]
    assert ids("&symbol=ETHUSDT") == []


def test_a_key_tells_its_rights_and_its_end(desk: Desk) -> None:
    info = desk.result(KEY_INFO)
    assert (info["apiKey"], info["secret"], info["readOnly"], info["userID"]) == ("sim-key-00001", "", 1, 1)
    assert info["permissions"]["ContractTrade"] == ["Order", "Position"] and info["ips"] == ["*"]
    assert info["deadlineDay"] == 60 and info["expiredAt"] == "2026-03-02T00:00:00Z"
    desk.done("POST", "keys/sim-key-00001", {"ips": ["127.0.0.1"], "read_only": False})
    bound = desk.result(KEY_INFO)
    assert (bound["deadlineDay"], bound["expiredAt"][:4], bound["readOnly"]) == (-2, "1970", 0)


def test_tickers_quote_the_marks(desk: Desk) -> None:
    desk.done("POST", "market", {"marks": {"BTCUSDT": "60000.5", "XRPUSDT": "0.61"}})
    rows = {row["symbol"]: row["markPrice"] for row in desk.result(TICKERS, "category=linear")["list"]}
    assert rows["BTCUSDT"] == rows["BTCPERP"] == "60000.5" and rows["XRPUSDT"] == "0.61"
    one = desk.result(TICKERS, "category=inverse&symbol=BTCUSD")["list"]
    assert [row["lastPrice"] for row in one] == ["60000.5"]
