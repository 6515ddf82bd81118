"""
An executor for Airflow 2.10 and newer that runs every task in a container of its own.

As KubernetesExecutor does, it hands a workload over and hears of its end later;
who runs it is `tests.airflow.node`. The queue of a task is the node that it runs on.
Imported by Airflow, so nothing of pidtrail is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecuteTask


def name_of_old() -> str:
    """Return a host's name as it was before somebody changed it ([core] hostname_callable)."""
    return "ip-10-0-0-7.old.example"


class PodExecutor(BaseExecutor):
    """Leaves workloads in a folder per node, and finds exit statuses there."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.folder = Path(os.environ["AIRFLOW_HOME"]) / "nodes"
        self.waiting: dict[Path, Any] = {}

    def _process_workloads(self, workload_items: Sequence[ExecuteTask]) -> None:
        for workload in workload_items:
            node = self.folder / workload.ti.queue
            unfinished = node / f"{workload.ti.id}.part"
            unfinished.write_text(workload.model_dump_json())
            unfinished.rename(unfinished.with_suffix(".json"))
            self.waiting[unfinished.with_suffix(".status")] = workload.key
            del self.queued_tasks[workload.key]
            self.running.add(workload.key)

    def execute_async(
        self,
        key: Any,
        command: list[str],
        queue: str | None = None,
        executor_config: dict[str, Any] | None = None,
    ) -> None:
        """Leave a command of 2.x, `airflow tasks run …`, as KubernetesExecutor puts into a pod."""
        names = {name: getattr(key, name) for name in ("dag_id", "task_id", "try_number")}
        workload = {"ti": names, "command": command, **(executor_config or {})}
        unfinished = self.folder / str(queue) / f"{key.dag_id}-{key.try_number}.part"
        unfinished.write_text(json.dumps(workload))
        unfinished.rename(unfinished.with_suffix(".json"))
        self.waiting[unfinished.with_suffix(".status")] = key

    def sync(self) -> None:
        """Report what has ended."""
        for path in [path for path in self.waiting if path.exists()]:
            key = self.waiting.pop(path)
            if path.read_text() == "0":
                self.success(key)
            else:
                self.fail(key)

    def end(self) -> None:
        """Leave the pods to their nodes."""

    def terminate(self) -> None:
        """Leave the pods to their nodes."""
