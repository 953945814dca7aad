"""What happens when the database is locked, gone, new or old."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import gevent
import pytest
from sqlalchemy import text

from pushserver.accounts.database import Database
from pushserver.accounts.models import Base
from pushserver.accounts.store import AccountStore
from pushserver.clock import ManualClock, SystemClock
from pushserver.errors import SettingsError, StoreUnavailable
from pushserver.model import Secret
from tests.accounts.conftest import VAULT_KEY, open_store


def path_of(url: Secret) -> str:
    return url.reveal().removeprefix("sqlite:///")


def test_migrations_and_models_agree(database_url: Secret) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    database = Database(database_url, SystemClock())
    database.upgrade()
    differences = database.read(
        lambda session: compare_metadata(MigrationContext.configure(session.connection()), Base.metadata)
    )
    database.close()
    assert differences == []


def test_the_revision_tells_an_empty_database_from_a_current_one(database_url: Secret) -> None:
    store = open_store(database_url, SystemClock())
    assert store.revision()[0] is None
    store.upgrade()
    store.upgrade()
    found, needed = store.revision()
    store.close()
    assert found == needed


def test_several_processes_may_create_the_schema_at_once(database_url: Secret) -> None:
    script = textwrap.dedent(
        """
        import os
        from pushserver.accounts.database import Database
        from pushserver.clock import SystemClock
        from pushserver.model import Secret
        database = Database(Secret(os.environ["URL"]), SystemClock())
        input()
        database.upgrade()
        print(database.revision())
        """
    )
    environment = {**os.environ, "URL": database_url.reveal()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        answers.append(process.communicate(timeout=60)[0].strip())
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert answers == ["('0001', '0001')"] * 3


def test_a_schema_that_is_up_to_date_is_only_looked_at(sqlite_url: Secret, clock: ManualClock) -> None:
    store = open_store(sqlite_url, clock)
    store.upgrade()
    other = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.upgrade()
    other.close()
    store.close()


def test_a_schema_of_a_newer_program_is_left_alone(database_url: Secret) -> None:
    store = open_store(database_url, SystemClock())
    store.upgrade()
    database = Database(database_url, SystemClock())
    database.write(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    store.upgrade()
    assert store.revision()[0] == "9999"
    assert store.users() == []
    database.close()
    store.close()


def test_sqlite_readers_do_not_wait_for_a_writer(sqlite_url: Secret, clock: ManualClock) -> None:
    store = open_store(sqlite_url, clock)
    store.upgrade()
    other = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.users() == []
    other.close()
    store.close()


def test_I04_a_locked_sqlite_is_a_failure_within_two_seconds_and_stalls_nobody(sqlite_url: Secret) -> None:
    clock = SystemClock()
    store = open_store(sqlite_url, clock)
    store.upgrade()
    other = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started_s = clock.monotonic_s()
    job = gevent.spawn(store.revoke_token, "aa", 1, 2**40)
    longest_stall_s = 0.0
    while not job.ready():
        before_s = clock.monotonic_s()
        gevent.sleep(0.005)
        longest_stall_s = max(longest_stall_s, clock.monotonic_s() - before_s)
    waited_s = clock.monotonic_s() - started_s
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(job.exception, StoreUnavailable)
    assert 1.0 < waited_s < 2.5
    assert longest_stall_s < 0.5
    store.revoke_token("aa", 1, 2**40)
    assert store.access_rules().revoked_tokens == {"aa"}, "it works again once the lock is gone"
    store.close()


def test_I04_a_database_that_is_not_there_is_unavailable(tmp_path: Path, clock: ManualClock) -> None:
    for url in (f"sqlite:///{tmp_path}/no/such/place.db", "postgresql://u:canary@127.0.0.1:1/x"):
        store = open_store(Secret(url), clock)
        with pytest.raises(StoreUnavailable) as unavailable:
            store.users()
        assert "canary" not in str(unavailable.value) and unavailable.value.__cause__ is None


def test_a_missing_schema_is_unavailable_and_no_surprise(database_url: Secret, clock: ManualClock) -> None:
    store = open_store(database_url, clock)
    with pytest.raises(StoreUnavailable):
        store.users()
    store.close()


@pytest.mark.parametrize("url", ["nonsense://x:canary@y/z", "postgresql://u:canary@h:notaport/x"])
def test_a_url_that_names_no_database_is_a_problem_of_the_settings(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        AccountStore.open(Secret(url), [VAULT_KEY], SystemClock())
    assert error.value.problems[0].startswith("DATABASE_URL: ")
    assert "canary" not in error.value.problems[0]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_opened_with_the_driver_that_is_installed(scheme: str) -> None:
    database = Database(Secret(f"{scheme}://u@127.0.0.1:1/x"), SystemClock())
    assert (database._engine.dialect.name, database._engine.dialect.driver) == ("postgresql", "psycopg")
    database.close()


def test_a_caller_that_cannot_be_served_in_time_is_told_so(sqlite_url: Secret, clock: ManualClock) -> None:
    import time

    database = Database(sqlite_url, clock)
    database._offload._limit_s = 0.05
    with pytest.raises(StoreUnavailable):
        database.read(lambda _session: time.sleep(0.3))


def test_everything_works_in_a_patched_process_under_contention(database_url: Secret) -> None:
    script = textwrap.dedent(
        """
        from gevent import monkey
        monkey.patch_all()
        import os
        import gevent
        from cryptography.fernet import Fernet
        from pushserver.accounts.database import Database
        from pushserver.accounts.passwords import Passwords
        from pushserver.accounts.store import AccountStore
        from pushserver.accounts.vault import Vault
        from pushserver.clock import SystemClock
        from pushserver.model import Secret
        clock = SystemClock()
        store = AccountStore(
            Database(Secret(os.environ["URL"]), clock), Passwords(memory_kib=64, passes=1),
            Vault([Secret(Fernet.generate_key().decode())]), clock,
        )
        store.upgrade()
        jobs = [gevent.spawn(store.add_user, f"user{n}", Secret("pw")) for n in range(40)]
        gevent.joinall(jobs, raise_error=True)
        jobs = [gevent.spawn(store.authenticate, f"user{n % 40}", Secret("pw")) for n in range(40)]
        jobs += [gevent.spawn(store.users) for n in range(100)]
        gevent.joinall(jobs, raise_error=True)
        assert all(job.value for job in jobs)
        print("done", len(store.users()))
        """
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "URL": database_url.reveal()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout == "done 40\n", answer.stderr
