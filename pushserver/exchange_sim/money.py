"""Decimal figures and their wire form: Bybit sends nearly every number as a plain string."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

ZERO = Decimal(0)
ONE = Decimal(1)

#: Figures that come out of a division or a price conversion are kept to this many places.
EIGHT_PLACES = Decimal("0.00000001")


def rounded(value: Decimal, places: Decimal = EIGHT_PLACES) -> Decimal:
    return value.quantize(places, rounding=ROUND_HALF_EVEN)


def text(value: Decimal) -> str:
    """``value`` as Bybit writes it: no exponent, no trailing zeros, never ``-0``."""
    written = format(value, "f")
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written
