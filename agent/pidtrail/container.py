"""
Which container, pod or systemd unit a cgroup was made for: read from its name.

Rule 1: pure. Text in, facts out; any text, broken or hostile, gives an answer.
Rule 2: unknown is None. A name that is merely like an id is none.
Rule 3: the innermost wins. A cluster in containers (kind) has a container around
        each of its own, and the process is in the inner one.

Who writes the names:
kubelet       pod UID, and the class unless it is Guaranteed: pkg/kubelet/cm
              pod_container_manager_linux.go GetPodContainerName; with the systemd
              driver `-` becomes `_` and each part repeats those before it:
              cgroup_manager_linux.go escapeSystemdCgroupName, ToSystemd.
runc, crun    `PREFIX-ID.scope` of a `SLICE:PREFIX:ID`: opencontainers/cgroups
              systemd/common.go getUnitName. Without systemd the three are one
              directory: containerd's service with SLICE:cri-containerd:ID in it.
podman        `libpod-ID.scope`, crun's `container` below it: libpod
              container_internal_linux.go getOCICgroupPath.
LXC           `lxc.payload.NAME` since 4.0, `lxc/NAME` before: lxc.container.conf(5).
systemd       `.service` and `.scope` below any number of slices: systemd.slice(5).
the kernel    ` (deleted)`, and `/..` for what lies outside of the reader's cgroup
              namespace: cgroup_namespaces(7), kernel/cgroup/cgroup.c proc_cgroup_show.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_ID = r"[0-9a-f]{64}"
_ID_ALONE = re.compile(rf"{_ID}\Z")
_SCOPE = re.compile(rf"(?P<prefix>[a-z][a-z-]*)-(?P<id>{_ID})(?:\.scope)?\Z")
_TRIPLE = re.compile(rf"[^:]*:(?P<prefix>[a-z-]+):(?P<id>{_ID})\Z")
_POD = re.compile(
    r"(?:^|-)pod(?P<uid>[0-9a-f]{8}(?P<dash>[-_])[0-9a-f]{4}(?:(?P=dash)[0-9a-f]{4}){2}(?P=dash)"
    r"[0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=\Z|:)"
)
_LXC = re.compile(r"lxc(?:\.payload)?\.(?P<name>.+)\Z", re.DOTALL)
_UNIT = re.compile(r".+\.(?:service|scope)\Z", re.DOTALL)

_RUNTIMES: Final = {
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
}
"""By the prefix of an id. Others (`crio-conmon`, …) are no containers but what watches one."""
_PARENTS: Final = {
    "docker": "docker",
    "moby": "docker",
    "k8s.io": "containerd",
    "default": "containerd",
    "libpod_parent": "podman",
}
"""By the directory above an id alone: the docker daemon's, or a namespace of containerd."""
_DELETED: Final = " (deleted)"


class Place(NamedTuple):
    """
    Where the kernel confines a process; unknown is None.

    `runtime` is docker, containerd, cri-o, podman or lxc. `container_id` has 64
    hexadecimal digits, or is LXC's name. `pod_uid` is the pod's metadata.uid; a static
    pod's has no dashes. `unit` is the innermost service or scope of systemd.
    """

    runtime: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None
    unit: str | None = None

    @property
    def is_contained(self) -> bool:
        """Whether a container or a pod is known."""
        return self.container_id is not None or self.pod_uid is not None


def place_of(path: str) -> Place:
    """Return what the path of a cgroup tells, from either version of cgroups."""
    runtime = container = pod = unit = above = None
    for name in path.removesuffix(_DELETED).split("/"):
        found_pod = _POD.search(name)
        if found_pod is not None:
            # Whatever stands above a pod is around it: the node, where that is a container too.
            pod, runtime, container = found_pod["uid"].replace("_", "-"), None, None
        named = _container(name, above)
        if named is not None:
            runtime, container = named
        if _UNIT.match(name):
            unit = name
        above = name
    return Place(runtime, container, pod, unit)


def cgroup_path(text: str) -> str | None:
    """
    Return the one path of a /proc/PID/cgroup that tells most, or None where there is none.

    A process has one path in version 2 and one in each hierarchy of version 1
    (cgroups(7)). Where both are mounted, runtimes may fill either: first comes a path
    that names a container, then version 2's, then that of systemd's own hierarchy.
    """
    parts = [line.split(":", 2) for line in text.splitlines()]
    lines = [(names, path) for _, names, path in (part for part in parts if len(part) == 3)]
    order = sorted(lines, key=lambda line: _rank(*line))
    return order[0][1] if order else None


def _rank(controllers: str, path: str) -> int:
    """Return how little a line tells."""
    place = place_of(path)
    if place.container_id is not None:
        return 0
    if place.pod_uid is not None:
        return 1
    if path == "/":
        return 4 if controllers == "" else 5
    return {"": 2, "name=systemd": 3}.get(controllers, 6)


def _container(name: str, above: str | None) -> tuple[str | None, str] | None:
    """Return (runtime, id) where a directory is a container's, given the one above it."""
    if _ID_ALONE.match(name):
        # cgroupfs: in a pod's directory anybody's, below `docker` docker's.
        return _PARENTS.get(above or ""), name
    for pattern in (_SCOPE, _TRIPLE):
        found = pattern.match(name)
        if found is not None:
            runtime = _RUNTIMES.get(found["prefix"])
            return None if runtime is None else (runtime, found["id"])
    payload = _LXC.match(name)
    if payload is not None and not name.startswith("lxc.monitor."):
        return "lxc", payload["name"]
    return ("lxc", name) if above == "lxc" and name else None
