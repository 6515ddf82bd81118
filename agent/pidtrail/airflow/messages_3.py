"""
What the messages of Airflow 3.x about processes mean, and those of both generations.

Read in airflow/sdk/execution_time/supervisor.py, jobs/scheduler_job_runner.py and
airflow/api_fastapi/execution_api/routes/task_instances.py of the released packages.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

IN_ROW: Final = "the process in the row, as the API was told with its start"
ASKED: Final = "the runner of the supervisor whose heartbeat was refused"

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "without-heartbeat",
        words(
            r"detected a task instance without a heartbeat"
            r"|failing \(?N(count) ?\)? TIs without heartbeat"
        ),
        "3.x",
        "scheduler log",
        "A row said running and had no heartbeat for task_instance_heartbeat_timeout (300 s). The "
        "task instance is failed or retried.",
        "Real for Airflow, but its process need not be dead: a runner whose supervisor was killed "
        "runs to its end and cannot report.",
        "See whether process and supervisor had ended, and who ended them; else the api-server.",
        ("heartbeat-timeout", "orphaned-still-running", "retry"),
        words={"count": "how many"},
    ),
    Message(
        "duplicate-start",
        words(r"duplicate (?:start|state update) request received"),
        "3.x",
        "api-server log",
        "The same supervisor asked twice for the same start (host, user and pid are equal), or "
        "told the same result twice: a repeated request.",
        "Harmless: it is answered as the first was.",
        "Nothing to do.",
        ("match",),
    ),
    Message(
        "late-result",
        words(
            r"TI was not in the running state so it cannot be updated"
            r"|cannot update task instance in invalid state"
        ),
        "3.x",
        "api-server log (409 invalid_state), task log",
        "A process told how its task instance ended, and the row did not say running any more: it "
        "was failed, cleared or reset meanwhile. What the process did is not kept in the row.",
        "Real: user code ran to its end, for nothing.",
        "`previous_state` says what the row had become; see who wrote it.",
        ("heartbeat-timeout", "clear", "orphan-reset", "concurrent-duplicate"),
        word_keys={"previous_state": "what the row said"},
    ),
    Message(
        "invalid-state",
        words(
            r"TI was not in a state where it could be marked as running"
            r"|cannot start task instance in invalid state|\binvalid_state\b"
        ),
        "3.x",
        "api-server log (409 invalid_state), log of the executor worker",
        "A start was refused, because the row was not queued: already running, ended, or changed "
        "in between. The process that had been forked for it is killed with SIGKILL before it "
        "runs anything, and its pid is recorded nowhere.",
        "Real: a process was started and refused. The task may be running rightly in another one.",
        "`previous_state` in the answer says why. `running`: a second start (broker, two "
        "schedulers). `success`, `failed`: it came too late. `scheduled`: too early.",
        ("aborted-start", "match", "stale-executor-event"),
        word_keys={"previous_state": "what the row said"},
    ),
    Message(
        "gone",
        words(
            r"TaskInstance not in live table but archived in history|\b410 gone\b"
            r"|(?:\breason\W{1,6}not_found\W{1,6}message\W{1,6})?"
            r"task instance not found,? it may have been moved to the task instance history"
        ),
        "3.2 and newer",
        "api-server log (410)",
        "A heartbeat came from a process of an earlier try: the task instance was cleared, reset "
        "or retried meanwhile and has another id. The supervisor ends the process.",
        "Real: the process belongs to a try that is over.",
        "The next try runs in another process, under another pid, as it should.",
        ("clear", "orphan-reset", "heartbeat-timeout", "concurrent-duplicate", "retry"),
    ),
    Message(
        "not-found",
        words(r"\btask instance not found\b|\breason\W{1,6}not_found\b"),
        "3.x (404); 3.2 and newer say 410 for a try that is over",
        "api-server log",
        "A heartbeat came for a task instance id that is in no row: it was cleared, reset, retried "
        "or deleted. The supervisor ends the process.",
        "Real: the process belongs to a try that is over.",
        "The next try runs in another process, as it should.",
        ("clear", "orphan-reset", "heartbeat-timeout", "concurrent-duplicate", "retry"),
    ),
    Message(
        "running-elsewhere",
        words(r"(?:TI is already|\btask) running elsewhere|\brunning_elsewhere\b"),
        "3.x",
        "api-server log, task log (409 running_elsewhere)",
        "A heartbeat came with another host or pid than the row has. The supervisor ends its "
        "process. No parents are compared in 3.x, so sudo cannot be the reason.",
        "Real: the row is another process's, or was changed by hand.",
        "Look for a second process of the task instance; if there is none, see who wrote the row.",
        (
            "concurrent-duplicate",
            "orphan-reset",
            "other-host",
            "clear",
            "undetermined",
            "never-seen",
        ),
        pid_keys={"current_pid": IN_ROW, "requested_pid": ASKED},
        word_keys={"current_hostname": "the host in the row", "requested_hostname": "its host"},
    ),
    Message(
        "not-running",
        words(
            r"TI is no longer in the running state(?: and task should terminate)?"
            r"|\btask not in running state|\bnot_running\b"
        ),
        "3.x",
        "api-server log, task log (409 not_running)",
        "A heartbeat came while the row said something else than running: somebody or something "
        "changed the state. The supervisor ends its process.",
        "Real: the process is terminated. Its PID is the right one.",
        "`current_state` says what the row had become; the audit log or the scheduler's, by whom.",
        ("clear", "heartbeat-timeout", "stale-executor-event", "orphan-reset", "match"),
        word_keys={"current_state": "what the row had become"},
    ),
    Message(
        "server-indicated",
        words(r"server indicated the task shouldn'?t be running any ?more"),
        "3.x",
        "task log, log of the executor worker",
        "The API refused a heartbeat (404, 409, 410), and the supervisor ends its process. The "
        "reason is in `detail`: not_running, running_elsewhere, or not found.",
        "Real: the process is terminated.",
        "See the kind of refusal. Who changed the row is in the audit log or the scheduler's.",
        ("clear", "orphan-reset", "heartbeat-timeout", "concurrent-duplicate", "match"),
        pid_keys={"current_pid": IN_ROW},
        word_keys={
            "reason": "the kind of refusal",
            "status_code": "the status of the answer: 404, 409 or 410",
            "current_state": "what the row said",
            "current_hostname": "the host in the row",
        },
    ),
    Message(
        "server-terminated",
        words(r"\bSERVER_TERMINATED\b"),
        "3.x",
        "log of the executor worker",
        "A supervisor is done with a task whose heartbeat the API had refused.",
        "Real: the process was terminated.",
        "See `Server indicated the task shouldn't be running anymore`, some lines before.",
        ("clear", "orphan-reset", "heartbeat-timeout", "concurrent-duplicate", "match"),
    ),
    Message(
        "task-killed",
        words(r"\btask killed!"),
        "3.x",
        "task log",
        "The supervisor has ended its process after a refused heartbeat.",
        "Not a mismatch by itself; the line before says why.",
        "See `Server indicated the task shouldn't be running anymore`.",
        ("clear", "orphan-reset", "heartbeat-timeout", "concurrent-duplicate", "match"),
    ),
    Message(
        "heartbeat-not-sent",
        words(r"failed to send heartbeat\.? will be retried|too many failed heartbeats"),
        "3.x",
        "task log, log of the executor worker",
        "The supervisor cannot reach the api-server; after max_failed_heartbeats (3) in a row it "
        "ends its own process.",
        "Real trouble of the api-server or the network, not of the process.",
        "Look at the api-server; raise [workers] max_failed_heartbeats if it restarts often.",
        ("retry", "heartbeat-timeout", "match"),
    ),
    Message(
        "task-already-running",
        words(r"TaskAlreadyRunningError|\btask instance W(ti) is already running"),
        "3.2 and newer",
        "log of the executor worker",
        "A second start of a running task instance was refused. The process forked for it was "
        "killed before it ran anything.",
        "Harmless for the task: it runs in the first process.",
        "If it comes often, look at the broker's visibility_timeout.",
        ("aborted-start", "match"),
        words={"ti": "the task instance's id"},
    ),
    Message(
        "process-terminated",
        words(r"process terminated by signal(?:\.? likely out of memory error)?"),
        "3.x (the guess at memory: 3.1 and newer, for SIGKILL)",
        "task log",
        "The runner was ended by a signal. `Likely out of memory error` is said of every SIGKILL.",
        "Real death; the reason given is not evidence.",
        "Only the kernel knows the sender: `killed_by` of the verdict says `oom` if it was.",
        ("match", "retry", "worker-restart", "died-unrecorded"),
        word_keys={"signal_name": "the signal"},
    ),
    Message(
        "worker-starting",
        words(r"\bworker starting up(?: pid=N(pid))?"),
        "3.x",
        "scheduler log",
        "LocalExecutor forked a worker. It supervises one task after the other and forks a runner "
        "for each.",
        "Not an alarm.",
        "This number is never the one on record, which is the runner's.",
        ("match",),
        {"pid": "an executor worker, the supervisor of its tasks"},
    ),
    Message(
        "process-stopped",
        words(
            r"process did not terminate in time|\bprocess exited\b(?=.{0,200}\bsignal_sent\b)"
            r"|received signal, forwarding to task subprocess"
        ),
        "3.x (passing a signal on: 3.3 and newer)",
        "log of the executor worker",
        "A supervisor ends its runner: it sends SIGTERM, then SIGKILL if that takes too long, or "
        "passes on the signal that it got itself.",
        "Real: the process is ended from above; a line before says why.",
        "The recording has the sender of each signal: `killed_by` of the verdict.",
        ("clear", "worker-restart", "heartbeat-timeout", "match"),
        pid_keys={"pid": "the process of this supervisor; in a worker's log the runner"},
        word_keys={"signal_sent": "the signal", "signal": "the signal", "exit_code": "its exit"},
    ),
    Message(
        "exited-abnormally",
        words(r"process exited abnormally"),
        "3.x",
        "task log",
        "The runner ended with another exit code than 0.",
        "Not a mismatch.",
        "126 is a runner that failed outside of the task's code, mostly for its supervisor was "
        "gone and it could not report; 124 one that failed right after its fork.",
        ("match", "retry", "orphaned-still-running"),
        word_keys={"exit_code": "the exit code"},
    ),
    Message(
        "executor-reports",
        words(
            r"(?:reported that the task instance ..)?finished with state W(event),? "
            r"(?:but|although) the task instance's state attribute is W(state)"
            r"|(?:reports task instance ..)?finished \(W(event1)?\) although the task says "
            r"it'?s W(state1)"
        ),
        "2.x and 3.x (other words up to 2.8)",
        "scheduler log, UI",
        "A process ended, and the row does not say what the end of a process should have left "
        "there. Airflow fails the task instance.",
        "Real if the process died before it could report (SIGKILL). False if the event is of an "
        "earlier poke or deferral and the row was queued for the next one: then Airflow fails a "
        "task whose process was about to run.",
        "See when the process ended, how long it stayed unreaped, and what started after it.",
        ("stale-executor-event", "died-unrecorded", "retry", "aborted-start", "match"),
        words={
            "event": "what the executor says of the end",
            "state": "what the row said",
            "event1": "what the executor says of the end",
            "state1": "what the row said",
        },
    ),
    Message(
        "orphan-reset",
        words(r"(?:reset the following )?(?:N(count) )?orphaned task ?instances"),
        "2.x and 3.x",
        "scheduler log",
        "A scheduler took these task instances for orphaned, for the one that had queued them was "
        "dead or slow, and starts them again. LocalExecutor cannot adopt what runs.",
        "Real: a process of the old try that still lives goes on, beside the new one. 3.x ends it "
        "at its next heartbeat if its supervisor lives; 2.x does not, and its result may be kept.",
        "Look for old processes: a killed LocalExecutor scheduler leaves its workers behind.",
        ("orphan-reset", "concurrent-duplicate", "worker-restart", "orphaned-still-running"),
        words={"count": "how many"},
    ),
    Message(
        "try-number-mismatch",
        words(r"TI try_number mismatch(?:\W{1,3}db_try_number=N(try))?"),
        "3.1.8 and newer",
        "scheduler log",
        "An executor's event is of another try than the row, and is left aside.",
        "Harmless: it is the guard against late events of an earlier try.",
        "Nothing to do, unless two schedulers advance the same task instances.",
        ("retry", "clear", "orphan-reset", "concurrent-duplicate"),
        words={"try": "the row's try"},
    ),
    Message(
        "finished-line",
        words(r"TaskInstance finished:(?:.{0,2000}?\bpid=N(pid))?"),
        "2.x and 3.x",
        "scheduler log",
        "What the scheduler makes of an executor's event. The try number is the event's; state, "
        "start and pid are those of the row at that moment, which may be of a later process.",
        "A trap: try number and pid need not belong together.",
        "Look up the pid in a recording instead of believing the pair.",
        ("retry", "reschedule", "deferral", "stale-executor-event", "match"),
        {"pid": "the row's pid when the line was written, perhaps of a later process"},
    ),
    Message(
        "audit-heartbeat-timeout",
        words(r"\bheartbeat timeout\b|did not emit heartbeat within time limit"),
        "2.10 and newer, 3.x",
        "audit log",
        "The scheduler gave the task instance up for want of a heartbeat. 2.x also says so at once "
        "of a runner that was killed, and names a limit that had not passed.",
        "Real for Airflow, but its process need not be dead.",
        "See whether the process had ended, and who ended it.",
        ("heartbeat-timeout", "orphaned-still-running"),
    ),
    Message(
        "audit-state-mismatch",
        words(r"\bstate mismatch\b"),
        "2.10 and newer, 3.x",
        "audit log",
        "The executor told of the end of a process that the row did not expect; see the line in "
        "the scheduler's log, `Executor … reported that the task instance …`.",
        "False if the event is of an earlier poke or deferral.",
        "See when the process ended, how long it stayed unreaped, and what started after it.",
        ("stale-executor-event", "died-unrecorded", "retry", "aborted-start"),
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
