"""
One read-only way into a database of Airflow's: SQLite, PostgreSQL, MySQL or MariaDB.

Rule 1: nothing is written, not even a file beside the database, and the server
        or SQLite itself is told to refuse it.
Rule 2: short: one snapshot per reading, then no lock is held.
Rule 3: bounded: connecting, waiting for a lock and a statement each time out.
Rule 4: an error is one line without a password.

Imports SQLAlchemy, an extra (`airflow-db`): import this module only when needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pidtrail.airflow.mysql import connect_arguments, guards
from pidtrail.errors import DatabaseError
from pidtrail.redact import redact_text

_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 5000
_LOCK_TIMEOUT_MS = 1000
_SQLITE_BUSY_S = 0.5
# Bytes 18 and 19 of a SQLite file are 2 in WAL mode (https://www.sqlite.org/fileformat.html).
_SQLITE_HEADER = 20


class NotThere(DatabaseError):
    """There is no database yet, or nothing of Airflow's in it: nothing can have been missed."""


class Database:
    """
    A database that can be read again and again, whatever happens to it in between.

    A server is kept one connection to. A SQLite file is opened for each reading: no
    handle stays on a file that was replaced, and none hinders the merging of
    its write-ahead log when Airflow stops.
    """

    def __init__(self, url: str) -> None:
        """Raise DatabaseError for a URL that is none, or of another kind of database."""
        if not url.isprintable():
            raise DatabaseError("the database URL holds more than one line, or a control character")
        try:
            self._url = make_url(url)
        except (ArgumentError, ValueError):
            raise DatabaseError("the database URL cannot be understood") from None
        if "@" in (self._url.host or ""):
            # What stands there is the rest of the password, and drivers show the host.
            raise DatabaseError("the password in the database URL holds an @: write it as %40")
        kind = self._url.get_backend_name().replace("mariadb", "mysql")
        makers = {"sqlite": self._sqlite, "postgresql": self._postgresql, "mysql": self._mysql}
        if kind not in makers:
            raise DatabaseError(
                f"{kind} is not supported: SQLite, PostgreSQL, MySQL and MariaDB are read"
            )
        self.kind = kind
        self._engine = makers[kind]()

    @property
    def shown(self) -> str:
        """The URL for people: without user, password and parameters."""
        if self.kind == "sqlite":
            return str(self._url.database)
        port = "" if self._url.port is None else f":{self._url.port}"
        return f"{self._url.host or 'local socket'}{port}/{self._url.database or ''}"

    def identity(self) -> tuple[int, int] | None:
        """Return what changes when the file is another one; None for a server."""
        if self.kind != "sqlite":
            return None
        try:
            status = self._path().stat()
        except OSError as error:
            raise self._explained(error) from None
        return status.st_dev, status.st_ino

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """
        Give a connection within one read-only transaction, and end it.

        Raises DatabaseError for whatever the database says, also inside the block.
        """
        try:
            with self._engine.connect() as connection:
                if self.kind == "postgresql":
                    # In the transaction, not at connect: poolers refuse start-up options.
                    connection.execute(
                        sa.text(
                            "SELECT set_config('statement_timeout', :statement, true),"
                            " set_config('lock_timeout', :lock, true)"
                        ),
                        {
                            "statement": str(_STATEMENT_TIMEOUT_MS),
                            "lock": str(_LOCK_TIMEOUT_MS),
                        },
                    )
                elif self.kind == "mysql":
                    for statement in guards(connection, _STATEMENT_TIMEOUT_MS, _LOCK_TIMEOUT_MS):
                        connection.exec_driver_sql(statement)
                else:
                    connection.exec_driver_sql("BEGIN")
                yield connection
                connection.rollback()
        except (SQLAlchemyError, sqlite3.Error, UnicodeError, OSError) as error:
            self.close()
            raise self._explained(error) from None

    def close(self) -> None:
        """Let go of the connection; the next snapshot makes a new one."""
        with suppress(SQLAlchemyError):
            self._engine.dispose()

    def _postgresql(self) -> sa.Engine:
        try:
            return sa.create_engine(
                self._url,
                pool_size=1,
                max_overflow=0,
                isolation_level="REPEATABLE READ",
                execution_options={"postgresql_readonly": True},
                connect_args={
                    "connect_timeout": _CONNECT_TIMEOUT_S,
                    "application_name": "pidtrail",
                    # A server that vanished without a word is noticed within seconds.
                    "keepalives_idle": 5,
                    "keepalives_interval": 2,
                    "keepalives_count": 2,
                    "tcp_user_timeout": 2 * _STATEMENT_TIMEOUT_MS,
                },
            )
        except (SQLAlchemyError, ValueError) as error:
            raise self._explained(error) from None

    def _mysql(self) -> sa.Engine:
        arguments = connect_arguments(self._url)
        try:
            return sa.create_engine(
                self._url.set(drivername="mysql+pymysql", query={}),
                pool_size=1,
                max_overflow=0,
                isolation_level="REPEATABLE READ",
                connect_args=arguments
                | {
                    "connect_timeout": _CONNECT_TIMEOUT_S,
                    # A server that vanished without a word is noticed within seconds.
                    "read_timeout": 2 * _STATEMENT_TIMEOUT_MS // 1000,
                    "write_timeout": _CONNECT_TIMEOUT_S,
                },
            )
        except (SQLAlchemyError, ValueError) as error:
            raise self._explained(error) from None

    def _sqlite(self) -> sa.Engine:
        if self._url.database in {None, "", ":memory:"}:
            raise DatabaseError("a SQLite database in memory cannot be read from outside")
        return sa.create_engine(
            "sqlite+pysqlite://", creator=self._connect_sqlite, poolclass=sa.pool.NullPool
        )

    def _path(self) -> Path:
        """Return the file; raises NotThere or DatabaseError where there is none to read."""
        path = Path(str(self._url.database)).absolute()
        try:
            if path.exists() and not path.is_file():
                raise DatabaseError(f"{path} is not a file")
            if not path.is_file():
                raise NotThere(f"{path} does not exist")
        except OSError as error:
            raise DatabaseError(f"{path} cannot be read: {error.strerror}") from None
        return path

    def _connect_sqlite(self) -> sqlite3.Connection:
        """
        Open the file so that SQLite creates nothing beside it.

        In WAL mode (Airflow 3.x, airflow/utils/orm_event_handlers.py @ 3.3.2)
        even a `mode=ro` connection makes `-shm` and `-wal` where there are none.
        `readonly_shm` takes those that live writers have; where there are none,
        nobody has the file open, and `immutable` reads it as it lies there.
        """
        path = self._path()
        mode = "mode=ro"
        with path.open("rb") as file:
            header = file.read(_SQLITE_HEADER)
        if header[18:] == b"\x02\x02":
            log = path.with_name(f"{path.name}-wal")
            if path.with_name(f"{path.name}-shm").exists():
                mode += "&readonly_shm=1"
            elif not log.exists() or log.stat().st_size == 0:
                mode += "&immutable=1"
            else:
                raise DatabaseError(f"{path} was left by a crash; Airflow repairs it at its start")
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{mode}",
            uri=True,
            timeout=_SQLITE_BUSY_S,
            isolation_level=None,
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _explained(self, error: Exception) -> DatabaseError:
        """Return the error as one line that holds no password and no statement."""
        if isinstance(error, NoSuchModuleError):
            return DatabaseError(f"{self.kind} with that driver is not supported")
        cause = getattr(error, "orig", None) or error
        if self.kind == "mysql" and len(cause.args) > 1:
            cause = cause.args[1]  # the first is the number of the error
        # Else the word that tells whether one was sent is taken for it.
        said = str(cause).replace(" (using password: YES)", "")
        line = next((line for line in said.splitlines() if line.strip()), "no reason given")
        return DatabaseError(f"Airflow's database {self.shown}: {_clean(line.strip(), self._url)}")


def _clean(line: str, url: URL) -> str:
    """Return the line without the password, in any of the forms that it may be quoted in."""
    password = url.password
    if password:
        for form in {str(password), quote(str(password)), quote_plus(str(password))}:
            line = line.replace(form, "[redacted]")
    return redact_text(line)[:300]
