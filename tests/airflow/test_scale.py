"""Five hundred task instances of a moment each, sixteen at a time: none is missed or mixed up."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from demo.environment import install
from demo.witness import Note, read_notes
from pidtrail.verdict.model import Verdict
from tests.airflow.dags_scale import COUNT
from tests.airflow.tracing import explain, trace_driver

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_postgres,
    pytest.mark.timeout(1200),
]

TIMEOUT_S = 1000


class Scale(NamedTuple):
    """What was said of the run, and what its tasks wrote down."""

    verdicts: list[Verdict]
    notes: list[Note]


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Scale:
    """Play it once, traced; a failure of the stage fails the tests with what it said."""
    folder = tmp_path_factory.mktemp("scale")
    recording = trace_driver(
        "scale_driver", install("3.3.2"), folder, timeout_s=TIMEOUT_S, on_postgres=True
    )
    return Scale(explain(recording), read_notes(folder / "home/notes"))


def test_every_attempt_has_a_verdict_of_its_own(scale: Scale) -> None:
    """There are as many verdicts as mapped task instances, one for each map index."""
    assert sorted(verdict.task.map_index or 0 for verdict in scale.verdicts) == list(range(COUNT))


def test_no_two_are_mixed_up(scale: Scale) -> None:
    """Each runner is the process that wrote itself down for that map index, by its start time."""
    noted = {(note.map_index, *note.identity) for note in scale.notes}
    found = {
        (verdict.task.map_index, process.pid, process.start_ticks)
        for verdict in scale.verdicts
        for process in verdict.processes
        if process.role == "runner"
    }

    assert len(noted) == COUNT
    assert found == noted


def test_every_recorded_pid_is_its_runner(scale: Scale) -> None:
    """However short it lived, its row was read: what Airflow recorded is compared, and right."""
    assert {verdict.code for verdict in scale.verdicts} == {"match"}
