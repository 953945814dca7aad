"""What the store hands out: plain frozen values, no rows, no sessions."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.model import KeyFacts


@dataclass(frozen=True, slots=True)
class User:
    """``api_key`` is masked, None without one. A new token must not be dated before ``tokens_not_before_s``."""

    id: int
    name: str
    disabled: bool
    tokens_not_before_s: int
    created_s: int
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class KeySummary:
    """A stored exchange key as its owner may see it: masked, never the secret."""

    api_key: str
    version: int
    facts: KeyFacts
    stored_s: int
