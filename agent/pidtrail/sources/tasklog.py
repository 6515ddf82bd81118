"""
Which Airflow task log a process holds open: the best passive key there is.

Supervisor and runner both hold `…/attempt=N.log` open (Airflow 2.10.5 and
3.3.2, seen). Looked at only when a title says that a process works for a task
instance, and again a little later, because the title comes first: 3.x names the
worker before `supervise` opens the file (sdk execution_time/supervisor.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.airflow.lognames import LogNames
from pidtrail.container import place_of
from pidtrail.events import Observed, ProcessKey
from pidtrail.sources import proc

if TYPE_CHECKING:
    from collections.abc import Callable

DELAYS_NS: Final = (0, 100_000_000, 500_000_000, 2_000_000_000)
ORIGIN: Final = "procfs"


class TaskLogs:
    """
    Looks for open task logs of the processes it was asked about.

    `names` tells which paths are task logs, and may learn meanwhile. `find` is a seam
    for tests: it returns the paths that a pid holds open.
    """

    def __init__(
        self,
        names: LogNames | None = None,
        find: Callable[[int], list[str] | None] = proc.open_paths,
    ) -> None:
        self.names = LogNames() if names is None else names
        self.find = find
        self.waiting: list[tuple[int, ProcessKey, int]] = []
        self.known: dict[ProcessKey, str] = {}

    def ask(self, key: ProcessKey, now_ns: int) -> None:
        """Look at this process now, and again if nothing is found."""
        if all(waiting_key != key for _, waiting_key, _ in self.waiting):
            self.waiting.append((now_ns, key, 0))

    def look(self, now_ns: int) -> list[Observed]:
        """Return what those who are due hold open; `seq` is left to the caller."""
        if not self.waiting:
            return []
        due = [item for item in self.waiting if item[0] <= now_ns]
        self.waiting = [item for item in self.waiting if item[0] > now_ns]
        found = []
        for _, key, attempt in due:
            path = self.path_of(key)
            if path is not None and self.known.get(key) != path:
                self.known[key] = path
                # Also what container that is in: a process that came with its container, after
                # the snapshot, is looked at here for the first time.
                cgroup = proc.cgroup(key.pid)
                found.append(
                    Observed(
                        0, now_ns, ORIGIN, key.pid, key.start_ticks, log_path=path,
                        cgroup=cgroup if self.is_there(key) else None,
                    )
                )  # fmt: skip
            elif path is None:
                if attempt == 0:
                    found += self.container_of(key, now_ns)
                if attempt + 1 < len(DELAYS_NS) and self.is_there(key):
                    self.waiting.append((now_ns + DELAYS_NS[attempt + 1], key, attempt + 1))
        return found

    def container_of(self, key: ProcessKey, now_ns: int) -> list[Observed]:
        """
        Return in which cgroup a process is, if that is a container's.

        In a pod of 2.x the supervisor is a new interpreter, which opens its log after
        seconds of importing, or is not seen to do it at all.
        """
        cgroup = proc.cgroup(key.pid)
        if cgroup is None or not place_of(cgroup).is_contained or not self.is_there(key):
            return []
        return [Observed(0, now_ns, ORIGIN, key.pid, key.start_ticks, cgroup=cgroup)]

    def path_of(self, key: ProcessKey) -> str | None:
        """Return the task log that a process holds open, or None."""
        paths = [path for path in self.find(key.pid) or () if self.names.task(path) is not None]
        return paths[0] if paths and self.is_there(key) else None

    def is_there(self, key: ProcessKey) -> bool:
        """Return whether the pid is still the process that was meant."""
        return key.start_ticks is None or proc.start_ticks(key.pid) == key.start_ticks

    def forget(self, key: ProcessKey) -> None:
        """Drop what is known of a process that ended."""
        self.known.pop(key, None)
