"""What the manager hears of the service, through a real socket."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.service.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Return a socket such as systemd's, and its name as it stands in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(0)
        name = str(tmp_path / "notify") if request.param == "path" else f"@{secrets.token_hex(8)}"
        listening.bind(name.replace("@", "\0"))
        yield name, listening


def heard(listening: socket.socket) -> list[str]:
    """Return all that was said."""
    found = []
    while True:
        try:
            found.append(listening.recv(4096).decode())
        except BlockingIOError:
            return found


def test_it_says_when_it_is_ready_and_when_it_ends(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    environ = {"NOTIFY_SOCKET": name, "HOME": "/"}
    notifier = Notifier(environ)
    notifier.ready()
    notifier.tell("source core")
    notifier.tell("source core")
    notifier.tell("source core,\n1 root")
    notifier.stopping()
    notifier.turned(10.0)

    assert heard(listening) == [
        "READY=1",
        "STATUS=source core",
        "STATUS=source core,\\n1 root",
        "STOPPING=1",
    ]
    assert environ == {"HOME": "/"}


def test_the_watchdog_hears_twice_in_its_time(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    notifier = Notifier(
        {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    )
    for tenths in range(1000, 1600):
        notifier.turned(tenths / 10)

    assert heard(listening) == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {},
    ],
)
def test_a_watchdog_of_others_hears_nothing(
    manager: tuple[str, socket.socket], environ: dict[str, str]
) -> None:
    name, listening = manager
    Notifier({"NOTIFY_SOCKET": name, **environ}).turned(1e9)

    assert heard(listening) == []


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "relative"])
def test_without_a_manager_nothing_happens(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.stopping()
