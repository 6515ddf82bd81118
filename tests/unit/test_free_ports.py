"""Ports for servers that are started later: no two are given the same one."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo import airflow_host
from demo.airflow_host import free_ports
from demo.processes import StageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let there be three ports, which are tried in this order."""
    ports = free_ports(3)
    for mark in airflow_host._TAKEN[-3:]:
        os.close(mark)
    monkeypatch.setattr(airflow_host, "_PORTS", ports)
    monkeypatch.setattr(random, "sample", lambda among, _count: list(among))
    return ports


def test_a_port_is_given_once_even_if_nobody_listens_yet(three: list[int]) -> None:
    assert free_ports(1) + free_ports(2) == three
    with pytest.raises(StageError, match="no 1 ports"):
        free_ports(1)


def test_a_port_that_somebody_listens_on_is_passed_over(three: list[int]) -> None:
    with socket.create_server(("127.0.0.1", three[0])):
        assert free_ports(1) == [three[1]]


def test_another_process_keeps_its_port_until_it_ends(three: list[int]) -> None:
    taking = (
        "import sys; from demo import airflow_host as host\n"
        f"assert host._take({three[0]}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", taking], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert free_ports(1) == [three[1]]
    assert free_ports(1) == [three[0]]
