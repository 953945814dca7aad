"""RFC 6455 frames as a server must treat them: strict, and capped before anything is buffered.

gevent-websocket does the handshake; its frame reader buffers a frame of any declared size, takes unmasked frames
and writes pongs past everybody else, so reading and framing are our own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from wsaccel.utf8validator import Utf8Validator
from wsaccel.xormask import XorMaskerSimple

from pushserver.limits import DEFAULTS

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: Close codes of RFC 6455 section 7.4 that we send.
NORMAL, PROTOCOL_ERROR, INVALID_DATA, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1000, 1002, 1007, 1008, 1009, 1011

MAX_FRAGMENTS = 64
MAX_CONTROL_BYTES = 125


class FrameError(Exception):
    """The peer broke the protocol; the connection is closed with ``close_code``."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.reason = reason


class PeerClosed(Exception):
    """The peer is gone: end of stream, or a close frame (then with the code to answer)."""

    def __init__(self, close_code: int | None = None) -> None:
        super().__init__()
        self.close_code = close_code


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, final frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def text_frame(message: bytes) -> bytes:
    return encode_frame(TEXT, message)


def close_frame(code: int, reason: str = "") -> bytes:
    return encode_frame(CLOSE, struct.pack("!H", code) + reason.encode()[: MAX_CONTROL_BYTES - 2])


def is_pong(frame: bytes) -> bool:
    """Whether this is exactly one frame that holds Engine.IO's pong, ``3``."""
    return len(frame) == 7 and frame[0] == 0x80 | TEXT and frame[1] == 0x80 | 1 and frame[6] ^ frame[2] == 0x33


class MessageReader:
    """Reads whole messages from ``read(n)``, which gives ``n`` bytes or fewer at the end of the stream.

    ``on_ping(payload)`` is called for each ping while a message is awaited, ``on_frame()`` for every frame: it may
    wait, which makes the peer wait, or raise FrameError.
    """

    __slots__ = ("_max_message_bytes", "_on_frame", "_on_ping", "_read")

    def __init__(
        self,
        read: Callable[[int], bytes],
        on_ping: Callable[[bytes], None],
        on_frame: Callable[[], None] = lambda: None,
        max_message_bytes: int = DEFAULTS.max_message_bytes,
    ) -> None:
        self._read = read
        self._on_ping = on_ping
        self._on_frame = on_frame
        self._max_message_bytes = max_message_bytes

    def next_message(self) -> str | bytes:
        """The next text (str) or binary (bytes) message.

        Raises:
            FrameError: the peer broke the protocol or a limit.
            PeerClosed: the stream or the peer ended the connection.
        """
        kind = None
        utf8 = Utf8Validator()
        parts: list[bytes] = []
        total = 0
        while True:
            final, opcode, payload = self._next_frame(self._max_message_bytes - total)
            if opcode >= CLOSE:
                self._control(opcode, payload)
                continue
            if (opcode == CONTINUATION) != (kind is not None):
                raise FrameError(PROTOCOL_ERROR, "fragment out of order")
            kind = kind or opcode
            if kind == TEXT:
                _check_text(utf8, payload, final)
            parts.append(payload)
            total += len(payload)
            if final:
                break
            if len(parts) >= MAX_FRAGMENTS:
                raise FrameError(POLICY_VIOLATION, "too many fragments")
        message = parts[0] if len(parts) == 1 else b"".join(parts)
        return message if kind == BINARY else message.decode()

    def _next_frame(self, room: int) -> tuple[bool, int, bytes]:
        first, second = self._exactly(2)
        self._on_frame()
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "reserved bits set")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(PROTOCOL_ERROR, "unknown opcode")
        if not second & 0x80:
            raise FrameError(PROTOCOL_ERROR, "frame not masked")
        if opcode >= CLOSE and (size > MAX_CONTROL_BYTES or not first & 0x80):
            raise FrameError(PROTOCOL_ERROR, "control frame long or fragmented")
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        if opcode < CLOSE and size > room:
            raise FrameError(TOO_BIG, f"message over {self._max_message_bytes} bytes")
        mask = self._exactly(4)
        payload = self._exactly(size) if size else b""
        return bool(first & 0x80), opcode, XorMaskerSimple(mask).process(payload) if size else b""

    def _exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) != size:
            raise PeerClosed
        return data

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._on_ping(payload)
        elif opcode == CLOSE:
            raise PeerClosed(_close_code(payload))


def _check_text(utf8: Utf8Validator, payload: bytes, final: bool) -> None:
    """A fragment that no text begins with is refused at once; a character may go on in the next fragment."""
    valid, ends_complete, _, _ = utf8.validate(payload)
    if not valid or (final and not ends_complete):
        raise FrameError(INVALID_DATA, "text is not UTF-8")


def _close_code(payload: bytes) -> int:
    """The code to answer a close frame with; a malformed one breaks the protocol (section 5.5.1)."""
    if not payload:
        return NORMAL
    if len(payload) < 2:
        raise FrameError(PROTOCOL_ERROR, "close frame of one byte")
    (code,) = struct.unpack("!H", payload[:2])
    _check_text(Utf8Validator(), payload[2:], True)
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise FrameError(PROTOCOL_ERROR, "close code not allowed")
    return int(code)
