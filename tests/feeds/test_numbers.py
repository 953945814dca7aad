"""A figure or a refusal: what counts as a number, a text, a time, a list."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.errors import AnswerMalformed
from pushserver.feeds.numbers import decimal_at, decimal_of, milliseconds_at, rows_at, text_at


@pytest.mark.parametrize(
    ("value", "figure"),
    [
        ("0", "0"),
        ("-0.00000001", "-0.00000001"),
        ("5006.3256684", "5006.3256684"),
        ("1e-8", "1E-8"),
        ("+1.5E+3", "1500"),
        (".5", "0.5"),
        ("7.", "7"),
        (12, "12"),
        (-3, "-3"),
        (0.1, "0.1"),
        (1e-7, "1E-7"),
        (177489.6, "177489.6"),
    ],
)
def test_a_number_is_exact(value: Any, figure: str) -> None:
    assert decimal_of(value, "price") == Decimal(figure)


@pytest.mark.parametrize(
    "value",
    [
        "", None, " ", "NaN", "nan", "sNaN", "Infinity", "-inf", float("nan"), float("inf"), True, False, [], {}, ["1"],
        b"1", "1,000", "1_000", " 1", "1 ", "1\n", "0x10", "١٢", "1.2.3", "--1", "1e", "e5", ".", "1e999", "9" * 65,
        "1" + "0" * 40, 10**31, -(10**31), 10**5_000, 1e300, "1e99", object(),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) or abs(value) < 100 else "large",
)  # fmt: skip
def test_H06_what_is_no_number_is_refused_by_the_name_of_its_field(value: Any) -> None:
    with pytest.raises(AnswerMalformed) as caught:
        decimal_of(value, "totalEquity")
    assert "totalEquity" in caught.value.message


def test_H06_a_missing_key_is_a_blank() -> None:
    with pytest.raises(AnswerMalformed):
        decimal_at({}, "qty")


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers()))
def test_H06_anything_is_a_finite_number_or_refused(value: Any) -> None:
    try:
        figure = decimal_of(value, "x")
    except AnswerMalformed:
        return
    assert figure.is_finite() and float(figure) == pytest.approx(float(value))


@pytest.mark.parametrize("value", ["", None, 5, True, [], {}, "x" * 129, "a\nb", "a\x00", "\u202ea", "\ud800"])
def test_B10_a_text_is_short_and_printable(value: Any) -> None:
    with pytest.raises(AnswerMalformed):
        text_at({"symbol": value}, "symbol")
    assert text_at({"symbol": "BTCUSDT"}, "symbol") == "BTCUSDT"


@pytest.mark.parametrize(
    ("value", "stamp_ms"),
    [
        ("1767000100005", 1_767_000_100_005),
        (1_767_000_100_005, 1_767_000_100_005),
        ("1680525485073724079", 1_680_525_485_073),
        (1_680_525_485_073_724_079, 1_680_525_485_073),
    ],
)
def test_a_stamp_is_milliseconds_whatever_it_came_as(value: Any, stamp_ms: int) -> None:
    assert milliseconds_at({"t": value}, "t") == stamp_ms


@pytest.mark.parametrize("value", ["", None, "0", 0, -1, 1.5, True, "soon", [], 10**14, "9" * 25, 10**30, "١٧٦٧"])
def test_H06_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(AnswerMalformed):
        milliseconds_at({"t": value}, "t")


@pytest.mark.parametrize("value", [None, "", "x", 0, {}, [1], [None], [[]], ["row"], [{}, None]])
def test_H06_a_missing_list_is_no_empty_one(value: Any) -> None:
    with pytest.raises(AnswerMalformed):
        rows_at({"list": value}, "list")
    with pytest.raises(AnswerMalformed):
        rows_at({}, "list")
    assert rows_at({"list": []}, "list") == ()
