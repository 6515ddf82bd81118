"""
A tracer that is stopped for three seconds while more happens than it has room for.

What it delivers and what it counts as lost is all that was produced; afterwards its
tree has alive who lives and nobody else; a verdict on that span is weak, and says why.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fork,
    Header,
    Lost,
    Observed,
    Reap,
    Signal,
    TaskRef,
    TaskReported,
    Title,
)
from pidtrail.healing import LOOKS
from pidtrail.sources import cnproc
from pidtrail.sources.connector import ConnectorSource
from pidtrail.store import Recording
from pidtrail.tree import grow
from pidtrail.verdict.engine import judge_stream
from tests.oracle.held import Held, wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]
PEOPLE, STORM, ARGUMENT = 30, 1200, 30_000
STOPPED_S = 3
SMALL_BUFFER = 64 * 1024
TOLD_BY_KERNEL = Fork | Exec | Title | Exit | Reap | Signal
TASK = TaskRef("dag", "task", "run", -1, 1)


class Blackout:
    """The program, and what became known of it while a tracer was stopped."""

    def __init__(self, held: Held, place: Path) -> None:
        self.held, self.place = held, place

    def pids(self, part: str) -> set[int]:
        """Return the numbers of those who say they have a part."""
        return {line["pid"] for line in self.held.said(part)}

    def happen(self, agent: subprocess.Popen[str]) -> None:
        """Stop a tracer, let everything happen, and let it go on after three seconds."""
        agent.send_signal(signal.SIGSTOP)
        until = time.monotonic() + STOPPED_S
        (self.place / "go").touch()
        wait_for(lambda: len(self.held.said("over")) == 1, "the storm")
        wait_for(lambda: len(self.pids("newcomer")) == PEOPLE, "the newcomers")
        wait_for(lambda: time.monotonic() > until, "three seconds")
        agent.send_signal(signal.SIGCONT)

    def living(self) -> set[int]:
        """Return the numbers of those who live."""
        parts = ("root", "runner", "stayer", "newcomer")
        return {pid for part in parts for pid in self.pids(part)}


class Witness(ConnectorSource):
    """Hears the whole host, and keeps which messages there were."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[int, list[int]] = {}

    def take(self, data: bytes, _events: list[Event]) -> None:
        """Keep the number of a message."""
        message = cnproc.parse(data)
        assert message is not None
        self.heard.setdefault(message.cpu, []).append(message.counter)

    def hear(self) -> None:
        """Take what there is."""
        for _ in range(100):
            self.read()

    def between(self, cpu: int, first: int, last: int) -> int:
        """Return how many messages of a CPU there were from one to another."""
        heard = self.heard[cpu]
        assert heard == list(range(heard[0], heard[-1] + 1)), "the witness missed one"
        return sum(first <= counter <= last for counter in heard)


@pytest.fixture
def blackout(tmp_path: Path) -> Iterator[Blackout]:
    arguments = (PEOPLE, STORM, ARGUMENT)
    files = (str(tmp_path / "go"), str(tmp_path / "end"))
    with Held("blackout", *files, *map(str, arguments)) as held:
        held.release()
        made = Blackout(held, tmp_path)
        wait_for(lambda: len(made.pids("stayer")) == PEOPLE, "everyone to be there")
        yield made


@contextmanager
def agent(*arguments: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """Run a tracer; enter when it says that it has attached, and end it in any case."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said: list[str] = []
        while until not in (line := process.stdout.readline()):
            assert line, f"it never attached: {said}"
            said.append(line)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate(timeout=30)


def recorded(path: Path) -> tuple[Header, list[Event]]:
    """Return what stands in a recording, also while it is written."""
    recording = Recording(path)
    try:
        return recording.header, list(recording.events())
    finally:
        recording.close()


def living(events: list[Event]) -> set[int]:
    """Return the numbers of those who are alive in the tree of some records."""
    return {node.key.pid for node in grow(events).nodes.values() if node.ended_ns is None}


def lost_in(events: list[Event]) -> int:
    """Return how many records were counted as lost."""
    return sum(event.count or 0 for event in events if isinstance(event, Lost))


def trace(source: str) -> tuple[str, ...]:
    """Return the real command, up to the number of the process."""
    return "pidtrail", "trace", "--format", "none", "--source", source, "--pid"


TRACERS = [
    pytest.param((*trace("core"), "{pid}", "-o", "{path}"), marks=pytest.mark.needs_bpf, id="core"),
    pytest.param((*trace("bcc"), "{pid}", "-o", "{path}"), marks=pytest.mark.needs_bcc, id="bcc"),
    pytest.param(
        ("tests.endurance.agent", "bcc-perf", "{pid}", "{path}"),
        marks=pytest.mark.needs_bcc,
        id="bcc-perf",
    ),
]


@pytest.mark.parametrize("command", TRACERS)
def test_a_full_buffer_loses_a_known_number_and_is_healed(
    command: tuple[str, ...], blackout: Blackout, tmp_path: Path
) -> None:
    """A storm that writes more than twice the ring, or the perf buffers of four CPUs."""
    path = tmp_path / "session.db"
    # Per child of the storm a birth, an exec, an end and a reaping; the goners had their births
    # before, and are each sent a signal; the newcomers are only born.
    produced = 4 * STORM + 3 * PEOPLE + PEOPLE
    words = [word.format(pid=blackout.held.pid, path=path) for word in command]
    with agent(*words, until="attached") as tracer:
        blackout.happen(tracer)

        def accounted() -> int:
            events = recorded(path)[1]
            return lost_in(events) + sum(isinstance(event, TOLD_BY_KERNEL) for event in events)

        wait_for(lambda: accounted() >= produced, "all that was produced, or is counted")
        wait_for(lambda: living(recorded(path)[1]) == blackout.living(), "healing", 10)
        tracer.terminate()
        tracer.wait(timeout=30)
        assert accounted() == produced

    header, events = recorded(path)
    assert lost_in(events) > STORM
    assert living(events) == blackout.living()
    numbers = [event.seq for event in events]
    assert numbers[-1] - len(numbers) == lost_in(events)
    check_bounded(events)
    check_verdict(blackout, header, events)


def check_bounded(events: list[Event]) -> None:
    """Assert that healing looked a few times only: twice after the last loss of the storm."""
    losses = [event.ts_boot_ns for event in events if isinstance(event, Lost)]
    found = [e for e in events if isinstance(e, Observed) and e.dead is not True]
    looks = Counter(event.pid for event in found)
    assert max(looks.values()) <= 1 + len(losses) + LOOKS


def check_verdict(blackout: Blackout, header: Header, events: list[Event]) -> None:
    """Judge the runner's attempt with the loss in its lifetime, and without."""
    (pid,) = blackout.pids("runner")
    last = events[-1]
    claim = TaskReported(
        last.seq + 1, last.ts_boot_ns, "airflow", task=TASK,
        recorded_pid=pid, hostname=header.host, state="running", via="db", table="task_instance",
    )  # fmt: skip
    told = [*events, claim]
    whole = [event for event in told if not isinstance(event, Lost)]
    (capped,) = judge_stream(header, told, problems=[]).verdicts
    (free,) = judge_stream(header, whole, problems=[]).verdicts

    assert capped.code == free.code == "match"
    assert str(free.confidence) != "weak"
    assert str(capped.confidence) == "weak"
    said = " ".join(capped.unknowns)
    assert all(f"{e.count} records lost" in said for e in events if isinstance(e, Lost))


def test_connector_loses_a_known_number_and_heals(blackout: Blackout, tmp_path: Path) -> None:
    """
    A receive buffer much smaller than the storm; another with room for all is the witness.

    Both hear the whole host: what the small one took and what it counted as lost is what the
    large one took, from the first to the last message of each CPU that the small one heard.
    """
    path = tmp_path / "session.db"
    witness = Witness()
    witness.open([blackout.held.pid])
    arguments = ("connector", str(blackout.held.pid), str(path), str(SMALL_BUFFER))
    try:
        with agent("tests.endurance.agent", *arguments, until="attached") as tracer:
            blackout.happen(tracer)
            witness.hear()

            def healed() -> bool:
                witness.hear()
                return living(recorded(path)[1]) == blackout.living()

            wait_for(healed, "healing", 10)
            tracer.terminate()
            said, _ = tracer.communicate(timeout=30)
            witness.hear()
    finally:
        witness.close()

    header, events = recorded(path)
    told = json.loads(said.splitlines()[-1])
    produced = sum(witness.between(int(cpu), *span) for cpu, span in told["spans"].items())
    assert lost_in(events) > STORM
    assert told["taken"] + lost_in(events) == produced
    numbers = [event.seq for event in events]
    assert numbers[-1] - len(numbers) == lost_in(events)
    check_bounded(events)
    check_verdict(blackout, header, events)


def test_polling_goes_on_from_who_is_there(blackout: Blackout, tmp_path: Path) -> None:
    """/proc counts no loss, and needs none: after a gap it knows who lives, and nobody else."""
    path = tmp_path / "session.db"
    words = (*trace("procfs"), str(blackout.held.pid), "-o", str(path))
    with agent(*words, until="attached") as tracer:
        blackout.happen(tracer)
        wait_for(lambda: living(recorded(path)[1]) == blackout.living(), "healing", 10)
        tracer.terminate()
        tracer.wait(timeout=30)

    assert living(recorded(path)[1]) == blackout.living()
