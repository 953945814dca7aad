"""The newest state of every user's type, and its publication.

Guarantees: a state that was committed is stored and published in one step; ``seq`` only grows, also when Redis
lost its memory or its clock; an answer older than what confirmed the stored one is refused, and so is whatever a round
brings that is not the user's newest (a worker that was stopped and woke up, or Redis forgot meanwhile what was newer).
States computed from mark prices refresh an answer while it is the newest, and never decide what later answers count
for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.commits import STATE_TTL_S, Commit, CommitResult, MarkCommit, Marked
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.clock import Clock
from pushserver.events import EncodedUpdate, encode_status
from pushserver.model import DataType, Freshness

__all__ = ["Commit", "CommitResult", "MarkCommit", "Marked", "States", "StoredState"]

logger = logging.getLogger(__name__)

#: A round is over long before; one that is not is refused.
FENCE_TTL_S = 60


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a subscriber is given at once. ``frame`` and ``status_frame`` are complete Engine.IO messages."""

    seq: int
    as_of_ms: int
    confirmed_ms: int
    frame: bytes | None
    status: Freshness
    reason: str
    status_frame: bytes | None


NOTHING_STORED = StoredState(0, 0, 0, None, Freshness.LIVE, "", None)


class States:
    """All methods raise StoreUnavailable when Redis does not answer in time."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._commit = scripts.load(client, "publish_state", "commit")
        self._commit_marks = scripts.load(client, "publish_state", "commit_marks")
        self._open_round = scripts.load(client, "open_round")
        self._status = scripts.load(client, "status")
        self._raise_floor = scripts.load(client, "raise_floor")
        self._watched = scripts.load(client, "watched")

    def open_rounds(self, fences: Mapping[int, str]) -> dict[int, frozenset[DataType]]:
        """Begin a round of each user, before anything is asked; which types any web worker listens to.

        From now on commits and statuses of these users count only with this fence, or with none.
        """
        calls = [
            ([keys.fence(user_id), *_channels(user_id)], [fence, FENCE_TTL_S]) for user_id, fence in fences.items()
        ]
        try:
            answers = self._open_round.pipelined(calls)
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return {user_id: _listened(answer) for user_id, answer in zip(fences, _whole_answers(answers), strict=True)}

    def commit(
        self,
        user_id: int,
        data_type: DataType,
        update: EncodedUpdate,
        as_of_ms: int,
        fence: str = "",
        base: bytes = b"",
    ) -> CommitResult:
        """Store and publish ``update`` unless its data is what is stored, or older than what was fetched last."""
        wanted = Commit(user_id, data_type, update, as_of_ms, fence, base)
        try:
            answer = self._commit(keys=wanted.keys(), args=wanted.arguments(self._clock.wall_ms()))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return _committed(answer)

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        """As ``commit`` for each of them, in one round trip; the results in the order asked.

        Each state is committed or not on its own: when StoreUnavailable is raised, some may have been.
        """
        now_ms = self._clock.wall_ms()
        try:
            answers = self._commit.pipelined([(wanted.keys(), wanted.arguments(now_ms)) for wanted in commits])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return [_committed(answer) for answer in _whole_answers(answers)]

    def commit_marks(self, commits: Sequence[MarkCommit]) -> list[list[CommitResult]]:
        """Each user's states, in one round trip; the results in the order asked.

        ``stale``: something else was fetched since the base, or newer marks were committed. Done or not user by user:
        when StoreUnavailable is raised, some may have been.
        """
        now_ms = self._clock.wall_ms()
        try:
            answers = self._commit_marks.pipelined([(wanted.keys(), wanted.arguments(now_ms)) for wanted in commits])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return [[_committed(row) for row in answer] for answer in _whole_answers(answers)]

    def set_status(
        self,
        user_id: int,
        data_type: DataType,
        state: Freshness,
        reason: str,
        message: str,
        until_ms: int | None = None,
        fence: str = "",
    ) -> bool:
        """Tell the user's phones how fresh a type is; True when that changed (and was published).

        ``fence`` as with a commit: what the user's newest round did not say is not told.
        """
        frame = encode_status(data_type, state, reason, message, until_ms)
        until = "" if until_ms is None else str(until_ms)
        try:
            changed = self._status(
                keys=[keys.state(user_id, data_type), keys.update_channel(user_id, data_type), keys.fence(user_id)],
                args=[state.value, reason, until, frame, STATE_TTL_S, fence],
            )
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return bool(changed)

    def read(self, wanted: Sequence[tuple[int, DataType]]) -> list[StoredState]:
        """The stored states in the order asked, in one round trip."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for user_id, data_type in wanted:
                pipeline.hmget(
                    keys.state(user_id, data_type),
                    "seq", "as_of", "confirmed", "frame", "status", "reason", "status_frame",
                )  # fmt: skip
            return [_stored(row) for row in pipeline.execute()]
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def raise_floor(self, user_id: int, data_type: DataType, delivered_seq: int) -> bool:
        """After Redis came back empty or older: let no later commit get a ``seq`` that clients have passed.

        The digest is dropped, so the next commit publishes even if its data is what was stored. False when what is
        stored is as new already.
        """
        try:
            raised = self._raise_floor(keys=[keys.state(user_id, data_type)], args=[delivered_seq, STATE_TTL_S])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return bool(raised)

    def forget(self, user_id: int) -> None:
        """Delete everything that is kept of the user's account: states, bases, and what the rounds remember.

        A round under way commits nothing more.
        """
        try:
            names = [keys.state(user_id, data_type) for data_type in DataType]
            self._client.delete(*names, keys.memo(user_id), keys.bases(user_id), keys.fence(user_id))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def watched(self, user_ids: Sequence[int]) -> dict[int, frozenset[DataType]]:
        """Which types of each user any web worker listens to: Redis knows, and forgets the dead by itself."""
        try:
            answers = self._watched.pipelined([(_channels(user_id), ()) for user_id in user_ids])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return {user_id: _listened(answer) for user_id, answer in zip(user_ids, _whole_answers(answers), strict=True)}


def _whole_answers(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise unavailable(answer) from answer
    return answers


def _channels(user_id: int) -> list[str]:
    return [keys.update_channel(user_id, data_type) for data_type in DataType]


def _committed(answer: list[Any]) -> CommitResult:
    result, seq, listeners, told = answer
    return CommitResult(result.decode(), int(seq), listeners, Freshness(told.decode()))


def _listened(answer: list[Any]) -> frozenset[DataType]:
    """``[channel, count, channel, count, …]`` in the order of DataType."""
    return frozenset(
        data_type for data_type, count in zip(DataType, answer[1::2], strict=True) if int(count) > 0
    )  # fmt: skip


def _stored(row: list[bytes | None]) -> StoredState:
    try:
        return _whole(row)
    except ValueError:
        # One damaged row must not keep the others from being read; the next commit puts it right.
        logger.warning("a stored state is damaged and counts as missing")
        return NOTHING_STORED


def _whole(row: list[bytes | None]) -> StoredState:
    seq, as_of, confirmed, frame, status, reason, status_frame = row
    return StoredState(
        seq=int(seq or 0),
        as_of_ms=int(as_of or 0),
        confirmed_ms=int(confirmed or 0),
        frame=frame,
        status=Freshness((status or b"live").decode()),
        reason=(reason or b"").decode(),
        status_frame=status_frame,
    )
