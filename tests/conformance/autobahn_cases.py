"""The cases of the Autobahn testsuite's sections 1 to 7 and 10, restated as a table: 247 of them.

The numbers are those of Autobahn|Testsuite (https://github.com/crossbario/autobahn-testsuite, Apache License 2.0),
so that a result here can be compared with its reports. Waits of whole seconds there are tenths here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.conformance.utf8_cases import GROUPS
from tests.conformance.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, close_frame

NORMAL, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1002, 1007, 1009

Event = tuple[int, bytes]
Writes = list[bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """``stages`` are sent with a pause between them, each item in a write of its own.

    ``events`` must come back, no others; ``lesser`` instead of them count as non-strict. Then ``closing`` is sent,
    if there is one, and the server must end the connection with one of ``codes``. With ``fails_at`` the server ends
    it when it has that stage, non-strict after a later one. ``informational``: any code will do.
    """

    number: str
    stages: tuple[Writes, ...]
    events: tuple[Event, ...] = ()
    lesser: tuple[Event, ...] | None = None
    closing: bytes | None = None
    codes: tuple[int, ...] = (NORMAL,)
    fails_at: int | None = None
    informational: bool = False


def cases() -> list[Case]:
    """All cases, in the order of their numbers."""
    sections = (_framing, _pings, _reserved_bits, _opcodes, _fragments, _utf8, _closing, _auto_fragments)
    return [case for section in sections for case in section()]


# --- how octets are cut into writes --------------------------------------------------------------------------


def _whole(*frames: bytes) -> Writes:
    return [b"".join(frames)]


def _frames(*frames: bytes) -> Writes:
    return list(frames)


def _octets(*frames: bytes) -> Writes:
    return _chops(b"".join(frames), 1)


def _chops(data: bytes, size: int) -> Writes:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _fragmented(opcode: int, payload: bytes, size: int) -> Writes:
    parts = _chops(payload, size)
    last = len(parts) - 1
    return [
        client_frame(CONTINUATION if number else opcode, part, final=number == last)
        for number, part in enumerate(parts)
    ]


def _text(payload: bytes, *, final: bool = True) -> bytes:
    return client_frame(TEXT, payload, final=final)


def _more(payload: bytes, *, final: bool = True) -> bytes:
    return client_frame(CONTINUATION, payload, final=final)


def _echoed(number: str, writes: Writes, *events: Event) -> Case:
    """What is right is answered; then we close, and the server confirms."""
    return Case(number, (writes,), events, closing=close_frame(NORMAL))


def _failed(number: str, writes: Writes, *events: Event, codes: tuple[int, ...] = (PROTOCOL_ERROR,)) -> Case:
    """The server fails the connection, after the ``events`` of what was right, or without them."""
    return Case(number, (writes,), events, lesser=() if events else None, codes=codes)


# --- sections ------------------------------------------------------------------------------------------------


def _framing() -> Iterator[Case]:
    for section, opcode, octet in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for index, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
            payload = octet * size
            yield _echoed(f"1.{section}.{index}", _whole(client_frame(opcode, payload)), (opcode, payload))
        payload = octet * 65_536
        yield _echoed(f"1.{section}.8", _chops(client_frame(opcode, payload), 997), (opcode, payload))


def _pings() -> Iterator[Case]:
    for index, payload in enumerate((b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125), 1):
        yield _echoed(f"2.{index}", _whole(client_frame(PING, payload)), (PONG, payload))
    yield _failed("2.5", _whole(client_frame(PING, b"\xfe" * 126)))
    yield _echoed("2.6", _octets(client_frame(PING, b"\xfe" * 125)), (PONG, b"\xfe" * 125))
    unasked = client_frame(PONG, b"unsolicited pong payload")
    yield _echoed("2.7", _whole(client_frame(PONG)))
    yield _echoed("2.8", _whole(unasked))
    yield _echoed("2.9", _whole(unasked, client_frame(PING, b"ping payload")), (PONG, b"ping payload"))
    payloads = [b"payload-%d" % index for index in range(10)]
    pings = [client_frame(PING, payload) for payload in payloads]
    pongs = [(PONG, payload) for payload in payloads]
    yield _echoed("2.10", _frames(*pings), *pongs)
    yield _echoed("2.11", _octets(*pings), *pongs)


def _broken_after_text(number: str, cut: Callable[..., Writes], broken: bytes) -> Case:
    """A good text, the broken frame, a ping: at most the text is answered."""
    payload = b"Hello, world!"
    return _failed(number, cut(_text(payload), broken, client_frame(PING)), (TEXT, payload))


def _reserved_bits() -> Iterator[Case]:
    payload = b"Hello, world!"
    yield _failed("3.1", _whole(client_frame(TEXT, payload, reserved=1)))
    for reserved, cut in ((2, _whole), (3, _frames), (4, _octets)):
        yield _broken_after_text(f"3.{reserved}", cut, client_frame(TEXT, payload, reserved=reserved))
    yield _failed("3.5", _whole(client_frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", reserved=5)))
    yield _failed("3.6", _whole(client_frame(PING, payload, reserved=6)))
    yield _failed("3.7", _whole(client_frame(CLOSE, reserved=7)))


def _opcodes() -> Iterator[Case]:
    for section, first in ((1, 0x3), (2, 0xB)):
        yield _failed(f"4.{section}.1", _whole(client_frame(first)))
        yield _failed(f"4.{section}.2", _whole(client_frame(first + 1, b"reserved opcode payload")))
        yield _broken_after_text(f"4.{section}.3", _whole, client_frame(first + 2))
        yield _broken_after_text(f"4.{section}.4", _whole, client_frame(first + 3, b"Hello, world!"))
        yield _broken_after_text(f"4.{section}.5", _octets, client_frame(first + 4, b"Hello, world!"))


def _fragments() -> Iterator[Case]:
    one, two, three, four, five = (b"fragment%d" % index for index in range(1, 6))
    for index, opcode in ((1, PING), (2, PONG)):
        yield _failed(f"5.{index}", _whole(client_frame(opcode, one, final=False), _more(two)))
    begun = (_text(one, final=False), _more(two))
    pinged = (begun[0], client_frame(PING, b"ping payload"), begun[1])
    for index, cut in enumerate((_whole, _frames, _octets)):
        yield _echoed(f"5.{3 + index}", cut(*begun), (TEXT, one + two))
        yield _echoed(f"5.{6 + index}", cut(*pinged), (PONG, b"ping payload"), (TEXT, one + two))
        for first, final in ((9, True), (12, False)):
            nothing_begun = _more(b"non-continuation payload", final=final)
            yield _failed(f"5.{first + index}", cut(nothing_begun, _text(b"Hello, world!")))
    yield _failed("5.15", _whole(*begun, _more(three, final=False), _text(four)), (TEXT, one + two))
    for number, final in (("5.16", False), ("5.17", True)):
        yield _failed(number, _whole(*[_more(one, final=final), _text(two, final=False), _more(three)] * 2))
    yield _failed("5.18", _whole(_text(one, final=False), _text(two)))
    first_part = (_text(one, final=False), _more(two, final=False), client_frame(PING, b"pongme 1!"))
    second_part = (_more(three, final=False), _more(four, final=False), client_frame(PING, b"pongme 2!"), _more(five))
    events = ((PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, one + two + three + four + five))
    for number, cut in (("5.19", _whole), ("5.20", _frames)):
        yield Case(number, (cut(*first_part), cut(*second_part)), events, closing=close_frame(NORMAL))


def _utf8() -> Iterator[Case]:
    greek, edited = bytes.fromhex("cebae1bdb9cf83cebcceb5"), b"edited"
    latin_1, latin_2 = "Hello-µ@ßöä".encode(), "üàá-UTF-8!!".encode()
    yield _echoed("6.1.1", _whole(_text(b"")), (TEXT, b""))
    for number, middle in (("6.1.2", b""), ("6.1.3", b"middle frame payload")):
        writes = _whole(_text(b"", final=False), _more(middle, final=False), _more(b""))
        yield _echoed(number, writes, (TEXT, middle))
    yield _echoed("6.2.1", _whole(_text(latin_1 + latin_2)), (TEXT, latin_1 + latin_2))
    yield _echoed("6.2.2", _whole(_text(latin_1, final=False), _more(latin_2)), (TEXT, latin_1 + latin_2))
    yield _echoed("6.2.3", _fragmented(TEXT, latin_1 + latin_2, 1), (TEXT, latin_1 + latin_2))
    yield _echoed("6.2.4", _fragmented(TEXT, greek, 1), (TEXT, greek))
    surrogate = greek + b"\xed\xa0\x80" + edited
    yield _failed("6.3.1", _whole(_text(surrogate)), codes=(INVALID_DATA,))
    yield _failed("6.3.2", _fragmented(TEXT, surrogate, 1), codes=(INVALID_DATA,))
    too_high = greek + b"\xf4\x90\x80\x80" + edited
    for first, (begin, end) in enumerate(((11, 15), (12, 13)), 1):
        parts = (too_high[:begin], too_high[begin:end], too_high[end:])
        frames = (_text(parts[0], final=False), _more(parts[1], final=False), _more(parts[2]))
        yield Case(f"6.4.{first}", tuple([frame] for frame in frames), codes=(INVALID_DATA,), fails_at=1)
    for first, (begin, end) in enumerate(((11, 15), (12, 13)), 3):
        frame = _text(too_high)
        head = len(frame) - len(too_high)
        chops = (frame[: head + begin], frame[head + begin : head + end], frame[head + end :])
        yield Case(f"6.4.{first}", tuple([chop] for chop in chops), codes=(INVALID_DATA,), fails_at=1)
    for group, texts in enumerate(GROUPS, 5):
        for index, (valid, text) in enumerate(texts, 1):
            number = f"6.{group}.{index}"
            if valid:
                yield _echoed(number, _whole(_text(text)), (TEXT, text))
            else:
                yield _failed(number, _whole(_text(text)), codes=(INVALID_DATA,))


def _closing() -> Iterator[Case]:
    hello, close = _text(b"Hello World!"), close_frame(NORMAL)
    yield _echoed("7.1.1", _whole(hello), (TEXT, b"Hello World!"))
    for index, late in enumerate((client_frame(CLOSE), client_frame(PING), hello), 2):
        yield Case(f"7.1.{index}", (_whole(close, late),))
    yield Case("7.1.5", (_whole(_text(b"fragment1", final=False), close, _more(b"fragment2")),))
    # A message beyond our limit is refused on its header, as the limit's own close code says.
    big = _text((b"BAsd7&jh23" * 26_215)[: 256 * 1024])
    yield Case("7.1.6", (_whole(big, hello, close, client_frame(PING)),), codes=(TOO_BIG,), informational=True)
    yield Case("7.3.1", (_whole(client_frame(CLOSE)),))
    yield _failed("7.3.2", _whole(client_frame(CLOSE, b"a")))
    yield Case("7.3.3", (_whole(close),))
    yield Case("7.3.4", (_whole(close_frame(NORMAL, b"Hello World!")),))
    yield Case("7.3.5", (_whole(close_frame(NORMAL, b"*" * 123)),))
    yield _failed("7.3.6", _whole(close_frame(NORMAL, b"*" * 124)))
    broken_reason = bytes.fromhex("cebae1bdb9cf83cebcceb5eda080") + b"edited"
    yield _failed("7.5.1", _whole(close_frame(NORMAL, broken_reason)), codes=(PROTOCOL_ERROR, INVALID_DATA))
    for index, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
        yield Case(f"7.7.{index}", (_whole(close_frame(code)),), codes=(NORMAL, code))
    for index, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield _failed(f"7.9.{index}", _whole(close_frame(code)))
    for index, code in enumerate((5000, 65_535), 1):
        yield Case(f"7.13.{index}", (_whole(close_frame(code)),), codes=(NORMAL, PROTOCOL_ERROR), informational=True)


def _auto_fragments() -> Iterator[Case]:
    payload = b"*" * 65_536
    yield _echoed("10.1.1", _fragmented(TEXT, payload, 1_300), (TEXT, payload))
