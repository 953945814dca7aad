"""Reading one request strictly: what is taken, and what is refused with which status."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.web.http_request import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_REQUEST_LINE_BYTES,
    RequestHead,
    RequestRefused,
    read_body,
    read_head,
)

GET = b"GET /path?x=1 HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /path HTTP/1.1\r\nHost: a\r\n"


def head_of(raw: bytes) -> RequestHead:
    head = read_head(io.BytesIO(raw))
    assert head is not None
    return head


def body_of(raw: bytes) -> bytes:
    reader = io.BytesIO(raw)
    head = read_head(reader)
    assert head is not None
    return read_body(reader, head.body_bytes)


def refusal_of(raw: bytes) -> str:
    with pytest.raises(RequestRefused) as refused:
        body_of(raw)
    return refused.value.status[:3]


def test_a_plain_request_is_read_as_it_is() -> None:
    head = head_of(GET + b"X-One:  two words \r\nx-one: more\r\n\r\n")
    assert (head.method, head.target, head.version, head.body_bytes) == ("GET", "/path?x=1", "HTTP/1.1", 0)
    assert head.values("x-one") == ["two words", "more"]


def test_the_end_of_the_stream_is_no_request() -> None:
    assert read_head(io.BytesIO(b"")) is None


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("HTTP/1.1", "", True), ("HTTP/1.1", "Close", False), ("HTTP/1.1", "upgrade, close", False),
        ("HTTP/1.0", "", False), ("HTTP/1.0", "Keep-Alive", True),
    ],
)  # fmt: skip
def test_the_connection_stays_open_when_both_sides_say_so(version: str, connection: str, keeps: bool) -> None:
    line = f"Connection: {connection}\r\n" if connection else ""
    assert head_of(f"GET / {version}\r\n{line}\r\n".encode()).keep_alive is keeps


def test_a_body_of_declared_length_and_a_chunked_one_are_read_whole() -> None:
    assert body_of(POST + b"Content-Length: 3\r\n\r\nabcGET /next") == b"abc"
    assert (
        body_of(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n") == b"ab0123456789"
    )


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\r\n", b"GET / HTTP/0.9\r\n", b"GET / HTTP/2.0\r\n", b"GET / HTTP/1.2\r\n", b"GET / http/1.1\r\n",
        b"get / HTTP/1.1\r\n", b"GET  / HTTP/1.1\r\n", b" GET / HTTP/1.1\r\n", b"GET / HTTP/1.1 \r\n",
        b"GET http://x/ HTTP/1.1\r\n", b"GET * HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"GET /\x00 HTTP/1.1\r\n",
        b"GET /\xe4 HTTP/1.1\r\n", b"GET /\tx HTTP/1.1\r\n", b"GET / HTTP/1.1\n", b"GET /\r HTTP/1.1\r\n", b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"GET / HTTP/1.1",
    ],
)  # fmt: skip
def test_B05_B07_a_request_line_of_another_form_is_refused(line: bytes) -> None:
    assert refusal_of(line + b"Host: a\r\n\r\n" if line.endswith(b"\n") else line) == "400"


@pytest.mark.parametrize(
    "line",
    [
        b"no colon\r\n", b" folded: x\r\n", b"A: x\r\n folded\r\n", b"A : x\r\n", b": x\r\n", b"A: x\x00y\r\n",
        b"A: x\ry\r\n", b"A: x\n", b"A\x7f: x\r\n", b"A: \x1b[2J\r\n", b"\xc3\xa4: x\r\n", b"Host: b\r\n",
    ],
)  # fmt: skip
def test_B05_a_malformed_header_is_refused(line: bytes) -> None:
    assert refusal_of(GET + line + b"\r\n") == "400"


def test_B05_headers_that_end_early_are_refused() -> None:
    assert refusal_of(GET + b"A: x") == "400"


def test_B05_a_request_line_has_a_limit() -> None:
    room = MAX_REQUEST_LINE_BYTES - len(b"GET / HTTP/1.1\r\n")
    assert head_of(b"GET /" + b"a" * room + b" HTTP/1.1\r\n\r\n").target == "/" + "a" * room
    assert refusal_of(b"GET /" + b"a" * (room + 1) + b" HTTP/1.1\r\n\r\n") == "414"
    assert refusal_of(b"G" * 1_000_000) == "414"


def test_B05_headers_have_a_limit_in_number_and_in_bytes() -> None:
    assert len(head_of(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEADERS + b"\r\n").headers) == MAX_HEADERS
    assert refusal_of(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n") == "431"
    room = MAX_HEADER_BYTES - len(b"A: \r\n\r\n")
    assert head_of(b"GET / HTTP/1.1\r\nA: " + b"x" * room + b"\r\n\r\n").values("a") == ["x" * room]
    assert refusal_of(b"GET / HTTP/1.1\r\nA: " + b"x" * (room + 1) + b"\r\n\r\n") == "431"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: +3\r\n", b"Content-Length: -3\r\n",
        b"Content-Length: 3, 3\r\n", b"Content-Length: 0x3\r\n", b"Content-Length: 3 3\r\n", b"Content-Length:\r\n",
        b"Content-Length: \xb2\r\n", b"Content-Length: 3_0\r\n", b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n",
    ],
)  # fmt: skip
def test_B06_ambiguous_framing_is_refused(framing: bytes) -> None:
    assert refusal_of(POST + framing + b"\r\n3\r\nabc\r\n0\r\n\r\n") == "400"


@pytest.mark.parametrize(
    "chunks",
    [
        b"3;name=value\r\nabc\r\n0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n",
        b"3\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n", b"\r\n", b"3\r\nab", b"3\r\nabc\r\n",
        b"0\r\nTrailer: x\r\n\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"",
    ],
)  # fmt: skip
def test_B06_a_chunked_body_has_one_form(chunks: bytes) -> None:
    assert refusal_of(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) == "400"


def test_B06_chunked_is_not_for_HTTP_1_0() -> None:
    assert refusal_of(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == "400"


def test_B08_a_body_has_a_limit_checked_on_what_is_declared() -> None:
    assert len(body_of(POST + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES + b"x" * MAX_BODY_BYTES)) == MAX_BODY_BYTES
    assert refusal_of(POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)) == "413"
    assert refusal_of(POST + b"Content-Length: 999999999999999999\r\n\r\n") == "413"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert refusal_of(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3) == "413"
    assert refusal_of(POST + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n") == "413"


def test_B08_a_compressed_body_is_refused() -> None:
    assert refusal_of(POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc") == "415"


@pytest.mark.parametrize(
    "path",
    ["/socket.io/../metrics", "/./", "/a/..", "/%2e%2e/x", "/a%2Fb", "/a%5cb", "/a\\b", "/%00", "/socket.io%2f"],
)
def test_B09_a_path_that_others_may_read_differently_is_not_there(path: str) -> None:
    assert refusal_of(f"GET {path} HTTP/1.1\r\n\r\n".encode()) == "404"


def test_dots_in_the_query_are_nobodys_business() -> None:
    assert head_of(b"GET /x?next=/../%2F HTTP/1.1\r\n\r\n").target == "/x?next=/../%2F"


def test_a_refusal_never_quotes_what_was_sent() -> None:
    with pytest.raises(RequestRefused) as refused:
        head_of(b"GET /?token=canary oops HTTP/1.1\r\n\r\n")
    assert "canary" not in str(refused.value)


PIECES = [
    b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\r", b"\n", b":", b"Content-Length", b"Transfer-Encoding", b"chunked",
    b"5", b"\x00", b"\xff", b"a" * 300,
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_C3_whatever_comes_is_a_request_or_a_refusal(pieces: list[bytes]) -> None:
    reader = io.BytesIO(b"".join(pieces))
    try:
        head = read_head(reader)
        if head is not None:
            read_body(reader, head.body_bytes)
    except RequestRefused as refused:
        assert refused.status[0] == "4"
