"""
What MySQL and MariaDB need to be told, before they are read as PostgreSQL is.

Airflow stores instants as TIMESTAMP(6), which the server converts to the time zone of
the session: each of Airflow's sessions sets UTC (airflow/utils/orm_event_handlers.py
@ 2.11.2 and 3.3.2), and so does ours.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pidtrail.errors import DatabaseError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import URL

# What libmysqlclient, and so mysqlclient, takes for `localhost` (Debian, RHEL).
_SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock")
_TEXTS = {
    *("read_default_file", "read_default_group", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket")
}
_TRUTHS = {
    "ssl_check_hostname": "ssl_verify_identity",
    "ssl_disabled": "ssl_disabled",
    "ssl_verify_cert": "ssl_verify_cert",
    "ssl_verify_identity": "ssl_verify_identity",
}
# Words of a connection that hold no address, and change nothing in what is read here.
_PASSED_OVER = {
    *("autocommit", "binary_prefix", "client_flag", "compress", "connect_timeout", "init_command"),
    *("local_infile", "pool_recycle", "program_name", "read_timeout", "sql_mode", "use_unicode"),
    *("use_pure", "write_timeout", "charset", "collation", "auth_plugin"),
}
_MODES: dict[str, dict[str, Any]] = {
    "DISABLED": {"ssl_disabled": True},
    "PREFERRED": {},
    "VERIFY_CA": {"ssl_verify_cert": True},
    "VERIFY_IDENTITY": {"ssl_verify_cert": True, "ssl_verify_identity": True},
}


def connect_arguments(url: URL) -> dict[str, Any]:
    """
    Return what PyMySQL is to be told of a URL's parameters, which are mostly mysqlclient's.

    Raises DatabaseError for one that is not known: it could be what makes the way
    to the server safe. A user may not have us send statements: `init_command` is dropped.
    """
    arguments: dict[str, Any] = {"program_name": "pidtrail"}
    for name, value in url.query.items():
        arguments |= _argument(name, value if isinstance(value, str) else value[-1])
    if "ssl_ca" in arguments:
        # As libmysqlclient has it: who names an authority wants it asked.
        arguments.setdefault("ssl_verify_cert", "ssl" not in arguments)
    if url.host in {None, "", "localhost"} and url.port is None:
        there = next((path for path in _SOCKETS if Path(path).exists()), None)
        if there is not None:
            arguments.setdefault("unix_socket", there)
    return arguments


def _argument(name: str, text: str) -> dict[str, Any]:
    """Return PyMySQL's words for one parameter of a URL."""
    if name in _TEXTS:
        return {name: text}
    if name in _TRUTHS:
        word = text.lower()
        if word not in {"true", "false", "1", "0", "yes", "no"}:
            raise DatabaseError(
                f"the parameter {name} of the database URL is neither true nor false"
            )
        return {_TRUTHS[name]: word in {"true", "1", "yes"}}
    if name == "ssl_mode" and text.upper() == "REQUIRED":
        return {"ssl": _encrypted()}
    if name == "ssl_mode" and text.upper() in _MODES:
        return _MODES[text.upper()]
    if name in _PASSED_OVER:
        return {}
    raise DatabaseError(f"the parameter {name[:40]} of the database URL is not known")


def guards(connection: sa.Connection, statement_ms: int, lock_ms: int) -> list[str]:
    """
    Return the statements that begin a snapshot: bounded, in UTC, and unable to write.

    MariaDB bounds a statement in seconds (max_statement_time), MySQL 5.7.8+ a SELECT in
    milliseconds (max_execution_time). Locks are waited for in whole seconds.
    """
    if getattr(connection.dialect, "is_mariadb", False):
        bound = f"max_statement_time = {statement_ms / 1000:g}"
    else:
        bound = f"max_execution_time = {statement_ms}"
    seconds = max(1, lock_ms // 1000)
    locks = f"lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}"
    return [
        f"SET SESSION {bound}, {locks}, time_zone = '+00:00'",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ]


def _encrypted() -> ssl.SSLContext:
    """Return what encrypts the way to whoever is there: `ssl_mode=REQUIRED`."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
