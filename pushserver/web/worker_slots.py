"""What the web workers of one gunicorn know of each other: a small table in memory that all of them share.

The master makes the memory before it forks, gives each worker a slot of it and clears the slot when the worker is
gone, however it ended. A slot is written by its owner alone, one aligned word at a time, so there is no lock, and a
worker that is frozen or killed holds up nobody. Nothing here imports more than the standard library: the master
runs it.
"""

from __future__ import annotations

import logging
import mmap
import struct
from collections.abc import Iterator
from enum import IntEnum

logger = logging.getLogger(__name__)

#: Changes with the arrangement of the memory. A worker with other code than its master's keeps to itself.
LAYOUT = 1
SALT_BYTES = 16
_HEAD = struct.Struct(f"=II{SALT_BYTES}s8x")
#: state, age, load, one to spare
_WORDS = 4
_PAGE = 4096

#: Buckets per table, 2 bytes each. The most that a worker counts (its open connections) fits.
BUCKETS = 1 << 18
TABLES = 2
COLUMN_BYTES = TABLES * BUCKETS * 2


class State(IntEnum):
    """What a worker does about new connections."""

    FREE = 0
    STARTING = 1
    ACCEPTING = 2
    #: Lives, and takes nobody for the moment.
    PAUSED = 3
    LEAVING = 4


class WorkerSlots:
    """The table over ``memory``, which is shared by every process forked after it was made."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Raises ValueError when the memory was arranged by other code."""
        layout, count, salt = _HEAD.unpack_from(memory)
        if layout != LAYOUT:
            raise ValueError(f"the workers' memory has layout {layout}, not {LAYOUT}")
        self.memory = memory
        self.salt: bytes = salt
        self.count: int = count
        self._words = memoryview(memory).cast("I")[_HEAD.size // 4 : _HEAD.size // 4 + count * _WORDS]
        self._columns_at = _columns_at(count)

    @classmethod
    def create(cls, count: int, salt: bytes) -> WorkerSlots:
        """A table for ``count`` workers at a time. Pages of it that nobody touches take no memory."""
        memory = mmap.mmap(-1, _columns_at(count) + count * COLUMN_BYTES)
        _HEAD.pack_into(memory, 0, LAYOUT, count, salt)
        return cls(memory)

    def take(self, age: int) -> int | None:
        """The slot of a worker that is about to be forked; None when all are in use. ``age`` grows with each worker."""
        for slot in range(self.count):
            if self.state(slot) is State.FREE:
                at = slot * _WORDS
                self._words[at + 1], self._words[at + 2] = age, 0
                self._words[at] = State.STARTING
                return slot
        return None

    def free(self, slot: int) -> None:
        """The worker is gone: nothing of it counts any more."""
        self._words[slot * _WORDS] = State.FREE
        start = self._columns_at + slot * COLUMN_BYTES
        self.memory[start : start + COLUMN_BYTES] = bytes(COLUMN_BYTES)

    def column(self, slot: int) -> memoryview:
        """The counters of a slot: ``TABLES`` times ``BUCKETS`` of 16 bits."""
        start = self._columns_at + slot * COLUMN_BYTES
        return memoryview(self.memory)[start : start + COLUMN_BYTES].cast("H")

    def state(self, slot: int) -> State:
        return State(self._words[slot * _WORDS])

    def age(self, slot: int) -> int:
        return self._words[slot * _WORDS + 1]

    def load(self, slot: int) -> int:
        """How many connections the worker has open."""
        return self._words[slot * _WORDS + 2]

    def publish_state(self, slot: int, state: State) -> None:
        self._words[slot * _WORDS] = state

    def publish_load(self, slot: int, load: int) -> None:
        self._words[slot * _WORDS + 2] = load

    def in_use(self) -> Iterator[int]:
        return (slot for slot in range(self.count) if self._words[slot * _WORDS] != State.FREE)

    def others(self, slot: int, state: State) -> list[int]:
        """The slots of the other workers that are in that state."""
        words = self._words
        return [other for other in range(self.count) if words[other * _WORDS] == state and other != slot]


_inherited: tuple[mmap.mmap, int] | None = None


def inherit(memory: mmap.mmap, slot: int) -> None:
    """Told to a forked worker: the memory it shares with the others, and which slot of it is its own."""
    global _inherited
    _inherited = (memory, slot)


def slots_of_process() -> tuple[WorkerSlots, int]:
    """The inherited slots and our own among them; a table of this process alone without, or with another layout."""
    if _inherited is not None:
        memory, slot = _inherited
        try:
            return WorkerSlots(memory), slot
        except ValueError as error:
            logger.warning("this worker counts its connections for itself alone: %s", error)
    return slots_alone()


def slots_alone() -> tuple[WorkerSlots, int]:
    """A table that no other process sees, and the one slot of it."""
    slots = WorkerSlots.create(1, bytes(SALT_BYTES))
    slots.take(age=0)
    return slots, 0


def _columns_at(count: int) -> int:
    head = _HEAD.size + count * _WORDS * 4
    return -(-head // _PAGE) * _PAGE
