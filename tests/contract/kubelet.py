"""
Cgroups named as kubelet and its runtimes name them, with nothing behind them but a test.

All of a test's stand below one directory called after this process, at the top of a
hierarchy, as those of a cluster in a container stand below the node's. What a test
that was killed has left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from pidtrail.lab.cgroup import remove, tops
from pidtrail.lab.leftovers import is_abandoned, owner

PREFIX: Final = "pidtrail-test-"


class Container(NamedTuple):
    """One container that kubelet could have made: its directory, its id, and its pod's UID."""

    path: Path
    container_id: str
    pod_uid: str


def made(top: Path, form: str) -> Container:
    """
    Make a container's cgroup below `top`.

    `form` is `systemd` or `cgroupfs`, by kubelet's driver.
    """
    pod_uid, container_id = str(uuid.uuid4()), os.urandom(32).hex()
    if form == "systemd":
        pod = f"kubepods-burstable-pod{pod_uid.replace('-', '_')}.slice"
        parts = ("kubepods.slice", "kubepods-burstable.slice", pod)
        path = top.joinpath(*parts, f"cri-containerd-{container_id}.scope")
    else:
        path = top.joinpath("kubepods", "burstable", f"pod{pod_uid}", container_id)
    path.mkdir(parents=True)
    return Container(path, container_id, pod_uid)


def hierarchy(version: int) -> Path:
    """Return where cgroups of a version are mounted; a hierarchy of version 1 is as good as any."""
    unified, controllers = tops()
    top = unified if version == 2 else controllers.get("pids")
    if top is None:
        pytest.skip(f"no cgroups of version {version} here")
    return top


@contextlib.contextmanager
def directory(version: int) -> Iterator[Path]:
    """Give a directory of this process alone, and remove it with all that is in it."""
    with directory_in(hierarchy(version)) as path:
        yield path


@contextlib.contextmanager
def directory_in(top: Path) -> Iterator[Path]:
    """Give such a directory in a hierarchy that is mounted there."""
    for left in top.glob(f"{PREFIX}*"):
        if is_abandoned(left.name.removeprefix(PREFIX)):
            remove_all(left)
    path = top / f"{PREFIX}{owner()}"
    path.mkdir()
    try:
        yield path
    finally:
        remove_all(path)


def remove_all(path: Path) -> None:
    """Remove a cgroup and all below it, with the processes in there."""
    for below, _, _ in os.walk(path, topdown=False):
        remove(Path(below))
