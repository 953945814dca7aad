"""Every key and channel name, built from checked integers and enums only.

``{…}`` is the Redis Cluster hash tag: all keys of one user (or of one schedule shard) live in one slot, so that
scripts may touch them together.
"""

from __future__ import annotations

import hashlib

from pushserver.model import DataType

#: The ordinary Socket.IO queue: any other emitter attached to the same Redis can publish here.
EMITTER_CHANNEL = "pushserver"
#: Account and token changes, told to every process: see ``signals``.
SIGNALS_CHANNEL = "push:signals"


def update_channel(user_id: int, data_type: DataType) -> str:
    """Sharded channel on which one user's type is published."""
    return f"push:{{{user_id}}}:{data_type.value}"


def state(user_id: int, data_type: DataType) -> str:
    """Hash with the newest state of one user's type."""
    return f"push:{{{user_id}}}:{data_type.value}:state"


def memo(user_id: int) -> str:
    """What the next fetch round of a user must know of the last ones."""
    return f"push:{{{user_id}}}:memo"


def access(user_id: int) -> str:
    """Hash: disabled, tokens_not_before (unix s)."""
    return f"push:{{{user_id}}}:access"


def revoked_token(token_id: str) -> str:
    """Exists until the token would have expired; the id is hashed so that a dump shows none."""
    return "push:revoked:" + hashlib.blake2b(token_id.encode(), digest_size=16).hexdigest()


def due(shard: int) -> str:
    """Sorted set: user id by the time (Redis ms) at which the user is due."""
    return f"push:{{due-{shard}}}:due"


def leases(shard: int) -> str:
    """Hash: user id to the claim that holds it."""
    return f"push:{{due-{shard}}}:leases"


def wakes(shard: int) -> str:
    """Set: users woken while a claim held them."""
    return f"push:{{due-{shard}}}:wakes"
