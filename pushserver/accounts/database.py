"""The database itself: engine, transactions, schema. Knows SQLite and PostgreSQL apart, so that nobody else must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from pushserver.accounts.offload import Offload
from pushserver.clock import Clock
from pushserver.errors import OverCapacity, SettingsError, StoreUnavailable
from pushserver.model import Secret

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
#: As many connections as threads, so that no thread ever waits for one.
DATABASE_THREADS = 4
DATABASE_QUEUE = 200
#: The whole of one call, waiting included; what runs inside is limited below that.
CALL_LIMIT_S = 2.0
SQLITE_BUSY_S = 1.8
POSTGRESQL_STATEMENT_MS = 1_800
#: Creating or changing the schema may wait for another process that does the same.
UPGRADE_LIMIT_S = 60.0
UPGRADE_RETRY_S = 0.1
#: PostgreSQL's advisory lock that upgrades hold; any constant of our own.
UPGRADE_LOCK = 7_203_111


class Database:
    """All methods may be called from any greenlet and block only it; all raise StoreUnavailable."""

    def __init__(self, url: Secret, clock: Clock) -> None:
        self._clock = clock
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(writes=True)
        self._offload = Offload("database", threads=DATABASE_THREADS, queue_size=DATABASE_QUEUE, limit_s=CALL_LIMIT_S)

    def read(self, work: Callable[[Session], T]) -> T:
        """What ``work`` returns, run in one transaction."""
        return self._call(lambda: _in_session(self._engine, work))

    def write(self, work: Callable[[Session], T]) -> T:
        """As ``read``, committed at the end. An IntegrityError passes through: it is an answer, not a failure."""
        return self._call(lambda: _in_session(self._writer, work))

    def upgrade(self) -> None:
        """Bring the schema up to date, creating it where there is none; safe from several processes at once.

        Costs one read when there is nothing to do. A schema of a newer program is left alone: it serves older ones.
        """
        self._call(self._upgrade, limit_s=UPGRADE_LIMIT_S)

    def revision(self) -> tuple[str | None, str | None]:
        """Revision of the schema that is there, and of the one this program needs."""

        def current(session: Session) -> str | None:
            return MigrationContext.configure(session.connection()).get_current_revision()

        return self.read(current), ScriptDirectory(str(MIGRATIONS)).get_current_head()

    def close(self) -> None:
        """Close the idle connections; the next call opens new ones."""
        self._offload.close()
        self._engine.dispose()

    def _call(self, work: Callable[[], T], *, limit_s: float | None = None) -> T:
        try:
            return self._offload.run(work, limit_s=limit_s)
        except OverCapacity as error:
            raise StoreUnavailable(error.message) from None

    def _upgrade(self) -> None:
        deadline_s = self._clock.monotonic_s() + UPGRADE_LIMIT_S
        while True:
            try:
                self._upgrade_once()
                return
            except OperationalError as error:
                # SQLite reports another process's upgrade as "locked", also where it would not wait by itself.
                if "locked" not in str(error.orig) or self._clock.monotonic_s() > deadline_s:
                    raise _unavailable(error) from None
                self._clock.sleep(UPGRADE_RETRY_S)
            except SQLAlchemyError as error:
                raise _unavailable(error) from None

    def _upgrade_once(self) -> None:
        with self._engine.connect() as connection:
            if not _is_outdated(MigrationContext.configure(connection).get_current_revision()):
                return
        sqlite = self._engine.dialect.name == "sqlite"
        if sqlite:
            with self._engine.execution_options(no_transaction=True).connect() as connection:
                # Readers and the one writer then never wait for each other; it is a property of the file.
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with self._writer.begin() as connection:
            if not sqlite:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _is_outdated(revision: str | None) -> bool:
    """Whether a schema of this revision (None: there is none) lacks something. Unknown ones come from the future."""
    script = ScriptDirectory(str(MIGRATIONS))
    older = {known.revision for known in script.walk_revisions()} - {script.get_current_head()}
    return revision is None or revision in older


def _engine(url: Secret) -> Engine:
    raw = url.reveal()
    if raw.startswith("postgres://"):
        raw = raw.replace("postgres://", "postgresql://", 1)
    try:
        parsed = make_url(raw)
        sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"timeout": SQLITE_BUSY_S} if sqlite else {}
        if parsed.get_backend_name() == "postgresql":
            options = {
                "connect_timeout": 2,
                "tcp_user_timeout": 3_000,
                "options": f"-c statement_timeout={POSTGRESQL_STATEMENT_MS} -c lock_timeout={POSTGRESQL_STATEMENT_MS}",
            }
        engine = create_engine(
            parsed,
            connect_args=options,
            pool_size=DATABASE_THREADS,
            max_overflow=0,
            pool_timeout=CALL_LIMIT_S,
            pool_pre_ping=not sqlite,
            pool_recycle=600,
            hide_parameters=True,
        )
    except (ArgumentError, ImportError, ValueError, SQLAlchemyError) as error:
        # The text of these errors may quote the URL, password and all.
        raise SettingsError([f"DATABASE_URL: no database can be opened with it ({type(error).__name__})"]) from None
    if sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction control begins late and never locks; ours is in _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes is refused at once when somebody wrote in between,
    # without waiting: so writers take the lock at the start.
    options = connection.get_execution_options()
    if not options.get("no_transaction"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def _in_session(engine: Engine, work: Callable[[Session], T]) -> T:
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise _unavailable(error) from None


def _unavailable(error: SQLAlchemyError) -> StoreUnavailable:
    cause = type(error.orig).__name__ if isinstance(error, DBAPIError) else type(error).__name__
    return StoreUnavailable(f"the database did not answer ({cause})")
