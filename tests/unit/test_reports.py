from __future__ import annotations

import io
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pidtrail.events import (
    INITIAL_PID_NS,
    Event,
    Exec,
    Exit,
    Fork,
    Lost,
    Observed,
    Oom,
    TaskRef,
)
from pidtrail.reports.event import render_event
from pidtrail.reports.process import signal_name, task_label
from pidtrail.reports.terminal import may_colour, width_of
from pidtrail.reports.text import print_report, print_tree, render_tree
from pidtrail.reports.verdicts import render_verdicts
from pidtrail.tree import grow
from pidtrail.verdict.model import KilledBy, ProcessReport, Recorded, Report, Verdict, Who
from tests.unit.records import EVENTS, header

SECOND = 1_000_000_000
RED = "\x1b[31m"


def controls(text: str) -> set[str]:
    """Return the control characters of a text, without the ends of its lines."""
    return {c for c in text if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}} - {"\n"}


def family(count: int, **of_the_last: Any) -> list[Event]:
    """Return a shell and so many children of it that lived 1 ms each."""
    events: list[Event] = [
        Observed(1, SECOND, "core", pid=10, start_ticks=10, ppid=1, argv=["sh", "storm.sh"])
    ]
    for number in range(count):
        pid, born = 100 + number, 2 * SECOND + number
        common: dict[str, Any] = {"origin": "core", "pid": pid, "start_ticks": 200 + number}
        events += [
            Fork(0, born, ppid=10, parent_start_ticks=10, **common),
            Exec(0, born, argv=["true"], **common),
            Exit(0, born + 1_000_000, wstatus=0, exit_code=0, **common),
        ]
    events[-1] = structs.replace(events[-1], **of_the_last)
    return [structs.replace(event, seq=n) for n, event in enumerate(events)]


def test_many_children_that_look_the_same_take_one_line() -> None:
    """Five thousand runs of `true` are one line with their number, first and last pid."""
    lines = render_tree(grow(family(5_000)), header()).splitlines()

    assert len(lines) == 3
    assert lines[2].startswith("└─ 5000 ×  true  pids 100 … 5099  ")
    assert lines[2].endswith("exit 0")


def test_who_stands_out_of_a_crowd_keeps_its_line() -> None:
    """The one that failed is not hidden among those that did not."""
    text = render_tree(grow(family(50, wstatus=256, exit_code=1)), header())

    assert "├─ 49 ×  true" in text
    assert "└─ 149  true" in text
    assert "exit 1" in text


def test_a_few_children_keep_their_lines() -> None:
    assert len(render_tree(grow(family(5)), header()).splitlines()) == 7


def test_a_chain_of_a_thousand_forks_is_drawn() -> None:
    """Neither recursion nor the width of a terminal is exhausted."""
    events: list[Event] = [
        Fork(n, n, "core", pid=n, start_ticks=n, ppid=n - 1, parent_start_ticks=n - 1)
        for n in range(2, 1_500)
    ]
    lines = render_tree(grow(events), header()).splitlines()

    assert len(lines) == 1_499
    assert "deeper" in lines[-1]
    assert max(map(len, lines)) < 250


@settings(max_examples=50)
@given(st.lists(EVENTS, max_size=15), st.booleans(), st.sampled_from([None, 40, 80, 200]))
def test_any_records_can_be_drawn(events: list[Event], colour: bool, width: int | None) -> None:
    """Whatever processes call themselves: one line each, and no control character but colours."""
    tree = grow(events)
    text = render_tree(tree, header(), colour=colour, width=width)

    assert len(text.splitlines()) <= 1 + len(tree.losses) + len(tree.nodes)
    assert controls(text) <= ({"\x1b"} if colour else set())


def test_who_was_found_dead_had_ended_before() -> None:
    """When is not known: a zombie may have waited for days."""
    events: list[Event] = [
        Observed(1, 9_000_000_000, "core", 5, 100, 1_000_000_000, ppid=1, dead=True),
    ]

    assert ":01.000–≤" in render_tree(grow(events), header())


def test_a_process_of_a_cycle_is_drawn_once() -> None:
    """Records that contradict each other end in a tree all the same, and hide nobody."""
    events: list[Event] = [
        Fork(1, 1, "core", pid=1, start_ticks=1, ppid=2, parent_start_ticks=2),
        Fork(2, 2, "core", pid=2, start_ticks=2, ppid=1, parent_start_ticks=1),
        Fork(3, 3, "core", pid=3, start_ticks=3, ppid=9, parent_start_ticks=9),
    ]

    lines = render_tree(grow(events), header()).splitlines()[1:]
    assert len(lines) == 3


def test_a_line_keeps_to_the_width_where_it_can() -> None:
    """What is cut is the name; facts are not."""
    events: list[Event] = [
        Observed(1, SECOND, "core", pid=10, start_ticks=10, ppid=1, argv=["x" * 10_000]),
        Exit(2, 2 * SECOND, "core", pid=10, start_ticks=10, termsig=11, core_dumped=True),
    ]
    line = render_tree(grow(events), header(), width=100).splitlines()[1]

    assert len(line) <= 100
    assert line.endswith("SIGSEGV, core dumped")


def test_a_loss_and_an_oom_kill_are_told() -> None:
    events: list[Event] = [
        Observed(1, SECOND, "core", pid=10, start_ticks=10, ppid=1),
        Oom(2, SECOND, "core", pid=10, start_ticks=10),
        Exit(3, 2 * SECOND, "core", pid=10, start_ticks=10, wstatus=9, termsig=9),
        Lost(4, SECOND, "core", count=7, from_ns=SECOND, to_ns=2 * SECOND, reason="ring\nfull"),
    ]
    text = render_tree(grow(events), header())

    assert "lost 7 events" in text
    assert "ring\\nfull" in text
    assert "SIGKILL, out of memory" in text


def test_colour_is_for_terminals_and_no_color_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://no-color.org: set and not empty."""
    plain, terminal = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")

    assert (may_colour(plain), width_of(plain)) == (False, None)
    assert may_colour(terminal)
    assert width_of(terminal) is not None

    failed = grow(family(1, wstatus=256, exit_code=1))
    print_tree(failed, header(), file=terminal)
    print_report(report(), file=terminal)
    print_tree(failed, header(), file=plain)
    print_report(report(), file=plain)

    assert RED in terminal.getvalue()
    assert "\x1b" not in plain.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")

    assert not may_colour(terminal)


@given(EVENTS, st.integers(0, 2**60))
def test_an_event_is_one_short_line(event: Event, offset: int) -> None:
    """Of every class, with anything in it; each name in it is cut."""
    line = render_event(event, offset)

    assert controls(line) == set()
    assert len(line.splitlines()) == 1
    assert len(line) < 700


def test_an_event_says_what_happened() -> None:
    """Unknown is `?`, and a signal has its name."""
    died = Exit(
        1, SECOND, "core", pid=5, start_ticks=1, termsig=9, task=TaskRef("d", "t", "r", 3, 2)
    )

    assert render_event(died, 0) == "00:00:01.000 exit     5 ends by SIGKILL  d.t[3] try 2"
    assert render_event(Fork(1, 0, "core", pid=5), 0).endswith("fork     5 born of ? ?")


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (34, "SIGRTMIN"), (40, "SIGRTMIN+6"), (0, "signal 0")]
)
def test_signals_have_names(number: int, name: str) -> None:
    assert signal_name(number) == name


def test_a_task_instance_is_named_as_far_as_it_is_known() -> None:
    assert task_label(TaskRef("d", "t", "r", -1, 2)) == "d.t try 2"
    assert task_label(TaskRef("d", "g.t", "r", 0)) == "d.g.t[0]"
    assert task_label(TaskRef(ti_id="0198")) == "task instance 0198"


def report(**changes: Any) -> Report:
    """Return a report of one attempt with two runners, the second killed by its supervisor."""
    chain = [
        Who(300, 3, "runner", "airflow"),
        Who(200, 2, "other", "bash"),
        Who(100, 1, "scheduler"),
    ]
    first = ProcessReport("runner", 250, 25, ended="x", exit_code=0)
    second = ProcessReport(
        *("runner", 300, 3),
        chain=chain,
        ended="2026-01-31T08:00:18Z",
        termsig=9,
        killed_by=KilledBy("signal", 9, Who(200, 2, "supervisor")),
        migrations=3,
        voluntary_switches=20,
        involuntary_switches=4,
        reparented_to=1,
    )
    values: dict[str, Any] = {
        "task": TaskRef("sales", "load", "r", 4, 2),
        "recorded": [
            Recorded(250, "h", "running", "db", None),
            Recorded(None, "h", None, "db", None),
        ],
        "processes": [ProcessReport("supervisor", 200, 2), first, second],
        "code": "retry",
        "outcome": "conflict",
        "confidence": "strong",
        "pid_changed_in_kernel": False,
        "summary": "It was retried\x1b[2J.",
        "evidence": [1],
        "unknowns": ["who asked for it"],
    }
    return Report([Verdict(**(values | changes))], unknowns=["no database"])


def test_an_attempt_is_one_line_and_a_sentence() -> None:
    """All that the table promises, and unknown as `?`."""
    lines = render_verdicts(report()).splitlines()
    row = next(line for line in lines if "sales.load[4]" in line)

    for cell in (
        *(" 2 ", " 250 ", "250, 300", "300 runner < 200 bash < 100 scheduler"),
        *("SIGKILL from 200 supervisor, reparented to 1", " 3 ", "20/4", " ? ", "retry"),
        "conflict, strong",
    ):
        assert cell in row
    assert "retry: It was retried\\x1b[2J." in lines
    assert "    not known: who asked for it" in lines
    assert "not known: no database" in lines


def test_the_table_folds_in_a_narrow_terminal() -> None:
    assert max(map(len, render_verdicts(report(), width=100).splitlines()[:8])) <= 100


def test_an_attempt_without_processes_has_its_line() -> None:
    """Never seen: dashes, not zeros."""
    text = render_verdicts(report(processes=[], recorded=[]))

    assert "–" in text
    assert " 0 " not in text


def test_a_pid_that_changed_in_the_kernel_would_be_shouted() -> None:
    """It is expected never to happen, and must not pass unseen if it does."""
    assert "please report this" in render_verdicts(report(pid_changed_in_kernel=True))


@pytest.mark.parametrize("pid_ns", [None, INITIAL_PID_NS])
def test_numbers_of_the_host_need_no_word(pid_ns: int | None) -> None:
    assert "namespace" not in render_verdicts(structs.replace(report(), pid_ns=pid_ns))


def test_numbers_of_another_namespace_are_said_to_be_so() -> None:
    """What a person compares with `ps` on the host would not fit."""
    text = render_verdicts(structs.replace(report(), pid_ns=4026532222))

    assert "PIDs of processes are those of PID namespace 4026532222" in text


def test_no_verdict_is_said_in_words() -> None:
    assert render_verdicts(Report([])) == "no task instance of Airflow was seen to run\n"
