"""Which round or connection the running greenlet works for, so that every line it logs can be found again.

Each greenlet has values of its own; one that is spawned begins without any and binds what it was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

_NOTHING: Mapping[str, object] = MappingProxyType({})
_bound: ContextVar[Mapping[str, object]] = ContextVar("correlation", default=_NOTHING)


def bind(**ids: object) -> None:
    """From now on this greenlet's lines carry these fields: ``round``, ``connection``, ``user``."""
    _bound.set(ids)


def bound() -> Mapping[str, object]:
    """What the running greenlet has bound."""
    return _bound.get()
