"""Two installations of Airflow on one host, with the same DAGs: nothing of one is the other's."""

from __future__ import annotations

import signal
from typing import Any, Self

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from pidtrail.airflow.installation import root_fact
from pidtrail.correlate import correlate, gather
from pidtrail.events import AirflowFact, Event, TaskRef, TaskReported
from pidtrail.reports.verdicts import render_verdicts
from pidtrail.standing import STILL_TOLD_NS, Standing
from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.model import Verdict
from pidtrail.verdict.question import Question
from tests.unit.story import FULL, SECOND, Airflow3, at, header, ref, uuid
from tests.unit.test_selection import selected

PRODUCTION, STAGING = "postgresql://db/airflow", "sqlite:////srv/staging/airflow.db"
FAILED = 1 << 8


class Host(Airflow3):
    """Two schedulers of 3.x, `scheduler` and `other`, each with a worker."""

    def __init__(self, first: str | None = PRODUCTION, second: str | None = STAGING) -> None:
        super().__init__()
        self.root("other", "/usr/bin/python3", "/usr/bin/airflow", "scheduler")
        self.worker("other", "worker2")
        self.belongs("scheduler", first).belongs("other", second)

    def belongs(self, name: str, airflow: str | None) -> Self:
        """Say of which installation a root is, by its settings."""
        seq, now, _ = self.next()
        pid, ticks, _ = self.identity(name)
        said = structs.replace(root_fact(pid, ticks, airflow), seq=seq, ts_boot_ns=now)
        self.events.append(said)
        return self

    def row(self, airflow: str | None, task: TaskRef, state: str, pid: str, **more: Any) -> Self:
        """Let a row of an installation say something."""
        return self.report(task, state, pid, airflow=airflow, **more)

    def audited(self, airflow: str | None, event: str) -> Self:
        """Let the audit log of an installation say something of the task instance."""
        self.fact(structs.replace(ref(None), map_index=None), "log", event)
        self.events[-1] = structs.replace(self.events[-1], airflow=airflow)
        return self

    def named(self) -> dict[tuple[object, int | None], Verdict]:
        """Return the verdicts by installation and try."""
        found = self.judge().verdicts
        by_name: dict[tuple[object, int | None], Verdict] = {
            (one.airflow, one.task.try_number): one for one in found
        }
        assert len(by_name) == len(found)
        return by_name

    def codes(self) -> dict[tuple[object, int | None], str]:
        """Return the codes by installation and try."""
        return {key: verdict.code for key, verdict in self.named().items()}


def both(host: Host) -> Host:
    """Let both run the same task instance, each to its end."""
    for worker, runner, airflow, number in (
        ("worker", "one", PRODUCTION, 1),
        ("worker2", "two", STAGING, 2),
    ):
        host.start(worker, runner, ref(1, uuid(number)))
        host.row(airflow, ref(1, uuid(number)), "running", runner)
    for runner, airflow, number in (("one", PRODUCTION, 1), ("two", STAGING, 2)):
        host.exit(runner).row(airflow, ref(1, uuid(number)), "success", runner)
    return host


def test_the_same_task_in_both_is_two_attempts() -> None:
    host = both(Host())

    verdicts = host.named()

    assert {key: v.code for key, v in verdicts.items()} == {
        (PRODUCTION, 1): "match",
        (STAGING, 1): "match",
    }
    for airflow, runner in ((PRODUCTION, "one"), (STAGING, "two")):
        ran = [p.pid for p in verdicts[airflow, 1].processes if p.role == "runner"]
        assert ran == [host.pids[runner]]


def test_a_retry_in_one_is_none_in_the_other() -> None:
    host = Host()
    host.start("worker", "one", ref(1, uuid(1))).row(PRODUCTION, ref(1, uuid(1)), "running", "one")
    host.start("worker2", "two", ref(1, uuid(2))).row(STAGING, ref(1, uuid(2)), "running", "two")
    host.exit("one", FAILED).row(PRODUCTION, ref(1, uuid(1)), "up_for_retry", "one")
    host.idle("worker").wait(5)
    host.start("worker", "again", ref(2, uuid(3)))
    host.row(PRODUCTION, ref(2, uuid(3)), "running", "again")
    host.exit("again").row(PRODUCTION, ref(2, uuid(3)), "success", "again")
    host.exit("two").row(STAGING, ref(1, uuid(2)), "success", "two")

    assert host.codes() == {
        (PRODUCTION, 1): "retry",
        (PRODUCTION, 2): "match",
        (STAGING, 1): "match",
    }


def restarted(first: str | None, second: str | None) -> Host:
    """Let one scheduler die with its task, while the other, later, runs try 2 of its own."""
    host = Host(first, second)
    host.start("worker", "one", ref(1, uuid(1))).row(first, ref(1, uuid(1)), "running", "one")
    for name in ("one", "worker", "scheduler"):
        host.signal(signal.SIGTERM, name, None).exit(name, signal.SIGTERM)
    host.wait(20).start("worker2", "two", ref(2, uuid(2)))
    host.row(second, ref(2, uuid(2)), "running", "two")
    return host.exit("two").row(second, ref(2, uuid(2)), "success", "two")


def test_a_scheduler_that_died_was_not_restarted_by_that_of_another_installation() -> None:
    codes = restarted(PRODUCTION, STAGING).codes()

    assert codes[STAGING, 2] == "match"
    assert codes[PRODUCTION, 1] not in {"worker-restart", "retry"}


def test_a_scheduler_that_comes_back_to_the_same_database_was_restarted() -> None:
    """Near miss: the same story in one installation, which then is not named."""
    assert restarted(PRODUCTION, PRODUCTION).codes() == {
        (UNSET, 1): "worker-restart",
        (UNSET, 2): "match",
    }


def test_a_clear_in_one_is_none_in_the_other() -> None:
    """Audit rows have names alone, and are those of the database that they were read in."""
    host = Host()
    host.start("worker", "one", ref(1, uuid(1))).row(PRODUCTION, ref(1, uuid(1)), "running", "one")
    host.start("worker2", "two", ref(1, uuid(2))).row(STAGING, ref(1, uuid(2)), "running", "two")
    host.audited(STAGING, "clear")
    for name, worker, airflow, number in (
        ("one", "worker", PRODUCTION, 3),
        ("two", "worker2", STAGING, 4),
    ):
        host.exit(name, FAILED).idle(worker).wait(1)
        host.start(worker, f"{name}-again", ref(2, uuid(number)))
        host.row(airflow, ref(2, uuid(number)), "running", f"{name}-again")

    codes = host.codes()

    assert codes[STAGING, 1] == "clear"
    assert codes[PRODUCTION, 1] == "retry"


def test_who_is_told_by_a_uuid_needs_no_root() -> None:
    """A Celery worker of 3.x has no database in its settings; its runner's UUID is in one."""
    assert both(Host(PRODUCTION, None)).codes() == {
        (PRODUCTION, 1): "match",
        (STAGING, 1): "match",
    }


def test_a_uuid_says_more_than_the_settings_of_a_root() -> None:
    """A worker of 3.x may find a database in its home that it does not use."""
    host = Host(PRODUCTION, STAGING)
    host.run("worker2", "two", ref(1, uuid(2)))
    host.events[-1] = structs.replace(host.events[-1], airflow=PRODUCTION)

    assert host.exit("two").codes() == {(PRODUCTION, 1): "match"}


def test_the_number_of_a_job_is_that_of_its_own_database() -> None:
    """A title of 2.x names no try, its job does: both databases have a job 7."""
    host = Host()
    for airflow, jobs in ((PRODUCTION, (7, 8)), (STAGING, (6, 7))):
        for number, job in enumerate(jobs, 1):
            host.report(ref(number), "failed", None, airflow=airflow, job_id=job)
    for worker, runner in (("worker", "one"), ("worker2", "two")):
        host.title(worker, SUPERVISOR_2).fork(worker, runner).title(runner, RUNNER_2)
        host.exit(runner, FAILED)

    found = {
        process.pid: (verdict.airflow, verdict.task.try_number)
        for verdict in host.judge().verdicts
        for process in verdict.processes
        if process.role == "runner"
    }

    assert found == {host.pids["one"]: (PRODUCTION, 1), host.pids["two"]: (STAGING, 2)}


SUPERVISOR_2 = (
    "airflow task supervisor: ['airflow', 'tasks', 'run', 'sales', 'load', 'manual__1', '--local']"
)


def by_log(host: Host, worker: str, runner: str) -> Host:
    """Let a runner show names alone, no UUID: as in 2.x, or with a title that was cut."""
    host.log(worker, LOG_OF_TRY).fork(worker, runner).title(runner, RUNNER_2)
    return host.log(runner, LOG_OF_TRY)


LOG_OF_TRY = "/srv/airflow/logs/dag_id=sales/run_id=manual__1/task_id=load/attempt=1.log"
RUNNER_2 = "airflow task runner: sales load manual__1 7"


def test_names_alone_join_nothing_that_could_be_of_two() -> None:
    """Of who has no root and no number in a row, it is said that it could be of either."""
    host = Host()
    host.root("left", "airflow worker -- LocalExecutor")
    by_log(host, "left", "stray")
    for runner, airflow in (("stray-a", PRODUCTION), ("stray-b", STAGING)):
        host.born(runner)
        host.row(airflow, ref(1), "running", runner, hostname="worker-9")

    report = host.judge()

    (stray,) = [v for v in report.verdicts if v.airflow is None]
    assert (stray.code, stray.outcome) == ("undetermined", "undetermined")
    assert any(PRODUCTION in line and STAGING in line for line in stray.unknowns)
    assert [v.code for v in report.verdicts] == ["undetermined"] * 3


def test_a_row_that_carries_its_number_settles_it() -> None:
    """Near miss: the same process, whose number one of the two recorded."""
    host = Host()
    host.root("left", "airflow worker -- LocalExecutor")
    by_log(host, "left", "stray")
    host.row(STAGING, ref(1), "running", "stray").row(PRODUCTION, ref(1), "running", "other")

    verdicts = host.named()

    assert verdicts[STAGING, 1].code == "match"
    assert (None, 1) not in verdicts


def test_names_that_only_one_knows_are_its_own() -> None:
    """Two installations with different DAGs are joined as if each were alone."""
    host = Host()
    host.root("left", "airflow worker -- LocalExecutor")
    by_log(host, "left", "stray").exit("stray", FAILED)
    host.row(STAGING, ref(1), "failed", "other")

    assert list(host.named()) == [(STAGING, 1)]


def test_a_root_that_tells_nothing_could_be_of_either() -> None:
    """Beside one whose database is known: its task is not joined by the name."""
    host = Host(PRODUCTION, None)
    by_log(host, "worker2", "stray").exit("stray", FAILED)
    host.row(PRODUCTION, ref(1), "running", "scheduler")

    stray = host.named()[None, 1]

    assert stray.code == "undetermined"
    assert any("whose database is not known" in line for line in stray.unknowns)


def test_a_root_that_tells_nothing_is_known_by_what_ran_below_it() -> None:
    """Near miss: one of its processes stands in a row, so all of them are of that database."""
    host = Host(PRODUCTION, None)
    by_log(host, "worker2", "proof").row(PRODUCTION, ref(1), "success", "proof").exit("proof")
    host.fork("worker2", "died").title("died", "airflow task runner: sales load manual__2 8")
    host.exit("died", FAILED)
    host.report(TaskRef("sales", "load", "manual__2", -1, 1), "failed", None, airflow=PRODUCTION)

    assert [v.airflow for v in host.judge().verdicts] == [UNSET, UNSET]
    assert {v.code for v in host.judge().verdicts} == {"match", "died-unrecorded"}


def test_the_plugin_speaks_for_its_own_installation() -> None:
    host = both(Host())
    two = structs.replace(ref(1), ti_id=None)
    host.fork("worker2", "three").tell("three", structs.replace(two, run_id="manual__3"))

    told = [v.airflow for v in host.judge().verdicts if v.task.run_id == "manual__3"]

    assert told == [STAGING]


POOLER = "postgresql://pooler:6432/airflow"


def twice(host: Host, start: dict[str, str | None], **second: Any) -> Host:
    """Let two addresses tell of the same process, with the starts given."""
    host.start("worker", "one", ref(1, uuid(1)))
    for address, date in start.items():
        row = {"start_date": date, **(second if address != PRODUCTION else {})}
        host.row(address, ref(1, uuid(1)), "running", "one", **row)
    return host


def test_two_addresses_of_one_database_are_one_installation() -> None:
    """Both recorded a process that was born meanwhile, to the microsecond: then they are one."""
    host = Host(PRODUCTION, POOLER)
    date = at(host.now_ns)
    twice(host, {PRODUCTION: date, POOLER: date}).exit("one")

    assert host.codes() == {(UNSET, 1): "match"}


def test_what_both_addresses_tell_of_one_row_is_told_once() -> None:
    host = Host(PRODUCTION, POOLER)
    date = at(host.now_ns)
    twice(host, {PRODUCTION: date, POOLER: date})
    for airflow in (PRODUCTION, POOLER):
        host.audited(airflow, "clear")
        host.events[-1] = structs.replace(host.events[-1], at=date, row_id="7")
    taken = gather(host.events)

    (run,) = correlate(taken.tree, taken.reports, taken.facts).runs

    assert [fact.row_id for fact in run.facts] == ["7"]


@pytest.mark.parametrize("dates", [(0, 1), (0, None), (None, None)])
def test_what_only_looks_alike_are_two(dates: tuple[int | None, int | None]) -> None:
    """Near miss: another start, or none; a copy of the database may hold an old row."""
    host = Host(PRODUCTION, POOLER)
    first, second = (None if n is None else at(host.now_ns + n * SECOND) for n in dates)

    codes = twice(host, {PRODUCTION: first, POOLER: second}).exit("one").codes()

    assert set(codes) == {(PRODUCTION, 1), (POOLER, 1)}
    assert codes[PRODUCTION, 1] == "match"


def test_a_copy_of_a_database_is_not_the_database() -> None:
    """The row of a process that was there before us stands in both: it proves nothing."""
    host = Host()
    date = at(host.now_ns)
    host.root("old", f"airflow worker -- {uuid(9)}")
    for airflow in (PRODUCTION, STAGING):
        host.row(airflow, ref(1, uuid(9)), "running", "old", start_date=date)

    assert {airflow for airflow, _ in host.codes()} >= {PRODUCTION, STAGING}


def test_an_api_without_uuids_is_told_by_the_numbers() -> None:
    """2.x: the row of this name with this number is of whom the process is; another of none."""
    host = Host()
    by_log(host, "worker", "one")
    by_log(host, "worker2", "two")
    host.row(None, ref(1), "running", "two", via="rest")
    host.row(None, ref(1), "running", "other", via="rest", hostname="worker-9")

    found = {v.airflow: [r.pid for r in v.recorded] for v in host.judge().verdicts}

    assert found == {
        PRODUCTION: [],
        STAGING: [host.pids["two"]],
        None: [host.pids["other"]],
    }


def test_an_api_that_says_not_whose_it_is_is_told_by_the_uuids() -> None:
    host = both(Host())
    host.row(None, ref(1, uuid(2)), "success", "two", via="rest")

    verdicts = host.named()

    assert set(verdicts) == {(PRODUCTION, 1), (STAGING, 1)}
    assert "rest" in {record.via for record in verdicts[STAGING, 1].recorded}


def test_a_stream_from_before_knows_of_no_installations() -> None:
    """Records without the field are joined by names, as they were, and none is named."""
    host = both(Host())
    host.events = [e for e in map(unnamed, host.events) if e is not None]

    report = host.judge()

    assert [v.airflow for v in report.verdicts] == [UNSET]
    assert b'"airflow"' not in msgspec.json.encode(report)


def unnamed(event: Event) -> Event | None:
    """Return a record as a pidtrail of before wrote it, None for one that it did not write."""
    if isinstance(event, AirflowFact) and event.table == "installation":
        return None
    if isinstance(event, TaskReported | AirflowFact):
        return structs.replace(event, airflow=None)
    return event


@given(st.randoms(use_true_random=False))
def test_the_order_of_records_decides_nothing(chance: Any) -> None:
    events = both(Host()).events
    shuffled = chance.sample(events, len(events))
    told = [
        msgspec.json.encode(judge_stream(header(FULL), iter(some), problems=[]))
        for some in (events, shuffled)
    ]

    assert told[0] == told[1]


def test_what_is_left_out_for_a_question_takes_no_installation_away() -> None:
    """The answer about one number or name is that of the whole stream."""
    host = both(Host(PRODUCTION, None))
    host.root("left", "airflow worker -- LocalExecutor")
    by_log(host, "left", "stray").exit("stray", FAILED)
    questions = [Question("sales"), Question("sales", "load", try_number=1)]
    questions += [Question(pid=host.pids[name]) for name in ("one", "two", "stray")]
    for question in questions:
        _, report = selected(host.events, question, 3)

        assert report.verdicts
        assert report == judge_stream(header(FULL), host.events, problems=[], question=question)


def test_people_see_of_which_installation_it_is() -> None:
    """A line of each verdict and a column, where there are several."""
    shown = render_verdicts(both(Host()).judge()).splitlines()

    assert [line for line in shown if line.startswith("    Airflow at")] == [
        f"    Airflow at {PRODUCTION}",
        f"    Airflow at {STAGING}",
    ]
    assert shown[0].endswith("Airflow")
    assert shown[2].endswith(PRODUCTION)
    assert shown[3].endswith(STAGING)


def test_people_see_nothing_of_it_where_there_is_one() -> None:
    """Near miss."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1)))

    assert "Airflow" not in render_verdicts(story.judge()).splitlines()[0]


def test_an_address_reaches_no_terminal_as_it_is() -> None:
    report = both(Host(PRODUCTION, STAGING)).judge()
    evil = [structs.replace(v, airflow="sqlite:///\x1b[2J\n") for v in report.verdicts]
    shown = render_verdicts(structs.replace(report, verdicts=evil))

    assert "\x1b" not in shown
    assert "    Airflow at sqlite:///" in shown


def test_a_later_segment_of_the_history_keeps_them_apart() -> None:
    """The rows of both stand in it, and the installation of each root that still lives."""
    standing, host = Standing(), Host()
    host.start("worker", "one", ref(1, uuid(1))).row(PRODUCTION, ref(1, uuid(1)), "running", "one")
    host.start("worker2", "two", ref(1, uuid(2))).row(STAGING, ref(1, uuid(2)), "running", "two")
    host.audited(PRODUCTION, "clear").audited(STAGING, "clear")
    standing.take(host.events)
    again = Host()
    again.__dict__.update(host.__dict__)
    again.events = standing.told_again(host.now_ns)
    assert sum(isinstance(e, TaskReported) for e in again.events) == 2
    assert sum(isinstance(e, AirflowFact) and e.table == "log" for e in again.events) == 2

    again.exit("one").row(PRODUCTION, ref(1, uuid(1)), "success", "one")
    again.exit("two").row(STAGING, ref(1, uuid(2)), "success", "two")

    assert again.codes() == {(PRODUCTION, 1): "match", (STAGING, 1): "match"}


def test_rows_of_two_databases_are_two() -> None:
    """The same number, name and time of an audit row means two, and each is told again."""
    standing, host = Standing(), Host()
    for airflow in (PRODUCTION, STAGING):
        host.audited(airflow, "clear")
        host.events[-1] = structs.replace(host.events[-1], at=at(0), row_id="7")
    standing.take(host.events)

    assert logged(standing.told_again(host.now_ns)) == [PRODUCTION, STAGING]


def logged(events: list[Event]) -> list[str | None]:
    """Return whose audit rows are among some records."""
    return [e.airflow for e in events if isinstance(e, AirflowFact) and e.table == "log"]


def test_an_audit_row_is_kept_as_long_as_the_row_of_its_own_database_is_open() -> None:
    standing, host = Standing(), Host()
    host.row(PRODUCTION, ref(1), "running", "scheduler").row(STAGING, ref(1), "success", "other")
    for airflow in (PRODUCTION, STAGING):
        host.fact(ref(1), "log", "clear")
        host.events[-1] = structs.replace(host.events[-1], airflow=airflow)
    standing.take(host.events)

    later = standing.told_again(host.now_ns + 2 * STILL_TOLD_NS)

    assert logged(later) == [PRODUCTION]


def test_the_installation_of_a_root_goes_with_it() -> None:
    """Who is reaped is told again no more, nor of which installation he was."""
    standing, host = Standing(), Host()
    host.exit("other").reap("other", 1)
    standing.take(host.events)

    told = [e for e in standing.told_again(host.now_ns) if isinstance(e, AirflowFact)]

    assert [(e.pid, e.airflow) for e in told] == [(host.pids["scheduler"], PRODUCTION)]
