"""`pidtrail doctor`: what works on this host, and why the rest does not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

import click
import msgspec

from pidtrail import __version__
from pidtrail.airflow.location import locate
from pidtrail.airflow.lognames import LogNames
from pidtrail.airflow.logplace import locate_logs
from pidtrail.airflow.running import ROOT_ROLES, airflow_processes
from pidtrail.redact import redact_url
from pidtrail.reports.escape import visible
from pidtrail.reports.terminal import may_colour, painted
from pidtrail.sources.host import Host, look
from pidtrail.sources.ladder import SOURCES, probe

DOCTOR_SCHEMA: Final = "pidtrail.doctor/1"


class SourceState(msgspec.Struct, frozen=True):
    """Whether a source works here; `reason` says why not."""

    name: str
    works: bool
    reason: str | None


class AirflowProcess(msgspec.Struct, frozen=True):
    """
    An Airflow process that runs here; `user` is None where it may not be known.

    `abandoned`: it belongs to the executor of a scheduler that is gone, and waits for ever.
    """

    pid: int
    role: str
    user: str | None
    abandoned: bool = False


class Database(msgspec.Struct, frozen=True):
    """
    The metadata database of an Airflow process, or why it is not known.

    `url` has no password in it; `found` says where it stood.
    """

    pid: int
    url: str | None
    found: str | None
    problem: str | None


class Logs(msgspec.Struct, frozen=True):
    """
    Where the logs of an Airflow's tasks are, and how they are named; None if not known.

    `template` is None for Airflow's default; `problem` says why it cannot be read back.
    """

    pid: int
    folder: str | None
    template: str | None
    problem: str | None


class Diagnosis(msgspec.Struct, frozen=True):
    """What `doctor --json` prints; `works` tells whether at least one source does."""

    works: bool
    sources: list[SourceState]
    host: Host
    airflow: list[AirflowProcess]
    databases: list[Database]
    logs: list[Logs] = []
    schema: str = DOCTOR_SCHEMA
    version: str = __version__


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print pidtrail.doctor/1 instead.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """
    Show what works on this host, and what does not.

    Each source of events is opened on nothing and closed again. Nothing is
    changed, and no password is shown. The exit status is 1 if no source works.

    \b
    Examples:
      pidtrail doctor
      pidtrail doctor --json | jq .sources
    """  # noqa: D301 (click wants the character \b itself)
    found = diagnose()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        colour = may_colour(sys.stdout)
        sys.stdout.writelines(f"{line}\n" for line in lines(found, colour=colour))
    if not found.works:
        ctx.exit(1)


def diagnose() -> Diagnosis:
    """Return what there is."""
    sources = []
    for name in SOURCES:
        reason = probe(name)
        sources.append(SourceState(name, works=reason is None, reason=reason))
    running = airflow_processes()
    roots = [p.pid for p in running if p.role in ROOT_ROLES]
    return Diagnosis(
        works=any(source.works for source in sources),
        sources=sources,
        host=look(),
        airflow=[AirflowProcess(p.pid, str(p.role), p.user, p.abandoned) for p in running],
        databases=[database_of(pid) for pid in roots],
        logs=[logs_of(pid) for pid in roots],
    )


def database_of(pid: int) -> Database:
    """Return where an Airflow process keeps its metadata, without asking it or the database."""
    place = locate(None, os.environ, pid)
    url = None if place.url is None else redact_url(place.url)
    return Database(pid, url, place.found, place.problem)


def logs_of(pid: int) -> Logs:
    """Return where the logs are that tell which process works for which task instance."""
    place = locate_logs(os.environ, pid)
    names = LogNames()
    fact = place.fact()
    if fact is not None:
        names.learn(fact)
    return Logs(pid, place.folder, place.template, next(iter(names.problems), None))


def lines(found: Diagnosis, *, colour: bool) -> Iterator[str]:
    """Yield the diagnosis as lines for people."""

    def paint(text: str, style: str) -> str:
        return painted(text, style if colour else None)

    host = found.host
    yield paint(f"pidtrail {found.version}, kernel {host.kernel} ({host.machine})", "bold")
    yield ""
    yield paint("Sources", "bold")
    for source in found.sources:
        if source.works:
            yield f"  {source.name:<10} {paint('works', 'green')}"
        else:
            yield f"  {source.name:<10} {paint('no', 'red')}: {visible(source.reason or '?')}"
    yield ""
    yield paint("Host", "bold")
    yield from (f"  {name:<24} {text}" for name, text in facts(host))
    yield ""
    yield paint("Airflow", "bold")
    yield from (f"  {line}" for line in airflow_lines(found, paint))


def airflow_lines(found: Diagnosis, paint: Callable[[str, str], str]) -> Iterator[str]:
    """Yield what of Airflow is here."""
    if not found.airflow:
        yield "no Airflow process runs here, or none that we may see"
    for process in found.airflow:
        left = paint("  no scheduler above it", "yellow") if process.abandoned else ""
        yield f"{process.pid:<10} {process.role:<18} {visible(process.user or '?', 40)}{left}"
    if any(process.abandoned for process in found.airflow):
        yield "Who has no scheduler above it was left behind when its scheduler was killed. It"
        yield "gets no work any more and does not end by itself: look whether it still runs a"
        yield "task (`ps --ppid PID`), and end it."
    for database in found.databases:
        where = f"database of {database.pid}"
        if database.url is None:
            yield f"{where}: {paint('not known', 'yellow')}: {visible(database.problem or '?')}"
        else:
            yield f"{where}: {visible(database.url)} (from {visible(database.found or '?')})"
    for logs in found.logs:
        told = paint(visible(logs.problem), "yellow") if logs.problem else ""
        where = visible(logs.folder) if logs.folder else "folder not known"
        yield f"logs of {logs.pid}: {told or where}"


def facts(host: Host) -> Iterator[tuple[str, str]]:
    """Yield the facts of a host in words."""
    yield "kernel type information", yes(host.btf, "no: `core` needs CONFIG_DEBUG_INFO_BTF")
    yield "libbpf", host.libbpf or "no libbpf.so.1: install the package libbpf1"
    yield "capabilities", capability_text(host)
    yield (
        "kernel headers",
        visible(" and ".join(host.headers_in)) or "none (`bcc` takes any kernel's, `core` none)",
    )
    yield "tracefs", host.tracefs or "not mounted (only `bcc` without BTF needs it)"
    yield "kernel lockdown", host.lockdown or "?"
    yield "PID namespace", namespace_text(host)
    yield "/proc hidepid", hidepid_text(host)
    yield "highest PID", "?" if host.pid_max is None else f"{host.pid_max}, then used again"
    yield "event ring", f"{host.ring_bytes >> 20} MiB of kernel memory while tracing"
    yield "swap", "?" if host.swap is None else yes(host.swap, "none: nothing is swapped out here")


def yes(there: bool, otherwise: str) -> str:
    """Return `yes`, or what else."""
    return "yes" if there else otherwise


def capability_text(host: Host) -> str:
    """Return the capabilities that matter, and the user."""
    held = ", ".join(name.removeprefix("CAP_") for name in host.capabilities) or "none that matter"
    return f"{held} (uid {host.uid})"


def namespace_text(host: Host) -> str:
    """Return which PID namespace we are in, and what follows."""
    if host.initial_pid_namespace is None:
        return "?"
    if host.initial_pid_namespace:
        return "the host's own"
    return f"a nested one ({host.pid_namespace}): processes outside of it have no number here"


def hidepid_text(host: Host) -> str:
    """Return what hidepid hides."""
    if host.hidepid in {"0", "off"}:
        return "off"
    return "?" if host.hidepid is None else f"{host.hidepid}: other users' processes are hidden"
