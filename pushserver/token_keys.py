"""The keys that verify tokens: secrets of our own, or the public keys of tokens that are issued elsewhere.

The address comes from the settings alone; whatever a token's own header points at is never fetched.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pushserver.clock import Clock
from pushserver.errors import SettingsError, TokenRefused
from pushserver.model import Secret

#: A key unknown to us makes us look again, but not more often than this.
REFETCH_AFTER_S = 60.0
#: Keys that were withdrawn at the issuer lose their force here after so long.
MAX_AGE_S = 600.0
FETCH_TIMEOUT_S = 3.0
MAX_KEY_SET_BYTES = 256 * 1024
MAX_KEYS = 20
KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}


class VerificationKeys(Protocol):
    """Where the keys that may have signed a token come from."""

    def candidates(self, key_id: str | None) -> Sequence[Any]:
        """Keys of the one configured family, best first; ``key_id`` only chooses among them.

        Raises:
            TokenRefused: server_busy, while no key could be had at all.
        """
        ...


class SharedSecrets:
    """Secrets of our own: the first signs, all verify."""

    def __init__(self, values: Sequence[Secret]) -> None:
        self._values = tuple(values)

    def candidates(self, key_id: str | None) -> Sequence[Any]:
        return [secret.reveal() for secret in self._values]


class PublicKeyFile:
    """One PEM public key, read once."""

    def __init__(self, path: Path, algorithm: str) -> None:
        try:
            key = load_pem_public_key(path.read_bytes())
            jwt.get_algorithm_by_name(algorithm).prepare_key(key)
        except (OSError, ValueError, TypeError, jwt.InvalidKeyError) as error:
            raise SettingsError(
                [f"JWT_PUBLIC_KEY_FILE: {path} holds no public key for {algorithm} ({type(error).__name__})"]
            ) from None
        self._key = key

    def candidates(self, key_id: str | None) -> Sequence[Any]:
        return [self._key]


class KeySet:
    """The keys behind a JWKS address, kept until they are old or a token names one that is not there.

    While the address does not answer, the last keys stay in force.
    """

    def __init__(self, url: str, algorithm: str, clock: Clock) -> None:
        self._url = url
        self._algorithm = algorithm
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._lock = threading.Lock()

    def candidates(self, key_id: str | None) -> Sequence[Any]:
        if self._wants_fetch(key_id):
            with self._lock:
                # Others may have fetched while this one waited.
                if self._wants_fetch(key_id):
                    self._fetch()
        if self._fetched_s is None:
            raise TokenRefused("the keys that verify tokens cannot be had at the moment", code="server_busy")
        if key_id is None:
            return list(self._keys.values())
        return [self._keys[key_id]] if key_id in self._keys else []

    def _wants_fetch(self, key_id: str | None) -> bool:
        now_s = self._clock.monotonic_s()
        if self._tried_s is not None and now_s - self._tried_s < REFETCH_AFTER_S:
            return False
        old = self._fetched_s is None or now_s - self._fetched_s > MAX_AGE_S
        return old or (key_id is not None and key_id not in self._keys)

    def _fetch(self) -> None:
        self._tried_s = self._clock.monotonic_s()
        try:
            keys = self._read(_download(self._url, FETCH_TIMEOUT_S))
        except (OSError, ValueError, RecursionError, http.client.HTTPException):
            # Unreachable or no key set: the last good keys stay, and the next try is a minute away.
            return
        self._keys, self._fetched_s = keys, self._tried_s

    def _read(self, body: bytes) -> dict[str, Any]:
        document = json.loads(body) if len(body) <= MAX_KEY_SET_BYTES else None
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("no key set")
        keys: dict[str, Any] = {}
        for number, entry in enumerate(entries[:MAX_KEYS]):
            if not isinstance(entry, dict) or entry.get("kty") != KEY_TYPES[self._algorithm]:
                continue
            if entry.get("use", "sig") != "sig" or entry.get("alg", self._algorithm) != self._algorithm:
                continue
            try:
                keys[str(entry.get("kid", f"unnamed {number}"))] = jwt.PyJWK(entry, self._algorithm).key
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
        return keys


def _download(url: str, within_s: float) -> bytes:
    """What is at the address; ``within_s`` is for the whole of it. Raises OSError, ValueError or HTTPException.

    No redirects, and no proxy of the environment: what decides over access comes from the named place.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within_s)
    connection.connect()
    # The library's time limit is for each read alone: who drips could hold us, and all who wait for the keys, for ever.
    too_late = threading.Timer(within_s, _hang_up, [connection.sock])
    too_late.daemon = True
    too_late.start()
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"HTTP status {answer.status}")
        return answer.read(MAX_KEY_SET_BYTES + 1)
    finally:
        too_late.cancel()
        connection.close()


def _hang_up(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
