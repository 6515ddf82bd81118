"""The Airflows that were found on a host: who is followed, and where their records are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from pidtrail.airflow.installation import address_of, own_address, root_fact
from pidtrail.airflow.running import EXECUTOR_ROLES, ROOT_ROLES
from pidtrail.cli.logs import log
from pidtrail.redact import redact_url
from pidtrail.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidtrail.airflow.account import Account
    from pidtrail.airflow.running import Running
    from pidtrail.runtime import Session

NEEDED_SECONDS: Final = 120.0
"""So long a database is read after the last process that used it has ended: it may be back."""
MOST_PLACES: Final = 50
TELLING_ROLES: Final = ROOT_ROLES | EXECUTOR_ROLES
"""Whose settings tell where the database is; those of workers that were left behind too."""


class Airflows:
    """
    Who is followed. `roots` are their pids, with the URL of the database that each uses.

    `places` are the databases that were found, without secrets, and None, or why others were
    not; `installations` says to which of them the roots belong. `finder` and `now_s`, any
    monotonic clock, are seams for tests.
    """

    def __init__(
        self,
        account: Account,
        finder: Roots | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account = account
        self.finder = finder if finder is not None else Roots()
        self.now_s = now_s
        self.roots: dict[int, str | None] = {}
        self.needed: dict[str, float] = {}
        self.places: dict[str, str | None] = {}
        self.installations: dict[int, str | None] = {}
        self.urls: dict[str, str] = {}

    def found(self, running: list[Running]) -> list[int]:
        """Take in who was found, and return their pids."""
        settings = {}
        for process in running:
            url = None
            # A runner's settings are not all Airflow's own: 3.x forbids it the database.
            if process.role in TELLING_ROLES or not self.places:
                url = self.locate(process.pid)
            address = None if url is None else address_of(url)
            if url is not None and address is not None:
                self.urls[address] = url
            if process.role in TELLING_ROLES:
                settings[process.pid] = own_address(process.pid), address
            self.roots[process.pid] = url
            log.info("follows", pid=process.pid, role=str(process.role))
        # By two names it would be read twice; the latest settings have the right password.
        for pid, url in self.roots.items():
            if url is not None:
                self.roots[pid] = self.urls.get(address_of(url) or "", url)
        self.installations.update(self.account.belonging.take(settings))
        return [process.pid for process in running]

    def tell(self, session: Session, pids: Iterable[int]) -> None:
        """Tell of roots that are followed to which installation they belong."""
        live = {key.pid: key.start_ticks for key in session.live}
        session.tell(
            [
                root_fact(pid, live[pid], self.installations[pid])
                for pid in pids
                if pid in live and pid in self.installations
            ]
        )

    def locate(self, pid: int) -> str | None:
        """Return the URL of the database that a process uses, None if it is not known."""
        location = self.account.locate(pid)
        if location is None:
            return None
        problem = location.problem
        place = redact_url(location.url) if location.url is not None else problem or "?"
        if place not in self.places and len(self.places) < MOST_PLACES:
            self.places[place] = problem
            if problem is not None:
                log.warning("airflow database", pid=pid, problem=problem)
            else:
                log.info("airflow database", pid=pid, url=place, found=location.found)
        return location.url

    def look(self, session: Session) -> None:
        """Follow new roots; read the databases of those who live, or lived a moment ago."""
        alive = {key.pid for key in session.live}
        new = self.found(self.finder.look(alive))
        if new:
            for pid in new:
                session.tell(self.account.log_facts(pid))
            session.follow(new)
            self.tell(session, new)
            alive = {key.pid for key in session.live}
        self.roots = {pid: url for pid, url in self.roots.items() if pid in alive}
        self.installations = {p: one for p, one in self.installations.items() if p in alive}
        self.read()

    def read(self) -> None:
        """Read the databases that are needed, and no others."""
        now_s = self.now_s()
        self.needed.update((url, now_s) for url in self.roots.values() if url is not None)
        self.needed = {
            url: since_s for url, since_s in self.needed.items() if now_s - since_s < NEEDED_SECONDS
        }
        self.account.read(self.needed)

    @property
    def databases(self) -> str | None:
        """The databases that were found, without secrets."""
        return ", ".join(sorted(url for url, why in self.places.items() if why is None)) or None

    @property
    def problem(self) -> str | None:
        """Why the database of some Airflow is not known."""
        return "; ".join(sorted(why for why in self.places.values() if why is not None)) or None
