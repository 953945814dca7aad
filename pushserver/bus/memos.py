"""What the next fetch round of a user must know of the last ones; opaque here, see ``workers.memo``.

Written only by the user's newest round. A lost memo costs one round of fetches, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable

#: A user nobody watched for so long starts afresh.
MEMO_TTL_S = 86_400


class Memos:
    """All methods raise StoreUnavailable when Redis does not answer in time."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._write = scripts.load(client, "write_memo")

    def read(self, user_ids: Sequence[int]) -> dict[int, bytes | None]:
        """The memo of each user, None where there is none, in one round trip."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for user_id in user_ids:
                pipeline.get(keys.memo(user_id))
            return dict(zip(user_ids, pipeline.execute(), strict=True))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def write(self, user_id: int, memo: bytes, fence: str = "") -> bool:
        """Keep it; False, and nothing is kept, when a newer round began or Redis forgot this one.

        ``fence``: of the round (``States.open_rounds``); empty for a writer without rounds.
        """
        try:
            names = [keys.memo(user_id), keys.fence(user_id)]
            return bool(self._write(keys=names, args=[memo, MEMO_TTL_S, fence]))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
