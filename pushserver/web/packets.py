"""Socket.IO packets (protocol 5) as we take them from a client: parsed whole or refused, nothing in between.

Two kinds of refusal, because they are answered differently: a packet whose *frame* is broken closes the
transport, a well-framed one whose *payload* is broken is answered with an ``error`` event.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)

#: ``<type>[<attachments>-][<namespace>,][<ack id>][JSON]``. Digits are ASCII; ids and counts are short. The comma may
#: be missing when nothing follows the namespace.
_PACKET = re.compile(r"([0-6])(?:([0-9]{1,10})-)?(?:(/[^,]{0,128})(?:,|\Z))?([0-9]{0,15})", re.ASCII)


class PacketMalformed(Exception):
    """Not a Socket.IO packet: the transport is closed."""


class PayloadMalformed(Exception):
    """A packet whose JSON cannot be used; ``ack_id`` is that of the packet."""

    def __init__(self, ack_id: int | None) -> None:
        super().__init__()
        self.ack_id = ack_id


@dataclass(frozen=True, slots=True)
class Packet:
    kind: int
    namespace: str
    ack_id: int | None
    attachments: int
    data: Any


def parse_packet(text: str) -> Packet:
    """Parse what stands behind Engine.IO's message digit.

    Raises:
        PacketMalformed: the frame is broken.
        PayloadMalformed: the JSON is broken, too deep, not finite or has a key twice.
    """
    match = _PACKET.match(text)
    if match is None:
        raise PacketMalformed
    kind = int(match[1])
    if (match[2] is not None) != (kind in (BINARY_EVENT, BINARY_ACK)):
        raise PacketMalformed
    ack_id = int(match[4]) if match[4] else None
    body = text[match.end() :]
    if body and body[0] not in '[{"':
        raise PacketMalformed
    return Packet(kind, match[3] or "/", ack_id, int(match[2] or 0), _json(body, ack_id) if body else None)


def _json(body: str, ack_id: int | None) -> Any:
    try:
        # orjson refuses NaN, Infinity, lone surrogates and deep nesting; the second pass sees doubled keys.
        value = orjson.loads(body)
        json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise PayloadMalformed(ack_id) from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def encode_packet(kind: int, data: Any = None, ack_id: int | None = None) -> bytes:
    """A packet of the namespace ``/`` as a complete Engine.IO text message."""
    head = b"4" + str(kind).encode() + (b"" if ack_id is None else str(ack_id).encode())
    return head if data is None else head + orjson.dumps(data)
