"""Counts connections per user and per client address over all web workers of this host.

Each worker adds in a column of its own of the workers' shared memory, and reads the columns of all; so a limit holds
for the host, whichever workers a client meets, and a worker that dies takes its counts with it. Users and addresses
are hashed into 2^18 buckets under a secret salt. Two of them share a bucket by chance: with 10,000 users connected,
1 user in 27 has company. Such a pair is counted together, so one is refused too early only if both together reach
the limit.
"""

from __future__ import annotations

from hashlib import blake2b

from pushserver.web.worker_slots import BUCKETS, WorkerSlots, slots_alone, slots_of_process

_USERS, _ADDRESSES = 0, BUCKETS
_MOST = 0xFFFF


class Tally:
    """The counts of one worker and, through ``slots``, of all. Each ``enter`` that said True needs its ``leave``."""

    def __init__(self, slots: WorkerSlots, own_slot: int) -> None:
        self._slots = slots
        self._own = slots.column(own_slot)
        self._columns = {own_slot: self._own}

    def enter_user(self, user_id: int, most: int) -> bool:
        """Count one more connection of the user, unless that makes more than ``most`` on this host."""
        return self._enter(self._user_cell(user_id), most)

    def leave_user(self, user_id: int) -> None:
        self._leave(self._user_cell(user_id))

    def user_total(self, user_id: int) -> int:
        """The user's connections on this host."""
        return self._total(self._user_cell(user_id))

    def enter_address(self, address: str, most: int) -> bool:
        """Count one more connection from the address, unless that makes more than ``most`` on this host."""
        return self._enter(self._address_cell(address), most)

    def leave_address(self, address: str) -> None:
        self._leave(self._address_cell(address))

    def address_total(self, address: str) -> int:
        """The connections from the address on this host."""
        return self._total(self._address_cell(address))

    def _enter(self, cell: int, most: int) -> bool:
        # Added first and looked at then: two workers that do this at once cannot both overlook the other.
        self._own[cell] = min(self._own[cell] + 1, _MOST)
        if self._total(cell) <= most:
            return True
        self._leave(cell)
        return False

    def _leave(self, cell: int) -> None:
        self._own[cell] = max(self._own[cell] - 1, 0)

    def _total(self, cell: int) -> int:
        total = 0
        for slot in self._slots.in_use():
            column = self._columns.get(slot)
            if column is None:
                column = self._columns[slot] = self._slots.column(slot)
            total += column[cell]
        return total

    def _user_cell(self, user_id: int) -> int:
        return _USERS + self._bucket(b"%d" % user_id)

    def _address_cell(self, address: str) -> int:
        return _ADDRESSES + self._bucket(address.encode())

    def _bucket(self, name: bytes) -> int:
        digest = blake2b(name, digest_size=4, key=self._slots.salt).digest()
        return int.from_bytes(digest, "big") % BUCKETS


def tally_of_process() -> Tally:
    """The tally over the workers' shared memory; of this process alone when it was not forked by our gunicorn."""
    return Tally(*slots_of_process())


def local_tally() -> Tally:
    """A tally of this process alone."""
    return Tally(*slots_alone())
