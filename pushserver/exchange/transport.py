"""HTTP to the exchange: one GET, one answer, one deadline.

What it never does: follow a redirect, look at proxies or ``.netrc`` of the environment, keep cookies, take more than
``MAX_BODY`` bytes, or wait longer than told, however slowly the bytes drip.
"""

from __future__ import annotations

import re
import ssl
import zlib
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import gevent
from geventhttpclient.response import HTTPParseError, HTTPResponse

from pushserver.errors import AnswerMalformed, ExchangeUnavailable
from pushserver.exchange.bybit_errors import RawAnswer
from pushserver.exchange.connections import Connection, Connections
from pushserver.exchange.port import Endpoint
from pushserver.model import Proxy

#: Of an answer's body, packed and unpacked.
MAX_BODY = 8 * 1024 * 1024
MAX_HEAD = 64 * 1024
READ_SIZE = 65_536
#: Visible ASCII: whatever else gets into a request line or header could end it early.
VISIBLE = re.compile(r"[\x21-\x7e]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class _ClosedSilently(Exception):
    """The peer closed before the first byte of an answer."""


class _Cut(Exception):
    """The peer closed in the middle of an answer."""


class _Oversize(Exception):
    """The answer is larger than anybody needs."""


class _Unreadable(Exception):
    """The answer's body is packed in a way nobody asked for, or badly."""


class _Headers(dict[str, str]):
    """By lower-case name, the last of several; geventhttpclient's own keeps the order and the spelling, for a price."""

    def add(self, name: str, value: str) -> None:
        self[name.lower()] = value


class _Parser(HTTPResponse):
    """Takes one final answer; bytes of a second one are a violation."""

    def __init__(self) -> None:
        super().__init__(method="GET", headers_type=_Headers)
        self.body = bytearray()
        self.is_whole = False

    def _on_message_begin(self) -> None:
        if self.is_whole:
            raise HTTPParseError("bytes after the answer")
        super()._on_message_begin()

    def _on_message_complete(self) -> None:
        super()._on_message_complete()
        self.is_whole = self.get_code() >= 200

    def _on_body(self, buf: bytearray) -> None:
        self.body += buf


class Transport:
    """GET requests below one origin, over connections shared by all users, through ``proxy`` if there is one."""

    def __init__(self, origin: str, concurrency: int, proxy: Proxy | None = None) -> None:
        parts = urlsplit(origin)
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        host = parts.hostname or ""
        self._host_header = parts.netloc
        #: Requests that wait for a connection or for their answer.
        self.in_flight = 0
        self._connections = Connections(host, port, is_tls, concurrency, proxy)

    def get(
        self,
        endpoint: Endpoint,
        target: str,
        headers: Mapping[str, str],
        seconds: float,
        before_sending: Callable[[bool], None] = lambda is_repetition: None,
    ) -> RawAnswer:
        """The answer to ``GET target``, whatever its status.

        ``before_sending`` is called with the connection at hand, and again with True should the request have to be
        sent a second time; it may wait. What it raises ends the call, as it is.

        Raises:
            ExchangeUnavailable: no whole answer within ``seconds``.
            AnswerMalformed: the answer is no HTTP, too large, or packed unreadably.
        """
        head = self._head(target, headers)
        self.in_flight += 1
        timeout = gevent.Timeout.start_new(seconds)
        try:
            return self._get(head, before_sending)
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise _unavailable(endpoint, "The exchange did not answer in time.", "exchange_timeout") from None
        except (_ClosedSilently, _Cut):
            raise _unavailable(endpoint, "The exchange cut the connection.") from None
        except ssl.SSLError:
            raise _unavailable(endpoint, "No trusted connection to the exchange is possible.") from None
        except OSError:
            raise _unavailable(endpoint, "The exchange cannot be reached.") from None
        except _Oversize:
            raise _malformed(endpoint, "The exchange sent an answer of absurd size.") from None
        except (HTTPParseError, _Unreadable, zlib.error):
            raise _malformed(endpoint, "The exchange sent something that is no answer.") from None
        finally:
            timeout.close()
            self.in_flight -= 1

    def close(self) -> None:
        self._connections.close()

    def _head(self, target: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._host_header}", "Accept-Encoding: gzip"]
        # All together: one look at a long text is cheaper than many at short ones.
        if not VISIBLE.fullmatch(target + "".join(headers)) or not HEADER_VALUE.fullmatch("".join(headers.values())):
            raise ValueError("a request is made of visible ASCII only")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _get(self, head: bytes, before_sending: Callable[[bool], None]) -> RawAnswer:
        connection = self._connections.borrow()
        try:
            return self._converse(connection, head, lambda: before_sending(False))
        except _ClosedSilently:
            # An idle connection may be closed by the other side at the very moment we use it again.
            if not connection.reused:
                raise
        return self._converse(self._connections.borrow(only_fresh=True), head, lambda: before_sending(True))

    def _converse(self, connection: Connection, head: bytes, before_sending: Callable[[], None]) -> RawAnswer:
        is_reusable = False
        try:
            before_sending()
            parser = _read_answer(connection, head)
            is_reusable = parser.should_keep_alive()
        finally:
            if is_reusable:
                self._connections.give_back(connection)
            else:
                self._connections.discard(connection)
        headers: Mapping[str, str] = parser.info()
        body = _unpacked(bytes(parser.body), headers.get("content-encoding", ""))
        return RawAnswer(parser.get_code(), headers, body)


def _read_answer(connection: Connection, head: bytes) -> _Parser:
    parser = _Parser()
    received = 0
    try:
        connection.socket.sendall(head)
        while not parser.is_whole:
            data = connection.socket.recv(READ_SIZE)
            if not data:
                _finish(parser, received)
                break
            received += len(data)
            parser.feed(data)
            if not parser.headers_complete and received > MAX_HEAD:
                raise _Oversize
            if len(parser.body) > MAX_BODY or (parser.headers_complete and (parser.content_length or 0) > MAX_BODY):
                raise _Oversize
    except ConnectionError:
        if received:
            raise
        raise _ClosedSilently from None
    return parser


def _finish(parser: _Parser, received: int) -> None:
    """The peer has closed: fine if that is how this answer ends."""
    if not received:
        raise _ClosedSilently
    try:
        parser.feed(b"")
    except HTTPParseError:
        raise _Cut from None
    if not parser.is_whole:
        raise _Cut


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise _Unreadable
    unpacked = bytearray()
    rest = body
    while rest:
        # A body may be several gzip members in a row.
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while rest and not unpacker.eof:
            # In steps: what grows a thousandfold must not be held twice before it is found too large.
            unpacked += unpacker.decompress(rest, READ_SIZE)
            if len(unpacked) > MAX_BODY:
                raise _Oversize
            rest = unpacker.unconsumed_tail
        if not unpacker.eof:
            raise _Unreadable
        rest = unpacker.unused_data
    return bytes(unpacked)


def _unavailable(endpoint: Endpoint, message: str, code: str | None = None) -> ExchangeUnavailable:
    return ExchangeUnavailable(message, code=code, endpoint=endpoint.value)


def _malformed(endpoint: Endpoint, message: str) -> AnswerMalformed:
    return AnswerMalformed(message, endpoint=endpoint.value)
