"""Where one user stands in Redis: schedule, home, listeners, pause of the address. Only looks, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.bus.schedule import schedule_keys
from pushserver.model import DataType


@dataclass(frozen=True, slots=True)
class UserTrace:
    """All times in ms of Redis's clock, which says ``now_ms``.

    ``due_ms`` None: not scheduled; for a user being served it is the end of the lease. ``served_by``: the push worker
    whose round is under way. ``woken_ms``: since when a wake waits. ``home``: the push worker that holds its stream,
    until ``home_ends_ms``; ``live``: bits of ``bus.homes.Live``. ``listeners``: web workers that listen to each type.
    """

    now_ms: int
    due_ms: int | None
    served_by: str
    woken_ms: int | None
    home: str
    home_ends_ms: int | None
    live: int
    listeners: dict[DataType, int]


@dataclass(frozen=True, slots=True)
class PauseTrace:
    """``until_ms`` by the clock of Redis; it may be over."""

    until_ms: int
    code: str


class UserTraces:
    """All methods raise StoreUnavailable when Redis does not answer in time."""

    def __init__(self, client: Any, shards: int = 4) -> None:
        self._client = client
        self._shards = shards
        self._inspect = scripts.load(client, "inspect_user")
        self._watched = scripts.load(client, "watched")

    def of_user(self, user_id: int) -> UserTrace:
        channels = [keys.update_channel(user_id, data_type) for data_type in DataType]
        try:
            answer = self._inspect(keys=schedule_keys(user_id % self._shards), args=[user_id])
            listened = self._watched(keys=channels)
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        now, due, lease, wake, home_ends, home, live = (part.decode() for part in answer)
        return UserTrace(
            now_ms=int(now),
            due_ms=_milliseconds(due),
            served_by=_process(lease.partition(" ")[0]),
            woken_ms=_milliseconds(wake.partition(" ")[0]),
            home=home,
            home_ends_ms=_milliseconds(home_ends),
            live=int(live or 0),
            listeners={kind: int(count) for kind, count in zip(DataType, listened[1::2], strict=True)},
        )

    def pause_of(self, egress_id: str) -> PauseTrace | None:
        """Why nothing is asked from this address, None if it never was refused."""
        try:
            until, code = self._client.hmget(keys.pause(egress_id), "until", "code")
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return None if until is None else PauseTrace(int(until), (code or b"").decode())


def _milliseconds(text: str) -> int | None:
    return int(float(text)) if text else None


def _process(token: str) -> str:
    """The holder's name; what follows tells its claims apart."""
    return token.rpartition(":")[0]
