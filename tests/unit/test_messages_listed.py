"""
Every message that Airflow 2.x and 3.x have about PIDs, as their sources spell it.

Read in airflow/jobs/local_task_job_runner.py, utils/process_utils.py @ 2.10.5,
jobs/scheduler_job_runner.py @ 2.10.5 and 3.3.2, api_fastapi/execution_api/routes/task_instances.py
@ 3.3.2 and airflow/sdk/execution_time/supervisor.py @ 1.3.2. Each is given as it is written, in
all the dresses of real logs, and in the parts that people paste.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable
from typing import Final

import pytest

from pidtrail.airflow.messages import readings
from tests.unit.listed import FURTHER, REPR, TI, Listed, pairs

NOISE: Final = 'File "/x/site-packages/airflow/cli/cli_parser.py", line 49, in command\n' * 900

IN_ROW, RUNNER = "the row's pid", "the runner of this supervisor"
API_ROW, ASKED = "the process in the row", "the runner of the supervisor"
LIST: Final = (
    # 2.x, the supervisor's heartbeat
    Listed(
        "recorded-hostname",
        "The recorded hostname worker-1.example does not match this instance's hostname worker-2",
        words={"worker-1.example": "the host in the row", "worker-2": "the host of this"},
        parts=("recorded hostname worker-1.example does not match",),
    ),
    Listed("hostname-mismatch", "Hostname of job runner does not match"),
    Listed(
        "recorded-pid",
        "Recorded pid 22693 does not match the current pid 22706",
        {"22693": IN_ROW, "22706": RUNNER},
        parts=(
            "pid 22693 does not match the current pid 22706",
            "does not match the current pid 22706",
            "Recorded pid 22693 does not match the current",
            "Recorded pid 22693 does not match",
        ),
    ),
    Listed("pid-mismatch", "PID of job runner does not match"),
    Listed(
        "heartbeat-pid-mismatch",
        "Heartbeat failed with Exception: PID of job runner does not match",
    ),
    Listed("executor-pid-mismatch", "Failed to execute task PID of job runner does not match."),
    Listed(
        "externally-set",
        "State of this instance has been externally set to failed. Terminating instance.",
        words={"failed": "what the row says now"},
        parts=("externally set to failed", "has been externally set to failed. Terminating"),
    ),
    Listed(
        "no-such-process",
        "psutil.NoSuchProcess: process no longer exists (pid=4242, name='python')",
        {"4242": "the process that was gone"},
        parts=("NoSuchProcess",),
    ),
    Listed(
        "no-such-process",
        "psutil.NoSuchProcess: process PID not found (pid=4242)",
        {"4242": "the process that was gone"},
    ),
    Listed("heartbeat-limit", "Heartbeat time limit exceeded!"),
    Listed("heartbeat-limit", "Time since last heartbeat(301.25s) exceeded limit (300s)."),
    Listed("job-shut-down", "Job shut down externally."),
    Listed(
        "return-code",
        "Task exited with return code -9. For more information, see https://airflow.apache.org/"
        "docs/apache-airflow/stable/troubleshooting.html#LocalTaskJob-killed",
        words={"-9": "the exit code, or the signal"},
        parts=("exited with return code -9",),
    ),
    Listed(
        "return-code",
        "Task exited with return code Negsignal.SIGKILL",
        words={"SIGKILL": "the exit code, or the signal"},
    ),
    Listed(
        "job-killed",
        "Job 17 was killed before it finished (likely due to running out of memory)",
        words={"17": "the LocalTaskJob"},
        parts=("Job 17 was killed before it finished",),
    ),
    Listed(
        "already-running",
        f"Dependencies not met for {REPR}, dependency 'Task Instance Not Running' FAILED: Task is "
        "in the running state",
        parts=("FAILED: Task is in the running state",),
    ),
    Listed("already-running", "Task is not able to be run"),
    Listed(
        "signal-to-group",
        "Sending 15 to group 200. PIDs of all processes in the group: [201, 200]",
        {"200": "in the group", "201": "in the group"},
        words={"15": "the signal"},
        parts=("Sending Signals.SIGTERM to group 200",),
    ),
    Listed(
        "signal-to-group",
        "Sending the signal Signals.SIGTERM to group 200",
        {"200": "the process group"},
        words={"Signals.SIGTERM": "the signal"},
    ),
    Listed(
        "signal-to-process",
        "Sending the signal Signals.SIGKILL to process 200 as process group is missing.",
        {"200": "the runner"},
        words={"Signals.SIGKILL": "the signal"},
    ),
    Listed(
        "process-ended",
        "Process psutil.Process(pid=200, status='terminated', exitcode=0) (200) terminated with "
        "exit code 0",
        {"200": "the process that has ended"},
        words={"0": "its exit code"},
    ),
    Listed("received-sigterm", "Received SIGTERM. Terminating subprocesses."),
    Listed("started-process", "Started process 7741 to run task", {"7741": "the runner"}),
    # 3.x, the execution API
    Listed("duplicate-start", "Duplicate start request received", fields={"hostname": "vm"}),
    Listed(
        "invalid-state",
        "TI was not in a state where it could be marked as running",
        parts=("invalid_state",),
    ),
    Listed(
        "invalid-state",
        "Cannot start Task Instance in invalid state",
        words={"running": "what the row said"},
        fields={"previous_state": "running"},
    ),
    Listed("not-found", "Task Instance not found", fields={"ti_id": TI}),
    Listed(
        "gone",
        "TaskInstance not in live table but archived in history",
        fields={"ti_id": TI},
        parts=(
            "Client error '410 Gone' for url 'http://127.0.0.1:8080/execution/x/heartbeat'",
            "Task Instance not found, it may have been moved to the Task Instance History table",
        ),
    ),
    Listed(
        "running-elsewhere",
        "TI is already running elsewhere",
        {"99999": API_ROW},
        words={"vm": "the host in the row"},
        fields={"current_hostname": "vm", "current_pid": 99999},
        parts=("409 running_elsewhere",),
    ),
    Listed(
        "running-elsewhere",
        "Task running elsewhere",
        {"99999": API_ROW, "10881": ASKED},
        words={"vm": "the host in the row", "worker-2": "its host"},
        fields={
            "current_hostname": "vm",
            "current_pid": 99999,
            "requested_hostname": "worker-2",
            "requested_pid": 10881,
            "ti_id": TI,
        },
    ),
    Listed(
        "not-running",
        "TI is no longer in the running state and task should terminate",
        words={"failed": "what the row had become"},
        fields={"current_state": "failed"},
        parts=("409 not_running", "TI is no longer in the running state"),
    ),
    Listed(
        "not-running",
        "Task not in running state",
        words={"failed": "what the row had become"},
        fields={"current_state": "failed"},
    ),
    Listed(
        "late-result",
        "TI was not in the running state so it cannot be updated",
        words={"failed": "what the row said"},
        fields={"previous_state": "failed"},
    ),
    # 3.x, the supervisor
    Listed(
        "server-indicated",
        "Server indicated the task shouldn't be running anymore",
        words={"409": "the status of the answer"},
        fields={"status_code": 409, "ti_id": TI},
    ),
    Listed("server-indicated", "Server indicated the task shouldn't be running anymore. "
           "Terminating process"),
    Listed("task-killed", "Task killed!"),
    Listed("server-terminated", "SERVER_TERMINATED"),
    Listed("heartbeat-not-sent", "Failed to send heartbeat. Will be retried",
           fields={"failed_heartbeats": 1, "max_retries": 3}),
    Listed("heartbeat-not-sent", "Too many failed heartbeats; terminating process"),
    Listed(
        "task-already-running",
        f"Task instance {TI} is already running",
        words={TI: "the task instance's id"},
        parts=("airflow.sdk.exceptions.TaskAlreadyRunningError",),
    ),
    Listed("process-terminated", "Process terminated by signal"),
    Listed(
        "process-terminated",
        "Process terminated by signal. Likely out of memory error (OOM). For more information, see "
        "https://airflow.apache.org/docs/apache-airflow/stable/troubleshooting.html"
        "#process-terminated-by-signal.",
        words={"SIGKILL": "the signal"},
        fields={"signal": -9, "signal_name": "SIGKILL"},
    ),
    Listed(
        "exited-abnormally",
        "Process exited abnormally",
        words={"126": "the exit code"},
        fields={"exit_code": 126},
    ),
    Listed("worker-starting", "Worker starting up pid=812", {"812": "an executor worker"}),
    # The scheduler
    Listed(
        "zombie-job",
        "Detected zombie job: {'full_filepath': '/dags/x.py', 'msg': \"{'DAG Id': 'sales', 'Task "
        "Id': 'load', 'Run Id': 'manual__1', 'Hostname': 'vm'}\"}",
        parts=("Detected zombie job",),
    ),
    Listed("zombie-job", "Failing (2) jobs without heartbeat after 2026-01-01 00:00:00+00:00",
           words={"2": "how many"}),
    Listed("without-heartbeat", "Detected a task instance without a heartbeat: {'msg': ''}"),
    Listed("without-heartbeat", "Failing 2 TIs without heartbeat after 2026-01-01 00:00:00+00:00",
           words={"2": "how many"}),
    Listed(
        "executor-reports",
        f"Executor LocalExecutor(parallelism=8) reported that the task instance {REPR} finished "
        "with state success, but the task instance's state attribute is queued. Learn more: "
        "https://airflow.apache.org/docs/apache-airflow/stable/troubleshooting.html#"
        "task-state-changed-externally",
        words={"success": "what the executor says", "queued": "what the row said"},
        parts=("finished with state success, but the task instance's state attribute is queued",),
    ),
    Listed(
        "executor-reports",
        f"The executor reported that the task instance {REPR} finished with state failed, but the "
        "task instance's state attribute is queued. Learn more: https://airflow.apache.org/",
        words={"failed": "what the executor says", "queued": "what the row said"},
    ),
    Listed(
        "executor-reports",
        f"Executor reports task instance {REPR} finished (failed) although the task says it's "
        "queued. (Info: None) Was the task killed externally?",
        words={"failed": "what the executor says", "queued": "what the row said"},
        parts=("finished (failed) although the task says its queued",),
    ),
    Listed(
        "orphan-reset",
        f"Reset the following 2 orphaned TaskInstances:\n\t{REPR}\n\t{REPR}",
        words={"2": "how many"},
    ),
    Listed(
        "try-number-mismatch",
        "TI try_number mismatch: db_try_number=2, event_try_number=1",
        words={"2": "the row's try"},
        parts=("TI try_number mismatch",),
    ),
    Listed(
        "finished-line",
        "TaskInstance Finished: dag_id=sales, task_id=load, run_id=manual__1, map_index=-1, "
        f"ti_id={TI}, run_start_date=2026-11-23 06:39:44.384765+00:00, run_end_date=2026-11-23 "
        "06:39:47.384765+00:00, run_duration=3.0, state=success, "
        "executor=CeleryExecutor(parallelism=32), executor_state=success, try_number=1, "
        "max_tries=0, pool=default_pool, queue=default, priority_weight=1, "
        "operator=PythonOperator, queued_dttm=2026-11-23 06:39:38.863040+00:00, "
        "scheduled_dttm=2026-11-23 06:39:38.843040+00:00,queued_by_job_id=2, pid=2565",
        {"2565": "the row's pid when"},
        parts=("TaskInstance Finished: dag_id=sales, task_id=load, run_id=manual__1",),
    ),
    Listed("audit-heartbeat-timeout", "heartbeat timeout"),
    Listed("audit-state-mismatch", "state mismatch"),
    *FURTHER,
)  # fmt: skip


def task_log_2(one: Listed) -> str:
    """Return a line of a task's log in 2.x."""
    return (
        f"[2026-11-23T06:40:06.215+0000] {{local_task_job_runner.py:318}} WARNING - {one.text}"
        f"{pairs(one.fields)}"
    )


def coloured_2(one: Listed) -> str:
    """Return a line of a 2.x scheduler on a terminal, which marks what was filled in."""
    marked = one.text
    for number in one.pids:
        marked = marked.replace(number, f"\x1b[1m{number}\x1b[22m")
    return (
        "[\x1b[34m2026-11-23T06:40:06.215+0000\x1b[0m] {\x1b[34mscheduler_job_runner.py:\x1b[0m813}"
        f" WARNING\x1b[0m - \x1b[33m{marked}\x1b[0m{pairs(one.fields)}\x1b[0m"
    )


def console_3(one: Listed) -> str:
    """Return a line of a 3.x service."""
    fields = pairs({"loc": "task_instances.py:955"} | dict(one.fields))
    return f"2026-11-23T06:39:59.130747Z [warning  ] {one.text:<30} [supervisor]{fields}"


def coloured_3(one: Listed) -> str:
    """Return a line of a 3.x service on a terminal (structlog's ConsoleRenderer)."""
    fields = "".join(
        f" \x1b[36m{key}\x1b[0m=\x1b[35m{value}\x1b[0m" for key, value in one.fields.items()
    )
    return (
        "\x1b[2m2026-11-23T06:39:59.130747Z\x1b[0m [\x1b[33m\x1b[1mwarning  \x1b[0m] "
        f"\x1b[1m{one.text}\x1b[0m [\x1b[0m\x1b[1m\x1b[34msupervisor\x1b[0m]\x1b[0m{fields}"
    )


def json_3(one: Listed) -> str:
    """Return a line of a task's log file in 3.x."""
    event = {"timestamp": "2026-11-23T06:39:59.154769Z", "level": "error", "event": one.text}
    return json.dumps(event | dict(one.fields) | {"logger": "task"}, separators=(",", ":"))


def api_answer(one: Listed) -> str:
    """Return the execution API's answer, in the log of who asked."""
    detail = {"reason": "x", "message": one.text} | dict(one.fields)
    return (
        "2026-11-23T06:39:59.130747Z [error    ] API server error [supervisor] "
        f"detail={{'detail': {detail}}} loc=supervisor.py:936 status_code=500"
    )


def page_3(one: Listed) -> str:
    """Return a line as the log page of 3.x shows it."""
    fields = "".join(f' {key}="{value}"' for key, value in one.fields.items())
    return f"[2026-11-23 06:39:59] ERROR - {one.text} source=task.stdout{fields}"


def traceback(one: Listed) -> str:
    """Return a traceback that ends with the message."""
    return (
        "[2026-11-23T06:40:06.215+0000] {taskinstance.py:3315} ERROR - Task failed with exception\n"
        "Traceback (most recent call last):\n"
        f"{NOISE}    raise AirflowException(message)\n"
        f"airflow.exceptions.AirflowException: {one.text}{pairs(one.fields)}\n"
    )


def in_frames(one: Listed) -> str:
    """Return a message in a frame of rich's, that Airflow's own tracebacks have."""
    rows = textwrap.wrap(f"{one.text}{pairs(one.fields)}", 70, break_on_hyphens=False)
    body = "\n".join(f"\u2502 {row:<70} \u2502" for row in rows)
    edge = "\u2500" * 72
    return f"\u256d{edge}\u256e\n{body}\n\u2570{edge}\u256f"


def at_the_edge(one: Listed) -> str:
    """Return a line that a terminal of eighty columns broke, within words and numbers."""
    line = task_log_2(one)
    return "\n".join(line[start : start + 80] for start in range(0, len(line), 80))


DRESSES: Final[dict[str, Callable[[Listed], str]]] = {
    "as it is": lambda one: f"{one.text}{pairs(one.fields)}",
    "task log of 2.x": task_log_2,
    "colours of 2.x": coloured_2,
    "console of 3.x": console_3,
    "colours of 3.x": coloured_3,
    "colours that cat -v showed": lambda one: coloured_3(one).replace("\x1b", "^["),
    "colours that lost ESC": lambda one: coloured_2(one).replace("\x1b", ""),
    "JSON of 3.x": json_3,
    "JSON in a log that is JSON": lambda one: json.dumps({"log": json_3(one) + "\n"}),
    "JSON with colours": lambda one: json.dumps({"log": coloured_3(one)}),
    "answer of the API": api_answer,
    "log page of 3.x": page_3,
    "HTML of a mail": lambda one: (
        f"<b>Exception:</b><br>{html.escape(one.text)}{pairs(one.fields)}"
    ),
    "end of a long traceback": traceback,
    "frames": in_frames,
    "broken between words": lambda one: "\n".join(
        textwrap.wrap(console_3(one), 50, break_long_words=False, break_on_hyphens=False)
    ),
    "broken by a terminal": at_the_edge,
}


@pytest.mark.parametrize("one", LIST, ids=lambda one: one.text[:40])
@pytest.mark.parametrize("dress", DRESSES)
def test_every_listed_message_is_read_in_every_dress(one: Listed, dress: str) -> None:
    """The message is known, it and no other, and each number and word has its role."""
    if dress == "broken by a terminal" and "\n" in one.text:
        dress = "as it is"  # a message of several lines has breaks of its own

    (found,) = readings(DRESSES[dress](one))

    assert found.message.kind == one.kind
    roles = {mention.value: mention.what for mention in found.pids}
    assert roles.keys() == one.pids.keys()
    for number, role in one.pids.items():
        assert roles[number].startswith(role)
    told = {mention.value: mention.what for mention in found.words}
    for word, role in one.words.items():
        assert told[word].startswith(role)


@pytest.mark.parametrize(
    ("one", "part"),
    [(one, part) for one in LIST for part in one.parts],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_part_of_a_message_is_enough(one: Listed, part: str) -> None:
    """Who copies from the middle of a line, or not to its end, is answered the same."""
    (found,) = readings(part)

    assert found.message.kind == one.kind
    assert {mention.value for mention in found.pids} <= one.pids.keys()


def test_the_word_before_a_field_is_not_its_value() -> None:
    """As real lines have them: a comma is no equals sign, and a minus belongs to the number."""
    (passed,) = readings(
        "2026-11-23T07:30:37.547791Z [info     ] Received signal, forwarding to task subprocess "
        "[supervisor] loc=supervisor.py:1504 pid=20126 signal=SIGTERM"
    )
    (exited,) = readings("Process exited [supervisor] exit_code=-9 pid=20560 signal_sent=SIGKILL")

    assert [mention.value for mention in passed.pids + passed.words] == ["20126", "SIGTERM"]
    assert [mention.value for mention in exited.words] == ["SIGKILL", "-9"]


def test_a_refusal_is_one_reading_of_its_kind() -> None:
    """410 has the reason of 404 in it, and the words of a later version."""
    line = (
        "Server indicated the task shouldn't be running anymore [supervisor] detail={'reason': "
        "'not_found', 'message': 'Task Instance not found, it may have been moved to the Task "
        "Instance History table'} loc=supervisor.py:1720 status_code=410"
    )

    assert [one.message.kind for one in readings(line)] == ["server-indicated", "gone"]


@pytest.mark.parametrize("begin", ["[2026-01-31 08:00:01] x", "2026-01-31T08:00:01Z x", '{"a": 1}'])
def test_two_lines_are_not_one_that_was_broken(begin: str) -> None:
    """A number at the end of a line does not go on with the date of the next."""
    line = f"{'x' * 60} Recorded pid 22693 does not match the current pid 227"

    (found,) = readings(f"{line}\n{begin}")

    assert [mention.value for mention in found.pids] == ["22693", "227"]
