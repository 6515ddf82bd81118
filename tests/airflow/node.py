"""
A node that runs each workload it is given in a container: what kubelet is to a cluster.

    python -m tests.airflow.node FOLDER CGROUP AIRFLOW_PYTHON

A container is a cgroup named as kubelet names it, a PID namespace and a UTS
namespace, in this order, as a runtime makes them; in it runs the command that
Airflow's image runs there. Runs until it is killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.contract.kubelet import made

ENTER = (
    # $1 cgroup, $2 host name; the rest is the command.
    'echo $$ >"$1/cgroup.procs" && exec unshare --pid --fork --kill-child --mount-proc --uts'
    ' sh -c \'echo "$1" >/proc/sys/kernel/hostname && shift && exec "$@"\' sh "$2" "$3" "$4" "$5"'
    ' "$6" "$7"'
)
POLL_S = 0.05


def start(path: Path, cgroups: Path, python: str, *, as_file: bool) -> subprocess.Popen[bytes]:
    """Start the container of a workload; what it was made of stands beside it in `.pod`."""
    text = path.read_text()
    task = json.loads(text)["ti"]
    container = made(cgroups, "systemd")
    words = (task["dag_id"], task["task_id"], container.container_id[:8])
    pod = {
        "task": [task["dag_id"], task["try_number"]],
        "hostname": "-".join(words).replace("_", "-"),
        "container": container.container_id,
        "pod_uid": container.pod_uid,
    }
    path.with_suffix(".pod").write_text(json.dumps(pod))
    what = ("--json-path", str(path)) if as_file else ("--json-string", text)
    command = (python, "-m", "airflow.sdk.execution_time.execute_workload", *what)
    with path.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            ["sh", "-c", ENTER, "sh", str(container.path), str(pod["hostname"]), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def main(folder: Path, cgroups: Path, python: str) -> None:
    """Serve a folder."""
    pods: dict[Path, subprocess.Popen[bytes]] = {}
    while True:
        time.sleep(POLL_S)
        for path in folder.glob("*.json"):
            if path not in pods:
                pods[path] = start(path, cgroups, python, as_file=folder.name == "node-2")
        for path, pod in pods.items():
            status = path.with_suffix(".status")
            if pod.poll() is not None and not status.exists():
                unfinished = status.with_suffix(".part")
                unfinished.write_text(str(pod.returncode))
                unfinished.rename(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
