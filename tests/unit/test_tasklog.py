"""What is looked up of a process that works for a task instance: its open log, its container."""

from __future__ import annotations

import pytest

from pidtrail.events import ProcessKey
from pidtrail.sources import proc
from pidtrail.sources.tasklog import DELAYS_NS, TaskLogs

KEY = ProcessKey(4711, 99)
LOG = "/srv/logs/dag_id=sales/run_id=r/task_id=load/attempt=1.log"
POD = f"/kubepods/burstable/podff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f/{'3f2a' * 16}"
START = 1_000_000_000


def looking(monkeypatch: pytest.MonkeyPatch, cgroup: str | None, opened: list[str]) -> TaskLogs:
    """Look at a process that is in this cgroup; what is in `opened` by then, it holds open."""
    monkeypatch.setattr(proc, "cgroup", lambda _pid: cgroup)
    monkeypatch.setattr(proc, "start_ticks", lambda _pid: KEY.start_ticks)
    logs = TaskLogs(find=lambda _pid: opened)
    logs.ask(KEY, START)
    return logs


def test_container_is_told_before_the_log_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod of 2.x the log comes after seconds of importing: the container is known at once."""
    opened: list[str] = []
    logs = looking(monkeypatch, POD, opened)

    (first,) = logs.look(START)
    opened.append(LOG)
    (second,) = logs.look(START + DELAYS_NS[1])

    assert (first.cgroup, first.log_path) == (POD, None)
    assert (second.cgroup, second.log_path) == (POD, LOG)


def test_container_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a log is looked for in vain."""
    logs = looking(monkeypatch, POD, [])

    told = [logs.look(START + delay) for delay in (*DELAYS_NS, DELAYS_NS[-1] * 3)]

    assert [len(one) for one in told] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("cgroup", ["/", "/user.slice", None])
def test_no_record_is_made_of_a_process_in_no_container(
    monkeypatch: pytest.MonkeyPatch, cgroup: str | None
) -> None:
    """Most hosts have none, and a record for each process would be for nothing."""
    assert looking(monkeypatch, cgroup, []).look(START) == []
