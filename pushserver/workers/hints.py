"""The bits by which a wake says what may have changed: one per resource."""

from __future__ import annotations

from collections.abc import Iterable

from pushserver.workers.memo import Resource

POSITIONS, WALLET, CLOSED_PNL, ORDERS = 1, 2, 4, 8
#: Anything may have changed, as after a time in which nobody listened.
CATCH_UP = POSITIONS | WALLET | CLOSED_PNL | ORDERS

_BITS = {
    Resource.POSITIONS: POSITIONS,
    Resource.WALLET: WALLET,
    Resource.CLOSED_PNL: CLOSED_PNL,
    Resource.ORDERS: ORDERS,
}


def hints_of(resources: Iterable[Resource]) -> int:
    """The bits that name ``resources``."""
    return sum(_BITS[resource] for resource in frozenset(resources))


def hinted(hints: int) -> frozenset[Resource]:
    """The resources that ``hints`` names; bits that mean nothing here are ignored."""
    return frozenset(resource for resource, bit in _BITS.items() if hints & bit)
