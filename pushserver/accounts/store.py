"""Users, their exchange keys and their revoked tokens: what the program asks of the database.

Every method may be called from any greenlet, blocks only that one, and raises StoreUnavailable within two
seconds when the database cannot answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from pushserver.accounts.database import Database
from pushserver.accounts.exchange_keys import ExchangeKeys
from pushserver.accounts.passwords import Passwords
from pushserver.accounts.users import Users
from pushserver.accounts.vault import Vault
from pushserver.clock import Clock
from pushserver.model import Secret


class AccountStore(Users, ExchangeKeys):
    def __init__(self, database: Database, passwords: Passwords, vault: Vault, clock: Clock) -> None:
        Users.__init__(self, database, passwords, clock)
        ExchangeKeys.__init__(self, database, vault, clock)

    @classmethod
    def open(cls, database_url: Secret, credentials_keys: Sequence[Secret], clock: Clock) -> AccountStore:
        """The store behind a database URL; nothing is connected before the first call.

        Raises:
            SettingsError: the URL names no database that can be opened here.
        """
        return cls(Database(database_url, clock), Passwords(), Vault(credentials_keys), clock)

    def upgrade(self) -> None:
        """Create the schema or bring it up to date; safe from several processes at once."""
        self._database.upgrade()

    def revision(self) -> tuple[str | None, str | None]:
        """The schema revision that is there and the one this program needs; unequal means ``upgrade``."""
        return self._database.revision()

    def close(self) -> None:
        """Close the idle connections; the next call opens new ones."""
        self._database.close()
