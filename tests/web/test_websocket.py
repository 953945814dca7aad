"""RFC 6455 frames: what is taken, what closes the connection, and that sizes are checked before reading."""

from __future__ import annotations

import io
import struct

import pytest

from pushserver.web.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_DATA,
    NORMAL,
    PING,
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameError,
    MessageReader,
    PeerClosed,
    close_frame,
    encode_frame,
    text_frame,
)


def client_frame(opcode: int, payload: bytes, *, final: bool = True, mask: bool = True, flags: int = 0) -> bytes:
    first = (0x80 if final else 0) | flags | opcode
    size = len(payload)
    head = bytes([first])
    masked = 0x80 if mask else 0
    if size < 126:
        head += bytes([masked | size])
    elif size < 65_536:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    if not mask:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def reader_of(data: bytes, pings: list[bytes] | None = None) -> MessageReader:
    return MessageReader(io.BytesIO(data).read, (pings if pings is not None else []).append)


def test_a_text_message_is_unmasked_and_decoded():
    assert reader_of(client_frame(TEXT, "grüß".encode())).next_message() == "grüß"


def test_fragments_are_joined_and_pings_between_them_are_answered():
    pings: list[bytes] = []
    data = client_frame(TEXT, b"ab", final=False) + client_frame(PING, b"p") + client_frame(CONTINUATION, b"cd")
    assert reader_of(data, pings).next_message() == "abcd"
    assert pings == [b"p"]


def test_a_binary_message_stays_bytes():
    assert reader_of(client_frame(BINARY, b"\x00\xff")).next_message() == b"\x00\xff"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param(client_frame(TEXT, b"x", mask=False), PROTOCOL_ERROR, id="unmasked"),
        pytest.param(client_frame(TEXT, b"x", flags=0x40), PROTOCOL_ERROR, id="reserved-bit"),
        pytest.param(client_frame(0x3, b"x"), PROTOCOL_ERROR, id="unknown-opcode"),
        pytest.param(client_frame(PING, b"x" * 126), PROTOCOL_ERROR, id="long-ping"),
        pytest.param(client_frame(PING, b"x", final=False), PROTOCOL_ERROR, id="fragmented-ping"),
        pytest.param(client_frame(CONTINUATION, b"x"), PROTOCOL_ERROR, id="continuation-of-nothing"),
        pytest.param(
            client_frame(TEXT, b"x", final=False) + client_frame(TEXT, b"y"), PROTOCOL_ERROR, id="text-in-text"
        ),
        pytest.param(client_frame(TEXT, b"\xff\xfe"), INVALID_DATA, id="not-utf8"),
        pytest.param(client_frame(TEXT, b"\xc3"), INVALID_DATA, id="cut-utf8"),
        pytest.param(client_frame(CLOSE, b"\x01"), PROTOCOL_ERROR, id="close-of-one-byte"),
        pytest.param(client_frame(CLOSE, struct.pack("!H", 1005)), PROTOCOL_ERROR, id="close-code-1005"),
        pytest.param(client_frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), INVALID_DATA, id="close-reason-not-utf8"),
        pytest.param(client_frame(TEXT, b"x", final=False) * 1 + client_frame(CONTINUATION, b"y", final=False) * 70,
                     POLICY_VIOLATION, id="too-many-fragments"),
    ],
)  # fmt: skip
def test_D02_a_broken_frame_is_refused_with_its_close_code(frame, code):
    with pytest.raises(FrameError) as refusal:
        reader_of(frame).next_message()
    assert refusal.value.close_code == code


def test_a_character_may_be_cut_between_fragments():
    data = client_frame(TEXT, b"gr\xc3", final=False) + client_frame(CONTINUATION, b"\xbc\xc3\x9f")
    assert reader_of(data).next_message() == "grüß"


def test_D02_a_fragment_that_is_not_utf8_is_refused_before_the_next_one_is_read():
    first, second = client_frame(TEXT, b"ab\xf4", final=False), client_frame(CONTINUATION, b"\x90", final=False)
    stream = io.BytesIO(first + second + client_frame(CONTINUATION, b"\x80\x80"))
    with pytest.raises(FrameError) as refusal:
        MessageReader(stream.read, lambda payload: None).next_message()
    assert refusal.value.close_code == INVALID_DATA
    assert stream.tell() == len(first + second)


@pytest.mark.parametrize("declared", [65_537, 2**32, 2**63])
def test_D01_an_oversize_frame_is_refused_on_its_header(declared):
    stream = io.BytesIO(bytes([0x81, 0x80 | 127]) + struct.pack("!Q", declared))
    with pytest.raises(FrameError) as refusal:
        MessageReader(stream.read, lambda payload: None).next_message()
    assert refusal.value.close_code == TOO_BIG
    assert stream.tell() == 10


def test_D01_the_sum_of_fragments_is_capped_before_the_last_is_read():
    data = client_frame(TEXT, b"x" * 40_000, final=False) + client_frame(CONTINUATION, b"x" * 40_000)
    with pytest.raises(FrameError) as refusal:
        reader_of(data).next_message()
    assert refusal.value.close_code == TOO_BIG


def test_the_end_of_the_stream_and_a_close_frame_end_the_reading():
    with pytest.raises(PeerClosed) as end:
        reader_of(b"\x81").next_message()
    assert end.value.close_code is None
    with pytest.raises(PeerClosed) as end:
        reader_of(client_frame(CLOSE, b"")).next_message()
    assert end.value.close_code == NORMAL


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_our_own_frames_declare_their_size(size):
    frame = encode_frame(BINARY, b"x" * size)
    head = {0: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]
    assert len(frame) == head + size
    assert frame[0] == 0x82 and not frame[1] & 0x80


def test_a_close_frame_carries_code_and_reason():
    assert close_frame(1008, "slow") == b"\x88\x06\x03\xf0slow"
    assert text_frame(b"2") == b"\x81\x012"
