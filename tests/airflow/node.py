"""
A node that runs each workload it is given in a container: what kubelet is to a cluster.

    python -m tests.airflow.node FOLDER CGROUP AIRFLOW_PYTHON

A container is a cgroup named as kubelet names it, a PID namespace and a UTS
namespace, in this order, as a runtime makes them; in it runs the command that
Airflow's image runs there. A workload with an `address` has a network namespace too, and
rows name its host by that. Runs until it is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.contract.kubelet import made

# $1 is the cgroup; the rest is the command.
CONFINE = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
UNSHARED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")
# $1 is the host's name, $2 what stands in for /etc/hosts, if anything does.
NAME = """
echo "$1" >/proc/sys/kernel/hostname
if [ -n "$2" ]; then mount --bind "$2" /etc/hosts; fi
shift 2 && exec "$@"
"""
# Of a container that has an address, and so a network of its own, in which no server can be met.
BY_ADDRESS = "airflow.utils.net.get_host_ip_address"
LOCAL_DATABASE = "PIDTRAIL_LOCAL_DATABASE"
POLL_S = 0.05


def start(path: Path, cgroups: Path, python: str, *, as_file: bool) -> subprocess.Popen[bytes]:
    """Start the container of a workload; what it was made of stands beside it in `.pod`."""
    text = path.read_text()
    workload = json.loads(text)
    task, address = workload["ti"], workload.get("address")
    container = made(cgroups, "systemd")
    words = (task["dag_id"], task["task_id"], container.container_id[:8])
    hostname = "-".join(words).replace("_", "-")
    pod = {
        "task": [task["dag_id"], task["try_number"]],
        "hostname": hostname,
        "container": container.container_id,
        "pod_uid": container.pod_uid,
    }
    path.with_suffix(".pod").write_text(json.dumps(pod))
    what = ("--json-path", str(path)) if as_file else ("--json-string", text)
    module = (python, "-m", "airflow.sdk.execution_time.execute_workload", *what)
    command = workload.get("command", module)
    environ, network, hosts = dict(os.environ), [], ""
    if address is not None:
        network, hosts = ["--net"], str(path.with_suffix(".hosts"))
        Path(hosts).write_text(f"{address} {hostname}\n")
        environ["AIRFLOW__CORE__HOSTNAME_CALLABLE"] = BY_ADDRESS
        environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = os.environ[LOCAL_DATABASE]
    inside = ["sh", "-c", NAME, "sh", hostname, hosts, *command]
    confined = ["sh", "-c", CONFINE, "sh", str(container.path), *UNSHARED, *network, *inside]
    with path.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            confined, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
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
