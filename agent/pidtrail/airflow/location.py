"""
Where Airflow's metadata database is, without asking Airflow.

In this order: what the user gave; the environment of pidtrail; the environment
of the traced scheduler; its airflow.cfg; Airflow's default. Airflow's own rules
are followed where they are plain values. Values that Airflow computes by running
a command or asking a secrets backend (`…_CMD`, `…_SECRET`, `…_conn_cmd`) are
named as such and never run: pidtrail changes nothing and starts nothing.
airflow/configuration.py @ 2.10.5 and 3.3.2 (get, get_airflow_home, expand_env_var).

A URL holds a password. It is returned and never printed or logged here; use
`redact_url` to show it.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from pidtrail.airflow.environment import environ_of, home_of

# Since 2.3 in [database], before that in [core]; both are read by all of 2.x.
_VARIABLES = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN")
_SECTIONS = ("database", "core")
_COMPUTED = {"CMD": "a command", "SECRET": "a secrets backend"}

# What sdk execution_time/task_runner.py block_orm_access puts below a 3.x runner (all 3.x).
_BARRED = "airflow-db-not-allowed"
# Query parameters of asyncpg alone, which libpq refuses.
_ASYNCPG_ONLY = {"prepared_statement_cache_size", "statement_cache_size", "command_timeout"}


class Location(NamedTuple):
    """
    The metadata database, or why it is not known.

    Exactly one of `url` and `problem` is None. `found` says where the URL stood,
    e.g. `AIRFLOW__DATABASE__SQL_ALCHEMY_CONN` or `/opt/airflow/airflow.cfg`.
    """

    url: str | None
    found: str | None = None
    problem: str | None = None


def locate(
    given: str | None,
    environ: Mapping[str, str],
    scheduler_pid: int | None = None,
    *,
    proc: Path = Path("/proc"),
) -> Location:
    """
    Return where the metadata database is.

    `given` is the option of the user, `environ` the environment of pidtrail, and
    `scheduler_pid` the traced scheduler, where there is one. Reads files; what
    cannot be read is passed over.
    """
    if given:
        return Location(normalised(given), "--airflow-db")
    theirs = environ_of(scheduler_pid, proc)
    for whose, env in (("", environ), (f" of process {scheduler_pid}", theirs)):
        location = _from_environment(env, whose)
        if location is not None:
            return location
    location = _from_files(environ, theirs, home_of(scheduler_pid, proc))
    told = theirs or environ.get("AIRFLOW_HOME") or environ.get("AIRFLOW_CONFIG")
    is_hidden = not told and scheduler_pid is not None and (proc / str(scheduler_pid)).exists()
    return _supposed(location, scheduler_pid) if is_hidden else location


def normalised(url: str) -> str:
    """
    Return the URL with the driver that pidtrail uses: psycopg2, PyMySQL, or SQLite's own.

    Takes `postgres://` (as some hosts hand out), `postgresql+asyncpg`,
    `+psycopg` and the like, `sqlite+aiosqlite`, and `mysql` or `mariadb` with
    any driver (`+mysqldb`, `+mysqlconnector`, `+aiomysql`, ...). Another database's URL comes
    back unchanged, for `Metadata` to refuse.
    """
    scheme, separator, rest = url.strip().partition("://")
    kind, _, driver = scheme.partition("+")
    if not separator or kind not in {"postgres", "postgresql", "sqlite", "mysql", "mariadb"}:
        return url.strip()
    if kind in {"mysql", "mariadb"}:
        return f"mysql+pymysql://{rest}"
    if kind == "sqlite":
        return f"sqlite://{rest}"
    address, question, query = rest.partition("?")
    if question and driver == "asyncpg":
        # asyncpg calls sslmode `ssl` (sqlalchemy dialects/postgresql/asyncpg.py).
        pairs = [
            ("sslmode" if name == "ssl" else name, value)
            for name, value in parse_qsl(query, keep_blank_values=True)
            if name not in _ASYNCPG_ONLY
        ]
        query = urlencode(pairs, quote_via=quote)
    return f"postgresql+psycopg2://{address}" + (f"?{query}" if query else "")


def _from_environment(env: Mapping[str, str], whose: str) -> Location | None:
    """Return what the variables say, or None where they say nothing."""
    for name in _VARIABLES:
        value = env.get(name)
        if value and not value.startswith(_BARRED):
            return Location(normalised(expand(value, env)), name + whose)
    for name in _VARIABLES:
        for suffix, what in _COMPUTED.items():
            if env.get(f"{name}_{suffix}"):
                return _not_run(f"{name}_{suffix}{whose}", what)
    return None


def _from_files(
    environ: Mapping[str, str], theirs: Mapping[str, str], home: str | None
) -> Location:
    """Return what airflow.cfg says, or Airflow's default where there is an AIRFLOW_HOME."""
    env = theirs or environ
    folder = airflow_home(theirs, environ, home)
    path = config_path(theirs, environ, folder)
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        if not os.path.isdir(folder):  # noqa: PTH112 (Path's raises where it may not look)
            return Location(None, problem=f"no Airflow database found: {path} does not exist")
    except OSError as error:
        return Location(None, problem=f"{path} cannot be read: {error.strerror}")
    except configparser.Error:
        return Location(None, problem=f"{path} is not a configuration file")
    for section in _SECTIONS:
        value = parser.get(section, "sql_alchemy_conn", fallback="")
        if value:
            # Airflow interpolates, so a percent sign is doubled in the file.
            return Location(normalised(expand(value.replace("%%", "%"), env)), str(path))
    for section in _SECTIONS:
        for suffix, what in _COMPUTED.items():
            option = f"sql_alchemy_conn_{suffix.lower()}"
            if parser.get(section, option, fallback=""):
                return _not_run(f"{option} in {path}", what)
    there = os.path.exists(path)  # noqa: PTH110 (Path's raises where it may not look)
    found = f"{path}, Airflow's default" if there else f"Airflow's default in {folder}"
    return Location(f"sqlite:///{folder.rstrip('/')}/airflow.db", found)


def _supposed(location: Location, pid: int | None) -> Location:
    """
    Return what is known of a process that hides its settings.

    In ~/airflow, which is only supposed to be its home, there may be a file; 2.x writes one with
    its default, SQLite, which says nothing of what the environment says instead.
    """
    if location.url is not None and not location.url.startswith("sqlite:"):
        return location._replace(found=f"{location.found}, supposed to be that of process {pid}")
    return Location(
        None,
        problem=f"the environment of process {pid} cannot be read, nor its memory: name its "
        "database as db or db_file in [airflow] of the service's settings, or as --airflow-db",
    )


def _not_run(where: str, what: str) -> Location:
    return Location(
        None, problem=f"the database URL comes from {what} ({where}), which pidtrail does not ask"
    )


def config_path(theirs: Mapping[str, str], environ: Mapping[str, str], home: str) -> Path:
    """Return where airflow.cfg is; `home` is AIRFLOW_HOME."""
    config = theirs.get("AIRFLOW_CONFIG") or environ.get("AIRFLOW_CONFIG")
    return Path(expand(config, theirs or environ)) if config else Path(home) / "airflow.cfg"


def airflow_home(theirs: Mapping[str, str], environ: Mapping[str, str], home: str | None) -> str:
    """Return AIRFLOW_HOME, said by either environment, else ~/airflow of the scheduler's user."""
    for env in (theirs, environ):
        explicit = env.get("AIRFLOW_HOME")
        if explicit:
            return expand(explicit, env)
    base = home or environ.get("HOME", "~")
    return f"{base.rstrip('/')}/airflow"


def expand(text: str, env: Mapping[str, str]) -> str:
    """
    Expand `$NAME`, `${NAME}` and a leading `~` as Airflow does, with that environment.

    Unknown names stay as they are, so a password may hold a dollar sign.
    """

    def value(found: re.Match[str]) -> str:
        return env.get(found[1] or found[2], found[0])

    expanded = re.sub(r"\$(?:(\w+)|\{([^}]*)\})", value, text)
    if expanded == "~" or expanded.startswith("~/"):
        expanded = env.get("HOME", "~") + expanded[1:]
    return expanded
