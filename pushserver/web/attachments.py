"""The binary attachments of an event: read whole, so that the event can be answered, and never kept.

No event of ours takes any; whoever sends them as announced is told so, anything else ends the connection.
"""

from __future__ import annotations

#: More of them close the transport on the announcement alone.
MAX_ATTACHMENTS = 2


class Attachments:
    """What is still due of the event with ``ack_id``; ``room_bytes`` is for all attachments together."""

    __slots__ = ("_due", "_room_bytes", "ack_id")

    def __init__(self, due: int, room_bytes: int, ack_id: int | None) -> None:
        self._due = due
        self._room_bytes = room_bytes
        self.ack_id = ack_id

    @property
    def complete(self) -> bool:
        return self._due == 0

    def take(self, size_bytes: int) -> bool:
        """One has come; False when that makes too many bytes."""
        self._due -= 1
        self._room_bytes -= size_bytes
        return self._room_bytes >= 0
