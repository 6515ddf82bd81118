"""
Which Airflow of a host a record or a process belongs to: an installation, by its database.

Two installations with the same DAGs have the same names for everything, task instances
and runs included; their metadata database is what they never share. Its address without user,
password and driver is the name of the installation: readable, short, the same for all who use
that database, and the same after a restart. A SQLite file is named by its real path, this
host by `localhost`, a port only where it is not the usual one.

What cannot be known by address (a pooler in between, another name of the same server) is
for `installations.py` to find out, which sees what both say.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from pidtrail.airflow.environment import environ_of
from pidtrail.airflow.facts import INSTALLATION
from pidtrail.airflow.location import locate
from pidtrail.events import AirflowFact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ORIGIN: Final = "airflow-config"
KINDS: Final = {"postgres": "postgresql", "mariadb": "mysql"}
USUAL_PORTS: Final = {"postgresql": "5432", "mysql": "3306"}
HERE: Final = frozenset({"127.0.0.1", "::1", "localhost", "localhost.localdomain"})


def address_of(url: str) -> str | None:
    """
    Return the address of a metadata database, the name of its installation; None if it has none.

    `url` as SQLAlchemy takes it. Nothing but kind, host, port and database is kept, and for
    PostgreSQL the `options`, as they may name a schema. A socket's folder stands for the host.
    """
    scheme, separator, rest = url.strip().partition("://")
    kind = scheme.partition("+")[0]
    kind = KINDS.get(kind, kind)
    if not separator:
        return None
    if kind == "sqlite":
        path = unquote(rest.partition("?")[0]).removeprefix("/")
        return f"sqlite:///{os.path.realpath(path)}" if path not in {"", ":memory:"} else None
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    query = parse_qs(parts.query)
    host = (query.get("host") or query.get("unix_socket") or [host])[0]
    usual = USUAL_PORTS.get(kind, "")
    number = query.get("port", [str(port or usual)])[0]
    host = "localhost" if host in HERE or not host else host.lower().rstrip(".")
    if ":" in host:
        host = f"[{host}]"
    schema = "".join(f"?options={value}" for value in query.get("options", ()) if "search" in value)
    return f"{kind}://{host}{'' if number == usual else f':{number}'}{unquote(parts.path)}{schema}"


def own_address(pid: int, *, proc: Path = Path("/proc")) -> str | None:
    """
    Return the installation of a process by its own settings alone, None if they do not tell.

    So if its environment cannot be read (environment.py), if its URL is computed, or if what
    is left is Airflow's default and no such file is there: a 3.x Celery worker needs no database
    and names none.
    """
    if not environ_of(pid, proc):
        return None
    url = locate(None, {}, pid, proc=proc).url
    address = None if url is None else address_of(url)
    if address is not None and address.startswith("sqlite:///"):
        # Path.exists() raises where it may not look.
        return address if os.path.exists(address.removeprefix("sqlite:///")) else None  # noqa: PTH110
    return address


def root_fact(pid: int, start_ticks: int | None, airflow: str | None) -> AirflowFact:
    """Return as a record to which installation a root belongs; `seq` and time are 0."""
    return AirflowFact(
        seq=0,
        ts_boot_ns=0,
        origin=ORIGIN,
        pid=pid,
        start_ticks=start_ticks,
        table=INSTALLATION,
        airflow=airflow,
    )


class Belonging:
    """
    Which installation each root, database and API is of, as far as settings tell.

    A database that the user named, and an API, are taken for those of the one Airflow that
    is found, whatever its own settings call the database: he gave them together. Where
    several are found and none has that address, its records are of no known installation.
    """

    def __init__(self) -> None:
        self.own: set[str] = set()
        self.alias: dict[str, str] = {}
        self.unsure: set[str] = set()

    def take(self, found: Mapping[int, tuple[str | None, str | None]]) -> dict[int, str | None]:
        """
        Return of each root, by pid, the installation; None where it is not known.

        `found` has the address by its own settings, and that of the database read for it.
        """
        self.own.update(own for own, _ in found.values() if own is not None)
        for own, read in found.values():
            if own is None or read is None or own == read or own in self.alias:
                continue
            if len(self.own) == 1:
                self.alias[own] = read
            elif read not in self.own and read not in self.alias.values():
                self.unsure.add(read)
        return {
            pid: None if own is None else self.alias.get(own, own)
            for pid, (own, _) in found.items()
        }

    def of_database(self, url: str) -> str | None:
        """Return the installation whose rows are read at a URL, None if it is not known."""
        address = address_of(url)
        return None if address in self.unsure else address

    def of_api(self, urls: Iterable[str]) -> str | None:
        """Return the installation whose API is asked beside these databases, None if unknown."""
        known = {self.alias.get(own, own) for own in self.own}
        known |= {address for url in urls if (address := address_of(url)) is not None}
        return known.pop() if len(known) == 1 else None
