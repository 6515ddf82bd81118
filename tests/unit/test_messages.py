"""`explain --message`: every line that a user of Airflow 2.x or 3.x may have in hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail import cli
from pidtrail.airflow.messages import TABLE, names_in, readings
from pidtrail.cli.logs import log
from pidtrail.store import Recorder
from pidtrail.verdict.rules import RULES, code_of
from tests.unit.example_stories import impersonation
from tests.unit.listed import FURTHER, pairs
from tests.unit.story import Airflow2, Airflow3, header, ref, uuid

TI = uuid(7)
OF_NO_TASK = {"dag-reader", "web-worker", "pid-file"}
LINES = (
    ("recorded-pid", "Recorded pid 22693 does not match the current pid 22706"),
    ("executor-pid-mismatch", "Failed to execute task PID of job runner does not match."),
    (
        "heartbeat-pid-mismatch",
        "Heartbeat failed with Exception: PID of job runner does not match",
    ),
    ("pid-mismatch", "airflow.exceptions.AirflowException: PID of job runner does not match"),
    (
        "recorded-hostname",
        "The recorded hostname worker-1.example does not match this instance's hostname worker-2",
    ),
    ("hostname-mismatch", "AirflowException: Hostname of job runner does not match"),
    (
        "externally-set",
        "State of this instance has been externally set to failed. Terminating instance.",
    ),
    ("heartbeat-limit", "Heartbeat time limit exceeded!"),
    ("heartbeat-limit", "Time since last heartbeat(301.25s) exceeded limit (300s)."),
    ("job-shut-down", "Job shut down externally."),
    ("no-such-process", "psutil.NoSuchProcess: process PID not found (pid=4242)"),
    (
        "return-code",
        (
            "Task exited with return code -9. For more information, see "
            "https://airflow.apache.org/docs/apache-airflow/stable/troubleshooting.html#LocalTaskJob-killed"
        ),
    ),
    ("return-code", "Task exited with return code Negsignal.SIGKILL"),
    ("signal-to-process", "Sending the signal 15 to process 812 as process group is missing."),
    (
        "process-ended",
        (
            "Process psutil.Process(pid=812, status='terminated', exitcode=0) (812) terminated "
            "with exit code 0"
        ),
    ),
    ("received-sigterm", "Received SIGTERM. Terminating subprocesses."),
    ("received-sigterm", "airflow.exceptions.AirflowTaskTerminated: Task received SIGTERM signal"),
    ("heartbeat-recovered", "Heartbeat recovered after 12.34 seconds"),
    ("server-terminated", "Workload finished exit_code=-9 final_state=SERVER_TERMINATED"),
    ("command-return-code", "Command exited with return code -15"),
    (
        "job-killed",
        "Job 17 was killed before it finished (likely due to running out of memory)",
    ),
    (
        "already-running",
        (
            "Dependencies not met for <TaskInstance: sales.load manual__1 [running]>, dependency "
            "'Task Instance Not Running' FAILED: Task is in the running state"
        ),
    ),
    ("already-running", "Task is not able to be run"),
    (
        "signal-to-group",
        "Sending Signals.SIGTERM to group 200. PIDs of all processes in the group: [201, 200]",
    ),
    ("signal-to-group", "Sending the signal Signals.SIGTERM to group 200"),
    ("started-process", "Started process 7741 to run task"),
    (
        "zombie-job",
        (
            "Detected zombie job: {'full_filepath': '/dags/x.py', 'msg': \"{'DAG Id': 'sales', "
            "'Task Id': 'load', 'Run Id': 'manual__1', 'Hostname': 'vm'}\"}"
        ),
    ),
    ("zombie-job", "Failing (2) jobs without heartbeat after 2026-01-01 00:00:00+00:00"),
    ("without-heartbeat", "Detected a task instance without a heartbeat: {'msg': ''}"),
    ("without-heartbeat", "Failing 3 TIs without heartbeat after 2026-01-01 00:00:00+00:00"),
    ("duplicate-start", "Duplicate start request received"),
    ("invalid-state", "TI was not in a state where it could be marked as running"),
    ("invalid-state", "Cannot start Task Instance in invalid state previous_state=failed"),
    ("gone", "TaskInstance not in live table but archived in history"),
    ("not-found", "[error    ] Task Instance not found"),
    ("running-elsewhere", "Task running elsewhere current_hostname=vm current_pid=99999"),
    ("running-elsewhere", "TI is already running elsewhere"),
    ("not-running", "TI is no longer in the running state and task should terminate"),
    ("not-running", "Task not in running state current_state=failed"),
    ("server-indicated", "Server indicated the task shouldn't be running anymore"),
    (
        "server-indicated",
        "Server indicated the task shouldn\u2019t be running anymore. Terminating process",
    ),
    ("task-killed", "Task killed!"),
    ("heartbeat-not-sent", "Failed to send heartbeat. Will be retried failed_heartbeats=1"),
    ("heartbeat-not-sent", "Too many failed heartbeats; terminating process"),
    ("task-already-running", f"TaskAlreadyRunningError: Task instance {TI} is already running"),
    ("process-terminated", "Process terminated by signal"),
    (
        "process-terminated",
        "Process terminated by signal. Likely out of memory error (OOM). For more information, see",
    ),
    ("exited-abnormally", "Process exited abnormally exit_code=126"),
    (
        "executor-reports",
        (
            "Executor LocalExecutor(parallelism=8) reported that the task instance <TaskInstance: "
            "sales.load manual__1 [queued]> finished with state success, but the task instance's "
            "state attribute is queued. Learn more: https://airflow.apache.org/"
        ),
    ),
    (
        "executor-reports",
        (
            "The executor reported that the task instance <TaskInstance: sales.load manual__1 "
            "[queued]> finished with state failed, but the task instance's state attribute is "
            "queued."
        ),
    ),
    (
        "executor-reports",
        (
            "Executor reports task instance <TaskInstance: sales.load manual__1 [queued]> "
            "finished (failed) although the task says it's queued. (Info: None) Was the task "
            "killed externally?"
        ),
    ),
    (
        "orphan-reset",
        (
            "Reset the following 2 orphaned TaskInstances:\n\t<TaskInstance: sales.load manual__1 "
            "[running]>\n\t<TaskInstance: sales.dump manual__1 [running]>"
        ),
    ),
    ("try-number-mismatch", "TI try_number mismatch: db_try_number=2, event_try_number=1"),
    (
        "finished-line",
        (
            "TaskInstance Finished: dag_id=sales, task_id=load, run_id=manual__1, map_index=-1, "
            "try_number=1, state=success, executor=x, pid=2565"
        ),
    ),
    ("audit-heartbeat-timeout", "heartbeat timeout"),
    ("audit-state-mismatch", "state mismatch"),
    (
        "celery-redelivered",
        f"[{TI}] Task already running elsewhere, ignoring redelivered message",
    ),
    ("celery-executing", f"[{TI}] Executing workload in Celery: dag_rel_path=PurePosixPath('x')"),
    ("celery-executing", f"[{TI}] Executing command in Celery: ['airflow', 'tasks', 'run', 'd']"),
    (
        "celery-command-failed",
        (
            f"Celery command failed on host: worker-1 with celery_task_id {TI} "
            "(PID: 812, Return Code: 256)"
        ),
    ),
    ("celery-command-failed", f"Celery command failed on host: worker-1 with celery_task_id {TI}"),
    ("celery-failed-to-execute", f"[{TI}] Failed to execute task."),
    (
        "celery-process-exited",
        "Process 'ForkPoolWorker-2' pid:24729 exited with 'signal 9 (SIGKILL)'",
    ),
    ("celery-process-exited", "Process 'ForkPoolWorker-2' pid:24729 exited with 'exitcode 155'"),
    (
        "celery-worker-lost",
        (
            "Task handler raised error: WorkerLostError('Worker exited prematurely: signal 9 "
            "(SIGKILL) Job: 1.')"
        ),
    ),
    ("celery-restoring", "Restoring 1 unacknowledged message(s)"),
    ("celery-shutdown", "worker: Warm shutdown (MainProcess)"),
    ("celery-adopted", "Adopted the following 2 tasks from a dead executor"),
    ("celery-received", f"Task execute_workload[{TI}] received"),
    ("celery-succeeded", f"Task execute_workload[{TI}] succeeded in 2.3124s: None"),
    ("celery-raised", f"Task execute_workload[{TI}] ignored"),
    (
        "celery-raised",
        f"Task a.b.execute_command[{TI}] raised unexpected: AirflowException('it failed')",
    ),
    ("celery-revoked", f"Discarding revoked task: execute_workload[{TI}]"),
    ("celery-revoked", f"Terminating {TI} (Signals.SIGTERM)"),
    ("celery-id", f"Setting external_id for <TaskInstance: a.b manual__1 [queued]> to {TI}"),
    ("celery-id", f"external_executor_id={TI}"),
    ("celery-id", f"Celery task UUID {TI}"),
    ("late-result", "TI was not in the running state so it cannot be updated"),
    ("late-result", "Cannot update Task Instance in invalid state previous_state=failed"),
    ("worker-starting", "Worker starting up pid=812"),
    ("process-stopped", "Process did not terminate in time; escalating pid=812 signal=SIGTERM"),
    ("process-stopped", "Process exited [supervisor] exit_code=0 pid=10498 signal_sent=SIGINT"),
    (
        "sudo-password",
        (
            "Job 7: Subtask t sudo: a terminal is required to read the password; either use the -S "
            "option to read from standard input or configure an askpass helper"
        ),
    ),
    ("sudo-password", "Job 7: Subtask t sudo: a password is required"),
    (
        "sudo-not-allowed",
        (
            "Sorry, user backup is not allowed to execute '/opt/airflow/bin/python -c from "
            "airflow.sdk.execution_time.task_runner import main; main()' as news on vm."
        ),
    ),
    ("sudo-unknown-user", "sudo: unknown user nobody-of-this-name"),
    ("sudo-unknown-user", "sudo: error initializing audit plugin sudoers_audit"),
    ("sudo-no-command", "Job 2: Subtask t sudo: airflow: command not found"),
    (
        "sudo-errand",
        (
            "subprocess.CalledProcessError: Command '['sudo', 'chown', 'nobody-of-this-name', "
            "'/tmp/tmpmg6bqwk0']' returned non-zero exit status 1."
        ),
    ),
    ("not-started-yet", "Heartbeat failed with Exception: Process is not started yet"),
    (
        "call-of-start",
        f"Client error '409 Conflict' for url 'http://api:8080/execution/task-instances/{TI}/run'",
    ),
    (
        "call-of-start",
        f"request finished method=PATCH path=/execution/task-instances/{TI}/run status_code=400",
    ),
    (
        "call-of-heartbeat",
        f"PUT /execution/task-instances/{TI}/heartbeat HTTP/1.1 409 Conflict",
    ),
    (
        "call-of-heartbeat",
        f"HTTP Request: PUT http://api/execution/task-instances/{TI}/heartbeat 'HTTP/1.1 410 Gone'",
    ),
    (
        "call-of-result",
        f"PATCH /execution/task-instances/{TI}/state HTTP/1.1 409 Conflict",
    ),
    *((one.kind, f"{one.text}{pairs(one.fields)}") for one in FURTHER),
)


@pytest.mark.parametrize(("kind", "line"), LINES)
@pytest.mark.parametrize(
    "dress",
    [
        "{}",
        "[2026-01-31, 08:00:01 UTC] {{local_task_job_runner.py:341}} WARNING - {}",
        "2026-01-31T08:00:01.123456Z [warning  ] {} [supervisor] loc=supervisor.py:1121",
        '"{}"',
        "why does it say\n   '{}' ?",
        '{{"timestamp": "2026-01-31T08:00:01Z", "level": "error", "event": "{}"}}',
    ],
)
def test_a_line_is_known_in_every_dress(kind: str, line: str, dress: str) -> None:
    """With timestamps, prefixes, quotes, or in JSON; and it is not taken for another."""
    found = readings(dress.format(line))

    assert [reading.message.kind for reading in found] == [kind]


def test_every_message_has_a_line_and_all_there_is_to_say() -> None:
    """Nothing is in the table that no test knows; the codes are verdicts; kinds are unique."""
    codes = {code_of(rule) for rule in RULES}

    kinds = [message.kind for message in TABLE]
    assert set(kinds) == {kind for kind, _ in LINES} | {"id-alone"}
    assert len(kinds) == len(set(kinds))
    for message in TABLE:
        assert all((message.versions, message.where, message.meaning, message.alarm))
        assert message.advice
        assert set(message.codes) <= codes, message.kind
        assert bool(message.codes) != (message.kind in OF_NO_TASK), message.kind


def test_which_number_is_which_process() -> None:
    """The numbers of a message are told apart."""
    (found,) = readings("Recorded pid '22693' does not match the current pid '22706'")

    assert [mention.value for mention in found.pids] == ["22693", "22706"]
    assert "runner" in found.pids[1].what


def test_the_numbers_of_celery_are_not_the_runner() -> None:
    """A pool process and a supervisor are named as such: neither is the process on record."""
    (exited,) = readings("Process 'ForkPoolWorker-2' pid:24729 exited with 'signal 9 (SIGKILL)'")
    (failed,) = readings(
        f"Celery command failed on host: w with celery_task_id {TI} (PID: 812, Return Code: 9)"
    )

    assert [(one.value, one.what) for one in exited.pids] == [("24729", "the pool process")]
    assert [one.value for one in exited.words] == ["ForkPoolWorker-2", "signal 9 (SIGKILL)"]
    assert [one.value for one in failed.pids] == ["812"]
    assert failed.pids[0].what.startswith("the supervisor")


@pytest.mark.parametrize(
    ("recorded", "current", "says"),
    [(1, 2, "a false alarm"), (2, 1, "no false alarm"), (3, 3, "printed the wrong one")],
)
def test_the_order_of_the_numbers_is_a_hint(recorded: int, current: int, says: str) -> None:
    """Who has the lower number was likely started before; it is not more than likely."""
    line = f"Recorded pid {recorded} does not match the current pid {current}"

    (found,) = readings(line)

    assert found.comparison is not None
    assert says in found.comparison


def test_the_members_of_a_group_are_numbers_of_processes() -> None:
    """The list that 2.x prints before it kills is the best that it writes down."""
    line = "Sending SIGTERM to group 200. PIDs of all processes in the group: [201, 200]"

    assert [mention.value for mention in readings(line)[0].pids] == ["200", "201", "200"]


def test_fields_beside_a_message_are_read_in_any_order() -> None:
    """Structured logs have the pids before the message or after it."""
    line = '{"current_pid": 99999, "current_hostname": "vm", "event": "Task running elsewhere"}'

    (found,) = readings(line)

    assert [mention.value for mention in found.pids] == ["99999"]
    assert [mention.value for mention in found.words] == ["vm"]


def test_several_messages_are_read_in_their_order() -> None:
    """A pasted log has more than one."""
    text = "\n".join(line for kind, line in LINES if kind in {"recorded-pid", "pid-mismatch"})

    assert [one.message.kind for one in readings(text)] == ["recorded-pid", "pid-mismatch"]


@pytest.mark.parametrize("text", ["", "hello", "pid", "Recorded pid does not match", "\0\x1b[31m"])
def test_what_is_not_known_is_not_guessed_at(text: str) -> None:
    assert readings(text) == []


FRAGMENTS = st.sampled_from([line for _, line in LINES] + ["<TaskInstance: ", "pid=", "dag_id='"])


@given(st.lists(st.one_of(st.text(), FRAGMENTS)).map("".join))
def test_no_text_makes_it_fail(text: str) -> None:
    """Whatever is pasted, there is an answer or none."""
    for found in readings(text):
        assert found.message.kind
        assert all(int(mention.value) >= 0 for mention in found.pids)
    assert isinstance(bool(names_in(text)), bool)


@pytest.mark.parametrize("piece", ["a", " ", "executor ", "pid=", "<TaskInstance: a.b c", "9", "."])
def test_a_huge_text_is_read_at_once(piece: str) -> None:
    """No pattern takes longer than the text is long, by and large."""
    assert readings(piece * 20_000) == []


def test_task_instances_are_found_by_the_words_of_all_versions() -> None:
    """As repr, as fields, as dict, as UUID; ids may have dots."""
    several = (
        "<TaskInstance: a.group.b manual__1 map_index=3 [running]>\n\t<TaskInstance: c.d r [x]>"
    )
    assert names_in(several).dotted == (("a.group.b", "manual__1", "3"), ("c.d", "r", None))
    assert names_in("{'DAG Id': 'a', 'Task Id': 'b.c', 'Run Id': 'r:1+0'}").fields == {
        "dag_id": "a",
        "task_id": "b.c",
        "run_id": "r:1+0",
    }
    assert names_in("dag_id=a, task_id=b, map_index=-1,").fields["map_index"] == "-1"
    assert names_in(f"ti {TI.upper()}").uuids == {TI}


class Outcome:
    """What one run of the command line gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def explain(capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Return a function that runs `pidtrail explain` in this process."""

    def run(*args: str | Path) -> Outcome:
        log.configure("text")
        status = cli.run(["explain", *(str(arg) for arg in args)])
        out, err = capsysbinary.readouterr()
        return Outcome(status, out.decode(), err.decode())

    return run


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording of the false alarm of 2.x with run_as_user as the own user."""
    path = tmp_path / "session.db"
    story, _ = impersonation()
    recorder = Recorder(path, header())
    recorder.write(story.events)
    recorder.close()
    return path


ALARM = "WARNING - Recorded pid {supervisor1} does not match the current pid {runner1}"


def alarm() -> str:
    """Return the line that 2.x prints about the recorded story."""
    story, _ = impersonation()
    return ALARM.format(**story.pids)


def test_a_message_is_explained_without_a_recording(explain: Any) -> None:
    done = explain("--message", ALARM.format(supervisor1=1, runner1=2))

    assert (done.status, done.err) == (0, "")
    for word in ("run_as_user", "impersonation", "2.10.1", "false alarm"):
        assert word in done.out


def test_with_a_recording_the_very_run_and_both_processes_are_found(
    explain: Any, recording: Path
) -> None:
    """The alarm on a real pair: its numbers are the supervisor and the runner, none changed."""
    done = explain(recording, "--message", alarm())

    assert done.status == 0
    assert "the supervisor of sales.load try 1" in done.out
    assert "the runner of sales.load try 1" in done.out
    assert "impersonation: Recorded PID" in done.out


def test_json_has_messages_and_verdicts(explain: Any, recording: Path) -> None:
    done = json.loads(explain(recording, "--message", alarm(), "--json").out)

    assert done["schema"] == "pidtrail.message/1"
    assert [one["kind"] for one in done["messages"]] == ["recorded-pid"]
    assert [one["code"] for one in done["report"]["verdicts"]] == ["impersonation"]
    assert all(number["seen"] for number in done["messages"][0]["pids"])


def test_two_runners_in_the_recording_outweigh_the_order_of_their_numbers(
    explain: Any, tmp_path: Path
) -> None:
    """Numbers begin anew at the lowest: the newer process may have the smaller one."""
    path = tmp_path / "two.db"
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1").wait(4)
    story.start("2", 4, log=2).report(ref(2), "running", "runner2").wait(9)
    story.exit("runner1").wait(5).exit("runner2")
    recorder = Recorder(path, header())
    recorder.write(story.events)
    recorder.close()

    for numbers in (("runner1", "runner2"), ("runner2", "runner1")):
        recorded, current = (story.pids[name] for name in numbers)
        line = f"Recorded pid {recorded} does not match the current pid {current}"
        (message,) = json.loads(explain(path, "--message", line, "--json").out)["messages"]
        assert "The alarm is real: they are two processes" in message["comparison"]


def test_a_process_that_was_gone_before_is_not_called_a_second_one(
    explain: Any, tmp_path: Path
) -> None:
    """The pid of the try before, still in the row (up to 2.1.3): the numbers alone are a hint."""
    path = tmp_path / "one.db"
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1").exit("runner1").wait(4)
    story.start("2", 4, log=2).report(ref(2), "running", "runner2").wait(9).exit("runner2")
    recorder = Recorder(path, header())
    recorder.write(story.events)
    recorder.close()

    line = "Recorded pid {runner1} does not match the current pid {runner2}".format(**story.pids)
    (message,) = json.loads(explain(path, "--message", line, "--json").out)["messages"]

    assert "likely started before" in message["comparison"]


def test_numbers_that_nobody_had_find_no_run(explain: Any, recording: Path) -> None:
    done = explain(recording, "--message", ALARM.format(supervisor1=9, runner1=8))

    assert done.status == 0
    assert "no task instance attempt matches" in done.out


def test_a_run_is_found_by_the_names_in_the_message(explain: Any, tmp_path: Path) -> None:
    """Of two task instances the one that the line names, by repr or by UUID."""
    path = tmp_path / "two.db"
    story = Airflow3().run("worker", "runner", ref(1, uuid(1))).exit("runner").idle("worker")
    story.run("worker", "second", ref(1, TI, map_index=3)).exit("second")
    recorder = Recorder(path, header())
    recorder.write(story.events)
    recorder.close()

    others = "<TaskInstance: other.load manual__1 [running]>\n\t"
    for line in (
        f"Task instance {TI} is already running",
        (
            f"Reset the following 2 orphaned TaskInstances:\n\t{others}<TaskInstance: sales.load "
            "manual__1 map_index=3 [running]>"
        ),
    ):
        done = json.loads(explain(path, "--message", line, "--json").out)
        assert [v["task"]["map_index"] for v in done["report"]["verdicts"]] == [3]


@pytest.fixture
def two_tries(tmp_path: Path) -> Path:
    """Return a recording of two tries with Celery; the queued row still shows the first's id."""
    path = tmp_path / "tries.db"
    story = Airflow2().start("1", 3)
    story.report(ref(), "running", "runner1", external_executor_id=uuid(8)).exit("runner1", 1 << 8)
    story.report(ref(2), "queued", "runner1", external_executor_id=uuid(8)).start("2", 4, log=2)
    story.report(ref(2), "running", "runner2", external_executor_id=uuid(9)).exit("runner2")
    recorder = Recorder(path, header())
    recorder.write(story.events)
    recorder.close()
    return path


@pytest.mark.parametrize(
    "line",
    [
        "Task execute_command[{}] received",
        "Task airflow.providers.celery.x.execute_workload[{}] succeeded in 2.31s: None",
        "[{}] Executing command in Celery: ['airflow', 'tasks', 'run', 'sales', 'load']",
        "Setting external_id for <TaskInstance: sales.load manual__1 [queued]> to {}",
        "external_executor_id = '{}'",
        "{}",
    ],
)
def test_the_id_of_a_celery_message_leads_to_the_try_that_it_started(
    explain: Any, two_tries: Path, line: str
) -> None:
    """Each message started one try; the row of the next shows its id for a while, as its pid."""
    for number, tried in ((8, 1), (9, 2)):
        done = json.loads(explain(two_tries, "--message", line.format(uuid(number)), "--json").out)

        assert [v["task"]["try_number"] for v in done["report"]["verdicts"]] == [tried]
        seen = [
            w["seen"] for m in done["messages"] for w in m["words"] if w["value"] == uuid(number)
        ]
        runner = {r["pid"] for v in done["report"]["verdicts"] for r in v["recorded"]
                  if r["external_executor_id"] == uuid(number)}  # fmt: skip
        assert seen == [[f"the id of sales.load try {tried}, recorded PID {pid}" for pid in runner]]


def test_an_id_that_nobody_has_finds_no_run(explain: Any, two_tries: Path) -> None:
    done = explain(two_tries, "--message", f"Task execute_command[{uuid(77)}] received")

    assert "no task instance attempt matches" in done.out


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["--message", "hello"], 1, "docs/messages.md"),
        (
            ["--message", "ModuleNotFoundError: No module named 'x'"],
            1,
            "no message about processes",
        ),
        (["--message", "pid 22693"], 1, "explain --pid 22693"),
        (["--message", " \n"], 2, "is empty"),
        (["-", "--message", "-"], 2, "stdin"),
        (["--message", "Task killed!", "--code", "retry"], 2, "--code"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    explain: Any, args: list[str], status: int, says: str
) -> None:
    done = explain(*args)

    assert (done.status, done.out) == (status, "")
    assert done.err.count("\n") == 1
    assert says in done.err
