"""
Airflow's own account of what it runs: where it stands, and who reads it.

Three ways to it, each of its own worth: the metadata database, the REST API, and what
tasks tell through the plugin. `trace` and the service use the same: an Account is asked
where an Airflow keeps its database and its logs, told which databases to read, and is
from then on a place where claims come from (runtime.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import structs

from pidtrail.airflow.installation import Belonging
from pidtrail.airflow.location import Location, locate
from pidtrail.airflow.lognames import LogTemplate, UnreadableTemplate
from pidtrail.airflow.logplace import LogPlace, locate_logs
from pidtrail.airflow.sampler import Sampler
from pidtrail.errors import PidtrailError
from pidtrail.events import AirflowFact, Event, TaskReported

if TYPE_CHECKING:
    from pidtrail.airflow.claims import ClaimSocket
    from pidtrail.airflow.rest import Rest

MISSED_NS: Final = 86_400 * 1_000_000_000
"""So far back a database is read that nobody needed for a while."""


class Account:
    """
    What Airflow says of itself, from all places where it may be read.

    `database` is the URL that the user named, `rest` the API, `template` how he says that
    logs are named, `environ` the environment of pidtrail. Nothing is read before `read`,
    and no socket made before `listen`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        database: str | None = None,
        rest: Rest | None = None,
        template: str | None = None,
    ) -> None:
        self.environ, self.database, self.rest, self.template = environ, database, rest, template
        self.plugin: ClaimSocket | None = None
        self.api: Sampler | None = None
        self.databases: dict[str, Sampler] = {}
        self.leaving: list[tuple[str, Sampler]] = []
        self.belonging = Belonging()
        self.read_until: dict[str, int] = {}

    def locate(self, pid: int | None) -> Location | None:
        """
        Find the database of a process's Airflow; `problem` says why there is none.

        With the API alone it is not looked for (None): the user may not read it.
        """
        if self.rest is not None and self.database is None:
            return None
        return locate(self.database, self.environ, pid)

    def log_facts(self, pid: int | None) -> list[AirflowFact]:
        """Return how that Airflow names the logs of tasks, as far as its configuration tells."""
        if self.template is not None:
            place = LogPlace(None, self.template)
        else:
            place = locate_logs(self.environ, pid)
        fact = place.fact()
        return [] if fact is None else [fact]

    def listen(self, path: str, start_ticks: Callable[[int], int | None]) -> None:
        """Take in what tasks tell at a socket. Raises PidtrailError where it cannot be made."""
        from pidtrail.airflow.claims import ClaimSocket  # noqa: PLC0415 (few have the plugin)

        self.plugin = ClaimSocket(path, start_ticks)

    def read(self, urls: Collection[str]) -> None:
        """Read these databases from now on, and the API; others are read a last time."""
        if self.rest is not None and self.api is None:
            self.api = Sampler(self.rest, what="Airflow's API", interval_s=1.0)
            self.api.start()
        for url in urls - self.databases.keys():
            from pidtrail.airflow.metadata import Metadata  # noqa: PLC0415 (as above)

            now_ns = time.time_ns()
            since_ns = max(self.read_until.get(url, now_ns), now_ns - MISSED_NS)
            sampler = self.databases[url] = Sampler(Metadata(url, since_epoch_ns=since_ns))
            sampler.start()
        for url in self.databases.keys() - set(urls):
            self.read_until[url] = time.time_ns()
            sampler = self.databases.pop(url)
            sampler.let_end()
            self.leaving.append((url, sampler))

    @property
    def samplers(self) -> list[Sampler]:
        """All that are read."""
        return [*self.databases.values(), *([self.api] if self.api is not None else [])]

    def drain(self) -> list[Event]:
        """Return what was said since the last call. Never blocks for long."""
        ended = [pair for pair in self.leaving if not pair[1].is_alive()]
        events = self.plugin.drain() if self.plugin is not None else []
        for url, sampler in (*self.databases.items(), *self.leaving):
            events += of(self.belonging.of_database(url), sampler.drain())
        if self.api is not None:
            events += of(self.belonging.of_api(self.databases), self.api.drain())
        self.leaving = [pair for pair in self.leaving if pair not in ended]
        return events

    def poke(self) -> None:
        """Read all now."""
        for sampler in self.samplers:
            sampler.poke()

    def problems(self) -> list[str]:
        """Return what limits what is known, one line each."""
        lines = self.plugin.problems() if self.plugin is not None else []
        return [*lines, *(line for sampler in self.samplers for line in sampler.problems())]

    def stop(self) -> None:
        """End all reading, at the same time, each after a last poll."""
        if self.plugin is not None:
            self.plugin.stop()
        ending = [*self.samplers, *(sampler for _, sampler in self.leaving)]
        for sampler in ending:
            sampler.let_end()
        for sampler in ending:
            sampler.stop()


def of(airflow: str | None, events: list[Event]) -> list[Event]:
    """Return records with the installation whose they are."""
    return [
        structs.replace(event, airflow=airflow)
        if isinstance(event, TaskReported | AirflowFact)
        else event
        for event in events
    ]


def checked_template(template: str, named: str) -> str:
    """Return a template that can be read back; `named` is how the user calls it."""
    if not template.startswith("/"):
        raise PidtrailError(f"{named} must begin with the folder of the logs, at /")
    try:
        LogTemplate(template)
    except UnreadableTemplate as error:
        raise PidtrailError(f"{named} cannot be read back: {error}") from None
    return template
