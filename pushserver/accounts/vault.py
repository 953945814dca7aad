"""Encrypts exchange secrets at rest. The keys come from ``CREDENTIALS_KEYS``: the first encrypts, all decrypt."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pushserver.errors import CredentialsUnreadable
from pushserver.model import Secret


class Vault:
    def __init__(self, keys: Sequence[Secret]) -> None:
        fernets = [Fernet(key.reveal()) for key in keys]
        self._first = fernets[0]
        self._all = MultiFernet(fernets)

    def encrypt(self, secret: Secret) -> str:
        return self._all.encrypt(secret.reveal().encode()).decode()

    def decrypt(self, stored: str) -> Secret:
        """Raises CredentialsUnreadable: made with a key we do not have, or damaged."""
        try:
            return Secret(self._all.decrypt(stored).decode())
        except (InvalidToken, ValueError):
            raise CredentialsUnreadable("the stored exchange secret cannot be decrypted") from None

    def is_current(self, stored: str) -> bool:
        """Whether the first key made it, so that it survives the removal of the others."""
        try:
            self._first.decrypt(stored)
        except InvalidToken:
            return False
        return True
