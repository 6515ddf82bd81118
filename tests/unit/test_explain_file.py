"""`explain` leaves out of a recording what a question is not about, and nobody can tell."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from pidtrail import cli
from pidtrail.events import Event
from pidtrail.sinks.jsonl import JsonLines
from pidtrail.store import Recorder
from tests.unit.crowd import crowd, questions
from tests.unit.story import Airflow3, header, ref, uuid


def recorded(path: Path, events: list[Event]) -> Path:
    """Write a recording in batches of twenty."""
    recorder = Recorder(path, header())
    for at in range(0, len(events), 20):
        recorder.write(events[at : at + 20])
    recorder.close()
    return path


def lines(path: Path, events: list[Event]) -> Path:
    """Write the same as JSON lines, which are read once and whole."""
    with path.open("wb") as file:
        JsonLines(file, header()).write(events)
    return path


def explained(path: Path, *options: str) -> Any:
    """Return what the command line says."""
    done = CliRunner().invoke(cli.cli, ["explain", str(path), "--json", *options])

    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("seed", range(4))
def test_a_recording_answers_as_its_export_does(tmp_path: Path, seed: int) -> None:
    """About task instances, tries and numbers."""
    chance = Random(seed)
    events = crowd(chance, 8)
    whole, parts = lines(tmp_path / "a.jsonl", events), recorded(tmp_path / "a.db", events)
    found = 0
    for question in chance.sample(questions(events), 12):
        names = ("--dag", "--task", "--run", "--map-index", "--try", "--pid")
        asked = [
            word
            for name, wanted in zip(names, question, strict=True)
            if wanted is not None
            for word in (name, str(wanted))
        ]
        answer = explained(parts, *asked)
        found += len(answer["verdicts"])

        assert answer == explained(whole, *asked)
    assert found


def test_of_no_attempt_it_is_told_how_many_others_there_are(tmp_path: Path) -> None:
    """Which the index alone does not tell."""
    path = recorded(tmp_path / "a.db", crowd(Random(1), 8))
    in_all = len(explained(path)["verdicts"])
    said = CliRunner().invoke(cli.cli, ["explain", str(path), "--dag", "nothing"]).output

    assert said == f"no task instance attempt matches, of {in_all} in all\n"
    assert explained(path, "--dag", "nothing")["verdicts"] == []


def test_a_recording_of_an_older_pidtrail_answers_too(tmp_path: Path) -> None:
    """Without tables of an index it is read from beginning to end."""
    path = recorded(tmp_path / "a.db", crowd(Random(1), 8))
    told = explained(path, "--dag", "sales")
    with contextlib.closing(sqlite3.connect(path)) as db:
        for table in ("words", "names", "places", "span"):
            db.execute(f"DROP TABLE {table}")

    assert told["verdicts"]
    assert explained(path, "--dag", "sales") == told


def test_a_damaged_index_is_not_needed(tmp_path: Path) -> None:
    """What it should tell is read from the records themselves."""
    path = recorded(tmp_path / "a.db", crowd(Random(1), 8))
    told = explained(path, "--dag", "sales")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE words SET body = '{' WHERE id % 2")

    assert explained(path, "--dag", "sales") == told


def test_a_cut_recording_is_read_up_to_there(tmp_path: Path) -> None:
    """And the damage is said once, with the answer."""
    events = crowd(Random(5), 60)
    path = recorded(tmp_path / "cut.db", events)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    told = explained(path, "--dag", "sales")

    assert told["verdicts"]
    assert len([line for line in told["unknowns"] if "cut.db" in line]) == 1


def test_who_was_there_before_is_asked_of_everything(tmp_path: Path) -> None:
    """Of a runner whose birth was not told, only its start tells that no other is the same."""
    story = Airflow3().root("runner", "/usr/bin/python3", "job").title("runner", "airflow")
    story.title("runner", f"airflow worker -- {uuid(1)}").report(
        ref(1, uuid(1)), "running", "runner"
    )
    story.fork("runner", "child").exit("child")
    one = recorded(tmp_path / "a.db", story.events)
    other = lines(tmp_path / "a.jsonl", story.events)

    assert len(explained(one, "--dag", "sales")["verdicts"]) == 1
    assert explained(one, "--dag", "sales") == explained(other, "--dag", "sales")
