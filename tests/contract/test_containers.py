"""What is seen, from the host, of processes in containers: numbers, namespace, container, pod."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.container import Place
from pidtrail.events import Fork, Observed
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.source import Source
from pidtrail.tree import grow
from tests.contract.conftest import require
from tests.contract.kubelet import PREFIX, Container, directory, hierarchy, made
from tests.contract.story import Story, Told

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.needs_root


@pytest.fixture(
    params=[(2, "systemd"), (2, "cgroupfs"), (1, "cgroupfs")], ids="v{0[0]}-{0[1]}".format
)
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    """Return a container's cgroup, of either version and driver."""
    version, form = request.param
    with directory(version) as top:
        yield made(top, form)


def told_in(container: Container, source: Source, name: str, *arguments: str) -> Told:
    """
    Tell a story in a container: first its cgroup, then its PID namespace, then the program.

    The source is opened when the program is in there, as on a node where pods run already.
    """
    story = Story(source, name, *arguments)
    enter = f"echo $$ >{container.path}/cgroup.procs && exec unshare --pid --fork --kill-child"
    story.command = ["sh", "-c", f'{enter} "$@"', "sh", *story.command]
    with story:
        story.attach()
        story.release()
        return story.finish()


def expected(container: Container) -> Place:
    """Return what is to be known of a process in there."""
    systemd = container.path.name.endswith(".scope")
    return Place(
        "containerd" if systemd else None,
        container.container_id,
        container.pod_uid,
        container.path.name if systemd else None,
    )


def test_a_process_in_a_container_is_seen_with_numbers_and_container(
    source: Source, container: Container
) -> None:
    """Who runs in there when we come: both numbers, the namespace, the container, the pod."""
    told = told_in(container, source, "double_fork")
    tree = grow([*told.snapshot, *told.events])

    (first,) = [event for event in told.snapshot if event.pid != told.root]
    assert isinstance(first, Observed)
    assert first.ns_pids == [first.pid, 1]
    assert first.key is not None
    assert tree.place(tree.nodes[first.key]) == expected(container)


def test_who_is_born_in_a_container_is_in_it(source: Source, container: Container) -> None:
    """A process that is there too shortly for anyone to look has its parent's container."""
    require(source, "sees_short_lived has_identity")
    told = told_in(container, source, "double_fork")
    tree = grow([*told.snapshot, *told.events])

    daemon = next(
        e for e in told.events if isinstance(e, Fork) and e.ns_pids and e.ns_pids[-1] == 3
    )
    assert daemon.key is not None
    assert tree.place(tree.nodes[daemon.key]) == expected(container)


def test_the_connector_knows_the_container_of_who_was_there(container: Container) -> None:
    """It reads numbers and cgroup in /proc, and claims nothing of those born later."""
    told = told_in(container, ConnectorSource(), "killed", "kill")
    tree = grow([*told.snapshot, *told.events])

    (first,) = [event for event in told.snapshot if event.pid != told.root]
    assert isinstance(first, Observed)
    assert first.ns_pids == [first.pid, 1]
    assert first.key is not None
    assert tree.place(tree.nodes[first.key]) == expected(container)
    births = [event.key for event in told.events if isinstance(event, Fork)]
    assert births
    assert {tree.place(tree.nodes[key]) for key in births if key is not None} == {Place()}


def test_cgroups_of_a_killed_test_are_removed_by_the_next() -> None:
    """SIGKILL leaves them, and whoever needs such cgroups next takes them away."""
    top = hierarchy(2)
    program = (
        "import os, signal\n"
        "from tests.contract.kubelet import directory, made\n"
        "with directory(2) as path:\n"
        "    made(path, 'systemd')\n"
        "    print(path.name, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    left = top / done.stdout.strip()
    assert left.name.startswith(PREFIX)
    assert left.is_dir()

    with directory(2):
        assert not left.exists()
