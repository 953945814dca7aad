"""Whether a token that is valid by its own words still counts: disabled users, revoked tokens.

Redis is asked for every new connection, and the rules last read from the database are kept in memory beside it,
so that neither an emptied Redis nor a lost message reopens anything. When Redis cannot be asked, nobody new is
let in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushserver.bus import keys
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable, TokenRefused
from pushserver.model import AccessRules
from pushserver.tokens import Claims

DISABLED = "disabled"
TOKENS_NOT_BEFORE = "tokens_not_before"

USER_DISABLED = "user_disabled"
TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a code, not a password

MESSAGES = {
    USER_DISABLED: "the user is disabled",
    TOKEN_REVOKED: "the token was revoked",
    StoreUnavailable.code: "it cannot be checked at the moment whether the token still counts",
}


class AccessList:
    """Reading never raises anything but TokenRefused; writing raises StoreUnavailable."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._rules = AccessRules()

    # --- reading ---------------------------------------------------------------------------------------------

    def check(self, claims: Claims) -> None:
        """Raises TokenRefused: user_disabled, token_revoked, or server_busy when Redis does not answer."""
        token_hashes = claims.token_hashes()
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hmget(keys.access(claims.user_id), DISABLED, TOKENS_NOT_BEFORE)
            for token_hash in token_hashes:
                pipeline.exists(keys.revoked_token(token_hash))
            (disabled, not_before_s), *revoked = pipeline.execute()
            code = _refusal(claims, bool(disabled), int(not_before_s or 0), any(revoked))
        except (*REDIS_FAILURES, ValueError):
            # What cannot be known, or reads like nothing we wrote, lets nobody in.
            code = StoreUnavailable.code
        _raise(self._remembered_refusal(claims) or code)

    def check_memory(self, claims: Claims) -> None:
        """As ``check``, by what is remembered alone: costs nothing, asks nobody."""
        _raise(self._remembered_refusal(claims))

    def refresh(self, rules: AccessRules) -> None:
        """Remember what the database says now, in place of what it said before."""
        self._rules = rules

    def _remembered_refusal(self, claims: Claims) -> str | None:
        rules = self._rules
        return _refusal(
            claims,
            claims.user_id in rules.disabled_users,
            rules.tokens_not_before_s.get(claims.user_id, 0),
            not claims.token_hashes().isdisjoint(rules.revoked_tokens),
        )

    # --- writing ---------------------------------------------------------------------------------------------

    def disable(self, user_id: int) -> None:
        self._write(lambda: self._client.hset(keys.access(user_id), DISABLED, "1"))

    def enable(self, user_id: int) -> None:
        self._write(lambda: self._client.hdel(keys.access(user_id), DISABLED))

    def revoke_tokens(self, user_id: int, not_before_s: int) -> None:
        """Refuse every token of the user that was issued before the Unix second ``not_before_s``."""
        self._write(lambda: self._client.hset(keys.access(user_id), TOKENS_NOT_BEFORE, not_before_s))

    def revoke_token(self, token_hash: str, expires_s: int) -> None:
        """Refuse one token (or family of tokens) until the Unix second at which it would be over anyway."""
        ttl_s = max(1, expires_s - self._clock.wall_ms() // 1000)
        self._write(lambda: self._client.set(keys.revoked_token(token_hash), b"1", ex=ttl_s))

    def _write(self, command: Callable[[], object]) -> None:
        try:
            command()
        except REDIS_FAILURES as error:
            raise unavailable(error) from error


def _raise(code: str | None) -> None:
    if code is not None:
        raise TokenRefused(MESSAGES[code], code=code)


def _refusal(claims: Claims, disabled: bool, not_before_s: int, revoked: bool) -> str | None:
    if disabled:
        return USER_DISABLED
    # A token that does not say when it was issued counts as issued before everything.
    if revoked or claims.issued_at_s < not_before_s:
        return TOKEN_REVOKED
    return None
