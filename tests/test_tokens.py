"""Rows A01 to A07 of the token rules, to the letter."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pushserver.clock import ManualClock
from pushserver.errors import PushserverError, TokenRefused
from pushserver.model import MAX_USER_ID, Secret
from pushserver.token_keys import PublicKeyFile, SharedSecrets
from pushserver.tokens import Claims, Tokens, tokens_from_settings
from tests.test_settings import settings_from

FIRST, SECOND = Secret("first-" + "k" * 32), Secret("second-" + "k" * 32)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
CLOCK = ManualClock()
NOW_S = CLOCK.wall_ms() // 1000


def tokens(*, secrets: tuple[Secret, ...] = (FIRST,), **named: Any) -> Tokens:
    return Tokens(SharedSecrets(secrets), CLOCK, signing_secret=secrets[0], **named)


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: object, *, header: dict[str, Any] | None = None, key: bytes | None = None) -> str:
    """An HS256 token made by hand, because the library refuses to make most of these."""
    text = part({"alg": "HS256", "typ": "JWT"} if header is None else header) + "." + part(payload)
    secret = FIRST.reveal().encode() if key is None else key
    return text + "." + part(hmac.new(secret, text.encode(), hashlib.sha256).digest())


def claims(**changed: Any) -> dict[str, Any]:
    merged = {"sub": "4", "iat": NOW_S, "exp": NOW_S + 60, **changed}
    return {name: value for name, value in merged.items() if value is not ...}


def code(raw: object, judge: Tokens | None = None) -> str:
    with pytest.raises(TokenRefused) as refused:
        (judge or tokens()).verify(raw)
    return refused.value.code


def test_a_minted_token_verifies_and_says_what_it_should() -> None:
    judge = tokens(issuer="me", audience="app", ttl_s=100)
    found = judge.verify(judge.mint(4))
    assert (found.user_id, found.issued_at_s, found.expires_at_s) == (4, NOW_S, NOW_S + 100)
    assert found.token_id and found.family_id == found.token_id
    decoded = jwt.decode(judge.mint(4), options={"verify_signature": False})
    assert (decoded["sub"], decoded["user_id"], decoded["iss"], decoded["aud"]) == ("4", 4, "me", "app")


def test_a_time_to_live_can_be_chosen() -> None:
    assert tokens().verify(tokens().mint(4, 5)).expires_at_s == NOW_S + 5


def test_a_refreshed_token_stays_in_the_family_of_its_login() -> None:
    first = tokens().verify(tokens().mint(4))
    second = tokens().verify(tokens().mint(4, family_id=first.family_id))
    assert second.token_id != first.token_id
    assert first.token_hashes() & second.token_hashes()
    other = tokens().verify(tokens().mint(4))
    assert not other.token_hashes() & first.token_hashes()


def test_a_token_after_a_revocation_is_dated_behind_it_and_valid_at_once() -> None:
    found = tokens().verify(tokens().mint(4, not_before_s=NOW_S + 1))
    assert found.issued_at_s == NOW_S + 1


def test_F04_all_secrets_verify_and_the_first_signs() -> None:
    old = tokens(secrets=(SECOND,)).mint(4)
    both = tokens(secrets=(FIRST, SECOND))
    assert both.verify(old).user_id == 4
    assert tokens(secrets=(FIRST,)).verify(both.mint(4)).user_id == 4
    assert code(old, tokens(secrets=(FIRST,))) == "token_invalid"


# --- A01 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 5, [], "HS384", "HS512", "RS256", "x"])
def test_A01_another_algorithm_in_the_header_is_invalid(algorithm: object) -> None:
    header = {"alg": algorithm, "typ": "JWT"}
    assert code(signed(claims(), header=header)) == "token_invalid"
    unsigned = part(header) + "." + part(claims()) + "."
    assert code(unsigned) == "token_invalid"


def test_A01_a_token_signed_with_the_public_key_as_secret_is_invalid(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA_KEY))
    judge = Tokens(PublicKeyFile(file, "RS256"), CLOCK, algorithm="RS256")
    assert judge.verify(jwt.encode(claims(), RSA_KEY, algorithm="RS256")).user_id == 4
    assert code(signed(claims(), key=pem(RSA_KEY)), judge) == "token_invalid"
    assert code(jwt.encode(claims(), EC_KEY, algorithm="ES256"), judge) == "token_invalid"


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "kid"])
def test_A01_addresses_and_keys_in_the_header_are_not_used(name: str) -> None:
    attacker = b"attacker-" + b"k" * 32
    value: object = {"kty": "oct", "k": part(attacker)} if name == "jwk" else "http://127.0.0.1:9/keys"
    header = {"alg": "HS256", "typ": "JWT", name: value}
    assert code(signed(claims(), header=header, key=attacker)) == "token_invalid"


def test_A01_a_kid_does_not_matter_where_secrets_are_shared() -> None:
    for key_id in ("x", "../../etc/passwd", 5, None):
        header = {"alg": "HS256", "kid": key_id}
        try:
            assert tokens().verify(signed(claims(), header=header)).user_id == 4
        except TokenRefused as refused:
            assert refused.code == "token_invalid"


def test_A01_an_unknown_critical_header_is_invalid() -> None:
    assert code(signed(claims(), header={"alg": "HS256", "crit": ["exp2"], "exp2": 1})) == "token_invalid"


# --- A02, A03 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expiry", [..., None, "9999999999", NOW_S + 60.0, True, -1, 10**400, 2**64, [NOW_S], {}, float("nan"), 1e400]
)
def test_A02_an_expiry_that_is_no_whole_number_is_invalid(expiry: object) -> None:
    assert code(signed(claims(exp=expiry))) == "token_invalid"
    assert code(signed(claims(exp=expiry, iat=...))) == "token_invalid"


def test_A02_a_life_of_more_than_a_day_is_invalid() -> None:
    assert tokens().verify(signed(claims(exp=NOW_S + 86_400))).user_id == 4
    assert code(signed(claims(exp=NOW_S + 86_401))) == "token_invalid"


def test_a_token_that_does_not_say_when_it_was_issued_counts_as_very_old() -> None:
    assert tokens().verify(signed(claims(iat=...))).issued_at_s == 0


def test_A03_expiry_has_a_leeway_of_ten_seconds_and_no_more() -> None:
    assert tokens().verify(signed(claims(iat=NOW_S - 60, exp=NOW_S - 9))).user_id == 4
    assert code(signed(claims(iat=NOW_S - 60, exp=NOW_S - 10))) == "token_expired"
    assert code(signed(claims(iat=0, exp=1))) == "token_expired"


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_A03_a_start_in_the_future_has_a_leeway_of_ten_seconds(name: str) -> None:
    assert tokens().verify(signed(claims(**{name: NOW_S + 10}))).user_id == 4
    assert code(signed(claims(**{name: NOW_S + 11}))) == "token_invalid"


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("value", ["1", True, -1, 10**400, None, [], float("nan"), 1e400, -0.5])
def test_A03_a_start_that_is_no_number_is_invalid(name: str, value: object) -> None:
    assert code(signed(claims(**{name: value}))) == "token_invalid"


def test_A03_a_bad_token_is_not_called_expired() -> None:
    assert code(signed(claims(iat=NOW_S - 60, exp=NOW_S - 30, sub="nobody"))) == "token_invalid"
    assert code(signed(claims(iat=NOW_S - 60, exp=NOW_S - 30), key=b"x" * 40)) == "token_invalid"


def test_A03_a_start_may_have_a_fraction() -> None:
    assert tokens().verify(signed(claims(iat=NOW_S - 0.5, nbf=NOW_S - 0.5))).issued_at_s == NOW_S - 1


# --- A04 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", [..., None, "", "you", ["me"], 5])
def test_A04_another_issuer_is_invalid_where_one_is_configured(issuer: object) -> None:
    assert code(signed(claims(iss=issuer)), tokens(issuer="me")) == "token_invalid"
    assert tokens(issuer="me").verify(signed(claims(iss="me"))).user_id == 4


@pytest.mark.parametrize("audience", [..., None, "", "other", [], ["other"], "application", {"app": 1}, 5, [["app"]]])
def test_A04_another_audience_is_invalid_where_one_is_configured(audience: object) -> None:
    assert code(signed(claims(aud=audience)), tokens(audience="app")) == "token_invalid"


def test_A04_one_of_several_audiences_is_enough() -> None:
    judge = tokens(audience="app")
    assert judge.verify(signed(claims(aud="app"))).user_id == 4
    assert judge.verify(signed(claims(aud=["other", "app", 5]))).user_id == 4


def test_A04_issuer_and_audience_do_not_matter_where_none_is_configured() -> None:
    assert tokens().verify(signed(claims(iss="x", aud=["y"]))).user_id == 4


# --- A05 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subject",
    ["", 4, 4.0, True, "0", "-4", "+4", " 4", "4 ", "4\n", "04", "4.0", "4e0", "٤", "²", "x", "../4", "*", "{4}", "4:5",
     "4\0", "9" * 19, "9" * 5000, str(2**63), [], {}, ["4"]],
)  # fmt: skip
def test_A05_a_subject_that_is_no_user_id_is_invalid(subject: object) -> None:
    assert code(signed(claims(sub=subject))) == "token_invalid"
    assert code(signed(claims(sub=subject, user_id=4))) == "token_invalid"


@pytest.mark.parametrize("number", [True, False, 1.0, 4.0, 0, -1, 2**63, 2**70, 10**400, "4", "", [], {}, [4]])
def test_A05_a_user_id_that_is_no_positive_64_bit_integer_is_invalid(number: object) -> None:
    assert code(signed(claims(sub=..., user_id=number))) == "token_invalid"
    assert code(signed(claims(sub="4", user_id=number))) == "token_invalid"


def test_A05_either_claim_is_enough_and_both_must_agree() -> None:
    assert tokens().verify(signed(claims(sub=..., user_id=4))).user_id == 4
    assert tokens().verify(signed(claims(sub=str(MAX_USER_ID)))).user_id == MAX_USER_ID
    assert tokens().verify(signed(claims(sub="4", user_id=4))).user_id == 4
    assert code(signed(claims(sub="4", user_id=5))) == "token_invalid"
    assert code(signed(claims(sub=...))) == "token_invalid"


@pytest.mark.parametrize("value", [5, "", "x" * 129, "a\nb", [], {}, True])
@pytest.mark.parametrize("name", ["jti", "family"])
def test_A05_identifiers_that_are_none_are_invalid(name: str, value: object) -> None:
    assert code(signed(claims(**{name: value}))) == "token_invalid"


def test_a_token_without_an_id_has_one_made_from_what_is_signed() -> None:
    raw = signed(claims())
    found = tokens().verify(raw)
    assert found.token_id and found.token_id == tokens().verify(raw).token_id
    assert found.token_id != tokens().verify(signed(claims(exp=NOW_S + 61))).token_id
    assert tokens().verify(signed(claims(jti="abc"))).token_id == "abc"


# --- A06 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [[], {}, 5, 0, 1.5, None, True, b"a.b.c", bytearray(b"x"), "", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "..", "...",
     "é.é.é", "a.b.\ud800", " . . ", "\0.\0.\0", "a" * 100_000, "." * 100_000],
)  # fmt: skip
def test_A06_what_is_no_token_is_invalid(raw: object) -> None:
    assert code(raw) == "token_invalid"


def test_A06_more_than_8_kib_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    small, big = signed(claims(pad="x" * 5800)), signed(claims(pad="x" * 6100))
    assert len(small) <= 8192 < len(big)
    assert tokens().verify(small).user_id == 4
    monkeypatch.setattr(jwt, "decode", lambda *_a, **_n: pytest.fail("it was decoded"))
    monkeypatch.setattr(jwt, "get_unverified_header", lambda *_a, **_n: pytest.fail("it was decoded"))
    assert code(big) == "token_invalid"


@pytest.mark.parametrize(
    "body", [b"[" * 4000, b'{"a":' * 1000, b"null", b"[]", b'"x"', b"4", b"\xff\xfe", b"", b"{", b"NaN"]
)
def test_A06_a_body_or_header_that_is_no_object_is_invalid(body: bytes) -> None:
    assert code(signed(body)) == "token_invalid"
    header = part(body) + "." + part(claims())
    assert code(header + "." + part(b"x")) == "token_invalid"


@given(st.one_of(st.text(), st.binary(), st.from_regex(r"[A-Za-z0-9_.=-]{0,200}", fullmatch=True)))
def test_A06_no_input_raises_anything_but_a_refusal(raw: object) -> None:
    assert code(raw) == "token_invalid"


@given(st.dictionaries(st.sampled_from(["sub", "user_id", "exp", "iat", "nbf", "jti", "aud", "iss", "family"]),
                       st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                                    lambda inner: st.lists(inner, max_size=3), max_leaves=4)))  # fmt: skip
def test_A06_no_signed_claims_raise_anything_but_a_refusal(payload: dict[str, Any]) -> None:
    try:
        found = tokens(issuer="me", audience="app").verify(signed(payload))
    except TokenRefused:
        return
    assert isinstance(found, Claims)


# --- A07 -------------------------------------------------------------------------------------------------------


def test_A07_the_first_valid_carrier_wins_whatever_stands_before_it() -> None:
    broken, expired = "x.y.z", signed(claims(iat=NOW_S - 60, exp=NOW_S - 20))
    found, carrier = tokens().pick([("payload", broken), ("header", expired), ("url", tokens().mint(4))])
    assert (found.user_id, carrier) == (4, "url")
    found, carrier = tokens().pick([("payload", tokens().mint(4)), ("header", tokens().mint(5)), ("url", None)])
    assert (found.user_id, carrier) == (4, "payload")


def test_A07_all_broken_gives_the_reason_of_the_first_one_present() -> None:
    broken, expired = {"not": "a token"}, signed(claims(iat=NOW_S - 60, exp=NOW_S - 20))
    for carriers, expected in [
        ([("payload", None), ("header", expired), ("url", broken)], "token_expired"),
        ([("payload", broken), ("header", expired), ("url", None)], "token_invalid"),
        ([("payload", ""), ("header", None)], "token_invalid"),
        ([("payload", None), ("header", None), ("url", None)], "token_missing"),
        ([], "token_missing"),
    ]:
        with pytest.raises(TokenRefused) as refused:
            tokens().pick(carriers)
        assert refused.value.code == expected


# --- from the settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA_KEY), ("ES256", EC_KEY)])
def test_tokens_issued_elsewhere_are_verified_and_never_minted(tmp_path: Path, algorithm: str, key: Any) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(key))
    judge = tokens_from_settings(settings_from(JWT_ALGORITHM=algorithm, JWT_PUBLIC_KEY_FILE=str(file)), CLOCK)
    assert judge.verify(jwt.encode(claims(), key, algorithm=algorithm)).user_id == 4
    assert not judge.can_mint
    with pytest.raises(PushserverError) as refused:
        judge.mint(4)
    assert refused.value.code == "tokens_issued_elsewhere"


def test_settings_reach_the_tokens() -> None:
    judge = tokens_from_settings(settings_from(JWT_TTL_S="77", JWT_ISSUER="me", JWT_AUDIENCE="app"), CLOCK)
    decoded = jwt.decode(judge.mint(4), options={"verify_signature": False})
    assert (decoded["exp"] - decoded["iat"], decoded["iss"], decoded["aud"]) == (77, "me", "app")


def test_F01_a_refusal_never_quotes_the_token() -> None:
    for raw in ("canary.canary.canary", signed(claims(sub="canary")), signed(claims(aud="canary"))):
        with pytest.raises(TokenRefused) as refused:
            tokens(audience="app").verify(raw)
        assert "canary" not in str(refused.value)
