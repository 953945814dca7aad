"""Every fault, seen by a client on a real socket; and the conditions that narrow faults down."""

from __future__ import annotations

import gzip
import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from pushserver.exchange_sim.client import ControlError, SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.fault_kinds import KINDS
from pushserver.exchange_sim.signing import signature
from tests.exchange_sim.conftest import Desk

WALLET = "/v5/account/wallet-balance"
POSITIONS = "/v5/position/list"
QUERIES = {WALLET: "accountType=UNIFIED", POSITIONS: "category=linear&settleCoin=USDT"}


class Seen:
    """One answer as it came over the wire."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.raw = response.read()

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


def ask(sim: SimControl, path: str = POSITIONS, user: int = 1, timeout_s: float = 5.0) -> Seen:
    address = urlsplit(sim.base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    api_key, secret = demo_credentials(user)
    stamp = str(time.time_ns() // 1_000_000)
    headers = {
        "X-BAPI-API-KEY": api_key,
        "X-BAPI-TIMESTAMP": stamp,
        "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": signature(secret, stamp, api_key, "5000", QUERIES[path]),
    }
    try:
        connection.request("GET", f"{path}?{QUERIES[path]}", headers=headers)
        return Seen(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [
        ("timestamp", 10002, "timestamp"),
        ("key_invalid", 10003, "API key"),
        ("permission_denied", 10005, "Permission"),
        ("ip_not_allowed", 10010, "IP"),
        ("system_error", 10016, "System error. Please try again later."),
        ("request_timeout", 10016, "Request timeout, please try again later"),
        ("server_timeout", 10000, "Server Timeout"),
        ("key_expired", 33004, "expired"),
    ],
)
def test_coded_faults_are_http_200_with_their_code(sim: SimControl, kind: str, code: int, text: str) -> None:
    sim.fault(kind, times=1)
    seen = ask(sim)
    assert (seen.status, seen.body["retCode"]) == (200, code) and text in seen.body["retMsg"]
    assert ask(sim).body["retCode"] == 0


@pytest.mark.parametrize(("reset", "least", "most"), [("future", 1, 5000), ("past", -5000, -1)])
def test_too_many_visits_names_a_reset_in_the_future_or_the_past(
    sim: SimControl, reset: str, least: int, most: int
) -> None:
    sim.fault("rate_limited", {"reset": reset, "reset_in_ms": 4000}, times=1)
    seen = ask(sim)
    assert seen.body["retCode"] == 10006 and seen.headers["X-Bapi-Limit-Status"] == "0"
    assert least <= int(seen.headers["X-Bapi-Limit-Reset-Timestamp"]) - seen.body["time"] <= most


def test_too_many_visits_may_come_without_a_reset(sim: SimControl) -> None:
    sim.fault("rate_limited", {"reset": "none"}, times=1)
    seen = ask(sim)
    assert seen.body["retCode"] == 10006 and "X-Bapi-Limit-Reset-Timestamp" not in seen.headers


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503, 504])
def test_http_errors_come_with_the_body_asked_for(sim: SimControl, status: int) -> None:
    sim.fault("http_status", {"status": status, "body": "<html>no</html>"}, times=1)
    seen = ask(sim)
    assert (seen.status, seen.raw) == (status, b"<html>no</html>")


@pytest.mark.parametrize(("kind", "raw"), [("empty", b""), ("array", b"[]"), ("null", b"null")])
def test_odd_bodies_come_with_status_200(sim: SimControl, kind: str, raw: bytes) -> None:
    sim.fault(kind, times=1)
    seen = ask(sim)
    assert (seen.status, seen.raw) == (200, raw)


def test_html_comes_with_status_200(sim: SimControl) -> None:
    sim.fault("html", times=1)
    seen = ask(sim)
    assert seen.status == 200 and seen.raw.startswith(b"<!DOCTYPE html>")
    assert seen.headers["Content-Type"].startswith("text/html")


def test_a_redirect_points_where_it_was_told(sim: SimControl) -> None:
    sim.fault("redirect", {"location": "http://127.0.0.2:1/x", "status": 307}, times=1)
    seen = ask(sim)
    assert (seen.status, seen.headers["Location"]) == (307, "http://127.0.0.2:1/x")


def test_codes_can_be_strings_and_legacy(sim: SimControl) -> None:
    sim.fault("string_codes", times=1)
    assert ask(sim).body["retCode"] == "0"
    sim.fault("legacy_error", times=1)
    body = ask(sim).body
    assert body["ret_code"] == "-2015" and "retCode" not in body
    sim.fault("ret_code", {"code": 10024, "message": "compliance"}, times=1)
    assert ask(sim).body["retCode"] == 10024


def test_truncated_json_is_a_whole_http_answer(sim: SimControl) -> None:
    sim.fault("truncated", {"fraction": 0.3}, times=1)
    seen = ask(sim)
    assert seen.raw.startswith(b'{"retCode"') and int(seen.headers["Content-Length"]) == len(seen.raw)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        assert seen.body


def test_a_cut_body_ends_before_its_length(sim: SimControl) -> None:
    sim.fault("cut", {"after_bytes": 10}, times=1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(sim)
    assert len(caught.value.partial) == 10


def test_a_cut_connection_is_reset(sim: SimControl) -> None:
    sim.fault("cut", times=1)
    with pytest.raises(ConnectionError):
        ask(sim)
    assert ask(sim).status == 200


def test_a_hang_says_nothing(sim: SimControl) -> None:
    sim.fault("hang", times=1)
    with pytest.raises(TimeoutError):
        ask(sim, timeout_s=0.3)
    assert ask(sim).status == 200


def test_a_hang_can_end_with_a_closed_connection(sim: SimControl) -> None:
    sim.fault("hang", {"seconds": 0.1}, times=1)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(sim)


def test_latency_delays_the_answer_but_not_the_state(sim: SimControl) -> None:
    sim.fault("latency", {"seconds": 0.4}, times=1)
    started = time.monotonic()
    assert ask(sim).status == 200
    assert 0.4 <= time.monotonic() - started < 3
    entry = sim.truth(kind="answer")[-1]
    assert entry["t_out"] - entry["t_in"] >= 0.4


@pytest.mark.parametrize("distribution", ["constant", "uniform", "exponential", "lognormal"])
def test_latencies_are_drawn_from_a_distribution(distribution: str) -> None:
    desk = Desk(frozen=True)
    options = {"seconds": 1.0, "distribution": distribution, "most": 9.0}
    desk.done("POST", "faults", {"kind": "latency", "options": options})
    delays = [desk.get("/v5/market/time", user=None).delay_s for _ in range(300)]
    assert all(0 <= delay <= 9 for delay in delays)
    assert (len(set(delays)) == 1) == (distribution == "constant")
    assert 0.5 < sum(delays) / len(delays) < 2.5


def test_a_dripping_body_takes_its_time(sim: SimControl) -> None:
    plain = len(ask(sim, WALLET).raw)
    sim.fault("drip", {"bytes_per_s": plain * 2}, times=1)
    started = time.monotonic()
    assert ask(sim, WALLET).body["retCode"] == 0
    assert time.monotonic() - started > 0.3


def test_numbers_can_be_blank_null_missing_or_nan(sim: SimControl) -> None:
    sim.fault("blank_numbers", endpoint=WALLET, times=1)
    row = ask(sim, WALLET).body["result"]["list"][0]
    assert row["totalEquity"] == row["coin"][0]["equity"] == "" and row["accountType"] == "UNIFIED"
    sim.fault("null_fields", {"fields": ["totalEquity"]}, endpoint=WALLET, times=1)
    row = ask(sim, WALLET).body["result"]["list"][0]
    assert row["totalEquity"] is None and row["totalWalletBalance"]
    sim.fault("missing_fields", {"fields": ["totalEquity"]}, endpoint=WALLET, times=1)
    assert "totalEquity" not in ask(sim, WALLET).body["result"]["list"][0]
    sim.fault("nan", {"fields": ["totalEquity"]}, endpoint=WALLET, times=1)
    assert b'"totalEquity":NaN' in ask(sim, WALLET).raw
    sim.fault("nan", {"fields": ["totalEquity"], "as_string": True}, endpoint=WALLET, times=1)
    assert b'"totalEquity":"NaN"' in ask(sim, WALLET).raw


def test_lists_can_be_missing_or_empty(sim: SimControl) -> None:
    sim.fault("missing_list", times=1)
    assert "list" not in ask(sim).body["result"]
    sim.fault("empty_list", times=1)
    assert ask(sim).body["result"]["list"] == []


def test_a_cursor_can_repeat_for_ever(sim: SimControl) -> None:
    sim.fault("repeated_cursor", {"cursor": "BTCUSDT%2C1%2C0"}, times=2)
    assert [ask(sim).body["result"]["nextPageCursor"] for _ in range(2)] == ["BTCUSDT%2C1%2C0"] * 2


def test_the_time_of_an_answer_can_be_wrong_alone(sim: SimControl) -> None:
    sim.fault("time_skew", {"ms": -3_600_000}, times=1)
    seen = ask(sim)
    assert int(seen.headers["Timenow"]) - seen.body["time"] > 3_500_000
    assert abs(ask(sim).body["time"] - int(seen.headers["Timenow"])) < 5_000


def test_bodies_can_be_huge_and_bombs(sim: SimControl) -> None:
    sim.fault("huge_body", {"bytes": 2_000_000}, times=1)
    assert len(ask(sim).raw) > 2_000_000
    sim.fault("gzip_bomb", {"bytes": 5_000_000}, times=1)
    seen = ask(sim)
    assert seen.headers["Content-Encoding"] == "gzip" and len(seen.raw) < 10_000
    unpacked = gzip.decompress(seen.raw)
    assert len(unpacked) > 5_000_000 and json.loads(unpacked)["retCode"] == 0


def test_every_kind_can_be_set_and_leaves_the_next_request_alone(desk: Desk) -> None:
    for kind in KINDS:
        desk.done("POST", "faults", {"kind": kind, "times": 1})
        answer = desk.get(POSITIONS, QUERIES[POSITIONS])
        assert answer.cut_at_once or answer.hang_s or answer.bytes_per_s or answer.delay_s or answer.body() is not None
        assert desk.result(POSITIONS, QUERIES[POSITIONS])["category"] == "linear", kind
        assert desk.done("GET", "counters")["faults"][kind] == 1
        desk.clock.advance(1)


# Conditions


def codes(desk: Desk, count: int, path: str = POSITIONS, user: int = 1) -> list[int]:
    return [desk.get(path, QUERIES[path], user).payload["retCode"] for _ in range(count)]


def test_a_fault_is_used_up_by_its_requests(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "system_error", "times": 2})
    assert codes(desk, 4) == [10016, 10016, 0, 0]
    assert desk.done("GET", "faults")["faults"] == []


def test_a_fault_ends_after_its_time(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "system_error", "seconds": 10})
    desk.clock.advance(9.9)
    assert codes(desk, 1) == [10016]
    desk.clock.advance(0.1)
    assert codes(desk, 1) == [0]


def test_a_fault_stays_until_it_is_cleared(desk: Desk) -> None:
    first = desk.done("POST", "faults", {"kind": "system_error"})["id"]
    desk.done("POST", "faults", {"kind": "server_timeout"})
    desk.clock.advance(10_000)
    assert codes(desk, 1) == [10016]
    desk.done("DELETE", f"faults/{first}")
    assert codes(desk, 1) == [10000]
    desk.done("DELETE", "faults")
    assert codes(desk, 1) == [0]


def test_a_fault_can_be_meant_for_one_endpoint_key_user_or_query(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "system_error", "endpoint": WALLET})
    assert codes(desk, 1, WALLET) == [10016] and codes(desk, 1) == [0]
    desk.done("DELETE", "faults")
    desk.done("POST", "faults", {"kind": "system_error", "user": 2})
    assert codes(desk, 1, user=2) == [10016] and codes(desk, 1) == [0]
    desk.done("DELETE", "faults")
    desk.done("POST", "faults", {"kind": "system_error", "api_key": "sim-key-00003"})
    assert codes(desk, 1, user=3) == [10016] and codes(desk, 1) == [0]
    desk.done("DELETE", "faults")
    desk.done("POST", "faults", {"kind": "system_error", "query_contains": "cursor="})
    assert codes(desk, 1) == [0]
    second_page = desk.get(POSITIONS, QUERIES[POSITIONS] + "&cursor=A%2C1%2C0")
    assert second_page.payload["retCode"] == 10016


def test_a_fault_can_strike_by_chance_and_the_seed_decides() -> None:
    def struck() -> list[int]:
        desk = Desk(frozen=True)
        desk.done("POST", "faults", {"kind": "system_error", "probability": 0.3})
        return [desk.get("/v5/market/time", user=None).payload["retCode"] for _ in range(200)]

    assert struck() == struck() and 30 < struck().count(10016) < 90


def test_faults_add_up(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "latency", "options": {"seconds": 2.0}})
    desk.done("POST", "faults", {"kind": "string_codes"})
    desk.done("POST", "faults", {"kind": "system_error"})
    answer = desk.get(POSITIONS, QUERIES[POSITIONS])
    assert (answer.delay_s, answer.payload["retCode"]) == (2.0, "10016")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "nonsense"},
        {"kind": "latency", "options": {"colour": 1}},
        {"kind": "latency", "options": {"seconds": "1"}},
        {"kind": "latency", "options": {"distribution": "normal"}},
        {"kind": "rate_limited", "options": {"reset": "soon"}},
        {"kind": "empty", "options": {"seconds": 1}},
        {"kind": "empty", "endpoint": "/v5/nothing"},
        {"kind": "empty", "times": "twice"},
        {"kind": "empty", "times": True},
        {"kind": "empty", "user": "1"},
        {"kind": "empty", "seconds": "soon"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    assert desk.control("POST", "faults", body).status == 400
    assert desk.done("GET", "faults")["faults"] == []


def test_the_client_names_the_reason_of_a_refusal(sim: SimControl) -> None:
    with pytest.raises(ControlError, match="no fault is called 'x'"):
        sim.fault("x")


def test_one_fault_follows_another(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "http_status", "options": {"status": 401}, "times": 1})
    desk.done("POST", "faults", {"kind": "geo_block", "skip": 1, "times": 2})
    seen = [desk.get(POSITIONS, QUERIES[POSITIONS]) for _ in range(4)]
    assert [answer.status for answer in seen] == [401, 403, 403, 200]
    assert seen[0].body() == b"" and b"CloudFront" in seen[1].body()


def test_a_request_that_waits_in_a_queue_is_judged_late(desk: Desk) -> None:
    desk.done("POST", "faults", {"kind": "queued", "options": {"seconds": 4.9}, "times": 1})
    desk.done("POST", "faults", {"kind": "queued", "options": {"seconds": 5.2}, "skip": 1, "times": 1})
    fine, late = (desk.get(POSITIONS, QUERIES[POSITIONS]) for _ in range(2))
    assert (fine.payload["retCode"], fine.delay_s) == (0, 4.9)
    assert (late.payload["retCode"], late.delay_s) == (10002, 5.2)


def test_another_program_of_the_user_takes_a_part_of_his_limit(desk: Desk) -> None:
    desk.done("POST", "limits", {"taken_by_others": {"1": 48}})
    assert codes(desk, 3) == [0, 0, 10006]
    assert codes(desk, 3, user=2) == [0, 0, 0]
    answer = desk.get(POSITIONS, QUERIES[POSITIONS])
    assert (answer.headers["X-Bapi-Limit"], answer.headers["X-Bapi-Limit-Status"]) == ("50", "0")
    desk.clock.advance(1)
    assert desk.get(POSITIONS, QUERIES[POSITIONS]).headers["X-Bapi-Limit-Status"] == "1"
