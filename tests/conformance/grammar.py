"""Inputs for the fuzz: sentences of the protocols with mistakes in them, and bytes with a few of them changed.

Everything follows from the given ``random.Random``, so that an input can be made again from its seed.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence

from tests.conformance.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame

EVENTS = (
    "subscribe_trading", "unsubscribe_trading", "resync", "whoami", "authenticate",
    "connect", "disconnect", "message", "connect_error", "*", "__class__", "__init__", "ping", "", "é", "join",
)  # fmt: skip
KEYS = ("types", "subscribeTypes", "since", "token", "auth", "subscribe", "user_id", "_placeholder", "num", "", "x")
WORDS = ("balance", "positions", "pnl", "orders", " Balance", "balance_4", "", "4", "x" * 40, "\x00", "\u202e", "😀")
#: JSON that a program must not stumble over; some of it is none.
ODD_JSON = (
    "NaN", "-Infinity", "1e999", "-0", "9" * 400, "0.1e-400", '"\\ud800"', '"\\u0000"', "[" * 2_000, '{"a":' * 900,
    '{"types":["pnl"],"types":["orders"]}', "[1,]", "{,}", '"', "tru", "//", "[]]", "\u2028", '"\\x"',
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, 1e300, 1762765200123)


def mutated(rng: random.Random, data: bytes, most: int = 4) -> bytes:
    """The data with one to ``most`` changes: bits, bytes, slices."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(changed) + 1)
        change = rng.randrange(6)
        if change == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            changed[at:at] = rng.randbytes(rng.randint(1, 4))
        elif change == 2:
            del changed[at : at + rng.randint(1, 8)]
        elif change == 3:
            changed[at:at] = changed[at : at + rng.randint(1, 16)] * rng.randint(1, 3)
        elif change == 4:
            changed[at : at + 1] = rng.choice(
                (b"\x00", b"\xff", b"\r\n", b",", b"-", b"/", b'"', b"{", b"[", b"\xc2\xb2")
            )
        else:
            del changed[at:]
    return bytes(changed)


# --- Engine.IO and Socket.IO messages ------------------------------------------------------------------------


def message(rng: random.Random) -> bytes:
    """The payload of one text frame; seldom it is not even text."""
    text = _packet(rng).encode("utf-8", "surrogatepass")
    if rng.random() < 0.25:
        text = mutated(rng, text)
    return text[:60_000]


def _packet(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.03:
        return rng.choice(
            ("", "3", "2", "6", "5", "3probe", "b" + base64.b64encode(b"\x04abc").decode(), "x", "٤2", "4")
        )
    kind = rng.choices("0123456789²", (6, 1, 60, 5, 1, 5, 1, 1, 1, 1, 1))[0]
    attachments = _rarely(rng, 0.9 if kind in "56" else 0.02, ("0-", "1-", "2-", "3-", "1000000000-", "-", "1--", "٣-"))
    namespace = _rarely(rng, 0.06, ("/,", "/admin,", "/", "/é,", "/" + "n" * 200 + ",", "/a/b?c=d,", ",", "//,"))
    ack_id = _rarely(rng, 0.3, ("0", "7", "00", "123456789012345", "9" * 100, "-1", "1.5"), (5, 9, 1, 3, 1, 1, 1))
    body = rng.choice(ODD_JSON) if rng.random() < 0.05 else _body(rng, kind)
    return "4" + kind + attachments + namespace + ack_id + body


def _body(rng: random.Random, kind: str) -> str:
    if kind == "0":
        return json.dumps({"token": _value(rng, 2)}) if rng.random() < 0.8 else ""
    if rng.random() < 0.1:
        return json.dumps(_value(rng, 3))
    arguments = [_value(rng, 3) for _ in range(rng.choices((0, 1, 2, 5), (2, 8, 1, 1))[0])]
    name = rng.choices(EVENTS, (9, 6, 6, 6, 3, *[1] * (len(EVENTS) - 5)))[0] if rng.random() < 0.95 else _value(rng, 1)
    text = json.dumps([name, *arguments], ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.02:
        text = text.replace('"', '"' + "x" * rng.choice((1_000, 50_000)), 1)
    return text


def _value(rng: random.Random, depth: int) -> object:
    roll = rng.random()
    if depth and roll < 0.4:
        return {rng.choice(KEYS): _value(rng, depth - 1) for _ in range(rng.randint(0, 3))}
    if depth and roll < 0.7:
        return [_value(rng, depth - 1) for _ in range(rng.choices((0, 1, 3, 17, 300), (2, 4, 4, 1, 0.1))[0])]
    return rng.choice((rng.choice(WORDS), rng.choice(NUMBERS), None, True, False))


def _rarely(rng: random.Random, chance: float, texts: Sequence[str], weights: Sequence[float] | None = None) -> str:
    return rng.choices(texts, weights)[0] if rng.random() < chance else ""


# --- WebSocket frames ----------------------------------------------------------------------------------------


def frames(rng: random.Random) -> bytes:
    """A few frames, most of them with mistakes."""
    return b"".join(_frame(rng) for _ in range(rng.randint(1, 3)))


def _frame(rng: random.Random) -> bytes:
    opcode = rng.choices((TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG, rng.randrange(16)), (6, 2, 3, 2, 2, 1, 2))[0]
    payload = message(rng) if opcode == TEXT else rng.randbytes(rng.choice((0, 1, 2, 10, 125, 126, 300)))
    frame = client_frame(
        opcode, payload, final=rng.random() < 0.8, reserved=rng.choices((0, 1, 4, 7), (12, 1, 1, 1))[0]
    )
    roll = rng.random()
    if roll < 0.1:
        # A size far beyond what follows.
        return frame[:1] + rng.choice((b"\xfe\xff\xff", b"\xff\x7f" + b"\xff" * 7, b"\xff" + b"\xff" * 8)) + frame[2:]
    return mutated(rng, frame) if roll < 0.5 else frame


# --- tokens --------------------------------------------------------------------------------------------------


def token(rng: random.Random, valid: str) -> object:
    """A token that must not be taken, unless by chance it is the ``valid`` one in other letters."""
    make: Callable[[random.Random, str], object] = rng.choice(
        (_mutated_token, _token_of_claims, _token_of_header, _token_of_parts, _no_token)
    )
    return make(rng, valid)


def _mutated_token(rng: random.Random, valid: str) -> str:
    return mutated(rng, valid.encode()).decode("latin-1")


def _token_of_claims(rng: random.Random, valid: str) -> str:
    head, body, signature = valid.split(".")
    claims = json.loads(_decoded(body))
    name = rng.choice(("sub", "user_id", "exp", "iat", "nbf", "jti", "iss", "aud"))
    claims[name] = rng.choice((_value(rng, 2), "4", 5, "../5", "*", -1, 2**70, "", 10**400))
    return ".".join((head, _encoded(json.dumps(claims).encode()), signature))


def _token_of_header(rng: random.Random, valid: str) -> str:
    _, body, signature = valid.split(".")
    header = {"alg": rng.choice(("none", "None", "HS256", "RS256", "ES256", "", None, 7)), "typ": "JWT"}
    if rng.random() < 0.5:
        header[rng.choice(("kid", "jku", "x5u", "jwk", "crit", "b64", "zip"))] = _value(rng, 2)  # type: ignore[assignment]
    return ".".join((_encoded(json.dumps(header).encode()), body, rng.choice((signature, ""))))


def _token_of_parts(rng: random.Random, valid: str) -> str:
    parts = [
        rng.choice((*valid.split("."), "", "e30", "A", "====", "é", "W10", "bnVsbA")) for _ in range(rng.randint(0, 5))
    ]
    return ".".join(parts)


def _no_token(rng: random.Random, valid: str) -> object:
    return rng.choice((_value(rng, 3), valid * 20, valid + ".", "." + valid, valid[::-1], "x" * 50_000, "." * 30_000))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- HTTP heads ----------------------------------------------------------------------------------------------

_METHODS = ("POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get", "PRI", "CONNECT", "G\x00T", "")
_TARGETS = (
    "/socket.io/?EIO=4&transport=websocket", "/socket.io/?EIO=4&transport=polling", "/healthz", "/readyz", "/",
    "/socket.io/?EIO=4&transport=websocket&token=x.y.z", "/socket.io/?EIO=4&transport=websocket&sid=a&j=b&b64=1",
    "/api/exchange-key", "/api/auth/logout", "/nothing", "/%00", "/%zz", "/..%2f..%2fetc/passwd", "/?" + "a=1&" * 200,
)  # fmt: skip
_ODD_TARGETS = ("*", "", "//evil/", "http://other/healthz", "/é", "/" + "a" * 9_000, "/healthz#x", "/a b", "?", "\x7f")
_VERSIONS = ("HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "HTTP/1.1 ", "http/1.1", "")
_HEADERS = (
    "Connection: Upgrade", "Connection: close", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Upgrade: h2c",
    "Upgrade: websocket, h2c", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Extensions: permessage-deflate", "Cookie: a=b",
    "Sec-WebSocket-Protocol: x,y", "Content-Length: 0", "Content-Length: 5", "Transfer-Encoding: chunked",
    "Expect: 100-continue", "Origin: http://evil", "Origin: null", "Authorization: Bearer x", "Authorization: Basic é",
    "Authorization: Bearer " + "a." * 2_000, "X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: x, ,::1%é",
    "Forwarded: for=x", "Content-Type: application/json", "Range: bytes=0-", "If-None-Match: *",
    "Accept-Encoding: gzip",
)  # fmt: skip
_ODD_HEADERS = (
    "Host: a, b", "Host: ", "Content-Length: -1", "Content-Length: 99999999999", "Content-Length: 0x5", ": empty",
    "Transfer-Encoding: identity, chunked", "No colon", " folded", "Space : x", "X: \x00", "X: " + "y" * 9_000,
    "Te\u017ft: x", "Content-Length: 5, 6", "X: \r", "Expect: 200-ok",
)  # fmt: skip
_BODIES = (b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffff\r\n", b"{}", b"\x00" * 50)
_UPGRADE = "\r\n".join(
    [
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1",
        "Host: 127.0.0.1",
        *(_HEADERS[i] for i in (0, 3, 6, 9)),
        "",
        "",
    ]
)


def http_request(rng: random.Random) -> bytes:
    """One request, or what looks like one; most have one or two mistakes, some none."""
    if rng.random() < 0.3:
        return mutated(rng, _UPGRADE.encode(), most=1)
    method = rng.choice(_METHODS) if rng.random() < 0.2 else "GET"
    target = rng.choice(_ODD_TARGETS) if rng.random() < 0.1 else rng.choice(_TARGETS)
    version = rng.choice(_VERSIONS) if rng.random() < 0.1 else "HTTP/1.1"
    headers = ["Host: 127.0.0.1", *rng.sample(_HEADERS, rng.randint(0, 6))]
    if rng.random() < 0.3:
        headers.insert(rng.randrange(len(headers)), rng.choice(_ODD_HEADERS))
    end = rng.choices(("\r\n", "\n", "\r"), (30, 1, 1))[0]
    head = end.join([f"{method} {target} {version}", *headers, "", ""]).encode()
    request = head + (rng.choice(_BODIES) if rng.random() < 0.4 else b"")
    return mutated(rng, request) if rng.random() < 0.2 else request
