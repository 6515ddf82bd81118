"""Which source to use: the best that opens here, and why the better ones did not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from pidtrail.errors import SourceUnavailable, UsageError
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.core import CoreSource
from pidtrail.sources.procfs import ProcfsSource
from pidtrail.sources.source import Source

AUTO: Final = "auto"


def bcc() -> Source:
    """Return source `bcc`, whose modules only those load who come to it."""
    from pidtrail.sources.bcc import BccSource  # noqa: PLC0415 (see above)

    return BccSource()


SOURCES: Final[dict[str, Callable[[], Source]]] = {
    "core": CoreSource,
    "bcc": bcc,
    "connector": ConnectorSource,
    "procfs": ProcfsSource,
}
"""All that are built, best first."""

FIRST_CLIMB_NS: Final = 60 * 1_000_000_000
LONGEST_CLIMB_NS: Final = 3600 * 1_000_000_000


def make(name: str, interval_s: float | None = None) -> Source:
    """Return a source of that name, not open yet; the interval is for the one that polls."""
    if interval_s is not None and SOURCES[name] is ProcfsSource:
        return ProcfsSource(interval_s)
    return SOURCES[name]()


def open_best(
    name: str,
    roots: Sequence[int],
    *,
    migrations: bool = False,
    interval_s: float | None = None,
) -> tuple[Source, dict[str, str]]:
    """
    Open the source of that name, or with `auto` the best that opens.

    Returns it with those that were refused before it, each with its reason.
    Raises UsageError for a name that is none, SourceUnavailable if nothing opens.
    """
    if name != AUTO and name not in SOURCES:
        raise UsageError(f"no source {name}: there is {', '.join([AUTO, *SOURCES])}")
    refused: dict[str, str] = {}
    for candidate in SOURCES if name == AUTO else [name]:
        source = make(candidate, interval_s)
        try:
            source.open(roots, migrations=migrations)
        except SourceUnavailable as error:
            if name == AUTO and len(SOURCES) > 1:
                refused[candidate] = str(error)
                continue
            raise
        return source, refused
    reasons = "; ".join(f"{candidate}: {reason}" for candidate, reason in refused.items())
    raise SourceUnavailable(f"no source works here: {reasons}", "`pidtrail doctor` tells more")


def open_below(name: str, roots: Sequence[int], interval_s: float | None = None) -> Source:
    """
    Open the best source below the one of that name, which has failed while it ran.

    Raises SourceUnavailable if none opens.
    """
    reasons = []
    for candidate in list(SOURCES)[list(SOURCES).index(name) + 1 :]:
        source = make(candidate, interval_s)
        try:
            source.open(roots)
        except SourceUnavailable as error:
            reasons.append(f"{candidate}: {error}")
            continue
        return source
    raise SourceUnavailable(f"nothing to step down to from {name}: {'; '.join(reasons) or 'last'}")


class Climb:
    """
    The way back up to a better source, which is looked for now and then.

    A look may compile programs and holds up whoever takes it, so they come at growing
    intervals, from a minute to an hour; so do those after a source that fails each time.
    """

    def __init__(
        self,
        *,
        migrations: bool = False,
        interval_s: float | None = None,
        first_ns: int = FIRST_CLIMB_NS,
    ) -> None:
        self.migrations, self.interval_s = migrations, interval_s
        self.wait_ns = first_ns
        self.due_ns = 0

    def put_off(self, now_ns: int) -> None:
        """Let some time pass: a session begins, or a source has just failed."""
        self.due_ns = now_ns + self.wait_ns

    def is_due(self, name: str, now_ns: int) -> bool:
        """Return whether to look for a better source than the one of that name."""
        if not self.due_ns:
            self.put_off(now_ns)
        return now_ns >= self.due_ns and name in list(SOURCES)[1:]

    def open(self, name: str, roots: Sequence[int], now_ns: int) -> Source | None:
        """Return the best source above the one of that name that opens now, or None."""
        self.wait_ns = min(2 * self.wait_ns, LONGEST_CLIMB_NS)
        self.due_ns = now_ns + self.wait_ns
        for candidate in better(name):
            source = make(candidate, self.interval_s)
            with contextlib.suppress(SourceUnavailable):
                source.open(roots, migrations=self.migrations)
                return source
        return None


def better(name: str) -> list[str]:
    """Return the names of those above a source, best first."""
    return list(SOURCES)[: list(SOURCES).index(name)]


def probe(name: str) -> str | None:
    """Return why a source does not work here, or None if it does: it is opened and closed again."""
    source = SOURCES[name]()
    try:
        source.open([])
    except SourceUnavailable as error:
        return str(error)
    source.close()
    return None
