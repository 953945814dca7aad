"""Password hashing: Argon2id, off the event loop, equally slow for known and unknown names."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pushserver.accounts.offload import Offload
from pushserver.errors import AccountRefused
from pushserver.model import Secret

#: Longer passwords are refused before anything is computed from them.
MAX_PASSWORD_CHARACTERS = 1024
#: OWASP's minimum for Argon2id: 19 MiB, two passes, one lane; about 30 ms on a server's core.
MEMORY_KIB = 19_456
PASSES = 2

#: Two hashes at a time leave cores for pushing; fifty may wait, the next is told to come back.
HASH_THREADS = 2
HASH_QUEUE = 50
HASH_LIMIT_S = 10.0
#: On a machine that is short of cores a storm of logins would delay pushes threefold without it.
HASH_NICENESS = 10


class Passwords:
    def __init__(self, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._offload = Offload(
            "password hashing",
            threads=HASH_THREADS,
            queue_size=HASH_QUEUE,
            limit_s=HASH_LIMIT_S,
            niceness=HASH_NICENESS,
        )
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: Secret) -> str:
        """The text to store.

        Raises:
            AccountRefused: password_invalid (empty, too long, not Unicode text).
            OverCapacity, StoreUnavailable: too much hashing at the moment.
        """
        prepared = normalised(password)
        return self._offload.run(lambda: self._hasher.hash(prepared))

    def verify(self, stored: str | None, password: Secret) -> bool:
        """Whether ``password`` is the one behind ``stored``; None stands for an unknown name and takes as long.

        Raises as ``hash`` does.
        """
        prepared = normalised(password)
        matches = self._offload.run(lambda: self._matches(stored or self._nobody, prepared))
        return matches and bool(stored)

    def outdated(self, stored: str) -> bool:
        """Whether ``stored`` was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, prepared: bytes) -> bool:
        try:
            return self._hasher.verify(stored, prepared)
        except (VerificationError, InvalidHashError):
            return False


def normalised(password: Secret) -> bytes:
    """The same bytes for the same characters, however a keyboard composes them."""
    text = password.reveal()
    if not text or len(text) > MAX_PASSWORD_CHARACTERS:
        raise AccountRefused(f"a password has 1 to {MAX_PASSWORD_CHARACTERS} characters", code="password_invalid")
    try:
        return unicodedata.normalize("NFC", text).encode()
    except UnicodeEncodeError:
        raise AccountRefused("a password is Unicode text", code="password_invalid") from None
