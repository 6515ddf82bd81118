"""Who may ask the service: real users, told by the kernel, through a real socket."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pidtrail.service.server import MOST_CLIENTS, MOST_OF_USER, Server
from tests.unit.asking import keep, two_tries
from tests.unit.test_service import until

pytestmark = pytest.mark.needs_root

ROOT = Path(__file__).resolve().parents[2]
USER, OTHER_USER, THIRD_USER = 61_234, 61_235, 61_237
GROUP, GID = "daemon", 1
"""A group that every distribution has, in place of ours."""
NOBODYS_GID = 61_236


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that everybody may enter, with a history in `history`."""
    with tempfile.TemporaryDirectory(prefix="pidtrail-users.") as made:
        folder = Path(made)
        folder.chmod(0o755)
        story, before = two_tries()
        keep(folder / "history", story.events[:before], story.events[before:])
        yield folder


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    """Return a service of root's, that a group may ask."""
    made = Server(str(place / "pidtrail.sock"), place / "history", group=GROUP)
    made.start()
    yield made
    made.stop()


def explained(
    path: Path | str,
    uid: int,
    gid: int,
    *groups: int,
    words: Sequence[str] = ("explain", "--json"),
) -> subprocess.CompletedProcess[str]:
    """Let a user ask, for the verdicts if nothing else is said."""
    numbers = ",".join(map(str, groups))
    return subprocess.run(
        [
            *(sys.executable, "-m", "tests.service.as_user", str(uid), str(gid), numbers),
            *(*words, "--socket", str(path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("uid", "gid", "groups"),
    [
        (USER, NOBODYS_GID, [GID]),
        (USER, GID, []),
        # More groups than the kernel gives at once.
        (USER, GID, [NOBODYS_GID + n for n in range(400)]),
        (0, 0, []),
    ],
    ids=["further-group", "own-group", "many-groups", "root"],
)
def test_members_of_the_group_and_root_are_answered(
    server: Server, uid: int, gid: int, groups: list[int]
) -> None:
    done = explained(server.endpoint.path, uid, gid, *groups)

    assert (done.returncode, done.stderr) == (0, "")
    assert [one["code"] for one in json.loads(done.stdout)["verdicts"]] == ["retry", "match"]


def test_who_is_not_in_the_group_is_told_to_join(server: Server) -> None:
    """By the socket's own mode: nothing reaches the service."""
    done = explained(server.endpoint.path, USER, NOBODYS_GID)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pidtrail: you may not ask the service at ")
    assert "usermod -aG pidtrail USER" in done.stderr
    assert done.stderr.count("\n") == 1
    assert server.problems() == []


def test_an_open_mode_opens_nothing(server: Server) -> None:
    """Who may connect is not yet who may ask."""
    Path(server.endpoint.path).chmod(0o666)
    done = explained(server.endpoint.path, USER, NOBODYS_GID)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"pidtrail: user {USER} may not ask the service (join the group daemon)\n"
    assert server.problems() == [
        "1 requests over the service's socket came from users who may not ask"
    ]


def test_an_agent_that_is_not_root_answers_its_own_user(place: Path) -> None:
    """And root; nobody else, where it is not in the group that it should give the socket to."""
    place.chmod(0o777)
    for file in (place / "history", *(place / "history").iterdir()):
        file.chmod(0o777)
    path = place / "pidtrail.sock"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.service.keep_asking", str(USER), str(NOBODYS_GID)),
            *(str(place / "history"), str(path), GROUP),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdout is not None
        said = agent.stdout.readline()
        owner, root = explained(path, USER, NOBODYS_GID), explained(path, 0, 0)
        # Its group is the agent's own, whose members the mode lets in.
        neighbour = explained(path, OTHER_USER, NOBODYS_GID)
        agent.communicate()

    assert said == f"may not give {path} to group {GID}: the agent is not in it\n"
    assert (owner.returncode, root.returncode) == (0, 0)
    assert neighbour.stderr == (
        f"pidtrail: user {OTHER_USER} may not ask the service (join the group daemon)\n"
    )
    assert not path.exists()


@contextlib.contextmanager
def holding(server: Server, uid: int, gid: int, count: int) -> Iterator[None]:
    """Let a user keep places."""
    taken = len(server.clients) + count
    command = [sys.executable, "-m", "tests.service.hold", str(uid), str(gid)]
    with subprocess.Popen(
        [*command, server.endpoint.path, str(count)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "connected\n"
        until(lambda: len(server.clients) == taken)
        yield
        assert holder.stdin is not None
        holder.stdin.close()


def test_nobody_has_all_places(server: Server) -> None:
    """Who has four gets no more, and another user is answered as ever."""
    with holding(server, USER, GID, MOST_OF_USER):
        refused = explained(server.endpoint.path, USER, GID)
        answered = explained(server.endpoint.path, OTHER_USER, GID)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"pidtrail: 4 others of user {USER} are asking (ask again later)\n"
    assert (answered.returncode, answered.stderr) == (0, "")


def test_root_finds_a_place_where_all_are_taken(server: Server) -> None:
    with (
        holding(server, USER, GID, MOST_OF_USER),
        holding(server, OTHER_USER, GID, MOST_CLIENTS - MOST_OF_USER),
    ):
        refused = explained(server.endpoint.path, THIRD_USER, GID)
        answered = explained(server.endpoint.path, 0, 0)
        said = server.problems()

    assert refused.stderr == "pidtrail: 8 others are asking (ask again later)\n"
    assert (answered.returncode, answered.stderr) == (0, "")
    assert said == ["1 requests came while 8 others were answered"]
