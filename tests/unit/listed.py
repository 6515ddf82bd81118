"""
Messages about the ends of processes, scheduling and hosts, as their sources spell them.

Read in the files that pidtrail.airflow.messages_{ending,scheduling,host} name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

TI: Final = "01a20721-beb0-71e4-a618-4727ff4a397f"
REPR: Final = "<TaskInstance: sales.load manual__2026-01-31T08:00:00+00:00 [queued]>"
KEY: Final = (
    "TaskInstanceKey(dag_id='sales', task_id='load', run_id='manual__1', try_number=1, "
    "map_index=-1)"
)


class Listed(NamedTuple):
    """
    A message; `pids` and `words` are the numbers and words in it by the first words of their role.

    `fields` are those that a structured log line of 3.x has beside it; `parts` are
    pieces of which each says as much by itself.
    """

    kind: str
    text: str
    pids: Mapping[str, str] = {}
    words: Mapping[str, str] = {}
    fields: Mapping[str, Any] = {}
    parts: tuple[str, ...] = ()


def pairs(fields: Mapping[str, Any]) -> str:
    """Return fields as structlog's console has them."""
    return "".join(f" {key}={value}" for key, value in fields.items())


SAYING, RUNNER = "the process that says so", "the runner of this supervisor"
READER, WEB = "a process that reads DAG files", "a web worker"
FURTHER: Final = (
    # What Airflow says of ends
    Listed("timed-out", "Process timed out, PID: 24282", {"24282": SAYING}),
    Listed("timed-out", "Process timed out", {"24282": SAYING}, fields={"pid": 24282}),
    Listed("timed-out", "AirflowTaskTimeout: Timeout, PID: 24282", {"24282": "the same"}),
    Listed(
        "timed-out",
        "airflow.exceptions.AirflowTaskTimeout: DagBag import timeout for /dags/x.py after 30.0s. "
        "Please take a look at these docs to improve your DAG import time, PID: 24282",
        {"24282": "the same"},
    ),
    Listed(
        "not-dying",
        "process psutil.Process(pid=22706, name='airflow task ru', status='sleeping', "
        "started='06:51:05') did not respond to SIGTERM. Trying SIGKILL",
        {"22706": "of the group"},
    ),
    Listed(
        "not-dying",
        "Process psutil.Process(pid=22706, name='x') (22706) could not be killed. Giving up.",
        {"22706": "still alive after SIGKILL"},
    ),
    Listed(
        "escalation-failed",
        "Failed to terminate process after full escalation",
        {"24282": RUNNER},
        fields={"pid": 24282},
    ),
    Listed(
        "open-sockets",
        "Process exited with open sockets; cleaning up after timeout",
        {"24282": RUNNER},
        {"0": "its exit code"},
        {"exit_code": 0, "pid": 24282, "timeout_seconds": 60},
    ),
    Listed("overtime", "Task success overtime reached; terminating process."),
    Listed(
        "segfault",
        "******************************************* Received SIGSEGV ***************************"
        "\nSIGSEGV (Segmentation Violation) signal indicates Segmentation Fault error which refers",
        parts=("SIGSEGV (Segmentation Violation) signal indicates Segmentation Fault error",),
    ),
    Listed("runner-crashed", "--- Supervised process Last chance exception handler ---"),
    Listed("runner-crashed", "Exception in child process, exiting with code 124"),
    Listed(
        "result-not-told",
        "Recovery retry of terminal-state API call failed; TI may be stuck on the server",
        fields={"msg_type": "SucceedTask"},
    ),
    Listed("result-not-told", "Failed to report terminal task state to supervisor"),
    Listed("workload-failed", "uhoh"),
    Listed("workload-failed", "Task execution failed."),
    Listed("workload-failed", "Workload execution failed."),
    Listed(
        "finished-3",
        "Task finished",
        words={"-9": "the runner's exit code", "failed": "how it counts"},
        fields={"exit_code": -9, "duration": 3.1, "final_state": "failed"},
    ),
    Listed(
        "finished-3",
        "Workload finished",
        words={"0": "the runner's exit code", "success": "how it counts"},
        fields={"exit_code": 0, "final_state": "success"},
    ),
    Listed("task-exit", "Task exited", words={"3": "what the code"}, fields={"exit_code": 3}),
    Listed(
        "bash-failed",
        "Bash command failed. The command returned a non-zero exit code 137.",
        words={"137": "the shell's exit code"},
    ),
    Listed(
        "bash-failed",
        "Bash command returned exit code 99. Skipping.",
        words={"99": "the shell's exit code"},
    ),
    Listed(
        "subprocess-failed",
        "Command '['/tmp/venv/bin/python', '/tmp/venv/script.py']' died with <Signals.SIGKILL: 9>.",
        words={"SIGKILL": "the signal"},
    ),
    Listed(
        "subprocess-failed",
        "Failed to execute task Command '['airflow', 'tasks', 'run', 'sales', 'load', 'r', "
        "'--local']' returned non-zero exit status 1..",
        words={"1": "its exit status"},
    ),
    Listed(
        "metrics-ended",
        "Process not found (most likely exited), stop collecting metrics",
    ),
    Listed(
        "started-3",
        "Task started",
        words={"vm": "the host of the runner", "queued": "what the row said"},
        fields={"hostname": "vm", "previous_state": "queued", "ti_id": TI},
    ),
    Listed("no-children-allowed", "daemonic processes are not allowed to have children"),
    # What the scheduler says
    Listed("stuck-in-queued", "stuck in queued reschedule"),
    Listed("stuck-in-queued", f"Task stuck in queued; will try to requeue. task_instance={REPR}"),
    Listed("stuck-in-queued", f"Task requeue attempts exceeded max; marking failed. ti={REPR}"),
    Listed(
        "stuck-in-queued",
        "Task was requeued more than 2 times and will be failed.",
        words={"2": "how often"},
    ),
    Listed(
        "stuck-in-queued",
        "Task was in queued state for longer than 600.0 seconds; task state will be set back to "
        "scheduled.",
        words={"600": "how long"},
    ),
    Listed(
        "stuck-in-queued",
        f"Marking task instance {REPR} stuck in queued as failed. If the task instance has "
        "available retries, it will be retried.",
    ),
    Listed(
        "still-in-executor",
        f"could not queue task {KEY} (still running after 4 attempts).",
        words={"4": "how often"},
    ),
    Listed(
        "still-in-executor",
        f"queued but still running; attempt=1 task={KEY}",
        words={"1": "which attempt"},
    ),
    Listed(
        "concurrency-reached",
        "Rescheduling due to concurrency limits reached at task runtime. Attempt 1 of 2. State set "
        "to NONE.",
    ),
    Listed("adopting", "Adopting or resetting orphaned tasks for active dag runs"),
    Listed(
        "try-number-race",
        f"schedule_tis: try_number mismatch after scheduling for ti_id={TI} dag_run=sales/r "
        "scheduler_job_id=3 pre_state=None pre_try_number=0 expected_try_number=1 "
        "db_state=scheduled db_try_number=2",
        words={TI: "the task instance's id"},
    ),
    Listed(
        "try-number-race",
        "Multiple executor events for same TI with different try_numbers! primary_key=('sales',)",
    ),
    Listed(
        "cleared-and-ended",
        f"Task {REPR} was cleared and successfully terminated. Setting to scheduled for retry.",
    ),
    Listed(
        "executor-event",
        f"Received executor event with state success for task instance {KEY}",
        words={"success": "what the executor says"},
    ),
    Listed("job-heartbeat-failed", "Job heartbeat failed with error"),
    Listed(
        "job-heartbeat-failed",
        "SchedulerJobRunner heartbeat failed with error. Scheduler may go into unhealthy state",
    ),
    Listed("job-heartbeat-failed", "LocalTaskJob heartbeat got an exception"),
    Listed(
        "component-ending",
        "Exiting gracefully upon receiving signal 15",
        words={"15": "the signal"},
    ),
    Listed(
        "component-ending",
        "Shutting down LocalExecutor; waiting for running tasks to finish.  Signal again if you",
    ),
    Listed("component-ending", "Exited execute loop"),
    Listed("trigger-runner-died", "Trigger runner process has died! Exiting."),
    Listed(
        "trigger-runner-died",
        "Triggerer's async thread was blocked for 0.53 seconds, likely by a badly-written trigger.",
    ),
    Listed(
        "pod-failed",
        f"Task {KEY} failed in pod airflow/sales-load-abc. Pod phase: Failed, reason: None, "
        "message: None, container_type: main, container_name: base, container_state: terminated, "
        "container_reason: Error, container_message: None, exit_code: 1",
        words={"airflow/sales-load-abc": "the pod"},
    ),
    Listed(
        "pod-failed",
        "Event: sales-load-abc Failed, task: sales.load.1, annotations: <omitted>",
        words={"sales-load-abc": "the pod"},
    ),
    # What others say
    Listed(
        "kernel-oom",
        "Out of memory: Killed process 24282 (airflow task ru) total-vm:913kB, anon-rss:1kB",
        {"24282": "the process that was killed"},
        {"airflow task ru": "its name"},
        parts=("Memory cgroup out of memory: Killed process 24282 (python) total-vm:913kB",),
    ),
    Listed(
        "kernel-oom",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,"
        "oom_memcg=/kubepods/x,task_memcg=/kubepods/x,task=airflow worker,pid=24282,uid=50000",
        {"24282": "the process that was killed"},
        {"airflow worker": "its name"},
    ),
    Listed(
        "kernel-oom",
        "oom_reaper: reaped process 24282 (python), now anon-rss:0kB, file-rss:0kB",
        {"24282": "the process whose memory"},
    ),
    Listed(
        "unit-ended",
        "airflow-worker.service: A process of this unit has been killed by the OOM killer.",
    ),
    Listed(
        "unit-ended",
        "airflow-scheduler.service: Main process exited, code=killed, status=9/KILL",
        words={"killed": "how the main", "9/KILL": "its status"},
    ),
    Listed("unit-ended", "airflow-worker.service: Failed with result 'oom-kill'."),
    Listed(
        "unit-ended",
        "airflow-worker.service: Killing process 24282 (airflow worker ) with signal SIGKILL.",
        {"24282": "a process that systemd ends"},
        {"airflow worker ": "its name", "SIGKILL": "the signal"},
    ),
    Listed(
        "unit-ended",
        "airflow.service: Unit process 24282 (airflow worker) remains running after unit stopped.",
        {"24282": "a process that outlived"},
    ),
    Listed("container-killed", "Reason: OOMKilled"),
    Listed("container-killed", "command terminated with exit code 137"),
    Listed(
        "shell-killed",
        "/tmp/x.sh: line 3: 24282 Killed                  python /x.py",
        {"24282": "a child of the task's shell"},
        {"3": "the line", "Killed": "how it ended"},
    ),
    Listed(
        "dag-reader",
        "DagFileProcessorManager (PID=11805) last sent a heartbeat 50.40 seconds ago! Restarting",
        {"11805": READER},
    ),
    Listed("dag-reader", "Launched DagFileProcessorManager with pid: 11805", {"11805": READER}),
    Listed(
        "dag-reader",
        "Processor for /dags/x.py with PID 123 started at 2026-01-01T00:00:00+00:00 has timed out, "
        "killing it.",
        {"123": READER},
    ),
    Listed(
        "dag-reader",
        "Processor for DagFileInfo(rel_path=PosixPath('x.py')) with PID 123 has been running for "
        "51.01 seconds, exceeding the timeout of 50.00 seconds. Killing it!",
        {"123": READER},
    ),
    Listed("dag-reader", "Started process (PID=123) to work on /dags/x.py", {"123": READER}),
    Listed("dag-reader", "Killing DAGFileProcessorProcess (PID=123)", {"123": READER}),
    Listed("dag-reader", "Killing child PID: 123", {"123": READER}),
    Listed("dag-reader", "Terminated PID 123", {"123": READER}),
    Listed("dag-reader", "Bundle  File Path  PID  Current Duration  # DAGs  # Errors"),
    Listed("web-worker", "[7] [CRITICAL] WORKER TIMEOUT (pid:38)", {"38": WEB}),
    Listed("web-worker", "Worker (pid:38) was sent SIGKILL! Perhaps out of memory?", {"38": WEB}),
    Listed("web-worker", "Booting worker with pid: 38", {"38": WEB}),
    Listed("web-worker", "Worker exiting (pid: 38)", {"38": WEB}),
    Listed("web-worker", "Worker (pid:38) exited with code 1.", {"38": WEB}),
    Listed("web-worker", "Started server process [4711]", {"4711": WEB}),
    Listed("web-worker", "Child process [4711] died", {"4711": WEB}),
    Listed("web-worker", "No response from gunicorn master within 120 seconds"),
    Listed(
        "pid-file",
        "airflow.exceptions.AirflowException: The scheduler is already running under PID 4711.",
        {"4711": "what the file names"},
        {"scheduler": "the component"},
    ),
    Listed(
        "pid-file",
        "Worker process with PID 4711 is not running, PID file /run/worker.pid is stale.",
        {"4711": "what the file names"},
    ),
)
