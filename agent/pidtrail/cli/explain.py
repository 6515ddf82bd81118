"""`pidtrail explain`: why the PID that Airflow recorded is, or is not, the one that ran."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec import UNSET, structs

from pidtrail.airflow.facts import Role
from pidtrail.cli.logs import log
from pidtrail.cli.since import Since
from pidtrail.cli.stream import Stream, socket_option
from pidtrail.clock import epoch_ns_of_text
from pidtrail.errors import PidtrailError, UsageError
from pidtrail.reports.terminal import may_colour, painted
from pidtrail.reports.text import print_report
from pidtrail.service.protocol import NoService, Request
from pidtrail.verdict.engine import joined, judge_gathered
from pidtrail.verdict.model import Report, Verdict
from pidtrail.verdict.question import Question

if TYPE_CHECKING:
    from pidtrail.airflow.messages import Reading


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--dag", metavar="D", help="Only attempts of this DAG.")
@click.option("--task", metavar="T", help="Only attempts of this task.")
@click.option("--run", "run_id", metavar="R", help="Only attempts of this DAG run.")
@click.option("--map-index", type=int, metavar="M", help="Only this mapped task instance.")
@click.option("--try", "try_number", type=int, metavar="N", help="Only this try.")
@click.option(
    "--pid",
    type=int,
    metavar="P",
    help="Only attempts where this number was recorded, or ran, or was a child of what ran.",
)
@click.option(
    "--since",
    metavar="T",
    help="Only what lived or was recorded since: RFC 3339, or 10m, 2h, 3d before FILE ends or now.",
)
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print pidtrail.verdict/1 instead.")
@click.option("--code", metavar="CODE", help="Say what a verdict code means, and what it needs.")
@click.option(
    "--message",
    metavar="LINE",
    help="Say what a line of Airflow's log or UI means (- reads stdin), and of which runs it is, as"
    " far as FILE or the running service tells.",
)
def explain(
    file: str | None,
    *,
    dag: str | None,
    task: str | None,
    run_id: str | None,
    map_index: int | None,
    try_number: int | None,
    pid: int | None,
    since: str | None,
    socket_path: str,
    as_json: bool,
    code: str | None,
    message: str | None,
) -> None:
    """
    Say for every task instance attempt which process ran it, and why its PID is another.

    A line per attempt, then a sentence for each that can be pasted into an
    incident, and what is not known. FILE is a recording, a JSONL stream, or `-`
    for JSONL on stdin. A damaged FILE is explained as far as it can be read.
    Without FILE it is what the service on this host has seen.

    \b
    Examples:
      pidtrail explain --since 2h
      pidtrail explain session.db
      pidtrail explain session.db --dag sales --task load --try 2
      pidtrail explain session.db --pid 22693 --json | jq '.verdicts[].summary'
      pidtrail explain --code retry
      pidtrail explain session.db --message "Recorded pid 22693 does not match ..."
    """  # noqa: D301 (click wants the character \b itself)
    if code is not None:
        if file is not None or message is not None:
            raise UsageError("--code explains a code, not a FILE, and no message")
        show_meaning(code, as_json=as_json)
        return
    if message == file == "-":
        raise UsageError("stdin is either the FILE or the message")
    text, read = (None, None) if message is None else readings(message)
    question = Question(dag, task, run_id, map_index, try_number, pid)
    asked = Since.read(since)
    request = Request("history", asked.asked_ns)
    stream = opened(file, socket_path, request, is_needed=read is None)
    if stream is None:
        answer(read or [], None, as_json=as_json)
        return
    report = judged(stream, question)
    since_ns = asked.before(stream.ended_ns)
    found = report.verdicts
    if since_ns is not None:
        found = [verdict for verdict in found if latest_ns(verdict) >= since_ns]
    unknowns = list(dict.fromkeys([*report.unknowns, *stream.problems]))
    if not as_json and not found and stream.by_index:
        # How many others there are is told by everything alone.
        stream = Stream(file, socket_path, request, by_index=False)
        report = judged(stream, question)
    in_all = len(report.verdicts) + (report.left_out or 0)
    report = structs.replace(report, left_out=UNSET)
    if not question.is_open or since_ns is not None or read is not None:
        # What a scheduler left behind is about no attempt, and some were asked for.
        report = structs.replace(report, abandoned=[])
    if read is not None:
        from pidtrail.cli.message import about

        found = about(text or "", read, found)
        filtered = structs.replace(report, verdicts=found, unknowns=unknowns)
        answer(read, filtered, as_json=as_json)
        if as_json:
            return
    show(structs.replace(report, verdicts=found, unknowns=unknowns), in_all, as_json=as_json)


def judged(stream: Stream, question: Question) -> Report:
    """Return the verdicts that a question is about."""
    with no_collection():
        return joined(
            [
                judge_gathered(header, gathered, problems=stream.problems, question=question)
                for header, gathered in stream.gathered(question)
            ]
        )


def opened(
    file: str | None, socket_path: str, request: Request, *, is_needed: bool
) -> Stream | None:
    """
    Return what is to be judged.

    None if it is not needed, as beside a message, and there is no FILE and no service
    that answers. Raises PidtrailError.
    """
    try:
        # Which verdicts a message is about is found among all of them.
        return Stream(file, socket_path, request, by_index=is_needed)
    except PidtrailError as error:
        if is_needed or file is not None:
            raise
        if not isinstance(error, NoService):
            log.warning(str(error))
        return None


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """
    Let nobody look for cycles meanwhile: there are none among a million processes.

    Of a million records it took a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def show(filtered: Report, in_all: int, *, as_json: bool) -> None:
    """Print what is left of a report that had so many verdicts in all."""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(filtered), indent=2))
    elif in_all and not filtered.verdicts:
        click.echo(f"no task instance attempt matches, of {in_all} in all")
    else:
        print_report(filtered, file=sys.stdout)


def show_meaning(code: str, *, as_json: bool) -> None:
    """Print what a verdict code means."""
    from pidtrail.verdict.meaning import meaning

    meant = meaning(code)
    told = msgspec.json.format(msgspec.json.encode(meant), indent=2)
    click.echo(told if as_json else meant.text)


def readings(message: str) -> tuple[str, list[Reading]]:
    """Return what was pasted, and what it is. Raises PidtrailError if that is not known."""
    # What a line may mean takes long to load, and most ask without one.
    from pidtrail.cli.message import pasted, read

    text = pasted(message)
    return text, read(text)


def answer(read: list[Reading], report: Report | None, *, as_json: bool) -> None:
    """Print what is said of messages, with the verdicts they are about if there are any."""
    from pidtrail.cli.message import render, told

    said = told(read, report)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(said), indent=2))
        return
    colour = "green" if may_colour(sys.stdout) else None
    click.echo(render(said, lambda text: painted(text, colour)), nl=False)


def latest_ns(verdict: Verdict) -> int:
    """Return the epoch instant of the latest thing known of an attempt; far off while it lives."""
    far = sys.maxsize
    times: list[int] = []
    for process in verdict.processes:
        # A supervisor or worker lives on for others.
        if process.role == Role.SUPERVISOR:
            continue
        ended = None if process.ended is None else epoch_ns_of_text(process.ended)
        times.append(far if ended is None else ended)
    for record in verdict.recorded:
        seen = None if record.seen_at is None else epoch_ns_of_text(record.seen_at)
        times.append(far if seen is None else seen)
    return max(times, default=far)
