"""What is watched on this worker: one user's type, by which phones, and which frames belong to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pushserver.model import DataType
from pushserver.web.phones import Phone

#: ``"user_id":…,"seq":…,"as_of":…}]`` with the longest numbers.
FRAME_END_BYTES = 96


@dataclass(slots=True)
class Watch:
    """One user's type on this worker. ``joining``: phones whose channel is not confirmed yet.

    ``since_s``: when the first of them came, monotonic.
    """

    user_id: int
    data_type: DataType
    since_s: float = 0.0
    phones: set[Phone] = field(default_factory=set)
    joining: int = 0
    repairing: bool = False
    #: How the frames of an update and of a status begin, and what an update says near its end of whose it is.
    opening: bytes = field(init=False)
    status_opening: bytes = field(init=False)
    address: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.opening = b'42["' + self.data_type.value.encode() + b'_update"'
        self.status_opening = b'42["status_update",{"type":"' + self.data_type.value.encode() + b'",'
        self.address = b'"user_id":%d,' % self.user_id

    def is_addressee(self, frame: bytes) -> bool:
        """Whether an update is of this type and for this user; costs next to nothing."""
        named_at = frame.rfind(b'"user_id":', -FRAME_END_BYTES)
        return frame.startswith(self.opening) and frame.startswith(self.address, named_at)
