"""Keys behind a JWKS address, served by a real HTTP server on this machine."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pushserver import token_keys
from pushserver.clock import ManualClock
from pushserver.errors import SettingsError, TokenRefused
from pushserver.token_keys import REFETCH_AFTER_S, KeySet, PublicKeyFile
from pushserver.tokens import Tokens

KEYS = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("one", "two")}
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def entry(name: str, **changed: Any) -> dict[str, Any]:
    shown: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[name].public_key(), as_dict=True)
    return {**shown, "kid": name, "use": "sig", "alg": "RS256", **changed}


class Issuer:
    """An address whose answers a test chooses."""

    def __init__(self) -> None:
        self.status = 200
        self.body: Any = {"keys": [entry("one")]}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                raw = issuer.body if isinstance(issuer.body, bytes) else json.dumps(issuer.body).encode()
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_arguments: object) -> None:
                """Silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(issuer: Issuer, clock: ManualClock) -> Tokens:
    return Tokens(KeySet(issuer.url, "RS256", clock), clock, algorithm="RS256")


def signed(clock: ManualClock, name: str = "one", key_id: object = "one", **header: Any) -> str:
    now_s = clock.wall_ms() // 1000
    headers = {**header} if key_id is ... else {"kid": key_id, **header}
    return jwt.encode({"sub": "4", "iat": now_s, "exp": now_s + 60}, KEYS[name], algorithm="RS256", headers=headers)


def refusal(tokens: Tokens, raw: str) -> str:
    with pytest.raises(TokenRefused) as refused:
        tokens.verify(raw)
    return refused.value.code


def test_a_token_of_the_issuer_is_valid_and_the_keys_are_fetched_once(
    tokens: Tokens, issuer: Issuer, clock: ManualClock
) -> None:
    for _ in range(5):
        assert tokens.verify(signed(clock)).user_id == 4
    assert tokens.verify(signed(clock, key_id=...)).user_id == 4
    assert issuer.asked == ["/keys"]


def test_A01_an_unknown_kid_refetches_once_a_minute_at_most(tokens: Tokens, issuer: Issuer, clock: ManualClock) -> None:
    assert tokens.verify(signed(clock)).user_id == 4
    issuer.body = {"keys": [entry("one"), entry("two")]}
    for _ in range(20):
        assert refusal(tokens, signed(clock, "two", "two")) == "token_invalid"
    assert len(issuer.asked) == 1
    clock.advance(REFETCH_AFTER_S)
    assert tokens.verify(signed(clock, "two", "two")).user_id == 4
    for number in range(20):
        assert refusal(tokens, signed(clock, "two", f"other{number}")) == "token_invalid"
    assert len(issuer.asked) == 2


def test_A01_a_header_that_points_elsewhere_is_not_followed(tokens: Tokens, issuer: Issuer, clock: ManualClock) -> None:
    raw = signed(clock, "two", "two", jku=f"{issuer.url}/evil", x5u=f"{issuer.url}/evil", jwk=entry("two"))
    assert refusal(tokens, raw) == "token_invalid"
    assert "/evil" not in "".join(issuer.asked)


def test_a_kid_only_chooses_and_does_not_vouch(tokens: Tokens, clock: ManualClock) -> None:
    assert refusal(tokens, signed(clock, "two", "one")) == "token_invalid"


def test_A01_only_keys_of_the_configured_family_are_taken(tokens: Tokens, issuer: Issuer, clock: ManualClock) -> None:
    secret = base64.urlsafe_b64encode(b"k" * 40).decode()
    elliptic = jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)
    issuer.body = {
        "keys": [
            {"kty": "oct", "k": secret, "kid": "shared"},
            {**elliptic, "kid": "elliptic"},
            entry("two", kid="encryption", use="enc"),
            entry("two", kid="other", alg="RS512"),
            {"kty": "RSA", "kid": "broken", "n": "!", "e": "?"},
            "nonsense",
            entry("one"),
        ]
    }
    assert tokens.verify(signed(clock)).user_id == 4
    now_s = clock.wall_ms() // 1000
    claims = {"sub": "4", "iat": now_s, "exp": now_s + 60}
    assert refusal(tokens, jwt.encode(claims, b"k" * 40, "HS256", headers={"kid": "shared"})) == "token_invalid"
    assert refusal(tokens, jwt.encode(claims, EC_KEY, "ES256", headers={"kid": "elliptic"})) == "token_invalid"
    for key_id in ("encryption", "other", "broken"):
        assert refusal(tokens, signed(clock, "two", key_id)) == "token_invalid"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"keys":5}', b"[" * 100_000, b" " * 300_000])
def test_no_usable_key_set_at_all_is_busy_and_asked_again_a_minute_later(
    tokens: Tokens, issuer: Issuer, clock: ManualClock, body: bytes
) -> None:
    good, issuer.body = issuer.body, body
    for _ in range(5):
        assert refusal(tokens, signed(clock)) == "server_busy"
    assert len(issuer.asked) == 1
    issuer.body = good
    clock.advance(REFETCH_AFTER_S)
    assert tokens.verify(signed(clock)).user_id == 4


def test_the_last_keys_stay_while_the_issuer_is_away(tokens: Tokens, issuer: Issuer, clock: ManualClock) -> None:
    assert tokens.verify(signed(clock)).user_id == 4
    issuer.status = 500
    clock.advance(3600)
    assert tokens.verify(signed(clock)).user_id == 4
    assert len(issuer.asked) == 2


def test_a_withdrawn_key_loses_its_force(tokens: Tokens, issuer: Issuer, clock: ManualClock) -> None:
    assert tokens.verify(signed(clock)).user_id == 4
    issuer.body = {"keys": [entry("two")]}
    clock.advance(601)
    assert refusal(tokens, signed(clock)) == "token_invalid"


def test_a_redirect_is_not_followed(tokens: Tokens, issuer: Issuer, clock: ManualClock) -> None:
    issuer.status, issuer.headers = 302, {"Location": f"{issuer.url}/elsewhere"}
    assert refusal(tokens, signed(clock)) == "server_busy"
    assert issuer.asked == ["/keys"]


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_A01_an_issuer_that_drips_does_not_hold_those_who_wait(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(token_keys, "FETCH_TIMEOUT_S", 0.3)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(head)
            while client.send(b" "):
                time.sleep(0.02)

    threading.Thread(target=drip, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
    started = time.monotonic()
    assert refusal(Tokens(KeySet(url, "RS256", clock), clock, algorithm="RS256"), signed(clock)) == "server_busy"
    assert time.monotonic() - started < 2
    listener.close()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff"])
def test_a_file_without_a_key_is_a_problem_of_the_settings(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        PublicKeyFile(file, "RS256")
    assert error.value.problems[0].startswith("JWT_PUBLIC_KEY_FILE: ")


def test_a_key_of_another_family_is_a_problem_of_the_settings(tmp_path: Path) -> None:
    from tests.test_tokens import pem

    file = tmp_path / "key.pem"
    file.write_bytes(pem(EC_KEY))
    with pytest.raises(SettingsError):
        PublicKeyFile(file, "RS256")
