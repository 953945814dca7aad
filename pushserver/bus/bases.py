"""Where a user's home finds what mark prices are applied to; opaque here, see ``workers.mark_bases``.

A base is written and published by the commit of the state it belongs to, in the same step. Whoever listens reads what
is stored once its channel is confirmed, and again whenever the bus was lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pushserver.bus import keys
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.model import DataType

#: The bases of one user, by type.
UserBases = dict[DataType, bytes]

CHANNEL = re.compile(rb"push:\{([0-9]{1,19})\}:bases")
_TYPES = {data_type.value.encode(): data_type for data_type in DataType}


class Bases:
    """Reading raises StoreUnavailable when Redis does not answer in time."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, user_ids: Sequence[int]) -> dict[int, UserBases]:
        """What is stored of each user, in one round trip."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for user_id in user_ids:
                pipeline.hgetall(keys.bases(user_id))
            rows = pipeline.execute()
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return {
            user_id: {_TYPES[name]: raw for name, raw in row.items() if name in _TYPES}
            for user_id, row in zip(user_ids, rows, strict=True)
        }


def channel(user_id: int) -> bytes:
    """Where new bases of the user are published."""
    return keys.bases_channel(user_id).encode()


def parse_message(heard_on: bytes, payload: bytes) -> tuple[int, DataType, bytes] | None:
    """User, type and base; None for another channel, or what is no base."""
    named = CHANNEL.fullmatch(heard_on)
    type_name, _, raw = payload.partition(b"\n")
    if named is None or type_name not in _TYPES:
        return None
    return int(named[1]), _TYPES[type_name], raw
