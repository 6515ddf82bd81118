"""
What the messages of Airflow 2.x about processes mean, from the most telling words down.

Read in airflow/jobs/local_task_job_runner.py, jobs/scheduler_job_runner.py and
utils/process_utils.py of the released packages.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

RUNNER: Final = "the runner of this supervisor: the process that it started (under sudo: sudo)"
IN_ROW: Final = "the row's pid, or with run_as_user the parent of that process"

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "recorded-pid",
        words(
            "(?:recorded )?pid:? N(recorded) (?:does not|doesn'?t) match"
            "(?:(?: the)? current(?: pid(?::? N(current))?)?)?"
            "|recorded pid:? N(recorded1) (?:does not|doesn'?t)"
            "|(?:does not|doesn'?t) match(?: the)? current pid(?::? N(current1))?"
        ),
        "2.x (from 2.1; 3.x has no such line)",
        "task log",
        "The heartbeat of a 2.x supervisor compared the process that it started with the row's "
        "pid and found another number. With run_as_user or default_impersonation it takes the "
        "parent of the row's pid instead, so that the number printed is not the one in the row.",
        "Often a false alarm: in 2.7-2.11 always with run_as_user equal to the own user, and with "
        "another user where sudo executes the task without forking (no pam_session, pam_setcred, "
        "use_pty), for the parent of the runner is then the supervisor itself. Where sudo forks "
        "once, as it mostly does, the comparison is right. Up to 2.3.3 it was false also while the "
        "pid was not written yet, and up to 2.1.3 with the pid of the try before. Without "
        "run_as_user, in 2.3.4 and newer, it means a second process.",
        "Look who the two numbers were. Up to 2.10.0 the task is killed; 2.10.1 and newer only "
        "warn. If the alarm is false, leave run_as_user out where it names the own user, and "
        "pam_session on in sudoers where it names another. If two processes ran, find out what "
        "started the second: an orphan reset, a broker that delivered twice, a clear.",
        (
            *("impersonation", "concurrent-duplicate", "orphan-reset", "ancestor-recorded"),
            *("stale-between-tries", "clear", "heartbeat-timeout", "match"),
        ),
        {
            "recorded": IN_ROW,
            "recorded1": IN_ROW,
            "current": RUNNER,
            "current1": RUNNER,
        },
    ),
    Message(
        "executor-pid-mismatch",
        words("failed to execute task:? PID of job runner does not match"),
        "2.x up to 2.10.0",
        "log of the executor worker",
        "The supervisor ended its task because the pid in the row was not that of its runner; "
        "the task log has the two numbers.",
        "See `Recorded pid … does not match` in the task log: often a false alarm that killed.",
        "Upgrade to 2.10.1 or newer, where it only warns, and look up the two numbers.",
        ("impersonation", "concurrent-duplicate", "orphan-reset", "retry"),
    ),
    Message(
        "heartbeat-pid-mismatch",
        words("heartbeat failed with exception:? PID of job runner does not match"),
        "2.10.1 to 2.11",
        "task log, every 5 s",
        "The comparison of pids failed at a heartbeat, and its exception was swallowed: the "
        "heartbeat itself was recorded, and the task goes on.",
        "It has no effect in these versions. If no run_as_user is set, two processes run the task.",
        "Look up the two numbers of `Recorded pid …`, the line before.",
        ("impersonation", "concurrent-duplicate", "orphan-reset", "match"),
    ),
    Message(
        "pid-mismatch",
        words("PID of job runner does not match"),
        "2.x; kills the task up to 2.10.0, only warns from 2.10.1",
        "task log, log of the executor worker",
        "The supervisor's heartbeat found another pid in the row than its runner's.",
        "Often false; see `Recorded pid … does not match`, which has the numbers.",
        "Look up the two numbers of the line before.",
        ("impersonation", "concurrent-duplicate", "orphan-reset", "match"),
    ),
    Message(
        "recorded-hostname",
        words(
            "recorded hostname W(recorded) does not match(?: this instance's hostname W(current))?"
        ),
        "2.x",
        "task log",
        "The row names another host than the one on which this supervisor runs.",
        "False if the host only changed its name (DNS, container names); real if the task was "
        "started on another host too.",
        "Compare the two names. If they are one machine, set [core] hostname_callable to something "
        "that stays; else look on the other host for a second process.",
        ("other-host", "concurrent-duplicate", "orphan-reset", "match"),
        words={"recorded": "the host in the row", "current": "the host of this supervisor"},
    ),
    Message(
        "hostname-mismatch",
        words("hostname of job runner does not match"),
        "2.x",
        "task log",
        "The supervisor's heartbeat found another host in the row than its own.",
        "False if the host only changed its name.",
        "Look up the two names of the line before.",
        ("other-host", "concurrent-duplicate", "match"),
    ),
    Message(
        "externally-set",
        words(
            r"(?:state of this instance has been )?externally set to W(state)\.?"
            r"(?: terminating instance)?"
        ),
        "2.x",
        "task log",
        "The row is no longer `running` while the runner still is: somebody or something else "
        "wrote it. The supervisor ends its runner.",
        "Real: the runner is terminated. It may be harmless: a task that had written its own "
        "result and took long to wind down (before 2.10).",
        "Find who wrote the row: the audit log for a person, the scheduler log for a timeout or an "
        "orphan reset.",
        ("clear", "heartbeat-timeout", "orphan-reset", "stale-executor-event", "match"),
        words={"state": "what the row says now"},
    ),
    Message(
        "heartbeat-limit",
        words(
            r"heartbeat time limit exceeded!|time since last heartbeat\(N(since)?[0-9.]{0,12} ?s\) "
            r"exceeded limit \([0-9.]{1,12} ?s\)"
        ),
        "2.x",
        "task log",
        "A supervisor could not write its heartbeat for too long and ends its own task.",
        "Real: the host or the database was too slow. No PID changed.",
        "Look at load, memory and the database at that time.",
        ("retry", "heartbeat-timeout", "match"),
    ),
    Message(
        "job-shut-down",
        words(r"job shut down externally"),
        "2.x",
        "task log",
        "The task instance was cleared while it ran, and its supervisor ends the runner.",
        "Not a fault: somebody asked for it.",
        "The audit log says who cleared it.",
        ("clear",),
    ),
    Message(
        "no-such-process",
        words(r"\bNoSuchProcess\b(?:.{0,80}?(?:\(pid=N(pid)|with pid N(pid1)))?"),
        "2.x, and 3.x at a start",
        "task log, log of the executor worker",
        "Airflow looked at a process that had ended already: in 2.x the one in the row, whose "
        "parent it wanted; in 3.x one that ended right after its fork.",
        "Not of a changed PID: the process was gone.",
        "Look how that process ended.",
        ("died-unrecorded", "aborted-start", "retry", "stale-between-tries"),
        {"pid": "the process that was gone", "pid1": "the process that was gone"},
    ),
    Message(
        "command-return-code",
        words(r"\bcommand exited with return code (?P<status>-?[0-9]{1,4})"),
        "2.x and 3.x",
        "task log",
        "How the shell of a BashOperator ended, a child of the runner in a session of its own; a "
        "negative number is the signal.",
        "Not of the process on record, which lives on to tell of it.",
        "`explain --pid` of the shell names the task that it belongs to.",
        ("match", "retry", "descendant-observed"),
        words={"status": "the shell's exit code, or the signal"},
    ),
    Message(
        "return-code",
        words(
            r"(?:task )?exited with return code (?:negsignal\.)?"
            r"(?P<status>-?[0-9]{1,4}|SIG[A-Z]{2,8})"
        ),
        "2.x",
        "task log",
        "How the runner ended, as its supervisor saw it; a negative number is the signal.",
        "-9 says SIGKILL and nothing of who sent it: memory is only one possibility.",
        "Only the kernel knows the sender: `killed_by` of the verdict has it.",
        ("match", "retry", "died-unrecorded", "worker-restart", "deferral"),
        words={"status": "the exit code, or the signal"},
    ),
    Message(
        "job-killed",
        words(r"job W(job) was killed before it finished"),
        "2.x",
        "task log",
        "The runner ended by SIGKILL. `likely due to running out of memory` is a guess.",
        "Real death; the reason given is not evidence.",
        "Only the kernel knows the sender: `killed_by` of the verdict says `oom` if it was.",
        ("match", "retry", "died-unrecorded", "worker-restart"),
        words={"job": "the LocalTaskJob in the table job, no pid"},
    ),
    Message(
        "already-running",
        words(
            r"(?:task instance not running'? failed: ?)?task is in the running state"
            r"|task is in the 'W(state)' state|task is not able to be run"
        ),
        "2.x",
        "task log",
        "A start was refused: a supervisor came up, saw that the task instance was running "
        "already, or had ended, and ended without starting a runner. The line `Dependencies not "
        "met` says which it was.",
        "Harmless by itself: only one process ran the task. Typical of a Celery message that was "
        "delivered twice.",
        "If it comes often, look at the broker's visibility_timeout.",
        ("match", "concurrent-duplicate", "aborted-start"),
        words={"state": "what the row said"},
    ),
    Message(
        "signal-to-group",
        words(
            r"sending (?:the signal )?(?P<signal>[\w.]{1,30}) to group N(group)\.?"
            r"(?: pids of all processes in the group: \[(?P<members>[0-9, ]{0,4000})\])?"
        ),
        "2.x",
        "task log",
        "The supervisor ends its runner and all of the runner's process group. The numbers are "
        "of real processes at that instant: the best that Airflow itself writes down.",
        "Not a mismatch; the line before says why.",
        "Who is in the group and not the runner is a child of it. Children in a session of their "
        "own (bash) are not in the list.",
        ("clear", "match", "retry", "impersonation", "heartbeat-timeout"),
        {
            "group": "the process group: the pid of its leader, the runner",
            "members": "in the group",
        },
        {"signal": "the signal"},
    ),
    Message(
        "signal-to-process",
        words(
            r"sending the signal (?P<signal>[\w.]{1,30}) to process N(pid)"
            r"(?: as process group is missing)?"
        ),
        "2.x",
        "task log",
        "The supervisor ends its runner, which leads no process group (any more).",
        "Not a mismatch; the line before says why.",
        "Children of the runner are not signalled, and may live on.",
        ("clear", "match", "retry", "heartbeat-timeout"),
        {"pid": "the runner of this supervisor"},
        {"signal": "the signal"},
    ),
    Message(
        "process-ended",
        words(
            r"psutil\.Process\(pid=N(pid),?.{0,120}?\) \([0-9]{1,10}\) terminated with exit code "
            r"(?P<status>-?[0-9]{1,3}|None|Negsignal\.\w{3,9})"
        ),
        "2.x",
        "task log, scheduler log",
        "A process that Airflow ended, or waited for, is gone; that is the runner or one of its "
        "group, or in the scheduler's log the reader of DAG files.",
        "Not a mismatch.",
        "Look the number up in a recording.",
        ("match", "retry", "clear"),
        {"pid": "the process that has ended"},
        {"status": "its exit code, or the signal"},
    ),
    Message(
        "received-sigterm",
        words(r"received SIGTERM\. terminating subprocesses|\btask received SIGTERM signal"),
        "2.x",
        "task log",
        "The runner got SIGTERM and ends its operator; the exception that follows is its own.",
        "Real: somebody ended it. Mostly its supervisor, after a line that says why; or a person, "
        "a service manager, or the container's runtime.",
        "Only the kernel knows the sender: `killed_by` of the verdict.",
        ("clear", "worker-restart", "heartbeat-timeout", "retry", "match"),
    ),
    Message(
        "heartbeat-recovered",
        words(r"heartbeat recovered after (?P<seconds>[0-9.]{1,12}) seconds"),
        "2.10 and newer, 3.x",
        "scheduler log, triggerer log; in 2.x task log",
        "A heartbeat came late: the host or the database was slow.",
        "Not an alarm, unless it was longer than scheduler_health_check_threshold (30 s), or of a "
        "task of 2.x than scheduler_zombie_task_threshold (300 s).",
        "Look at load and database. No PID changes by that.",
        ("match", "heartbeat-timeout"),
        words={"seconds": "how late, in seconds"},
    ),
    Message(
        "started-process",
        words(r"started process N(pid) to run task"),
        "2.x",
        "task log",
        "The supervisor forked the runner.",
        "Not an alarm.",
        "This is the number to compare `Recorded pid` with.",
        ("match",),
        {"pid": "the runner"},
    ),
    Message(
        "zombie-job",
        words(r"detected zombie job|failing \(?N(count) ?\)? jobs without heartbeat"),
        "2.x",
        "scheduler log",
        "A row said running and its LocalTaskJob had no heartbeat for "
        "scheduler_zombie_task_threshold (300 s). Airflow calls that a zombie; it is none of the "
        "kernel's. The task instance is failed or retried.",
        "Real for Airflow, but its process need not be dead: it may live on beside a retry.",
        "See whether the process had ended, and who ended it; else why no heartbeat came.",
        ("heartbeat-timeout", "orphaned-still-running", "died-unrecorded", "retry"),
        words={"count": "how many"},
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
