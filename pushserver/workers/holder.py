"""What a push worker is called where it holds users: in leases and homes."""

from __future__ import annotations

import random


def holder_name(host: str, process_id: int, rng: random.Random) -> str:
    """Names the process for people who look into Redis; unique even when a process id is used again."""
    return f"{host}/{process_id}/{rng.getrandbits(24):06x}"
