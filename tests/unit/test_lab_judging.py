"""The lab's judge, with records of kernels that do not exist."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from pidtrail.events import Event, Exec, Exit, Fork, Lost, Migrate, Observed, Signal, Title
from pidtrail.lab.catalogue import EXPERIMENTS
from pidtrail.lab.claims import CLAIMS, answers
from pidtrail.lab.context_switch import ContextSwitch
from pidtrail.lab.cpu_migration import MOVES, CpuMigration
from pidtrail.lab.exec_from_thread import ExecFromThread
from pidtrail.lab.experiment import Experiment, Trial, lacking
from pidtrail.lab.fork import Fork as ForkExperiment
from pidtrail.lab.identity import same_process, seen_inside
from pidtrail.lab.judging import judge, skipped
from pidtrail.lab.model import Identity, Result
from pidtrail.lab.pid_reuse import PidReuse
from pidtrail.lab.reparent import Reparent
from tests.unit.records import header

STAGE, PID, OTHER = 90, 100, 101
START, LATER = 5_000_000_007, 6_000_000_009
TICK = 10_000_000


def who(pid: int = PID, start_ns: int = START, **fields: Any) -> Identity:
    """Return an identity as a probe gives it: without nanoseconds."""
    given = {
        "pid_ns": 1,
        "start_ticks": start_ns // TICK,
        "pidfs_inode": start_ns,
        "ns_pids": [pid],
        "ppid": STAGE,
        "tids": [pid],
        "uid": 0,
        "at_ns": start_ns + 10,
    }
    return Identity(pid, **{**given, **fields})


def fork(pid: int = PID, start_ns: int = START, ppid: int = STAGE, **fields: Any) -> Fork:
    given = {"ppid": ppid, "parent_start_ticks": 1, "ns_pids": [pid], "pid_ns": 1}
    return Fork(1, start_ns, "core", pid, start_ns // TICK, start_ns, **{**given, **fields})


def end(pid: int = PID, start_ns: int = START, **fields: Any) -> Exit:
    given = {"wstatus": 0, "exit_code": 0, "ppid": STAGE}
    at = start_ns + 900_000_000
    return Exit(9999, at, "core", pid, start_ns // TICK, start_ns, **{**given, **fields})


def move(seq: int, pid: int = PID, tid: int = PID) -> Migrate:
    at = START + 100 + seq
    cpus = seq % 2, (seq + 1) % 2
    return Migrate(seq, at, "core", pid, START // TICK, START, None, tid, *cpus)


def moved(count: int = MOVES, **last: Any) -> list[Event]:
    """Return the records of a process that moved so often and then ended."""
    counters = {"migrations": count, "voluntary_switches": 7, "major_faults": 0}
    return [fork(), *(move(seq) for seq in range(2, count + 2)), end(**{**counters, **last})]


def told(
    experiment: Experiment, before: Identity, after: Identity, events: list[Event], **facts: Any
) -> Result:
    return judge(experiment, Trial(before, after, events, facts))


def later(identity: Identity, **changes: Any) -> Identity:
    """Return an identity at a later instant."""
    return structs.replace(identity, at_ns=START + 500_000_000, **changes)


def test_a_process_that_moves_and_stays_itself() -> None:
    result = told(CpuMigration(), who(), later(who()), moved())

    assert result.holds is True
    assert result.contradicted == []
    assert (result.pid_changed, result.same_process, result.parent_changed) == (False, True, False)
    assert result.exercised["migrate"] == result.exercised["migrations"] == MOVES
    assert result.exercised["voluntary_switches"] == 7
    assert result.exercised["cpus"] == 2
    assert result.headline == "1,000 moves between CPUs"
    assert result.before is not None
    assert result.before.start_ns == START


def test_a_kernel_that_changes_the_pid_is_found_out() -> None:
    """The same process by start and inode, under another number: as claimed, and never seen."""
    result = told(CpuMigration(), who(), later(who(OTHER), pidfs_inode=START), moved())

    assert result.holds is False
    assert result.pid_changed is True
    assert result.same_process is True
    assert any("number is another one" in text for text in result.contradicted)
    assert result.conclusion.startswith("CONTRADICTED")


def test_a_record_under_another_number_is_enough() -> None:
    """Both probes agree, but in between the kernel spoke of it by another number."""
    slip = move(500, pid=OTHER, tid=OTHER)
    result = told(CpuMigration(), who(), later(who()), [*moved()[:-1], slip, moved()[-1]])

    assert result.pid_changed is True
    assert result.holds is False


@pytest.mark.parametrize(
    "after",
    [
        later(who(), pidfs_inode=START + 1),
        later(who(), start_ticks=START // TICK + 1),
        later(who(), start_ns=START + 1, pidfs_inode=None),
    ],
)
def test_another_process_under_the_same_number_is_found_out(after: Identity) -> None:
    result = told(CpuMigration(), who(), after, moved())

    assert result.same_process is False
    assert result.holds is False


def test_a_parent_that_changes_is_found_out() -> None:
    for after, events in (
        (later(who(), ppid=1), moved()),
        (later(who()), moved(ppid=1)),
    ):
        result = told(CpuMigration(), who(), after, list(events))

        assert result.parent_changed is True
        assert result.holds is False


def test_an_orphan_that_keeps_its_parent_is_a_contradiction_too() -> None:
    kept = told(Reparent(), who(), later(who()), [fork(), end()])

    assert kept.holds is False
    adopted = told(Reparent(), who(), later(who(), ppid=7), [fork(), end(ppid=7)])
    assert adopted.holds is True
    assert adopted.parent_changed is True


def test_a_process_that_ended_in_between_did_not_stay() -> None:
    early = structs.replace(end(migrations=MOVES), ts_boot_ns=START + 50)

    assert told(CpuMigration(), who(), later(who()), [*moved()[:-1], early]).holds is False


def test_too_few_moves_test_nothing() -> None:
    """Neither holds nor fails: it is skipped, with the count."""
    result = told(CpuMigration(), who(), later(who()), moved(MOVES - 1))

    assert result.holds is None
    assert result.skipped is not None
    assert "999 of the 1,000" in result.skipped
    assert result.exercised["migrate"] == MOVES - 1


def test_a_changed_pid_is_a_finding_however_little_was_seen() -> None:
    """Too few records are no excuse."""
    for events in (moved(3), []):
        result = told(CpuMigration(), who(), later(who(OTHER)), events)

        assert result.holds is False
        assert result.skipped is None


def test_a_source_that_saw_nothing_proves_nothing() -> None:
    for kind in EXPERIMENTS.values():
        if kind.wants.keys() & {"fork", "children", "migrate", "title", "SIGSTOP", "exec"}:
            facts: dict[str, Any] = {"frozen": [], "held": []}
            trial = Trial(who(), later(who()), [], {**facts, "between": 1, "chains": ([], [])})

            assert judge(kind(), trial).holds is None, kind.name


def test_the_two_ways_of_counting_must_agree() -> None:
    """Unless records were lost: then nothing rests on an exact count."""
    events = moved(migrations=MOVES + 1)
    lost = Lost(5000, START + 9, "core", count=1, from_ns=START, to_ns=START + 9, reason="full")

    assert told(CpuMigration(), who(), later(who()), events).holds is False
    result = told(CpuMigration(), who(), later(who()), [*events, lost])
    assert result.holds is True
    assert result.exercised["lost"] == 1


def test_moves_of_another_task_are_not_counted() -> None:
    """The key is the process that moved, whoever was `current`."""
    events = moved(MOVES - 1)
    for seq in range(5):
        events.append(structs.replace(move(seq), pid=OTHER, start_ns=LATER, start_ticks=600))

    assert told(CpuMigration(), who(), later(who()), events).holds is None


def test_switches_are_the_sum_of_both_kinds() -> None:
    counters = {"voluntary_switches": 60_000, "involuntary_switches": 40_000}
    result = told(ContextSwitch(), who(), later(who()), [fork(), end(**counters)])

    assert result.exercised["context_switches"] == 100_000
    assert result.holds is True


def test_a_thread_that_keeps_its_tid_contradicts() -> None:
    record = Exec(2, START + 100, "core", PID, START // TICK, START, old_tid=OTHER)
    events: list[Event] = [fork(), record, end()]
    before = who(tids=[PID, OTHER])

    assert told(ExecFromThread(), before, later(who(tids=[PID])), events).holds is True
    assert told(ExecFromThread(), before, later(who(tids=[OTHER])), events).holds is False
    stranger: list[Event] = [fork(), structs.replace(record, old_tid=555), end()]
    assert told(ExecFromThread(), before, later(who(tids=[PID])), stranger).holds is False


def test_a_child_must_be_born_of_its_parent() -> None:
    parent = who(at_ns=START + 1)
    child = who(OTHER, LATER, ppid=PID)
    birth = fork(OTHER, LATER, PID, parent_start_ticks=START // TICK)
    stranger = fork(OTHER, LATER, PID, parent_start_ticks=7)

    assert told(ForkExperiment(), parent, child, [fork(), birth]).holds is True
    assert told(ForkExperiment(), parent, child, [fork(), stranger]).holds is None
    # A kernel that gave the child its parent's number.
    same = told(ForkExperiment(), parent, structs.replace(child, pid=PID), [fork(), birth])
    assert same.holds is False


def test_reuse_is_one_number_and_two_identities() -> None:
    first = seen_inside(who(ns_pids=[PID, 300], pid_ns=2))
    second = seen_inside(who(OTHER, LATER, ns_pids=[OTHER, 300], pid_ns=2))
    events: list[Event] = [
        fork(ns_pids=[PID, 300], pid_ns=2),
        end(),
        fork(OTHER, LATER, ns_pids=[OTHER, 300], pid_ns=2),
    ]
    result = told(PidReuse(), first, second, events)

    assert (result.pid_changed, result.same_process) == (False, False)
    assert result.holds is True
    assert result.conclusion == "two processes had the number 300, one after the other"
    elsewhere = [*events[:2], structs.replace(events[2], pid_ns=3)]
    assert told(PidReuse(), first, second, elsewhere).holds is False


def test_identities_are_compared_by_the_finest_that_both_have() -> None:
    assert same_process(who(), who(OTHER, pidfs_inode=START))
    assert not same_process(who(), who(pidfs_inode=1))
    assert not same_process(who(pidfs_inode=None), who(OTHER, pidfs_inode=None))
    assert same_process(who(pidfs_inode=None), who(pidfs_inode=None))
    unknown = who(pidfs_inode=None, start_ticks=None)
    assert not same_process(unknown, unknown)


def test_evidence_is_the_records_and_not_all_of_them() -> None:
    result = told(CpuMigration(), who(), later(who()), moved())

    kinds = [record["type"] for record in result.evidence]
    assert kinds == ["fork", *["migrate"] * 6, "exit"]
    assert [record["seq"] for record in result.evidence if record["type"] == "migrate"] == [
        *(2, 3, 4),
        *(MOVES - 1, MOVES, MOVES + 1),
    ]


def test_what_was_there_before_is_not_something_that_happened() -> None:
    there = Observed(1, START, "core", PID, START // TICK, START, ppid=STAGE)

    assert "observed" not in told(CpuMigration(), who(), later(who()), [there, *moved()]).exercised


def test_signals_and_names_are_counted_by_name() -> None:
    records: list[Event] = [
        fork(),
        Signal(2, START + 1, "core", PID, START // TICK, START, None, 19, STAGE),
        Title(3, START + 2, "core", PID, START // TICK, START, None, None, "x"),
        end(),
    ]
    counts = told(CpuMigration(), who(), later(who()), records).exercised

    assert counts["SIGSTOP"] == counts["signal"] == counts["title"] == 1


def test_a_source_without_the_evidence_is_named() -> None:
    fidelity = structs.replace(header().fidelity, has_counters=False)

    assert lacking(fidelity, "connector", ("sees_short_lived",)) is None
    assert lacking(fidelity, "connector", ("has_counters",)) == (
        "source connector cannot evidence it: it declares has_counters False"
    )


def test_claims_follow_the_results() -> None:
    holds = told(ContextSwitch(), who(), later(who()), [fork(), end(
        voluntary_switches=100_000, involuntary_switches=0)])  # fmt: skip
    fails = told(CpuMigration(), who(), later(who(OTHER), pidfs_inode=START), moved())
    not_done = skipped(EXPERIMENTS["page-out"](), "it needs a disk")

    switched, migrated, paged = answers([holds, fails, not_done])

    assert switched.answer == "refuted"
    assert "100,000 context switches, PID 100 before and after" in switched.sentence
    assert migrated.answer == "contradicted"
    assert "cpu-migration" in migrated.sentence
    assert paged.answer == "not tested"


def test_every_claim_names_experiments_that_exist() -> None:
    for claim in CLAIMS:
        assert set(claim.experiments) <= EXPERIMENTS.keys(), claim.text
    named = {name for claim in CLAIMS for name in claim.experiments}
    assert named == EXPERIMENTS.keys()
