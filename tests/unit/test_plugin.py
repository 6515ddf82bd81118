"""Airflow's plugin in a process of its own: what it sends, and that it never gets in the way."""

from __future__ import annotations

import ast
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pidtrail.airflow import claims
from pidtrail.sources import proc
from tests.unit.plugin_file import PLUGIN, Instance, fill, load


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin, with a socket path of this test."""
    monkeypatch.setenv("PIDTRAIL_CLAIMS", str(tmp_path / "claims.sock"))
    return load()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was sent to that path so far."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "claims.sock"))
        end.settimeout(0)

        def read() -> list[dict[str, Any]]:
            found = []
            while True:
                try:
                    found.append(json.loads(end.recv(65536)))
                except BlockingIOError:
                    return found

        yield read


def in_child(does: Callable[[], object]) -> int:
    """Do something in a forked process; return 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        try:
            does()
        except BaseException:  # noqa: BLE001 (the parent is told by the status)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_tells_which_process_runs_which_attempt(
    plugin: ModuleType, heard: Callable[[], list[dict[str, Any]]]
) -> None:
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    plugin.Listener().on_task_instance_running(Instance(map_index=3, try_number=2))

    (claim,) = heard()
    assert before_ns <= claim.pop("boot_ns") <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert claim == {
        "schema": "pidtrail.claim/1",
        "event": "running",
        "state": "running",
        "dag_id": "sales",
        "task_id": "load",
        "run_id": "manual__1",
        "map_index": 3,
        "try_number": 2,
        "ti_id": "01a201d9-c083-7000-8000-000000000001",
        "hostname": "worker-1",
        "pid": os.getpid(),
        "start_ticks": proc.start_ticks(os.getpid()),
        "pid_ns": Path("/proc/self/ns/pid").stat().st_ino,
    }


@pytest.mark.parametrize(
    ("hook", "state", "told"),
    [
        ("success", "running", "success"),
        ("skipped", "skipped", "skipped"),
        ("failed", "failed", "failed"),
        ("failed", "up_for_retry", "up_for_retry"),
        ("failed", "running", None),  # 2.7 to 2.9 decide later
    ],
)
def test_it_tells_the_end(
    plugin: ModuleType, heard: Callable[[], list[dict[str, Any]]], hook: str, state: str, told: str
) -> None:
    """The try is that of the beginning: before 2.10 the number changes with the state."""
    listener, instance = plugin.Listener(), Instance()
    listener.on_task_instance_running(instance)
    instance.state, instance.try_number = state, 2
    getattr(listener, f"on_task_instance_{hook}")(instance)

    _, ended = heard()
    assert (ended["event"], ended["state"], ended["try_number"]) == (hook, told, 1)


def test_an_end_is_told_only_by_who_told_the_beginning(
    plugin: ModuleType, heard: Callable[[], list[dict[str, Any]]]
) -> None:
    """Neither the api-server, nor a scheduler, nor a fork of the runner, nor for another task."""
    plugin.Listener().on_task_instance_success(Instance())
    listener = plugin.Listener()
    listener.on_task_instance_running(Instance())
    listener.on_task_instance_failed(Instance(map_index=1))
    assert in_child(lambda: listener.on_task_instance_success(Instance())) == 0

    assert [claim["event"] for claim in heard()] == ["running"]


def every_hook(plugin: ModuleType, instance: object) -> None:
    """Call what Airflow would."""
    listener = plugin.Listener()
    for hook in ("running", "success", "failed", "skipped"):
        getattr(listener, f"on_task_instance_{hook}")(instance)


def nobody(path: Path) -> None:
    """Leave the path empty."""


def stale(path: Path) -> None:
    """Leave a socket file whose owner is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))


def a_file(path: Path) -> None:
    """Leave an ordinary file."""
    path.write_text("")


def a_stream(path: Path) -> socket.socket:
    """Listen for connections, not for datagrams."""
    end = socket.socket(socket.AF_UNIX)
    end.bind(str(path))
    end.listen()
    return end


def full(path: Path) -> socket.socket:
    """Leave a socket that nobody reads and that takes no more."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.bind(str(path))
    fill(str(path))
    return end


@pytest.mark.timeout(60)
@pytest.mark.parametrize("trouble", [nobody, stale, a_file, a_stream, full])
def test_whoever_does_not_listen_is_no_trouble(
    plugin: ModuleType, tmp_path: Path, trouble: Callable[[Path], socket.socket | None]
) -> None:
    """No hook raises, whatever is at the path, nor waits: for a full socket that is for ever."""
    end = trouble(tmp_path / "claims.sock")
    every_hook(plugin, Instance())
    if end is not None:
        end.close()


@pytest.mark.parametrize("path", ["", "\0", "x" * 200, "/", "\udcff"])
def test_a_path_that_is_none_is_no_trouble(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(plugin.os, "environ", {"PIDTRAIL_CLAIMS": path})
    every_hook(plugin, Instance())


@pytest.mark.parametrize(
    "instance",
    [
        object(),
        None,
        Instance(dag_id="\ud800"),
        Instance(map_index=object()),
        Instance(task_id="x" * 100_000),
    ],
    ids=["no fields", "none", "no text", "no JSON", "too long"],
)
def test_a_task_instance_unlike_any_is_no_trouble(
    plugin: ModuleType, heard: Callable[[], list[dict[str, Any]]], instance: object
) -> None:
    every_hook(plugin, instance)

    assert heard() == []


def test_the_end_of_a_task_is_not_swallowed(plugin: ModuleType) -> None:
    """A handler of SIGTERM may raise while we are in the hook; that must reach the task."""

    class AirflowException(Exception):
        pass

    class AirflowTaskTerminated(BaseException):
        pass

    AirflowException.__module__ = "airflow.exceptions"
    for error in (AirflowException, AirflowTaskTerminated):

        class Dying(Instance):
            @property
            def hostname(self) -> str:
                raise error  # noqa: B023 (called within this turn)

            @hostname.setter
            def hostname(self, value: str) -> None:
                pass

        with pytest.raises(error):
            plugin.Listener().on_task_instance_running(Dying())


def test_it_needs_nothing_but_airflow_and_python_3_8() -> None:
    """It parses as Python 3.8 and imports the standard library, pluggy and airflow alone."""
    tree = ast.parse(PLUGIN.read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names

    assert foreign == {"airflow", "pluggy"}
    for package in (PLUGIN.parent, PLUGIN.parents[1]):
        init = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
        assert not [n for n in ast.walk(init) if isinstance(n, ast.Import | ast.ImportFrom)]


def test_both_ends_mean_the_same(plugin: ModuleType) -> None:
    """The plugin stands alone, so what both must know is written in both."""
    assert (plugin.SOCKET, plugin.SOCKET_VARIABLE) == (claims.SOCKET, claims.SOCKET_VARIABLE)
    assert plugin.MAX_BYTES == claims.MAX_BYTES
