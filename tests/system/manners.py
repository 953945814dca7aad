"""How a light client behaves, what it notes, and how it frames what it sends."""

from __future__ import annotations

import collections
from array import array
from dataclasses import dataclass, field

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame; an all-zero mask is a mask."""
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


@dataclass(slots=True)
class Manner:
    """How clients behave. Fields may change while they live.

    ``goes_to`` is how far they come by themselves: ``tcp``, ``half_head`` (of the HTTP request), ``upgraded``,
    ``half_frame`` (of the CONNECT), ``connected`` or ``subscribed``. ``drip_every_s``: from there on they send a byte
    of a request that never ends every so often. ``reconnect_jitter_s``: when the connection ends they come back
    within so long; None = never. ``bytes_per_s`` reads slowly. ``ping_every_s`` sends WebSocket pings.
    """

    goes_to: str = "subscribed"
    types: list[str] = field(default_factory=lambda: ["positions"])
    receive_buffer: int | None = None
    reads: bool = True
    bytes_per_s: int | None = None
    pongs: bool = True
    ping_every_s: float | None = None
    drip_every_s: float | None = None
    reconnect_jitter_s: float | None = None


@dataclass(slots=True)
class Seen:
    """What the clients of one group met since counting began."""

    updates: int = 0
    torn: int = 0
    regressed: int = 0
    pongs: int = 0
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    told: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies_ms: array[float] = field(default_factory=lambda: array("d"))
    gaps_s: list[float] = field(default_factory=list)
    ended_at_s: list[float] = field(default_factory=list)
