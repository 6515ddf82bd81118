"""The running agent, real events, and users who ask it: on a host of their own (`world`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.scheduler_stand_in import LOG
from tests.service.test_users import ROOT

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]
PLAY_TIMEOUT_S = 240


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """Return what users were told while the agent ran."""
    with tempfile.TemporaryDirectory(prefix="pidtrail-world.") as made:
        folder = Path(made)
        folder.chmod(0o755)
        done = subprocess.run(
            [
                *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-m", "tests.service.world", str(folder)),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PLAY_TIMEOUT_S,
        )
        log = folder / "agent.log"
        assert done.returncode == 0, f"{done.stderr}\n{log.read_text() if log.exists() else ''}"
        yield json.loads((folder / "told.json").read_bytes())


def test_a_member_sees_the_tree_of_a_task_that_runs(told: dict[str, Any]) -> None:
    """From the scheduler, found by the agent itself, to the runner that lives and its child."""
    scheduler, first, second = told["pids"]
    assert (told["tree"]["status"], told["tree"]["err"]) == (0, "")
    processes = {one["pid"]: one for one in json.loads(told["tree"]["out"])["processes"]}
    worker = processes[second]["birth_parent"]["pid"]

    assert processes[scheduler]["role"] == "scheduler"
    assert processes[worker]["birth_parent"]["pid"] == scheduler
    assert processes[worker]["role"] == "supervisor"
    for runner, number in ((first, 1), (second, 2)):
        assert processes[runner]["role"] == "runner"
        assert processes[runner]["task"]["dag_id"] == "sales"
        assert processes[runner]["task"]["try_number"] == number
    # That of the first one was gone before the agent found the scheduler.
    (child,) = processes[second]["children"]
    assert processes[child["pid"]]["images"][-1]["argv"] == ["/bin/sleep", "0.01"]
    assert processes[first]["exit_code"] == 1
    assert processes[second]["ended"] is None


def test_a_member_learns_whom_a_message_is_about(told: dict[str, Any]) -> None:
    """Both tries, by the two numbers, while the second one runs."""
    _, first, second = told["pids"]
    assert (told["message"]["status"], told["message"]["err"]) == (0, "")
    said = json.loads(told["message"]["out"])
    (message,) = said["messages"]
    ran = [
        (verdict["task"]["try_number"], process["pid"])
        for verdict in said["report"]["verdicts"]
        for process in verdict["processes"]
        if process["role"] == "runner"
    ]

    assert ran == [(1, first), (2, second)]
    assert [number["value"] for number in message["pids"]] == [str(first), str(second)]
    assert all("the runner of sales.load" in number["seen"][0] for number in message["pids"])
    assert LOG.format(2).count("attempt=2") == 1


def test_who_watches_is_told_who_lives_and_then_what_happens(told: dict[str, Any]) -> None:
    """The scheduler and the runner, found by a look for the watcher alone, and then its end."""
    scheduler, _, second = told["pids"]
    seen = told["live"]

    assert ["observed", scheduler] in seen
    assert seen.index(["observed", second]) < seen.index(["exit", second])


def test_another_user_is_refused(told: dict[str, Any]) -> None:
    assert told["outside"]["status"] == 1
    assert told["outside"]["out"] == ""
    assert told["outside"]["err"].startswith("pidtrail: you may not ask the service at ")
    assert told["outside"]["err"].count("\n") == 1


def test_an_agent_that_ends_takes_its_socket_away(told: dict[str, Any]) -> None:
    assert told["agent"] == 0
    assert told["after"]["status"] == 1
    assert "no service runs here to ask at" in told["after"]["err"]
