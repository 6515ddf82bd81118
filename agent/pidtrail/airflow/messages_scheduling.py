"""
What the scheduler and its like say about tasks and about their own processes.

Read in airflow/jobs/{job,scheduler_job_runner,triggerer_job_runner}.py, executors/base_executor.py,
models/{taskinstance,dagrun}.py and utils/process_utils.py @ 2.7.3 to 2.11.2, 3.0.6 to 3.3.2.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "stuck-in-queued",
        words(
            r"task stuck in queued; will try to requeue"
            r"|\bstuck in queued (?:reschedule|tries exceeded)"
            r"|task requeue attempts exceeded max|stuck in queued\. will be set to failed"
            r"|task was requeued more than N(times) times"
            r"|task was in queued state for longer than N(seconds)[0-9.]{0,9} seconds"
            r"|marking task instance ..stuck in queued as failed"
            r"|marked the following ..task instances stuck in queued as failed"
        ),
        "2.x and 3.x (sent back to the queue: 2.10.3 and newer)",
        "scheduler log, audit log",
        "A task instance was queued for task_queued_timeout (600 s) and its executor did not start "
        "it, or started it and nobody told. It is queued again, or failed.",
        "No PID was compared: mostly no process was started. One that started meanwhile is refused "
        "when it asks, or runs beside the next.",
        "See whether the worker took it: with Celery its log has the id, with pods the pod.",
        ("aborted-start", "retry", "concurrent-duplicate", "not-recorded-yet"),
        words={"times": "how often it was queued again", "seconds": "how long it was queued"},
    ),
    Message(
        "still-in-executor",
        words(
            r"could not queue task ..\(still running after N(times) attempts\)"
            r"|\bqueued but still running; attempt=N(attempt)"
        ),
        "2.x, and 3.0",
        "scheduler log",
        "The executor has not yet seen the end of the process before, as of a deferral that was "
        "resumed at once or of a try that was killed, and does not take the task a second time.",
        "A second process was not started. `could not queue` leaves the row queued.",
        "See how long the process before stayed unreaped, and whether its supervisor lives.",
        ("stale-executor-event", "deferral", "reschedule", "match"),
        words={"times": "how often it was tried", "attempt": "which attempt to queue it"},
    ),
    Message(
        "concurrency-reached",
        words(r"rescheduling due to concurrency limits reached at task runtime"),
        "2.x",
        "task log",
        "A supervisor came up and found a pool or a limit full. It ended without starting a "
        "runner, and the task instance is scheduled again under the same try number.",
        "Not an alarm: only a supervisor lived, and no PID was recorded.",
        "Nothing to do; the next process is the one to look at.",
        ("match", "aborted-start"),
    ),
    Message(
        "adopting",
        words(r"adopting or resetting orphaned tasks"),
        "2.x and 3.x",
        "scheduler log, at the start and every orphaned_tasks_check_interval (300 s)",
        "A scheduler looks for task instances of schedulers that are gone. If there are any, the "
        "next lines say `Reset the following …`, or that they were adopted.",
        "Not an alarm by itself.",
        "See the next lines.",
        ("match", "orphan-reset"),
    ),
    Message(
        "try-number-race",
        words(
            r"try_number mismatch after scheduling for ti_id=U(ti)"
            r"|multiple executor events for same TI with different try_numbers"
        ),
        "3.1 and newer",
        "scheduler log",
        "Two schedulers advanced the same task instance, so that its try number was raised twice, "
        "or two of its processes ended before the scheduler looked.",
        "Real: two processes may have been started for it.",
        "Look for a second process; the try in between may have none at all.",
        ("concurrent-duplicate", "aborted-start", "retry", "never-seen"),
        words={"ti": "the task instance's id"},
    ),
    Message(
        "cleared-and-ended",
        words(r"was cleared and successfully terminated"),
        "3.1 and newer",
        "scheduler log",
        "A task instance was cleared while it ran, its process was ended, and it is scheduled "
        "again.",
        "Not a fault: somebody asked for it.",
        "The next process is a new one, under another PID. The audit log says who cleared it.",
        ("clear",),
    ),
    Message(
        "executor-event",
        words(r"received executor event with state W(state) for task instance"),
        "2.x and 3.x",
        "scheduler log",
        "An executor told of a task: taken (queued, running), or its process has ended (success, "
        "failed). Success says that the process ended with 0, as it does when it is deferred too.",
        "Not an alarm, and no word about the result.",
        "The line after it, `TaskInstance Finished`, has the row as it was then.",
        ("match", "stale-executor-event", "deferral", "reschedule"),
        words={"state": "what the executor says"},
    ),
    Message(
        "job-heartbeat-failed",
        words(r"\b\w{0,20}job(?:runner)? heartbeat (?:failed with error|got an exception)"),
        "2.x and 3.x (`got an exception` up to 2.9)",
        "scheduler log, triggerer log; in 2.x task log",
        "A scheduler, a triggerer, or in 2.x a supervisor could not write its heartbeat into the "
        "database. If that lasts, others take its tasks for orphaned, or its task for a zombie, "
        "while its processes live.",
        "Real trouble of the database. No PID changed, and no process has ended for it.",
        "Look at the database then. A reset or a timeout that follows starts second processes.",
        ("heartbeat-timeout", "orphan-reset", "match"),
    ),
    Message(
        "component-ending",
        words(
            r"exiting gracefully upon receiving signal N(signal)"
            r"|shutting down LocalExecutor; waiting for running tasks|\bexited execute loop\b"
        ),
        "2.x and 3.x",
        "scheduler log, triggerer log, DAG processor log",
        "A scheduler, a triggerer or a DAG processor was asked to end: 15 is SIGTERM, 2 is SIGINT. "
        "LocalExecutor waits for what runs; a task that is cut short runs again in a new process.",
        "Not of a task. Airflow cannot know who sent the signal.",
        "If tasks were cut short, `killed_by` of their verdicts has the senders.",
        ("worker-restart", "orphan-reset", "match"),
        words={"signal": "the signal"},
    ),
    Message(
        "trigger-runner-died",
        words(
            r"trigger(?: runner (?:process|thread)|er) has died|event loop appears deadlocked"
            r"|triggerer'?s async thread was blocked"
        ),
        "2.x and 3.x",
        "triggerer log",
        "The process that waits for the triggers of deferred task instances has ended or stands "
        "still. A deferred task instance has no process of its own; its row has the PID of the one "
        "before, which is dead.",
        "Not a mismatch. Another triggerer takes over, or the task instance times out.",
        "After that it is resumed in a new process: `deferral`.",
        ("deferral",),
    ),
    Message(
        "pod-failed",
        words(
            r"task ..failed in pod (?P<pod>[\w./-]{1,300})|event: (?:pod )?(?P<pod1>[\w./-]{1,300})"
            r" (?:failed|deleted before it could complete)\b"
        ),
        "KubernetesExecutor of 2.x and 3.x",
        "scheduler log",
        "The pod of a task instance has ended badly or was deleted. `OOMKilled` and exit_code 137 "
        "say that the kernel or somebody killed the first process of its container, the "
        "supervisor; the runner dies with it.",
        "Real, but no PID is wrong: the row has the number of the runner inside the container.",
        "On that node a recording has who killed it, and both numbers of the runner.",
        ("retry", "worker-restart", "match-via-namespace", "died-unrecorded"),
        words={"pod": "the pod", "pod1": "the pod"},
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
