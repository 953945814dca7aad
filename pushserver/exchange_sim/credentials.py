"""The API keys of the seeded accounts, so that a demo or a test knows them without asking the simulated exchange."""

from __future__ import annotations

import hashlib


def demo_credentials(number: int) -> tuple[str, str]:
    """Key and secret of seeded user ``number`` (1, 2, …): ``("sim-key-00001", "<36 letters and digits>")``.

    The secret follows from the number alone, whatever the seed of the market: it protects nothing but the pretence.
    Raises ValueError below 1.
    """
    if number < 1:
        raise ValueError("seeded users are numbered from 1")
    digest = hashlib.sha256(f"simulated exchange secret {number}".encode()).hexdigest()
    return f"sim-key-{number:05d}", digest[:36]
