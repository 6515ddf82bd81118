"""The service for itself: it waits, finds, follows, keeps and goes on, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial

import pytest

from pidtrail.events import Event, Exit, Fork, Lost, Observed, Title
from pidtrail.verdict.engine import judge_stream
from tests.agent.conftest import PIDTRAIL, Agent, Airflow, wait_for

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]
SOURCES = ["core", pytest.param("bcc", marks=pytest.mark.needs_bcc), "procfs"]
STOP_S = 10


def uuid(number: int) -> str:
    """Return the id of a task instance."""
    return f"01a201d9-c083-7000-8000-{number:012d}"


def named(events: list[Event], title: str) -> set[int | None]:
    """Return who has shown a title."""
    told = {e.pid for e in events if isinstance(e, Title) and e.title == title}
    return told | {e.pid for e in events if isinstance(e, Observed) and e.argv == [title]}


def runner(agent: Agent, task: str) -> int:
    """Wait for the runner of a task instance, and return its number."""
    (pid,) = wait_for(
        lambda: named(agent.events(), f"airflow worker -- {task}"), f"the runner of {task}"
    )
    assert pid is not None
    return pid


def has_ended(agent: Agent, pid: int) -> bool:
    """Return whether the end of a process was told."""
    return any(isinstance(event, Exit) and event.pid == pid for event in agent.events())


def seen(agent: Agent, pid: int) -> bool:
    """Return whether a process was told of."""
    return any(event.pid == pid for event in agent.events())


@pytest.mark.parametrize("source", SOURCES)
def test_it_waits_for_airflow_and_follows_its_restarts(
    agent: Agent, airflow: Airflow, source: str
) -> None:
    """
    Ready without any; each scheduler is found, and what it runs is recorded from its birth.

    Between two of them nothing is opened anew: nothing is lost.
    """
    agent.configure(f'source = "{source}"')
    agent.start()
    assert agent.logged("attached")[0]["roots"] == []
    pids = []
    for n in (1, 2):
        scheduler = airflow.start()
        wait_for(partial(seen, agent, scheduler), "the scheduler")
        airflow.run(uuid(n))
        pids.append(runner(agent, uuid(n)))
        airflow.finish(uuid(n))
        wait_for(partial(has_ended, agent, pids[-1]), "the end of the runner")
        airflow.kill(signal.SIGKILL)
        wait_for(partial(has_ended, agent, scheduler), "the end of the scheduler")
    agent.kill(signal.SIGTERM)
    assert agent.ended() == 0
    events = agent.events()

    assert [event for event in events if isinstance(event, Lost)] == []
    assert {event.pid for event in events if isinstance(event, Fork)} >= set(pids)
    assert len(agent.logged("attached")) == 1
    assert len(agent.logged("follows")) == 2
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))


def test_a_crash_costs_what_happened_meanwhile_and_nothing_else(
    agent: Agent, airflow: Airflow
) -> None:
    """
    Killed and started again it goes on with its numbers, and says since when it was away.

    Who lived through it is known by the same birth, and followed also if it is below no root
    any more; who ended meanwhile is found dead.
    """
    agent.start()
    scheduler = airflow.start()
    wait_for(lambda: seen(agent, scheduler), "the scheduler")
    airflow.run(uuid(1))
    airflow.run(uuid(2))
    ending, staying = runner(agent, uuid(1)), runner(agent, uuid(2))
    airflow.run("daemon")
    orphan = wait_for(lambda: named(agent.events(), "daemon"), "the daemon").pop()
    before = agent.events()
    agent.kill(signal.SIGKILL)
    assert agent.ended() == -signal.SIGKILL
    airflow.finish(uuid(1))
    wait_for(lambda: not agent.namespace.has(ending), "the end of one of them")
    agent.start()
    wait_for(
        lambda: any(isinstance(e, Observed) and e.dead and e.pid == ending for e in agent.events()),
        "the one who ended meanwhile",
    )
    airflow.finish(uuid(2))
    airflow.finish("daemon")
    for pid in (staying, orphan):
        wait_for(partial(has_ended, agent, pid), "the end of the others")
    agent.kill(signal.SIGTERM)
    assert agent.ended() == 0
    events, boot = agent.events(), agent.boot()
    assert boot is not None
    (lost,) = [event for event in events if isinstance(event, Lost)]

    assert events[: len(before)] == before
    assert lost.count is None
    assert lost.reason == "the service did not run"
    assert lost.from_ns is not None
    assert lost.to_ns is not None
    assert before[-1].ts_boot_ns <= lost.from_ns < lost.to_ns
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    # The newest segment alone: its runner has its birth, and a verdict that says the gap.
    last = type(boot)(boot.segments[-1:])
    alone = list(last.events())
    births = [e for e in events if isinstance(e, Fork) and e.pid == staying]
    assert [e for e in alone if isinstance(e, Fork) and e.pid == staying] == births
    report = judge_stream(last.header, alone, problems=[])
    (verdict,) = [v for v in report.verdicts if v.task.ti_id == uuid(2)]
    assert verdict.confidence == "weak"
    assert any("the service did not run" in line for line in verdict.unknowns)


def test_it_ends_cleanly_and_at_once(agent: Agent, airflow: Airflow) -> None:
    """SIGTERM: what is there is drained, files are finished, sockets are gone."""
    agent.start()
    scheduler = airflow.start()
    wait_for(lambda: seen(agent, scheduler), "the scheduler")
    began_s = time.monotonic()
    agent.kill(signal.SIGTERM)

    assert agent.ended() == 0
    assert time.monotonic() - began_s < STOP_S
    assert {path.suffix for path in agent.history.iterdir()} == {".db", ".lock"}
    assert not list(agent.folder.glob("*.sock"))
    said = agent.heard()
    assert said[0] == "READY=1"
    assert "STOPPING=1" in said
    assert said.count("WATCHDOG=1") >= 1


def test_its_manager_is_told_how_it_goes(agent: Agent, airflow: Airflow) -> None:
    agent.start()
    wait_for(lambda: any("0 roots" in said for said in agent.heard()), "the first word")
    airflow.start()
    wait_for(lambda: any("1 roots" in said for said in agent.heard()), "the next word")

    last = [said for said in agent.heard() if said.startswith("STATUS=")][-1]
    assert last.startswith("STATUS=source core, 1 roots of Airflow, ")
    assert last.endswith(" 0 lost")


def test_a_watchdog_hears_of_it_when_it_stands_still(agent: Agent) -> None:
    """Stopped it says nothing more; only a loop that turns does."""
    agent.start()
    wait_for(lambda: agent.heard().count("WATCHDOG=1") >= 3, "three words")
    agent.kill(signal.SIGSTOP)
    time.sleep(0.2)
    agent.heard()
    agent.said.clear()
    time.sleep(2)
    assert agent.heard() == []
    agent.kill(signal.SIGCONT)
    wait_for(lambda: "WATCHDOG=1" in agent.heard(), "a word again")


def test_settings_change_while_it_captures(agent: Agent, airflow: Airflow) -> None:
    """
    SIGHUP: the bounds hold from then on, it is asked at another place, and nothing is lost.

    What cannot change now is named. Its manager is told when it begins and when it is over.
    """
    agent.history.mkdir()
    old = agent.history / "pidtrail-00000001-20260101T000000Z.db"
    old.touch()
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    agent.start()
    scheduler = airflow.start()
    wait_for(lambda: seen(agent, scheduler), "the scheduler")
    assert tree(agent, "asked.sock").returncode == 0
    assert old.exists()
    agent.configure("interval = 7", 'max_age = "1d"', "another.sock")
    agent.said.clear()
    agent.kill(signal.SIGHUP)
    wait_for(lambda: not old.exists(), "the end of what is too old")
    wait_for((agent.folder / "another.sock").exists, "the other socket")
    airflow.run(uuid(1))
    pid = runner(agent, uuid(1))
    airflow.finish(uuid(1))
    wait_for(partial(has_ended, agent, pid), "the end of the runner")
    there, gone = tree(agent, "another.sock"), tree(agent, "asked.sock")
    agent.kill(signal.SIGTERM)
    assert agent.ended() == 0
    (again,) = agent.logged("settings read again")
    (waiting,) = agent.logged("some settings wait for the next start")
    words = [word for said in agent.heard() for word in said.split("\n")]

    assert sorted(again["taken"]) == ["[history] max_age", "[socket] path"]
    assert waiting["settings"] == ["[capture] interval"]
    assert (there.returncode, gone.returncode) == (0, 1)
    assert [event for event in agent.events() if isinstance(event, Lost)] == []
    assert words.index("RELOADING=1") < words.index("READY=1")
    assert any(word.startswith("MONOTONIC_USEC=") for word in words)


def test_settings_that_cannot_be_change_nothing(agent: Agent) -> None:
    agent.start()
    agent.configure(history='max_age = "1s"', asked="another.sock")
    agent.kill(signal.SIGHUP)
    (line,) = wait_for(lambda: agent.logged("settings stay as they were"), "the word on it")

    assert line["level"] == "error"
    assert "[history]: max_age must be 60s or more" in line["problem"]
    assert tree(agent, "asked.sock").returncode == 0
    assert not (agent.folder / "another.sock").exists()


def tree(agent: Agent, name: str) -> subprocess.CompletedProcess[str]:
    """Ask it at one of its sockets for the tree."""
    return subprocess.run(
        [PIDTRAIL, "tree", "--json"],
        env=os.environ | {"PIDTRAIL_SOCKET": str(agent.folder / name)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_one_at_a_time(agent: Agent) -> None:
    """A second one on the same history ends with one line."""
    agent.start()
    second = agent.namespace.run(
        *(PIDTRAIL, "agent", "--config", agent.config), stderr=subprocess.PIPE
    )
    _, said = second.communicate(timeout=60)

    assert second.returncode == 1
    assert said.splitlines() == [f"pidtrail: another pidtrail keeps the history in {agent.history}"]


def test_a_socket_that_is_taken_ends_nothing(agent: Agent) -> None:
    """Capture matters more; it is said, and tried again later."""
    (agent.folder / "claims.sock").write_text("no socket")
    agent.start()

    (line,) = wait_for(lambda: agent.logged("trouble"), "the word on the socket")
    assert "it is no socket" in line["problem"]


def test_it_is_asked_over_its_socket(agent: Agent, airflow: Airflow) -> None:
    """`tree` without a FILE shows what the service sees."""
    agent.start()
    scheduler = airflow.start()
    wait_for(lambda: seen(agent, scheduler), "the scheduler")
    shown = tree(agent, "asked.sock")

    assert scheduler in {process["pid"] for process in json.loads(shown.stdout)["processes"]}
