"""What stands in a message on a user-and-type channel: a short head for us, then the frame for the phone.

``u <seq> <committer's ms>\\n<frame>`` is an update, ``s <state> <reason>\\n<frame>`` a change of freshness.
The frame is forwarded as it is; no JSON is decoded on the way to the phone.
"""

from __future__ import annotations

from typing import NamedTuple

from pushserver.model import Freshness

MAX_MESSAGE_BYTES = 1 << 20
#: A ``seq`` is at most this far ahead of our clock; beyond it somebody else wrote the message.
MAX_SEQ_AHEAD_MS = 60_000
SEQ_AHEAD = "seq_ahead"


class MessageRefused(ValueError):
    """``reason``: oversize, malformed, seq_ahead, not_an_event."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UpdateMessage(NamedTuple):
    seq: int
    committed_ms: int
    frame: bytes


class StatusMessage(NamedTuple):
    state: Freshness
    reason: str
    frame: bytes


def parse_message(payload: bytes, now_ms: int) -> UpdateMessage | StatusMessage:
    """Raises MessageRefused."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageRefused("oversize")
    head, _, frame = payload.partition(b"\n")
    words = head.split(b" ")
    if not frame.startswith(b"42["):
        raise MessageRefused("not_an_event")
    try:
        if words[0] == b"u" and len(words) == 3:
            seq, committed_ms = int(words[1]), int(words[2])
            if seq > now_ms + MAX_SEQ_AHEAD_MS:
                raise MessageRefused(SEQ_AHEAD)
            return UpdateMessage(seq, committed_ms, frame)
        if words[0] == b"s" and len(words) == 3:
            return StatusMessage(Freshness(words[1].decode()), words[2].decode(), frame)
    except MessageRefused:
        raise
    except ValueError as error:
        raise MessageRefused("malformed") from error
    raise MessageRefused("malformed")
