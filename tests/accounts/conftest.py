"""A store on each kind of database: SQLite in a file, and PostgreSQL where one can be had."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from pushserver.accounts.database import Database
from pushserver.accounts.passwords import Passwords
from pushserver.accounts.store import AccountStore
from pushserver.accounts.vault import Vault
from pushserver.clock import Clock, ManualClock, SystemClock
from pushserver.model import Secret
from tests.conftest import require

VAULT_KEY = Secret(Fernet.generate_key().decode())


def cheap_passwords() -> Passwords:
    """The real algorithm with the smallest parameters: these tests are not about its cost."""
    return Passwords(memory_kib=64, passes=1)


def open_store(url: Secret, clock: Clock, keys: list[Secret] | None = None) -> AccountStore:
    return AccountStore(Database(url, clock), cheap_passwords(), Vault(keys or [VAULT_KEY]), clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Secret:
    return Secret(f"sqlite:///{tmp_path}/accounts.db")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a PostgreSQL to make databases on: DATABASE_URL_TEST, or a throw-away cluster of our own."""
    given = os.environ.get("DATABASE_URL_TEST")
    if given:
        yield given
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    require(programs, "PostgreSQL: set DATABASE_URL_TEST or install its server programs")
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    # The server refuses to run as root.
    user = _ordinary_user() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(directory, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = {"cwd": directory, "user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    program = str(programs[-1].parent)
    subprocess.run(
        [f"{program}/initdb", "-D", f"{directory}/data", "-U", "test", "-A", "trust", "-N"], check=True, **run
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    control = [f"{program}/pg_ctl", "-D", f"{directory}/data", "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, **run)
    try:
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, **run)
        shutil.rmtree(directory)


def _ordinary_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[Secret]:
    """A database of the test's own."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield Secret(f"{postgresql_server.rpartition('/')[0]}/{name}")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Secret:
    url: Secret = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(database_url: Secret, clock: ManualClock) -> Iterator[AccountStore]:
    store = open_store(database_url, SystemClock())
    store.upgrade()
    store.close()
    store = open_store(database_url, clock)
    yield store
    store.close()
