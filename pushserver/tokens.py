"""JSON Web Tokens: who a connection or a request belongs to, and until when.

Signature, times and names are all that is judged here; whether the token was revoked is ``bus.access``. The
library checks only the signature: it accepts a missing ``exp``, strings and absurd numbers, so claims are
demanded and judged here, one by one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jwt

from pushserver.clock import Clock
from pushserver.errors import PushserverError, TokenRefused
from pushserver.model import MAX_USER_ID, Secret, hashed_token_id
from pushserver.token_keys import KeySet, PublicKeyFile, SharedSecrets, VerificationKeys

if TYPE_CHECKING:
    from pushserver.settings import Settings

MAX_TOKEN_BYTES = 8192
#: How far apart the clocks of issuer and server may be.
LEEWAY_S = 10
#: No token may live longer, whoever issued it.
MAX_LIFETIME_S = 86_400
MAX_ID_CHARACTERS = 128
#: Beyond this a number of seconds is no date.
MAX_INSTANT_S = 2**53

USER_ID_PATTERN = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)

MISSING = "token_missing"
INVALID = "token_invalid"
EXPIRED = "token_expired"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    ``issued_at_s`` is 0 where the issuer did not say it. ``token_id`` is the claim ``jti``, or made from the
    signed text where there is none, so that every token can be revoked. ``family_id`` is the ``token_id`` of the
    login from which the token descends by refreshing: a logout ends the whole family.
    """

    user_id: int
    token_id: str | None
    issued_at_s: int
    expires_at_s: int
    family_id: str | None = None

    def token_hashes(self) -> frozenset[str]:
        """The hashed ids whose revocation ends this token."""
        return frozenset(hashed_token_id(part) for part in (self.token_id, self.family_id) if part)


class Tokens:
    """``signing_secret`` is None where tokens are issued elsewhere."""

    def __init__(
        self,
        keys: VerificationKeys,
        clock: Clock,
        *,
        algorithm: str = "HS256",
        signing_secret: Secret | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        ttl_s: int = 3600,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._algorithm = algorithm
        self._signing_secret = signing_secret
        self._issuer = issuer
        self._audience = audience
        self.ttl_s = ttl_s

    @property
    def can_mint(self) -> bool:
        return self._signing_secret is not None

    def mint(
        self, user_id: int, ttl_s: int | None = None, *, not_before_s: int = 0, family_id: str | None = None
    ) -> str:
        """A signed token for ``user_id``, valid for ``ttl_s`` seconds (default: the setting).

        ``not_before_s`` is the user's last "revoke all"; ``family_id`` that of the token being refreshed.

        Raises:
            PushserverError: tokens_issued_elsewhere.
        """
        if self._signing_secret is None:
            raise PushserverError("tokens are issued elsewhere", code="tokens_issued_elsewhere")
        now_s = self._clock.wall_ms() // 1000
        token_id = secrets.token_urlsafe(16)
        claims: dict[str, Any] = {
            "sub": str(user_id),
            "user_id": user_id,
            # In the second of a "revoke all" a new token is dated into the next one, which is within the leeway.
            "iat": max(now_s, not_before_s),
            "exp": now_s + (self.ttl_s if ttl_s is None else ttl_s),
            "jti": token_id,
            "family": family_id or token_id,
        }
        if self._issuer:
            claims["iss"] = self._issuer
        if self._audience:
            claims["aud"] = self._audience
        return jwt.encode(claims, self._signing_secret.reveal(), algorithm=self._algorithm)

    def verify(self, raw: object) -> Claims:
        """The claims of a token from outside, of whatever type it came as.

        Raises:
            TokenRefused: token_invalid, token_expired, or server_busy (no verification key could be had).
        """
        if not isinstance(raw, str) or not raw.isascii() or len(raw) > MAX_TOKEN_BYTES or raw.count(".") != 2:
            raise TokenRefused("the token is not a JSON Web Token", code=INVALID)
        claims = self._judged(self._signed_claims(raw))
        if claims.token_id is None:
            # Without the signature: another signature of the same text would be the same token.
            return replace(claims, token_id=hashed_token_id(raw.rpartition(".")[0]))
        return claims

    def pick(self, carriers: Sequence[tuple[str, object | None]]) -> tuple[Claims, str]:
        """The first valid token among ``(carrier name, token or None)``, and the name of its carrier.

        Raises:
            TokenRefused: the reason of the first carrier that is present; token_missing if none is.
        """
        first_refusal: TokenRefused | None = None
        for name, raw in carriers:
            if raw is None:
                continue
            try:
                return self.verify(raw), name
            except TokenRefused as refusal:
                first_refusal = first_refusal or refusal
        raise first_refusal or TokenRefused("a token is needed", code=MISSING)

    def _signed_claims(self, raw: str) -> Mapping[str, Any]:
        try:
            key_id = jwt.get_unverified_header(raw).get("kid")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRefused("the token cannot be read", code=INVALID) from None
        for key in self._keys.candidates(key_id if isinstance(key_id, str) else None):
            try:
                return jwt.decode(raw, key, algorithms=[self._algorithm], options=SIGNATURE_ONLY)
            except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
                continue
            except (jwt.PyJWTError, ValueError, RecursionError):
                break
        raise TokenRefused("the token is not signed by a key we trust", code=INVALID)

    def _judged(self, claims: Mapping[str, Any]) -> Claims:
        now_s = self._clock.wall_ms() / 1000
        expires_at_s = _instant(claims, "exp")
        issued_at_s = _instant(claims, "iat")
        not_before_s = _instant(claims, "nbf")
        if expires_at_s is None:
            raise TokenRefused("the token does not say when it expires", code=INVALID)
        if max(issued_at_s or 0, not_before_s or 0) > now_s + LEEWAY_S:
            raise TokenRefused("the token is not valid yet", code=INVALID)
        if issued_at_s is not None and expires_at_s - issued_at_s > MAX_LIFETIME_S:
            raise TokenRefused("the token lives longer than a day", code=INVALID)
        self._judge_names(claims)
        user_id = _user_id(claims)
        token_id, family_id = _identifier(claims, "jti"), _identifier(claims, "family")
        # Last, so that only a token which was good in every other way is called expired.
        if expires_at_s + LEEWAY_S <= now_s:
            raise TokenRefused("the token has expired", code=EXPIRED)
        return Claims(user_id, token_id, issued_at_s or 0, expires_at_s, family_id)

    def _judge_names(self, claims: Mapping[str, Any]) -> None:
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise TokenRefused("the token comes from another issuer", code=INVALID)
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._audience is not None and self._audience not in audiences:
            raise TokenRefused("the token is meant for another audience", code=INVALID)


#: Times, issuer and audience are judged here, with our clock and to the letter.
SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _instant(claims: Mapping[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value: Any = claims[name]
    # RFC 7519 allows fractions; of the expiry, whole seconds are demanded. A bool is an int too, hence type().
    kinds = (int,) if name == "exp" else (int, float)
    if type(value) not in kinds or not 0 <= value <= MAX_INSTANT_S:
        raise TokenRefused(f"the token's {name} is not a date", code=INVALID)
    return int(value)


def _identifier(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS or not value.isprintable():
        raise TokenRefused(f"the token's {name} is not an identifier", code=INVALID)
    return value


def _user_id(claims: Mapping[str, Any]) -> int:
    """A positive integer below 2^63 from ``sub`` (a decimal string) or ``user_id`` (a number)."""
    subject, number = claims.get("sub"), claims.get("user_id")
    found: set[int] = set()
    if subject is not None:
        if not isinstance(subject, str) or not USER_ID_PATTERN.fullmatch(subject):
            raise TokenRefused("the token's sub is not a user id", code=INVALID)
        found.add(int(subject))
    if number is not None:
        if type(number) is not int:
            raise TokenRefused("the token's user_id is not a user id", code=INVALID)
        found.add(number)
    if len(found) != 1 or not 1 <= min(found) <= MAX_USER_ID:
        raise TokenRefused("the token names no user, or two", code=INVALID)
    return found.pop()


def tokens_from_settings(settings: Settings, clock: Clock) -> Tokens:
    """Tokens as the settings want them; only HS256 ones can be minted here.

    Raises:
        SettingsError: JWT_PUBLIC_KEY_FILE holds no key of the algorithm's family.
    """
    keys: VerificationKeys
    if settings.jwt_algorithm == "HS256":
        keys = SharedSecrets(settings.jwt_secrets)
    elif settings.jwt_public_key_file is not None:
        keys = PublicKeyFile(settings.jwt_public_key_file, settings.jwt_algorithm)
    else:
        keys = KeySet(settings.jwt_jwks_url or "", settings.jwt_algorithm, clock)
    return Tokens(
        keys,
        clock,
        algorithm=settings.jwt_algorithm,
        signing_secret=settings.jwt_secrets[0] if settings.jwt_algorithm == "HS256" else None,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        ttl_s=settings.jwt_ttl_s,
    )
