"""Reading one HTTP/1 request strictly: every ambiguity and every excess is refused before anything acts on it.

Two servers that read one request differently can be played against each other, so nothing is guessed or repaired.
Deadlines are the caller's business; this file only reads from a file-like object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

MAX_REQUEST_LINE_BYTES = 8 * 1024
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024

_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.([01])\r\n")
_HEADER_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n")
_CHUNK_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


class RequestRefused(Exception):
    """``status`` such as ``400 Bad Request``, ``code`` for programs, ``message`` for a person (never input)."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The request line and headers. ``body_bytes`` is the declared length, None if the body is chunked."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int | None
    keep_alive: bool

    def values(self, name: str) -> list[str]:
        """All values of the header called ``name`` (lower case)."""
        return [value for key, value in self.headers if key.lower() == name]


def read_head(reader: Reader) -> RequestHead | None:
    """The next request's head; None when the client has closed the connection instead.

    Raises:
        RequestRefused: and the connection must be closed, for what follows cannot be understood.
    """
    line = reader.readline(MAX_REQUEST_LINE_BYTES + 1)
    if not line:
        return None
    if len(line) > MAX_REQUEST_LINE_BYTES:
        raise RequestRefused("414 URI Too Long", "request_line_too_long", "the request line is over 8 KiB")
    match = _REQUEST_LINE.fullmatch(line.decode("latin-1"))
    if not match:
        raise _bad("the request line is not METHOD /PATH HTTP/1.1")
    method, target, version = match[1], match[2], f"HTTP/1.{match[3]}"
    headers = _read_headers(reader)
    head = RequestHead(method, target, version, headers, 0, _keeps_alive(version, headers))
    _check_path(target)
    if len(head.values("host")) > 1:
        raise _bad("there is more than one Host header")
    if head.values("content-encoding") not in ([], ["identity"]):
        raise RequestRefused("415 Unsupported Media Type", "compressed_body", "compressed bodies are not accepted")
    return RequestHead(method, target, version, headers, _declared_length(head), head.keep_alive)


def read_body(reader: Reader, body_bytes: int | None) -> bytes:
    """The whole body of a head that was read with ``read_head``.

    Raises:
        RequestRefused: as there.
    """
    if body_bytes is None:
        return _read_chunks(reader)
    body = reader.read(body_bytes) if body_bytes else b""
    if len(body) < body_bytes:
        raise _bad("the body ended early")
    return body


def _bad(message: str) -> RequestRefused:
    return RequestRefused("400 Bad Request", "bad_request", message)


def _body_too_large() -> RequestRefused:
    return RequestRefused("413 Content Too Large", "body_too_large", "the body is over 64 KiB")


def _read_headers(reader: Reader) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    room = MAX_HEADER_BYTES
    while True:
        line = reader.readline(room + 1)
        room -= len(line)
        if room < 0 or len(headers) > MAX_HEADERS:
            raise RequestRefused(
                "431 Request Header Fields Too Large", "headers_too_large", "more than 64 headers or 16 KiB of them"
            )
        if line == b"\r\n":
            return tuple(headers)
        match = _HEADER_LINE.fullmatch(line.decode("latin-1"))
        if not match:
            raise _bad("a header line is not NAME: VALUE")
        headers.append((match[1], match[2]))


def _keeps_alive(version: str, headers: tuple[tuple[str, str], ...]) -> bool:
    connection = ",".join(value for name, value in headers if name.lower() == "connection").lower()
    words = {word.strip() for word in connection.split(",")}
    return "close" not in words if version == "HTTP/1.1" else "keep-alive" in words


def _check_path(target: str) -> None:
    path = target.partition("?")[0]
    plain = unquote(path, "latin-1")
    if re.search(r"(?i)%2f|%5c|%00|\\", path) or not {".", ".."}.isdisjoint(plain.split("/")):
        # A proxy in front may read such a path as another one than we do.
        raise RequestRefused("404 Not Found", "not_found", "there is nothing at this path")


def _declared_length(head: RequestHead) -> int | None:
    lengths, encodings = head.values("content-length"), head.values("transfer-encoding")
    if encodings:
        if lengths or [name.lower() for name in encodings] != ["chunked"] or head.version != "HTTP/1.1":
            raise _bad("the body's framing is ambiguous: only Transfer-Encoding: chunked, alone, is understood")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
        raise _bad("Content-Length is not one plain number")
    if int(lengths[0]) > MAX_BODY_BYTES:
        raise _body_too_large()
    return int(lengths[0])


def _read_chunks(reader: Reader) -> bytes:
    body = b""
    while True:
        # No extensions: nobody needs them, and servers disagree about where they end.
        match = _CHUNK_SIZE_LINE.fullmatch(reader.readline(16))
        if not match:
            raise _bad("a chunk's size line is not one plain hexadecimal number")
        size = int(match[1], 16)
        if len(body) + size > MAX_BODY_BYTES:
            raise _body_too_large()
        chunk = reader.read(size) if size else b""
        if len(chunk) < size or reader.readline(2) != b"\r\n":
            raise _bad("a chunk does not end where its size says, or there are trailers")
        if not size:
            return body
        body += chunk
