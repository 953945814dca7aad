"""The control calls, without sockets: what they change, what they refuse, what they tell."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exchange_sim.conftest import Desk

LONG = {"symbol": "BTCUSDT", "side": "Buy", "size": "0.02", "avg_price": "61000"}
POSITIONS = ("/v5/position/list", "category=linear&settleCoin=USDT")


def test_control_is_for_this_machine_only(desk: Desk) -> None:
    assert desk.control("GET", "accounts", address="10.0.0.9").status == 403
    assert desk.control("GET", "accounts", address="127.0.0.1").status == 200


def test_an_account_comes_with_its_key(desk: Desk) -> None:
    body = {"api_key": "k", "api_secret": "s" * 20, "wallet": {"USDT": "10"}, "positions": [LONG]}
    assert desk.done("PUT", "accounts/77", body)["types"] == ["balance", "positions", "pnl", "orders"]
    account = desk.done("GET", "accounts/77")
    assert (account["user"], account["keys"], account["version"]) == (77, ["k"], 1)
    assert account["positions"][0]["size"] == "0.02"
    assert "secret" not in orjson.dumps(account).decode()
    assert 77 in desk.done("GET", "accounts")["users"]
    desk.done("DELETE", "accounts/77")
    assert desk.control("GET", "accounts/77").status == 404 and "k" not in desk.world.keys


def test_a_replaced_account_goes_on_counting_versions(desk: Desk) -> None:
    desk.done("POST", "accounts/1", {"wallet": {"USDT": 1}})
    assert desk.done("PUT", "accounts/1", {"wallet": {"USDT": 2}})["version"] == 3
    assert desk.result("/v5/account/wallet-balance", "accountType=UNIFIED")["list"][0]["totalEquity"] == "2"


@pytest.mark.parametrize(
    ("body", "types"),
    [
        ({"wallet": {"USDC": 5}}, ["balance"]),
        ({"orders": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": 1, "price": 100}]}, ["balance", "orders"]),
        (
            {"orders": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": 1, "price": 9, "reduce_only": True}]},
            ["orders"],
        ),
        ({"closed": [{"symbol": "BTCUSDT", "closed_pnl": 5}]}, ["pnl"]),
        ({"positions": [LONG]}, ["balance", "positions", "pnl"]),
        ({"trade": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": 1}]}, ["balance", "positions", "pnl"]),
        ({"wallet": {}}, []),
        ({"hedge": True}, []),
    ],
)
def test_a_change_tells_which_data_types_differ(desk: Desk, body: dict, types: list[str]) -> None:
    desk.done("PUT", "accounts/1", {"wallet": {"USDT": 1000}})
    assert desk.done("POST", "accounts/1", body)["types"] == types


@pytest.mark.parametrize(
    "body",
    [
        {"nonsense": 1},
        {"wallet": 5},
        {"wallet": {"USDT": "many"}},
        {"wallet": {"USDT": True}},
        {"wallet": {"USDT": {"colour": 1}}},
        {"wallet": {"USDT": "NaN"}},
        {"wallet": {"NOCOIN": 1}},
        {"positions": LONG},
        {"positions": [LONG | {"side": "Up"}]},
        {"positions": [LONG | {"symbol": "nope"}]},
        {"positions": [LONG | {"size": "-1"}]},
        {"positions": ["BTCUSDT"]},
        {"orders": [{"symbol": "BTCUSDT", "side": "Buy"}, {"symbol": "BTCUSDT", "side": "Sideways"}]},
        {"orders": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": 1, "status": "Filled"}]},
        {"cancel": ["unknown"]},
        {"fill": [{"order_id": "unknown"}]},
        {"close": [{"symbol": "XXXUSDT"}]},
        {"close": [{"symbol": "BTCUSDT", "quantity": 10**6}]},
        {"trade": [{"symbol": "BTCUSDT", "side": "Buy", "quantity": -1}]},
        {"margin_mode": "FULL"},
        {"hedge": "yes"},
        {"drop": ["everything"]},
    ],
)
def test_a_bad_change_is_refused_whole(desk: Desk, body: dict) -> None:
    before, entries = desk.world.accounts[1], desk.world.truth.last_seq
    answer = desk.control("POST", "accounts/1", {"wallet": {"USDT": 777}} | body)
    assert answer.status == 400 and answer.payload["error"]
    assert desk.world.accounts[1] is before and desk.world.truth.last_seq == entries


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404),
        ("GET", "", 404),
        ("GET", "accounts/99", 404),
        ("GET", "accounts/me", 404),
        ("DELETE", "keys/none", 404),
        ("PUT", "keys", 404),
        ("GET", "figures", 404),
    ],
)
def test_what_does_not_exist_is_404(desk: Desk, method: str, path: str, status: int) -> None:
    assert desk.control(method, path).status == status


def test_an_order_is_placed_filled_and_closed_with_all_consequences(desk: Desk) -> None:
    desk.done("PUT", "accounts/1", {"wallet": {"USDT": "1000"}})
    order = {"symbol": "ETHUSDT", "side": "Sell", "quantity": "0.5", "price": "3000"}
    order_id = desk.done("POST", "accounts/1", {"orders": [order]})["order_ids"][0]
    desk.done("POST", "accounts/1", {"fill": [{"order_id": order_id}]})
    figures = desk.done("GET", "figures/1")
    assert [(p["side"], p["size"], p["entry_price"]) for p in figures["positions"]] == [("Sell", "0.5", "3000")]
    assert figures["orders"] == [] and figures["pnl"]["realized_pnl"] == "-0.825"
    desk.done("POST", "accounts/1", {"close": [{"symbol": "ETHUSDT", "price": "2900"}]})
    row = desk.result("/v5/position/closed-pnl", "category=linear")["list"][0]
    assert (row["side"], row["closedPnl"], row["openFee"], row["closeFee"]) == ("Buy", "48.3775", "0.825", "0.7975")
    figures = desk.done("GET", "figures/1")
    assert figures["positions"] == [] and figures["balance"]["total_balance"] == "1048.3775"
    assert figures["pnl"] == {
        "total_pnl": "48.3775",
        "today_pnl": "48.3775",
        "unrealized_pnl": "0",
        "realized_pnl": "48.3775",
    }


def test_one_call_is_one_change_for_all_endpoints(desk: Desk) -> None:
    desk.done("PUT", "accounts/1", {"wallet": {"USDT": "1000"}, "positions": [LONG]})
    before = desk.world.truth.last_seq
    desk.done("POST", "accounts/1", {"wallet": {"USDT": "5"}, "positions": [LONG | {"size": 0, "side": ""}]})
    assert desk.result(*POSITIONS)["list"] == []
    assert desk.result("/v5/account/wallet-balance", "accountType=UNIFIED")["list"][0]["totalEquity"] == "5"
    changes = desk.world.truth.read(before, 10, "change")
    assert [(e["user"], e["version"], e["types"]) for e in changes] == [(1, 3, ["balance", "positions", "pnl"])]


def test_figures_of_isolated_margin_are_sums_over_the_settle_coin(desk: Desk) -> None:
    wallet = {"USDT": {"wallet_balance": "1000", "locked": "10", "bonus": "5"}}
    desk.done("PUT", "accounts/1", {"wallet": wallet, "positions": [LONG], "margin_mode": "ISOLATED_MARGIN"})
    assert desk.done("GET", "figures/1")["balance"] == {
        "total_balance": "1009",
        "available_balance": "861.491645",
        "used_margin": "123.508355",
    }


def test_figures_agree_with_the_answers_in_cross_margin(desk: Desk) -> None:
    for user in (1, 2, 3):
        figures = desk.done("GET", f"figures/{user}")
        wallet = desk.result("/v5/account/wallet-balance", "accountType=UNIFIED", user)["list"][0]
        assert figures["balance"] == {
            "total_balance": wallet["totalEquity"],
            "available_balance": wallet["totalAvailableBalance"],
            "used_margin": wallet["totalInitialMargin"],
        }
        rows = desk.result(*POSITIONS, user)["list"]
        assert [p["unrealized_pnl"] for p in figures["positions"]] == [r["unrealisedPnl"] for r in rows]
        orders = desk.result("/v5/order/realtime", "category=linear&settleCoin=USDT&limit=50", user)["list"]
        assert [o["order_id"] for o in figures["orders"]] == sorted(r["orderId"] for r in orders)


def test_a_conditional_order_shows_its_trigger_price(desk: Desk) -> None:
    order = {"symbol": "BTCUSDT", "side": "Buy", "quantity": 1, "order_type": "Market", "status": "Untriggered"}
    desk.done("PUT", "accounts/1", {"orders": [order | {"trigger_price": "70000"}, order]})
    assert sorted(str(o["price"]) for o in desk.done("GET", "figures/1")["orders"]) == ["70000", "None"]


def test_todays_profit_begins_at_midnight_utc(desk: Desk) -> None:
    midnight_ms = desk.world.now_ms() // 86_400_000 * 86_400_000
    stamps = {1: midnight_ms - 1, 20: midnight_ms, 300: midnight_ms + 1}
    rows = [{"symbol": "BTCUSDT", "closed_pnl": pnl, "updated_ms": stamp} for pnl, stamp in stamps.items()]
    desk.done("PUT", "accounts/1", {"closed": rows})
    assert desk.done("GET", "figures/1")["pnl"]["today_pnl"] == "320"


def test_marks_move_everybodys_profit_at_once(desk: Desk) -> None:
    for user in (1, 2):
        desk.done("PUT", f"accounts/{user}", {"wallet": {"USDT": "1000"}, "positions": [LONG]})
    market = desk.done("POST", "market", {"marks": {"BTCUSDT": 62000}})
    assert market["marks"]["BTCUSD"] == "62000"
    assert [desk.done("GET", f"figures/{user}")["pnl"]["unrealized_pnl"] for user in (1, 2)] == ["20", "20"]
    entry = desk.world.truth.read(0, 1000, "market")[-1]
    assert entry["marks"]["BTCUSDT"] == "62000" and entry["market_version"] == market["market_version"]
    desk.done("POST", "market", {"usd_prices": {"USDT": "0.5"}})
    assert desk.done("GET", "figures/1")["balance"]["total_balance"] == "510"


@pytest.mark.parametrize(
    "body",
    [
        {"marks": {"BTCUSDT": 0}},
        {"marks": {"x y": 1}},
        {"marks": []},
        {"usd_prices": {"USDT": -1}},
        {"marks": {"BTCUSDT": 5}, "usd_prices": {"USDT": 0}},
        {"marks": {"BTCUSDT": 5, "btc": 5}},
        {"marks": {"BTCUSDT": 5}, "market_frozen": "yes"},
    ],
)
def test_impossible_marks_are_refused(desk: Desk, body: dict) -> None:
    version = desk.world.market.version
    assert desk.control("POST", "market", body).status == 400
    assert desk.world.market.version == version


def test_keys_can_be_revoked_restored_expired_bound_and_narrowed(desk: Desk) -> None:
    def code() -> int:
        return int(desk.get(*POSITIONS).payload["retCode"])

    secret = desk.world.keys["sim-key-00001"].secret
    desk.done("DELETE", "keys/sim-key-00001")
    assert code() == 10003
    desk.done("PUT", "keys/sim-key-00001", {"secret": secret, "user": 1})
    assert code() == 0
    desk.done("POST", "keys/sim-key-00001", {"expires_ms": desk.world.now_ms()})
    assert code() == 33004
    desk.done("POST", "keys/sim-key-00001", {"expires_ms": None, "ips": ["127.0.0.9"]})
    assert code() == 10010
    desk.done("POST", "keys/sim-key-00001", {"ips": [], "permissions": {"Spot": ["SpotTrade"]}})
    assert code() == 10005
    assert desk.control("PUT", "keys/other", {"secret": "s", "user": 99}).status == 404


def test_the_clock_can_be_skewed(desk: Desk) -> None:
    api_time = desk.world.now_ms()
    desk.done("POST", "clock", {"skew_ms": -60_000})
    assert desk.get("/v5/market/time").payload["time"] == api_time - 60_000
    late = desk.get(*POSITIONS, x_bapi_timestamp=str(api_time))
    assert late.payload["retCode"] == 10002


def test_a_ban_can_be_raised_shortened_and_lifted(desk: Desk) -> None:
    desk.done("POST", "ban", {"seconds": 30})
    assert desk.get("/v5/market/time").status == 403
    desk.done("DELETE", "ban")
    assert desk.get("/v5/market/time").status == 200
    desk.done("POST", "limits", {"requests": 2, "ban_s": 3, "per_endpoint": {"/v5/position/list": 1}})
    desk.clock.advance(6)
    assert [desk.get(*POSITIONS).payload["retCode"] for _ in range(2)] == [0, 10006]
    assert desk.get("/v5/market/time").status == 403
    desk.clock.advance(3.1)
    assert desk.get("/v5/market/time").status == 200


def test_counters_tell_requests_since_a_mark(desk: Desk) -> None:
    desk.get("/v5/market/time", user=None)
    mark = desk.done("POST", "counters")["mark"]
    desk.get(*POSITIONS)
    desk.get(*POSITIONS, 2, x_bapi_sign="0")
    since = desk.done("GET", "counters", {"mark": mark})
    assert since["requests"] == 2 and since["by_endpoint"] == {"/v5/position/list": 2}
    assert since["by_key"]["sim-key-00002"] == {"/v5/position/list": 1}
    everything = desk.done("GET", "counters")
    assert everything["requests"] == 3 and everything["most_in_a_window"] == {"127.0.0.1": 3}
    assert everything["ret_codes"] == {"0": 2, "10004": 1} and everything["refused_signatures"] == 1
    assert desk.control("GET", "counters", {"mark": 9}).status == 404


def test_the_truth_log_tells_changes_and_answers_in_order(desk: Desk) -> None:
    start = desk.world.truth.last_seq
    desk.done("POST", "truth", {"keep_bodies": True, "keep_figures": True})
    desk.get(*POSITIONS, 2)
    desk.clock.advance(1.5)
    desk.done("POST", "accounts/2", {"wallet": {"USDT": 5}})
    desk.done("POST", "faults", {"kind": "system_error"})
    desk.get(*POSITIONS, 2)
    log = desk.done("GET", "truth", {"after": start})
    answer, change, failed = log["entries"]
    assert [e["kind"] for e in log["entries"]] == ["answer", "change", "answer"]
    assert [e["seq"] for e in log["entries"]] == [start + 1, start + 2, start + 3] and log["last_seq"] == start + 3
    assert (answer["api_key"], answer["user"], answer["endpoint"], answer["version"]) == (
        "sim-key-00002",
        2,
        POSITIONS[0],
        1,
    )
    assert orjson.loads(answer["body"])["retCode"] == 0 and answer["faults"] == []
    assert change["t"] == answer["t_in"] + 1.5 and change["figures"]["balance"]["total_balance"]
    assert (failed["version"], failed["ret_code"], failed["faults"]) == (2, 10016, ["system_error"])
    only = desk.done("GET", "truth", {"after": start, "kind": "change", "limit": 1})["entries"]
    assert only == [change]


def test_the_truth_log_is_bounded_and_a_reader_sees_what_it_missed(desk: Desk) -> None:
    desk.done("POST", "truth", {"capacity": 3})
    start = desk.world.truth.last_seq
    for amount in range(5):
        desk.done("POST", "accounts/1", {"wallet": {"USDT": amount}})
    entries = desk.done("GET", "truth", {"after": start})["entries"]
    assert [e["seq"] - start for e in entries] == [3, 4, 5]
    assert [e["seq"] - start for e in desk.done("GET", "truth", {"after": start + 4})["entries"]] == [5]


def test_a_reset_forgets_everything_but_the_sequence(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "empty"})
    desk.done("POST", "ban", {})
    desk.done("POST", "clock", {"skew_ms": 5})
    desk.done("POST", "market", {"marks": {"BTCUSDT": 1}, "market_frozen": False})
    seq = desk.world.truth.last_seq
    assert desk.done("POST", "reset", {"users": 2, "seed": 5})["users"] == [1, 2]
    assert desk.result(*POSITIONS) is not None
    assert desk.world.skew_ms == 0 and desk.world.market_frozen and desk.world.seed == 5
    assert desk.world.market.marks["BTCUSDT"] == 61450
    assert desk.done("GET", "counters")["requests"] == 1
    assert desk.done("GET", "truth")["entries"][0]["seq"] == seq + 1


CALLS = [
    (method, path)
    for path in (
        "accounts/1",
        "accounts/2",
        "keys/k",
        "keys/sim-key-00001",
        "market",
        "limits",
        "counters",
        "truth",
        "clock",
    )
    for method in ("POST", "PUT", "GET")
] + [("POST", "faults"), ("POST", "ban"), ("DELETE", "ban"), ("GET", "figures/1")]
WORDS = (  # noqa: SIM905 - a list of fifty lines reads worse
    "wallet positions orders cancel fill trade close closed drop margin_mode hedge symbol side size avg_price quantity "
    "price order_id position_idx leverage USDT wallet_balance api_key api_secret keys secret user permissions ips "
    "expires_ms marks usd_prices market_frozen requests window_s per_endpoint mark after limit capacity keep_bodies "
    "skew_ms kind options endpoint times seconds probability address settle_coin"
).split()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.sampled_from(["BTCUSDT", "Buy", "x", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CALLS), st.dictionaries(st.sampled_from(WORDS), JSON, max_size=5))
def test_no_body_whatsoever_breaks_a_control_call(call: tuple[str, str], body: dict) -> None:
    desk = Desk(users=1, frozen=True)
    before = dict(desk.world.accounts)
    answer = desk.control(*call, body)
    assert answer.status in (200, 400, 404), answer
    if answer.status != 200:
        assert desk.world.accounts == before
    assert desk.control("GET", "market").status == 200
