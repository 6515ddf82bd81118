"""Airflow's plugin, loaded as Airflow loads a file of its folder; only Airflow is not there."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from pidtrail import airflow

PLUGIN = Path(airflow.__file__).with_name("plugin.py")


def load() -> ModuleType:
    """Return the plugin as a module of its own."""
    manager = ModuleType("airflow.plugins_manager")
    manager.AirflowPlugin = object  # type: ignore[attr-defined]
    stands_in = {"airflow": ModuleType("airflow"), "airflow.plugins_manager": manager}
    spec = importlib.util.spec_from_file_location("pidtrail_plugin", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, stands_in):
        spec.loader.exec_module(module)
    return module


def fill(path: str) -> int:
    """
    Send to a datagram socket until it takes nothing more of anybody; return how much it took.

    One sender alone comes to the end of what may be under way from it
    (net.core.wmem_default) before the socket is full (net.unix.max_dgram_qlen).
    """
    total, sent = 0, 1
    while sent:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"x", path)
                    sent += 1
        total += sent
    return total


class Instance:
    """A task instance with what the plugin reads of one, as 3.x has it."""

    def __init__(self, **fields: object) -> None:
        self.id: object = "01a201d9-c083-7000-8000-000000000001"
        self.dag_id, self.task_id, self.run_id = "sales", "load", "manual__1"
        self.map_index, self.try_number = -1, 1
        self.hostname, self.state = "worker-1", "running"
        vars(self).update(fields)
