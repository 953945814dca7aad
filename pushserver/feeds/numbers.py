"""Figures out of what the exchange sent: a number or a refusal, never a zero made of a blank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pushserver.errors import AnswerMalformed

#: The longest figures seen have some 30 characters; more is no price, and parsing it would cost time.
MAX_DIGITS = 64
#: Plain or scientific; no blanks, underscores, hexadecimal, or other scripts' digits, all of which Decimal takes.
FIGURE = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
#: What still is a finite JSON number with sense; far above any price, size or total.
LARGEST = Decimal("1e30")
#: Early captures stamp in nanoseconds.
FIRST_NANOSECOND_STAMP = 10**14
LARGEST_STAMP_MS = 10**13


def decimal_of(value: object, field: str) -> Decimal:
    """The exact figure.

    Raises:
        AnswerMalformed: blank (``""``, None), NaN, infinite, boolean, not a number, or absurdly long or large.
    """
    if isinstance(value, str):
        written = value
    elif type(value) is float or (type(value) is int and -LARGEST < value < LARGEST):
        # repr of a float is the shortest text that means it, hence what the exchange wrote.
        written = repr(value)
    else:
        raise AnswerMalformed(f"{field} holds no number")
    if len(written) > MAX_DIGITS or not FIGURE.fullmatch(written):
        raise AnswerMalformed(f"{field} holds no number")
    figure = Decimal(written)
    if abs(figure) >= LARGEST:
        raise AnswerMalformed(f"{field} holds no number of a sensible size")
    return figure


def decimal_at(row: Mapping[str, Any], field: str) -> Decimal:
    """``decimal_of`` the field of a row; a missing key is a blank."""
    return decimal_of(row.get(field), field)


def is_blank(value: object) -> bool:
    """How the exchange writes "does not apply": an empty string, null, or no key."""
    return value is None or value == ""


def text_at(row: Mapping[str, Any], field: str) -> str:
    """A non-empty text of at most 128 characters without control characters.

    Raises:
        AnswerMalformed: anything else; numbers are not made into text, since an id may have lost digits.
    """
    value = row.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= 128 or not value.isprintable():
        raise AnswerMalformed(f"{field} holds no text")
    return value


def milliseconds_at(row: Mapping[str, Any], field: str) -> int:
    """A stamp in Unix milliseconds, whether it came as text or number, in milliseconds or nanoseconds."""
    value = row.get(field)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    if type(value) is not int or not 0 < value < FIRST_NANOSECOND_STAMP * 10**6:
        raise AnswerMalformed(f"{field} holds no time")
    stamp_ms = value // 10**6 if value > FIRST_NANOSECOND_STAMP else value
    if stamp_ms > LARGEST_STAMP_MS:
        raise AnswerMalformed(f"{field} holds no time")
    return stamp_ms


def rows_at(row: Mapping[str, Any], field: str) -> tuple[Mapping[str, Any], ...]:
    """A list of objects, possibly empty; a missing list is not an empty one.

    Raises:
        AnswerMalformed: no list, or something in it is no object.
    """
    value = row.get(field)
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise AnswerMalformed(f"{field} holds no list of rows")
    return tuple(value)
