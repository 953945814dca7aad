"""Every key and channel name, built from checked integers and enums only.

``{…}`` is the Redis Cluster hash tag: all keys of one user (or of one schedule shard) live in one slot, so that
scripts may touch them together.
"""

from __future__ import annotations

import hashlib
import secrets

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


def fence(user_id: int) -> str:
    """What the commits of the user's newest round must carry."""
    return f"push:{{{user_id}}}:fence"


def bases(user_id: int) -> str:
    """Hash: per type what mark prices are applied to; see ``bases``."""
    return f"push:{{{user_id}}}:base"


def bases_channel(user_id: int) -> str:
    """Sharded channel on which new bases of one user are published."""
    return f"push:{{{user_id}}}:bases"


def memo(user_id: int) -> str:
    """What the next fetch round of a user must know of the last ones."""
    return f"push:{{{user_id}}}:memo"


def health(user_id: int) -> str:
    """Hash: what is known of the user's exchange key."""
    return f"push:{{{user_id}}}:health"


def access(user_id: int) -> str:
    """Hash: disabled, tokens_not_before (unix s)."""
    return f"push:{{{user_id}}}:access"


def revoked_token(token_hash: str) -> str:
    """Exists until the token would have expired; the id is hashed (``hashed_token_id``), so a dump shows none."""
    return f"push:revoked:{token_hash}"


def login_attempts(subject: str) -> str:
    """Hash: failed logins of one name or address; ``subject`` is hashed because it comes from outside."""
    return "push:login:" + hashlib.blake2b(subject.encode(), digest_size=16).hexdigest()


def due(shard: int) -> str:
    """Sorted set: user id by the time (Redis ms) at which the user is due."""
    return f"push:{{due-{shard}}}:due"


def leases(shard: int) -> str:
    """Hash: user id to the claim that holds it, and the hints it was given."""
    return f"push:{{due-{shard}}}:leases"


def wakes(shard: int) -> str:
    """Hash: users woken and not yet claimed, to ``due since ms, head start ms, hints``."""
    return f"push:{{due-{shard}}}:wakes"


def homes(shard: int) -> str:
    """Sorted set: user id by the time (Redis ms) at which its home's lease ends."""
    return f"push:{{due-{shard}}}:homes"


def home_tokens(shard: int) -> str:
    """Hash: user id to the process that is its home."""
    return f"push:{{due-{shard}}}:home-tokens"


def home_live(shard: int) -> str:
    """Hash: user id to the bits that tell what its home keeps fresh."""
    return f"push:{{due-{shard}}}:home-live"


def last_seen(shard: int) -> str:
    """Redis's time (ms) at the last claim: an earlier one now tells that the clock was put back."""
    return f"push:{{due-{shard}}}:last-seen"


def birth(shard: int) -> str:
    """A name that this part of the schedule was given when it was new: another one tells that it was lost."""
    return f"push:{{due-{shard}}}:birth"


def health_due(shard: int) -> str:
    """Sorted set: ``user:key version`` by the time (Redis ms) at which that key is to be checked."""
    return f"push:{{due-{shard}}}:health-due"


def health_index(shard: int, part: str) -> str:
    """Users by their keys: sorted sets ``checked`` and ``expiry`` (Unix s), sets ``trade`` and ``withdraw``."""
    return f"push:{{due-{shard}}}:health-{part}"


def pause(egress_id: str) -> str:
    """Hash: until when (Redis ms) nothing is asked from this egress address, and why."""
    return f"push:{{egress-{egress_id}}}:pause"


def pause_probe(egress_id: str) -> str:
    """Exists while one process probes whether the pause is over."""
    return f"push:{{egress-{egress_id}}}:probe"


def budget(egress_id: str, kind: str) -> str:
    """Hash: until when the budget of requests (or of another ``kind``) of this egress address is spent."""
    return f"push:{{egress-{egress_id}}}:budget:{kind}"


def new_canary_channel() -> bytes:
    """A sharded channel that only its listener knows."""
    return f"push:canary:{secrets.token_hex(8)}".encode()
