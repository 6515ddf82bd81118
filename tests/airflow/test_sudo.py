"""Tasks of other users: what is below sudo, and sudo that starts nothing, on real Airflows."""

from __future__ import annotations

import json
import re

import pytest

from pidtrail.airflow.messages import readings
from pidtrail.verdict.model import Verdict
from tests.airflow.variants import (
    NEEDS,
    THREE,
    TWO,
    Ways,
    asked,
    chain,
    home_of,
    identities,
    recorded,
    runners,
    tree_of,
)
from tests.airflow.ways import REFUSED, SUDO

# The users in dags_of_ways/ways.py as whom sudo starts nothing.
RUN_AS = {
    "no_rule": "news",
    "password": "mail",
    "no_user": "nobody-of-this-name",
    "no_command": "proxy",
}
# How often sudo forks on its way to the user code, by what sudoers says of the user.
# 2.x starts it in a session of its own, which has no terminal: there is no pty to allocate.
FORKS = {
    TWO: {"sudo_daemon": 1, "sudo_nobody": 1, "sudo_games": 0},
    THREE: {"sudo_daemon": 2, "sudo_nobody": 1, "sudo_games": 0},
}

pytestmark = NEEDS


@pytest.mark.parametrize("case", SUDO)
def test_runner_below_sudo_is_the_process_that_ran_user_code(ways: Ways, case: str) -> None:
    """However often sudo forks, the process that the task wrote down is the runner."""
    users = ways["users"]

    assert identities(users.of(case)) == users.noted(case)
    assert len(users.noted(case)) == 1


@pytest.mark.parametrize("case", SUDO)
def test_levels_of_sudo_are_counted(ways: Ways, case: str) -> None:
    """Each process of sudo between the supervisor and the user code is named as sudo."""
    verdict = ways["users"].one(case)
    forks = FORKS[ways.version][case]

    assert chain(verdict)[: forks + 2] == ["runner", *["sudo"] * forks, "supervisor"]
    assert len(runners(verdict, "sudo")) == forks


@pytest.mark.parametrize("case", SUDO)
def test_recorded_level_is_the_one_of_the_version(ways: Ways, case: str) -> None:
    """2.x records the process below sudo, 3.x the one that became sudo."""
    verdict = ways["users"].one(case)
    levels = [*runners(verdict, "sudo"), *runners(verdict)]

    assert recorded(verdict) == levels[-1 if ways.version == TWO else 0].pid


@pytest.mark.parametrize("case", SUDO)
def test_alarm_below_sudo_is_false_where_2_does_not_find_sudo(ways: Ways, case: str) -> None:
    """2.x takes the recorded process's parent for it: wrong unless sudo forked exactly once."""
    alarm = ways.version == TWO and FORKS[TWO][case] != 1
    log = next(home_of(ways["users"]).rglob(f"dag_id=way_{case}/**/attempt=1.log")).read_text()

    assert ("Recorded pid" in log) is alarm
    assert ways["users"].codes(case) == ["impersonation" if alarm else "match"]


def test_alarm_in_the_log_leads_to_its_run(ways2: Ways) -> None:
    """The line that 2.x wrote below a sudo that forked nothing is read, both numbers named."""
    users = ways2["users"]
    log = next(home_of(users).rglob("dag_id=way_sudo_games/**/attempt=1.log"))
    line = next(line for line in log.read_text().splitlines() if "Recorded pid" in line)

    told = json.loads(asked("explain", users.recording, "--message", line, "--json"))

    (message,) = told["messages"]
    (supervisor,), (runner,) = (number["seen"] for number in message["pids"])
    assert supervisor.startswith("the supervisor of way_sudo_games.t")
    assert runner.startswith("the runner of way_sudo_games.t")
    assert "false alarm" in message["comparison"]
    assert [one["code"] for one in told["report"]["verdicts"]] == ["impersonation"]


def test_sudo_and_what_ran_below_are_both_told(ways3: Ways) -> None:
    """Who compares `os.getpid()` of a task with the record of 3.x reads that both are right."""
    verdict = ways3["users"].one("sudo_nobody")
    (runner,) = runners(verdict)

    assert f"Recorded PID {recorded(verdict)} is sudo" in verdict.summary
    assert f"in process {runner.pid}" in verdict.summary


# --- where sudo starts nothing ---


@pytest.mark.parametrize("case", REFUSED["2"])
def test_task_that_sudo_did_not_start_ran_no_user_code(ways: Ways, case: str) -> None:
    """No rule, a password, no such user, no such command: nothing ran, and sudo's end is told."""
    if case not in REFUSED[ways.version[0]]:
        return
    users = ways["users"]
    verdict = users.one(case)

    assert (verdict.code, verdict.outcome) == ("aborted-start", "explained")
    assert users.noted(case) == set()
    assert f"No user code of way_{case}.t try 1 ran: " in verdict.summary
    assert "exited with 1" in verdict.summary
    assert f" user {RUN_AS[case]}" in verdict.summary


@pytest.mark.parametrize("case", REFUSED["2"])
def test_sudo_that_started_nothing_is_what_3_recorded(ways: Ways, case: str) -> None:
    """3.x has recorded the process that became sudo; 2.x waits for a runner to record itself."""
    if case not in REFUSED[ways.version[0]]:
        return
    verdict = ways["users"].one(case)
    (ended,) = [one for one in tree_of(ways["users"]) if one["pid"] == sudo_of(verdict)]
    pids = {seen.pid for seen in verdict.recorded} - {None}

    assert (ended["images"][-1]["argv"][0], ended["exit_code"]) == ("sudo", 1)
    assert pids == (set() if ways.version == TWO else {ended["pid"]})
    assert verdict.recorded[-1].state == ended_as(ways, case)


def test_errand_of_sudo_that_failed_is_told(ways2: Ways) -> None:
    """2.x gives the settings of the task to its user first: of nobody, there is no process."""
    verdict = ways2["users"].one("no_user")

    assert not verdict.processes
    assert f"`sudo chown` (process {sudo_of(verdict)})" in verdict.summary


def test_words_of_sudo_are_known(ways: Ways) -> None:
    """The very lines that were written are read by `explain --message`."""
    home = home_of(ways["users"])
    logs = [home / "scheduler-1.log"]
    for case in REFUSED[ways.version[0]]:
        logs += home.rglob(f"dag_id=way_{case}/**/attempt=1.log")
    lines = "".join(log.read_text(errors="replace") for log in logs).splitlines()
    kinds = {reading.message.kind for line in lines for reading in readings(line)}

    assert kinds >= {
        *("sudo-password", "sudo-not-allowed"),
        *(
            ("sudo-no-command", "sudo-errand")
            if ways.version == TWO
            else ("sudo-unknown-user", "exited-abnormally")
        ),
    }


def test_missed_end_of_sudo_is_known_by_its_words(ways2: Ways) -> None:
    """2.x may never learn of it: then each heartbeat says so, and the row stays as it is."""
    users = ways2["users"]
    for case in REFUSED["2"]:
        logs = home_of(users).rglob(f"dag_id=way_{case}/**/attempt=1.log")
        text = "".join(log.read_text() for log in logs)
        kinds = {reading.message.kind for line in text.splitlines() for reading in readings(line)}

        assert ("not-started-yet" in kinds) is (ended_as(ways2, case) == "running")


def ended_as(ways: Ways, case: str) -> str:
    """Return the state that a case's row was left in, as the stage saw it."""
    told = json.loads(ways["users"].recording.with_name("result.json").read_text())
    return str(told["states"][case])


def sudo_of(verdict: Verdict) -> int:
    """Return the number of the sudo that a sentence names."""
    found = re.search(r"(?:sudo \(|\(process )([0-9]+)\)", verdict.summary)
    assert found is not None
    return int(found[1])
