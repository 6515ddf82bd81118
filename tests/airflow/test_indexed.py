"""What an index finds of a real Airflow's recording is what all of it says, to the letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pidtrail.correlate import correlate, gather
from pidtrail.index import TooMuch
from pidtrail.store import Recording
from pidtrail.verdict.engine import Judge, judge_gathered
from pidtrail.verdict.lookup import Lookup, Uncertain
from pidtrail.verdict.question import Question

if TYPE_CHECKING:
    from pathlib import Path

    from pidtrail.correlate import Correlation
    from pidtrail.verdict.model import Report
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

EVERY = 4
"""Of the processes that are no attempt's, so many make one question."""


def questions(found: Correlation) -> list[Question]:
    """Return what may be asked: each name and its parts, and numbers."""
    asked: dict[Question, None] = {}
    numbers: dict[int, None] = {}
    for run in found.runs:
        task = run.task
        numbers.update((n, None) for member in run.members for n in member.node.numbers)
        numbers.update((r.recorded_pid, None) for r in run.reports if r.recorded_pid is not None)
        if task.dag_id is None:
            continue
        names = Question(task.dag_id, task.task_id, task.run_id, task.map_index, task.try_number)
        for first in range(1, 6):
            left_open: dict[str, Any] = dict.fromkeys(Question._fields[first:])
            asked[names._replace(**left_open)] = None
    others = [node.key.pid for node in found.tree.nodes.values()]
    numbers.update(dict.fromkeys(others[::EVERY]))
    return [*asked, *(Question(pid=number) for number in numbers)]


def by_index(path: Path, question: Question) -> Report | None:
    """Return what the index says, None if it cannot tell."""
    recording = Recording(path)
    index = recording.index()
    assert index is not None
    try:
        gathered = Lookup(question, index, recording.header).gathered()
    except (Uncertain, TooMuch):
        return None
    finally:
        index.close()
        recording.close()
    return judge_gathered(recording.header, gathered, problems=[], question=question)


def test_every_question_has_the_answer_that_everything_gives(session: Session) -> None:
    """About each DAG, task, run, try, and about numbers; nearly all of them by the index."""
    recording = Recording(session.recording)
    header, events = recording.header, list(recording.events())
    recording.close()
    tree, reports, facts, first_ns, last_ns = gather(events)
    found = correlate(tree, reports, facts)
    known = [header.airflow_problem] if header.airflow_problem else []
    judge = Judge(header, found, header.began_ns or first_ns, last_ns, known)
    asked, answered = questions(found), 0
    for judge.question in asked:
        report = by_index(session.recording, judge.question)
        if report is not None:
            answered += 1
            assert report.verdicts == judge.report().verdicts, judge.question

    assert answered > 0.9 * len(asked)
