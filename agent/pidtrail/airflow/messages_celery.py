"""
What the lines of Celery workers, and of the scheduler about them, mean for processes.

Read in airflow/providers/celery/executors/celery_executor{,_utils}.py @ 3.15.2 and 3.26.0,
celery/app/trace.py, celery/worker/request.py, celery/apps/worker.py @ 5.6, billiard/pool.py @ 4.3
and kombu/transport/virtual/base.py @ 5.7.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

CELERY_ID: Final = "the id of the Celery message (external_executor_id in the row), no process"
IN_CELERY: Final = "what Celery calls the task: one name for all of Airflow's"
SUPERVISOR: Final = "the supervisor that the pool process forked; the runner is its child"

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "celery-redelivered",
        words(r"(?:\[W(id)\] )?task already running elsewhere,? ignoring redelivered message"),
        "3.x (provider 3.17 and newer; Airflow 3.1.9 and newer)",
        "log of the Celery worker",
        "The broker delivered a message twice, and the API refused the second start. The process "
        "that had been forked for it was killed before it ran anything.",
        "Harmless for the task: it runs in the first process, whose PID is on record.",
        "If it comes often, a visibility_timeout is shorter than the tasks, or workers are killed.",
        ("aborted-start", "match", "orphaned-still-running"),
        words={"id": CELERY_ID},
    ),
    Message(
        "celery-executing",
        words(r"(?:\[W(id)\] )?executing (?:workload|command) in celery"),
        "2.x (command), 3.x (workload)",
        "log of the Celery worker",
        "A pool process of the worker took the message. In 3.x it is itself the supervisor and "
        "forks the runner; in 2.x it forks a supervisor, which forks the runner.",
        "Not an alarm. The same id twice is a message that was delivered twice.",
        "The pool process serves one task after the other under one PID: never compare that "
        "with the recorded one, which is the runner's.",
        ("match", "aborted-start", "retry"),
        words={"id": CELERY_ID},
    ),
    Message(
        "celery-command-failed",
        words(
            r"celery command failed on host:? W(host) with celery_task_id W(id)"
            r"(?: \(pid:? N(pid),? return code:? N(status)\))?"
        ),
        "2.x",
        "log of the Celery worker, scheduler log",
        "The supervisor of a task ended with an error, or was killed. The return code is the raw "
        "word of wait(2): 256 is exit code 1, 9 is SIGKILL.",
        "Real, but the runner may have ended well, or live on if only the supervisor was killed.",
        "The PID is the supervisor's, not the one on record.",
        ("retry", "orphaned-still-running", "match", "died-unrecorded"),
        {"pid": SUPERVISOR},
        {"host": "the host of the worker", "id": CELERY_ID, "status": "the wait status"},
    ),
    Message(
        "celery-failed-to-execute",
        words(r"\[W(id)\] failed to execute task\b"),
        "2.x",
        "log of the Celery worker",
        "The supervisor ended its task with the exception that follows. Up to 2.10.0 that is also "
        "how a task was killed whose pid did not match.",
        "See what follows: `PID of job runner does not match` is often a false alarm.",
        "Read the task's own log; it has the two numbers, if it was a mismatch.",
        ("retry", "impersonation", "concurrent-duplicate"),
        words={"id": CELERY_ID},
    ),
    Message(
        "celery-process-exited",
        words(
            r"process W(name) pid:N(pid) exited with ['\"]?"
            r"(?P<how>signal [0-9]{1,2} \(\w{2,20}\)|exitcode -?[0-9]{1,3})"
        ),
        "2.x and 3.x",
        "log of the Celery worker",
        "A pool process ended and is replaced by a new one, with another PID. What it had forked "
        "may live on.",
        "Real. In 3.x its runner has lost its supervisor and cannot report; in 2.x the supervisor "
        "below it goes on.",
        "The PID is the pool process's, never the one on record. Who sent the signal only the "
        "kernel knows: `killed_by` of the verdict.",
        ("orphaned-still-running", "worker-restart", "retry", "heartbeat-timeout"),
        {"pid": "the pool process"},
        {"name": "its name in Celery", "how": "how it ended"},
    ),
    Message(
        "celery-worker-lost",
        words(
            r"worker exited prematurely:? "
            r"(?P<how>signal [0-9]{1,2} \(\w{2,20}\)|exitcode -?[0-9]{1,3})"
        ),
        "2.x and 3.x",
        "log of the Celery worker, scheduler log (WorkerLostError)",
        "The pool process that served the task ended before the task did. Celery tells Airflow "
        "that it failed, whatever the runner does.",
        "Real for the pool process; the runner may live on, unheard.",
        "See who ended the pool process, and whether the runner lives.",
        ("orphaned-still-running", "worker-restart", "retry", "heartbeat-timeout"),
        words={"how": "how the pool process ended"},
    ),
    Message(
        "celery-restoring",
        words(r"restoring N(count) unacknowledged message"),
        "2.x and 3.x",
        "log of the Celery worker",
        "A worker that is being stopped gives back the messages of tasks that have not ended; "
        "another worker gets them.",
        "A second start while the first process lives is refused by Airflow.",
        "See whether the processes of the worker had ended by then.",
        ("aborted-start", "worker-restart", "match"),
        words={"count": "how many"},
    ),
    Message(
        "celery-shutdown",
        words(r"worker:? (?P<how>warm|cold) shutdown"),
        "2.x and 3.x",
        "log of the Celery worker",
        "The worker was asked to end. Warm (SIGTERM): it waits for its tasks. Cold (SIGQUIT, or a "
        "second signal): it ends its pool.",
        "Not a fault. systemd signals every process of a unit at once, also the runners.",
        "A task that is cut short runs again in a new process: `worker-restart`.",
        ("worker-restart", "retry", "match"),
        words={"how": "how it ends"},
    ),
    Message(
        "celery-adopted",
        words(r"adopted the following N(count) tasks? from a dead executor"),
        "2.x and 3.x",
        "scheduler log",
        "A scheduler took over task instances that another one had queued. No process is started "
        "or ended for that: the row's queued_by_job_id changes and its pid does not.",
        "Harmless: the PID on record stays right.",
        "Nothing to do.",
        ("match",),
        words={"count": "how many"},
    ),
    Message(
        "celery-received",
        words(r"task W(name)\[U(id)\] received"),
        "2.x (execute_command), 3.x (execute_workload)",
        "log of the Celery worker",
        "The main process of a worker took a message from the broker. It waits in that worker "
        "until one of its pool processes is free.",
        "Not an alarm. The same id twice is a message that was delivered twice.",
        "With a recording, `--message` finds the run by the id, which the row has too.",
        ("match", "aborted-start", "retry"),
        words={"name": IN_CELERY, "id": CELERY_ID},
    ),
    Message(
        "celery-succeeded",
        words(r"task W(name)\[U(id)\] succeeded in (?P<seconds>[0-9.e-]{1,24}) ?s\b"),
        "2.x (execute_command), 3.x (execute_workload)",
        "log of the Celery worker",
        "The pool process came to its end with the message. Celery says so also of a task "
        "instance that failed or was deferred: it is told of no more than of a supervisor's end.",
        "Not an alarm, and no word about the state of the task instance.",
        "The row has the state; the runner's exit is in the recording.",
        ("match", "retry", "reschedule", "deferral"),
        words={"name": IN_CELERY, "id": CELERY_ID, "seconds": "how long, in seconds"},
    ),
    Message(
        "celery-raised",
        words(
            r"task W(name)\[U(id)\] (?P<how>raised (?:un)?expected|internal error|retry|ignored|"
            r"rejected)"
        ),
        "2.x (execute_command), 3.x (execute_workload)",
        "log of the Celery worker",
        "The pool process left the message with an exception, which follows. `ignored` is a second "
        "delivery whose start Airflow has refused.",
        "Real for the supervisor; its runner may have ended well, or live on.",
        "Read what follows, and see in the recording what became of the runner.",
        ("retry", "aborted-start", "orphaned-still-running", "died-unrecorded", "match"),
        words={"name": IN_CELERY, "id": CELERY_ID, "how": "how it was left"},
    ),
    Message(
        "celery-revoked",
        words(r"discarding revoked task:? W(name)\[U(id)\]|\bterminating U(id1) \("),
        "2.x and 3.x",
        "log of the Celery worker",
        "A scheduler revoked the message: the task instance was stuck in queued, cleared, or set "
        "to another state. Terminating signals the pool process that has it.",
        "Real: if a runner was there already, its supervisor is ended above it.",
        "The scheduler's log says why; the recording who was signalled.",
        ("clear", "retry", "orphaned-still-running", "match"),
        words={"name": IN_CELERY, "id": CELERY_ID, "id1": CELERY_ID},
    ),
    Message(
        "celery-id",
        words(
            r"\bsetting external_(?:executor_)?id for ..\bto U(id)"
            r"|\b(?:external[_ ]executor[_ ]id|celery[_ ]task(?:[_ ](?:uu)?id)?)\W{1,6}U(id1)"
        ),
        "2.x and 3.x",
        "scheduler log, row of the task instance, log of the Celery worker",
        "The id under which an executor knows the attempt: with Celery that of the message. 3.x "
        "gives it when it queues the attempt, 2.x when Celery has taken it.",
        "Not an alarm.",
        "Look the id up in a recording, or in the worker's log: all of its lines have it.",
        ("match", "retry", "aborted-start"),
        words={"id": CELERY_ID, "id1": CELERY_ID},
    ),
    Message(
        "id-alone",
        words(r"^\W*U(id)\W*$"),
        "2.x and 3.x",
        "anywhere",
        "The id of an attempt in 3.x (it is in the title of its process and in the row), or of a "
        "Celery message (external_executor_id in the row).",
        "Not an alarm.",
        "With a recording, `--message` finds whose it is.",
        ("match", "retry", "clear"),
        words={"id": "a task instance's id, or a Celery message's"},
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
