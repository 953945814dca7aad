"""Every refusal we know of, from its raw bytes to the class, code and hint it stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.errors import (
    AddressBanned,
    AnswerMalformed,
    ClockSkew,
    ExchangeError,
    ExchangeUnavailable,
    KeyRefused,
    PermissionMissing,
    RateLimited,
    RequestRejected,
)
from pushserver.exchange.answers_table import MEANINGS
from pushserver.exchange.bybit_errors import RawAnswer, cleaned, envelope_of
from pushserver.exchange.port import Endpoint
from pushserver.metrics_catalogue.catalogue import FETCH_CODES
from tests.exchange.stub import NOW_MS, envelope

CLOUDFRONT = b"<!DOCTYPE HTML><HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD></HTML>"
RESET = "x-bapi-limit-reset-timestamp"


def raw(body: bytes, status: int = 200, **headers: str) -> RawAnswer:
    return RawAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def judged(answer: RawAnswer, endpoint: Endpoint = Endpoint.WALLET) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        envelope_of(endpoint, answer, NOW_MS)
    return caught.value


def refused(code: Any, message: str = "no", **more: Any) -> RawAnswer:
    return raw(envelope(code=code, message=message, **more))


CODES = [
    (10002, ClockSkew, "exchange_clock_skew"),
    (-1, ClockSkew, "exchange_clock_skew"),
    (10003, KeyRefused, "key_invalid"),
    (10004, KeyRefused, "key_signature"),
    (10005, PermissionMissing, "key_permission"),
    (10006, RateLimited, "exchange_rate_limited"),
    (10007, KeyRefused, "key_invalid"),
    (10008, KeyRefused, "account_blocked"),
    (10009, KeyRefused, "account_blocked"),
    (10010, KeyRefused, "key_ip_not_allowed"),
    (10016, ExchangeUnavailable, "exchange_unavailable"),
    (10000, ExchangeUnavailable, "exchange_unavailable"),
    (10019, ExchangeUnavailable, "exchange_unavailable"),
    (10018, AddressBanned, "exchange_address_banned"),
    (10024, KeyRefused, "account_blocked"),
    (10027, KeyRefused, "account_blocked"),
    (10029, RequestRejected, "exchange_request_rejected"),
    (10001, RequestRejected, "exchange_request_rejected"),
    (10014, RequestRejected, "exchange_request_rejected"),
    (10017, RequestRejected, "exchange_request_rejected"),
    (10028, RequestRejected, "exchange_request_rejected"),
    (10032, RequestRejected, "exchange_request_rejected"),
    (100028, RequestRejected, "exchange_request_rejected"),
    (33004, KeyRefused, "key_expired"),
    (-2015, KeyRefused, "key_expired"),
    (429, ExchangeUnavailable, "exchange_unavailable"),
    (77777, ExchangeUnavailable, "exchange_unavailable"),
]


@pytest.mark.parametrize(("ret_code", "failure", "code"), CODES)
def test_H04_each_code_has_its_meaning_as_number_as_text_and_in_the_old_form(
    ret_code: int, failure: type[ExchangeError], code: str
) -> None:
    old = raw(json.dumps({"ret_code": str(ret_code), "ret_msg": "no", "result": None}).encode())
    for answer in (refused(ret_code), refused(str(ret_code)), old, raw(json.dumps({"retCode": ret_code}).encode())):
        error = judged(answer)
        assert (type(error), error.code, error.exchange_code) == (failure, code, ret_code)
        assert error.endpoint == "wallet_balance"
        assert error.message and error.message[0].isupper()


def test_no_code_of_the_table_is_left_untested() -> None:
    assert set(MEANINGS) == {ret_code for ret_code, _failure, _code in CODES} - {77777}


def test_I07_every_code_is_a_known_label_of_the_metrics() -> None:
    own = {"exchange_redirect", "exchange_region_blocked", "exchange_time_ahead", "exchange_timeout"}
    assert {code for _ret_code, _failure, code in CODES} | own | {AnswerMalformed.code} <= set(FETCH_CODES)


STATUSES = [
    (403, b"403 Forbidden: access too frequent, please try again later", "text/plain", AddressBanned, "address_banned"),
    (403, b'{"retCode":10006,"retMsg":"Access too frequent"}', "application/json", AddressBanned, "address_banned"),
    (403, b"<html>Access too frequent</html>", "text/html", AddressBanned, "address_banned"),
    (403, b"", "", AddressBanned, "address_banned"),
    (403, CLOUDFRONT, "text/html", AddressBanned, "region_blocked"),
    (403, CLOUDFRONT, "", AddressBanned, "region_blocked"),
    (403, b"\xff\xfe", "text/html; charset=utf-16", AddressBanned, "region_blocked"),
    (429, b"", "", ExchangeUnavailable, "unavailable"),
    (500, b"", "", ExchangeUnavailable, "unavailable"),
    (502, b"<html>Bad Gateway</html>", "text/html", ExchangeUnavailable, "unavailable"),
    (503, b"null", "application/json", ExchangeUnavailable, "unavailable"),
    (504, envelope(code=10003), "application/json", ExchangeUnavailable, "unavailable"),
    (400, b"400 Bad Request", "text/plain", RequestRejected, "request_rejected"),
    (404, b"404 page not found", "text/plain", RequestRejected, "request_rejected"),
    (404, b"[]", "application/json", RequestRejected, "request_rejected"),
    (418, b"", "", RequestRejected, "request_rejected"),
    (302, b"", "", ExchangeUnavailable, "redirect"),
    (204, b"", "", AnswerMalformed, "answer_malformed"),
    (206, envelope(), "application/json", AnswerMalformed, "answer_malformed"),
]


@pytest.mark.parametrize(("status", "body", "content_type", "failure", "code"), STATUSES)
def test_H02_each_http_status_has_its_meaning(
    status: int, body: bytes, content_type: str, failure: type[ExchangeError], code: str
) -> None:
    error = judged(raw(body, status, content_type=content_type))
    assert (type(error), error.code, error.exchange_code) == (failure, f"exchange_{code}", status)


def test_H02_a_403_asks_for_ten_minutes_whatever_it_says() -> None:
    answers = [raw(b"access too frequent", 403), raw(CLOUDFRONT, 403), refused(10018)]
    assert [judged(answer).retry_after_s for answer in answers] == [600.0] * 3


def test_H04_a_401_refuses_the_key_but_cannot_on_a_public_question() -> None:
    error = judged(raw(b"", 401))
    assert (type(error), error.code, error.exchange_code) == (KeyRefused, "key_invalid", 401)
    assert type(judged(raw(b"", 401), Endpoint.SERVER_TIME)) is ExchangeUnavailable


def test_a_code_inside_a_client_error_counts_more_than_the_status() -> None:
    error = judged(raw(envelope(code=10003), 400))
    assert (type(error), error.exchange_code) == (KeyRefused, 10003)


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        ({}, 1.0),
        ({RESET: str(NOW_MS + 700)}, 0.7),
        ({RESET: str(NOW_MS - 5_000)}, 0.1),
        ({RESET: "0"}, 0.1),
        ({RESET: str(NOW_MS + 86_400_000)}, 60.0),
        ({RESET: "9" * 400}, 1.0),
        ({RESET: "soon"}, 1.0),
        ({RESET: "1e9"}, 1.0),
        ({RESET: "-5"}, 1.0),
        ({RESET: "NaN"}, 1.0),
        ({RESET: "١٢٣"}, 1.0),
    ],
)
def test_H01_the_reset_header_is_believed_within_bounds(headers: dict[str, str], retry_after_s: float) -> None:
    answer = refused(10006)
    error = judged(RawAnswer(200, headers, answer.body))
    assert (type(error), error.retry_after_s) == (RateLimited, retry_after_s)


@pytest.mark.parametrize(("header", "retry_after_s"), [("5", 5.0), ("0", 0.1), ("999999", 60.0), ("later", None)])
def test_H02_a_429_may_say_how_long(header: str, retry_after_s: float | None) -> None:
    assert judged(raw(b"", 429, retry_after=header)).retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("header", "retry_after_s"), [("5", 600.0), ("1800", 1_800.0), ("9" * 9, 3_600.0), ("x", 600.0)]
)
def test_H02_a_ban_may_be_told_to_be_longer_but_never_shorter(header: str, retry_after_s: float) -> None:
    assert judged(raw(b"access too frequent", 403, retry_after=header)).retry_after_s == retry_after_s


def test_H05_a_5xx_may_say_how_long() -> None:
    assert judged(raw(b"", 503, retry_after="7")).retry_after_s == 7.0
    assert judged(raw(b"", 503)).retry_after_s is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[1]",
        b'"OK"',
        b"0",
        b"true",
        b"{}",
        b"<html>maintenance</html>",
        envelope()[:-5],
        b'{"retCode":0,"result":{"list":[NaN]}}',
        b'{"retCode":0,"result":Infinity}',
        b'{"retCode":0,"result":1e999}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"retCode":0}\x00',
        b"\xff\xfe{}",
        b'{"retCode":0,"x":"\\ud800"}',
        envelope(code=None),
        envelope(code=""),
        envelope(code="0"),
        envelope(code="ok"),
        envelope(code=True),
        envelope(code=False),
        envelope(code=0.0),
        envelope(code=10006.0),
        envelope(code=[0]),
        envelope(code={"a": 1}),
        envelope(code="١٠٠٠٦"),
        b'{"ret_code":0,"ret_msg":"OK","result":{}}',
        b'{"retMsg":"OK","result":{}}',
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_H06_what_is_no_envelope_is_malformed(body: bytes) -> None:
    error = judged(raw(body))
    assert (type(error), error.code) == (AnswerMalformed, "exchange_answer_malformed")


def test_a_good_answer_is_its_envelope() -> None:
    body = envelope({"list": []})
    assert envelope_of(Endpoint.WALLET, raw(body), NOW_MS) == json.loads(body)


def test_F02_a_refused_signature_shows_neither_key_nor_query() -> None:
    text = "error sign! origin_string[1767225600000canarykey5000accountType=UNIFIED]"
    for code in (10003, 10004, 10005, 10010, 33004, 10006, 10016):
        assert "origin" not in judged(refused(code, text)).message
    for code in (10001, 77777):
        message = judged(refused(code, text)).message
        assert "origin_string" in message and "canarykey" not in message and "UNIFIED" not in message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("position idx not match position mode", "position idx not match position mode"),
        ("two\r\nlines\x00\x1b[31mred", "two lines …"),
        ("bidi\u202eevil\u2066", "bidi evil"),
        ("x y " * 100, ("x y " * 30)[:120]),
        ("key AbCdEfGhIjKlMnOpQr12 refused", "key … refused"),
        ("unclosed [canary", "unclosed …"),
        (None, ""),
        (7, ""),
        (["a"], ""),
        ("\ud800", ""),
    ],
)
def test_B10_the_exchange_s_words_are_cleaned(text: object, shown: str) -> None:
    assert cleaned(text) == shown


@given(st.text(max_size=2_000))
def test_B10_cleaned_words_are_short_and_printable_whatever_came(text: str) -> None:
    shown = cleaned(text)
    assert len(shown) <= 120 and shown.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
wild_envelopes = st.fixed_dictionaries(
    {},
    optional={
        "retCode": json_values, "ret_code": json_values, "retMsg": json_values, "result": json_values,
        "time": json_values,
    },
)  # fmt: skip


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=200) | wild_envelopes.map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(st.sampled_from([RESET, "retry-after", "content-type"]), st.text(max_size=30)),
    endpoint=st.sampled_from(list(Endpoint)),
)
def test_H06_any_answer_is_an_envelope_or_a_typed_failure(
    status: int, body: bytes, headers: dict[str, str], endpoint: Endpoint
) -> None:
    try:
        found = envelope_of(endpoint, RawAnswer(status, headers, body), NOW_MS)
    except ExchangeError as error:
        assert error.message.isprintable() and error.endpoint == endpoint.value
        assert error.retry_after_s is None or 0.1 <= error.retry_after_s <= 3_600.0
    else:
        assert status == 200 and found["retCode"] == 0


def test_the_documented_table_says_of_every_code_what_the_program_does() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exchange-answers.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    documented = {row[0]: (row[2], row[3].strip("`")) for row in rows[2:]}
    known = {f"retCode {code}": (meaning.failure.whose, meaning.code) for code, meaning in MEANINGS.items()}
    assert known.items() <= documented.items()
    others = {
        "retCode, any other": refused(77777),
        "HTTP 401": raw(b"", 401),
        "HTTP 403, text": raw(b"403 Forbidden: access too frequent", 403),
        "HTTP 403, page": raw(CLOUDFRONT, 403, content_type="text/html"),
        "HTTP 429": raw(b"", 429),
        "HTTP 400, 404, other 4xx": raw(b"", 404),
        "HTTP 3xx": raw(b"", 302),
        "HTTP 5xx": raw(b"", 503),
        "HTTP 200, no usable JSON": raw(b"<html>"),
    }
    for name, answer in others.items():
        failure = judged(answer)
        assert documented[name] == (failure.whose, failure.code), name
