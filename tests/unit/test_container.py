"""Containers, pods and units by the names of their cgroups, as runtimes really give them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pidtrail.container import Place, cgroup_path, place_of
from pidtrail.events import Observed
from pidtrail.tree import grow
from tests.unit.story import Story

ID = "3f2a" + "0123456789abcdef" * 3 + "0123456789ab"
NODE = "9e07" + "fedcba9876543210" * 3 + "fedcba987654"
UID = "ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f"
UID_ = UID.replace("-", "_")
STATIC = "09bc3d7ade839efec32b6bec4ec79d09"
CRI = f"cri-containerd-{ID}.scope"
LIBPOD = f"libpod-{ID}.scope"
CONMON = f"libpod-conmon-{ID}.scope"
TRIPLE = f"kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}"
SLICES = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"

CONTAINERS = {
    # kubelet with the cgroupfs driver, all three classes; a static pod's UID is a hash.
    f"/kubepods/burstable/pod{UID}/{ID}": Place(None, ID, UID),
    f"/kubepods/besteffort/pod{STATIC}/{ID}": Place(None, ID, STATIC),
    f"/kubepods/pod{UID}/{ID}": Place(None, ID, UID),
    f"/kubepods/pod{UID}/crio-{ID}": Place("cri-o", ID, UID),
    # kubelet with the systemd driver.
    f"{SLICES}/{CRI}": Place("containerd", ID, UID, CRI),
    f"{SLICES}/crio-{ID}.scope": Place("cri-o", ID, UID, f"crio-{ID}.scope"),
    f"{SLICES}/crio-{ID}.scope/container": Place("cri-o", ID, UID, f"crio-{ID}.scope"),
    f"{SLICES}/docker-{ID}.scope": Place("docker", ID, UID, f"docker-{ID}.scope"),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/{CRI}": Place(
        "containerd", ID, UID, CRI
    ),
    # The pod itself, without a container; and what watches one of cri-o's.
    SLICES: Place(None, None, UID),
    f"{SLICES}/crio-conmon-{ID}.scope": Place(None, None, UID, f"crio-conmon-{ID}.scope"),
    # kubelet speaks systemd, containerd does not.
    f"/a.slice/containerd.service/{TRIPLE}": Place("containerd", ID, UID, "containerd.service"),
    f"/kubepods-pod{UID_}.slice:cri-containerd:{ID}": Place("containerd", ID, UID),
    # kind: the node is a container of docker's, the pod is in there.
    f"/docker/{NODE}/kubelet/kubepods/burstable/pod{UID}/{ID}": Place(None, ID, UID),
    f"/system.slice/docker-{NODE}.scope/kubelet.slice/kubelet-kubepods.slice"
    f"/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice"
    f"/{CRI}": Place("containerd", ID, UID, CRI),
    f"/docker/{NODE}/kubelet/kubepods/pod{UID}": Place(None, None, UID),
    f"/docker/{NODE}/docker/{ID}": Place("docker", ID),
    # Without Kubernetes.
    f"/docker/{ID}": Place("docker", ID),
    f"/system.slice/docker-{ID}.scope": Place("docker", ID, None, f"docker-{ID}.scope"),
    f"/moby/{ID}": Place("docker", ID),
    f"/default/{ID}": Place("containerd", ID),
    f"/team-a/{ID}": Place(None, ID),
    f"/system.slice/nerdctl-{ID}.scope": Place("containerd", ID, None, f"nerdctl-{ID}.scope"),
    f"/machine.slice/{LIBPOD}": Place("podman", ID, None, LIBPOD),
    f"/machine.slice/{LIBPOD}/container": Place("podman", ID, None, LIBPOD),
    f"/machine.slice/{CONMON}": Place(None, None, None, CONMON),
    f"/libpod_parent/libpod-{ID}": Place("podman", ID),
    f"/user.slice/user-1000.slice/user@1000.service/user.slice/{LIBPOD}": Place(
        "podman", ID, None, LIBPOD
    ),
    "/lxc.payload.web-1/system.slice/cron.service": Place("lxc", "web-1", None, "cron.service"),
    "/lxc/web-1": Place("lxc", "web-1"),
    "/lxc.monitor.web-1": Place(),
    # From inside of another cgroup namespace, and a container whose cgroup was removed.
    f"/../{ID}": Place(None, ID),
    f"/../../pod{UID}/{ID}": Place(None, ID, UID),
    f"/../{CRI}": Place("containerd", ID, None, CRI),
    f"/docker/{ID} (deleted)": Place("docker", ID),
}  # fmt: skip

UNITS = {
    "/system.slice/airflow-scheduler.service": "airflow-scheduler.service",
    "/system.slice/system-airflow\\x2dworker.slice/airflow-worker@1.service": (
        "airflow-worker@1.service"
    ),
    "/user.slice/user-0.slice/session-3.scope": "session-3.scope",
    "/system.slice/airflow-worker.service/tasks": "airflow-worker.service",
    "/system.slice": None,
}

NOTHING = [
    *("", "/", "/..", "/../..", "//", "/process_api/ff7a442c1bc7a76d3c24e506f6ecceaf"),
    f"/kubepods/burstable/podium-{UID}",
    f"/docker/{ID[:-1]}",
    f"/docker/{ID}0",
    f"/docker/{ID.upper()}",
    f"/{ID}-init",
    "/pod",
]


@pytest.mark.parametrize(("path", "place"), CONTAINERS.items())
def test_a_container_is_known_by_the_name_of_its_cgroup(path: str, place: Place) -> None:
    """Runtime, full id, the pod's UID with dashes, and the unit; the innermost of each."""
    assert place_of(path) == place


@pytest.mark.parametrize(("path", "unit"), UNITS.items())
def test_a_unit_is_known_by_the_name_of_its_cgroup(path: str, unit: str | None) -> None:
    """The innermost service or scope, as systemd writes it; a slice is none."""
    assert place_of(path) == Place(unit=unit)


@pytest.mark.parametrize("path", NOTHING)
def test_what_only_resembles_an_id_is_unknown(path: str) -> None:
    """Nothing is guessed from a name that no runtime gives."""
    assert place_of(path) == Place()


@given(st.text(max_size=300))
def test_any_path_gives_an_answer(path: str) -> None:
    """Whatever stands there, nothing is raised, and no id is longer than the path."""
    place = place_of(path)
    assert len(place.container_id or "") <= len(path)
    assert place.pod_uid is None or len(place.pod_uid) in {32, 36}


@given(st.lists(st.sampled_from(["0", ":", "::", "/", "a", "\n", f"/docker/{ID}", "name=systemd"])))
def test_any_file_gives_one_of_its_paths_or_none(pieces: list[str]) -> None:
    """A file that makes no sense is no error."""
    text = "".join(pieces)
    found = cgroup_path(text)
    assert found is None or found in text


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/b\n", "/b"),
        ("1:name=systemd:/a\n0::/b\n", "/b"),
        # docker on a host with both versions: version 2 shows the daemon's own unit.
        (f"4:memory:/docker/{ID}\n0::/system.slice/containerd.service\n", f"/docker/{ID}"),
        (f"4:memory:/pod{UID}\n3:cpu:/pod{UID}/{ID}\n0::/", f"/pod{UID}/{ID}"),
        # Version 2 mounted and unused, as on a host of systemd's hybrid mode.
        ("4:memory:/x\n1:name=systemd:/a.slice/b.service\n0::/\n", "/a.slice/b.service"),
        ("4:memory:/x\n0::/\n", "/"),
        ("4:memory:/x\n3:cpu:/y\n", "/x"),
        ("12:a:b:/with:colons\n", "b:/with:colons"),
        ("", None),
        ("no line of this file\n", None),
    ],
)  # fmt: skip
def test_the_path_that_tells_most_is_taken(text: str, path: str | None) -> None:
    """A container's before version 2's before systemd's, of a process that has many paths."""
    assert cgroup_path(text) == path


def seen(story: Story, name: str, cgroup: str, pid_ns: int) -> None:
    """Let the cgroup and the namespace of a process be observed."""
    head = story.next()
    story.events.append(Observed(*head, *story.identity(name), cgroup=cgroup, pid_ns=pid_ns))


def born(story: Story, parent: str, name: str, pid_ns: int) -> None:
    """Let a process be born in a PID namespace."""
    story.fork(parent, name)
    story.events[-1] = structs.replace(story.events[-1], pid_ns=pid_ns)


def place_in(story: Story, name: str) -> Place:
    """Return where a process of a story is."""
    tree = grow(story.events)
    (node,) = tree.with_pid(story.pids[name])
    return tree.place(node)


def contained() -> Story:
    """Let the init of a container be seen, below a runtime's shim."""
    story = Story().root("shim", "containerd-shim")
    seen(story, "shim", "/system.slice/containerd.service", 1)
    born(story, "shim", "init", 2)
    seen(story, "init", f"/kubepods/pod{UID}/{ID}", 2)
    return story


def test_who_was_born_in_a_container_is_in_it() -> None:
    """A child and its child have the cgroup of the container's init."""
    story = contained()
    born(story, "init", "supervisor", 2)
    born(story, "supervisor", "runner", 2)

    assert place_in(story, "runner") == Place(None, ID, UID)


def test_who_was_moved_is_where_it_was_seen_last() -> None:
    """A process's own cgroup comes before that of its ancestors."""
    story = contained()
    born(story, "init", "moved", 2)
    seen(story, "moved", "/system.slice/cron.service", 2)

    assert place_in(story, "moved") == Place(unit="cron.service")


@pytest.mark.parametrize(("parent", "pid_ns"), [("shim", 2), ("init", 3), ("shim", 1)])
def test_a_container_is_not_inherited_across_namespaces(parent: str, pid_ns: int) -> None:
    """Not by who enters from outside, nor by a container within; the shim's unit is nobody's."""
    story = contained()
    born(story, parent, "other", pid_ns)

    assert place_in(story, "other") == Place()


def test_an_unknown_namespace_inherits_nothing() -> None:
    """Without the number of the PID namespace nothing says that the child stayed inside."""
    story = contained().fork("init", "child")

    assert place_in(story, "child") == Place()
