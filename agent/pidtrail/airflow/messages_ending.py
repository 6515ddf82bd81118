"""
What Airflow and what it starts say of the ends of processes, beside the mismatches.

Read in airflow/utils/{timeout,process_utils}.py @ 2.11.2, airflow/executors/local_executor.py @
2.10.5, 3.0.6, 3.1.8 and 3.3.2, airflow/sdk/execution_time/{supervisor,task_runner,timeout}.py @
1.0.6 to 1.3.2, and operators/bash.py of airflow 2.11.2 and of providers-standard 1.21.0.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

THIS_RUNNER: Final = "the runner of this supervisor"
KILLED: Final = "Only the kernel knows the sender: `killed_by` of the verdict."

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "timed-out",
        words(r"process timed out(?:, pid: N(pid))?|\btimeout\b..\bpid: N(pid1)"),
        "2.x and 3.x",
        "task log; of a DAG file that takes too long also the DAG processor's",
        "A process interrupted itself, by SIGALRM, because what it did took longer than allowed: "
        "the task than its execution_timeout, or the reading of a DAG file than "
        "dagbag_import_timeout. It goes on and reports its failure.",
        "Not a mismatch: the number is that of the process which says so.",
        "In a task's log it is the runner. If the task is retried, the next try is a new process.",
        ("match", "retry"),
        {"pid": "the process that says so: in a task's log the runner", "pid1": "the same"},
        pid_keys={"pid": "the process that says so: in a task's log the runner"},
    ),
    Message(
        "not-dying",
        words(
            r"psutil\.Process\(pid=N(pid).{0,200}?\) did not respond to SIGTERM"
            r"|psutil\.Process\(pid=N(pid1).{0,200}?\) \([0-9]{1,10}\) could not be killed"
        ),
        "2.x",
        "task log, scheduler log",
        "A process of the group that Airflow ends was still there [core] killed_task_cleanup_time "
        "(60 s) after SIGTERM and gets SIGKILL. One that `could not be killed` outlived that too: "
        "it waits in the kernel (NFS, a device), or belongs to another user.",
        "Real: the process lived on meanwhile, perhaps beside the next try.",
        "Look up whether and when it ended.",
        ("orphaned-still-running", "concurrent-duplicate", "retry", "clear", "match"),
        {"pid": "of the group of this supervisor's runner", "pid1": "still alive after SIGKILL"},
    ),
    Message(
        "escalation-failed",
        words(r"failed to terminate process after full escalation"),
        "3.x",
        "log of the executor worker",
        "A supervisor sent its runner SIGTERM and SIGKILL and did not see it end.",
        "Real: the runner may live on, perhaps beside the next try.",
        "Look up whether and when it ended. A process that waits in the kernel ends only then.",
        ("orphaned-still-running", "concurrent-duplicate", "retry"),
        pid_keys={"pid": THIS_RUNNER},
    ),
    Message(
        "open-sockets",
        words(r"process exited with open sockets"),
        "3.2 and newer",
        "log of the executor worker",
        "The runner has ended, and for a minute something else still held the ends of its output: "
        "a child that it left behind. The supervisor, which had waited for it, goes on now.",
        "Not a mismatch. The runner was dead all that time, and its title or row may have said "
        "otherwise.",
        "`pidtrail tree` shows the children that outlived it.",
        ("match", "descendant-observed"),
        pid_keys={"pid": THIS_RUNNER},
        word_keys={"exit_code": "its exit code"},
    ),
    Message(
        "overtime",
        words(r"task success overtime reached"),
        "3.x",
        "log of the executor worker",
        "The task had its result and its process had not ended [core] task_success_overtime (20 s) "
        "later, mostly for its listeners or callbacks. The supervisor ends it.",
        "Not a mismatch: the result stands, and the process was the right one.",
        "See what the process waited for; or raise task_success_overtime.",
        ("match",),
    ),
    Message(
        "segfault",
        words(r"received SIGSEGV|SIGSEGV \(segmentation violation\) signal indicates"),
        "2.x and 3.x",
        "task log",
        "The runner crashed, or in 2.x perhaps its supervisor: a library written in C read or "
        "wrote where it must not.",
        "Real death, by its own doing. No PID changed.",
        "`killed_by` of the verdict says whether the kernel sent the signal, and whether a core "
        "was dumped.",
        ("match", "retry", "died-unrecorded"),
    ),
    Message(
        "runner-crashed",
        words(
            r"supervised process last chance exception handler|last chance exception handler failed"
            r"|exception in child process, exiting with code 124"
        ),
        "3.x",
        "task log, log of the executor worker",
        "The runner failed outside of the task's own code, and ends with exit code 126 (124: right "
        "after its fork; 125: it could not even say so). The traceback that follows has the "
        "reason; a lost supervisor is one.",
        "Real: it may have run user code before that, and its result was not told.",
        "Look whether its supervisor had ended before.",
        ("orphaned-still-running", "retry", "match", "died-unrecorded"),
    ),
    Message(
        "result-not-told",
        words(
            r"recovery retry of terminal-state api call failed"
            r"|failed to report terminal task state to supervisor"
        ),
        "3.2 and newer",
        "task log, log of the executor worker",
        "The task came to its end, and the api-server was not told how. The row may say running "
        "until the heartbeat times out.",
        "Real trouble of the api-server or the network; the process and its PID were right.",
        "Look at the api-server at that time; the recording has the exit of the process.",
        ("match", "heartbeat-timeout", "retry"),
    ),
    Message(
        "workload-failed",
        words(r"(?:task|workload) execution failed\b|(?<![\w.])uhoh\b"),
        "3.x (`uhoh` in 3.0 and 3.1, `Task execution failed` in 3.2)",
        "scheduler log",
        "A worker of LocalExecutor could not start or supervise a task: its start was refused, the "
        "api-server could not be reached, or the process could not be forked. The traceback that "
        "follows has the reason. The worker goes on.",
        "Real: if a process had been forked, it was killed before it ran anything, and its PID is "
        "recorded nowhere.",
        "Read the last line of the traceback; it can be given to --message too.",
        ("aborted-start", "retry", "stale-executor-event"),
    ),
    Message(
        "finished-3",
        words(
            r"\b(?:task|workload) finished\b(?=.{0,400}\bfinal_state\b(?!\W{1,6}SERVER_TERMINATED))"
        ),
        "3.x (`Workload finished` in 3.3)",
        "log of the executor worker",
        "A supervisor is done with a task: its runner has ended. A negative exit code is the "
        "signal.",
        "Not an alarm by itself.",
        KILLED,
        ("match", "retry", "reschedule", "deferral", "clear"),
        word_keys={"exit_code": "the runner's exit code", "final_state": "how it counts"},
    ),
    Message(
        "task-exit",
        words(r"\btask exited\b(?=.{0,200}\bexit_code\b)"),
        "3.x",
        "task log",
        "The task's own code called sys.exit(). The runner lives on to tell of it.",
        "Not a mismatch, and nobody killed it.",
        "Look for sys.exit() in the task.",
        ("match", "retry"),
        word_keys={"exit_code": "what the code gave"},
    ),
    Message(
        "bash-failed",
        words(
            r"bash command (?:failed\. the command returned a non-zero exit code"
            r"|returned exit code) (?P<status>-?[0-9]{1,4})"
        ),
        "2.x and 3.x",
        "task log",
        "The shell of a BashOperator ended so, a child of the runner in a session of its own. "
        "Negative is a signal that ended the shell; above 128, as 137, one that ended what the "
        "shell had started: 137 is 128 and 9, SIGKILL.",
        "Not of the process on record, which lives on to tell of it.",
        "137 says SIGKILL and nothing of who sent it: memory is only one possibility. "
        "`explain --pid` of the child has the sender.",
        ("match", "retry", "descendant-observed"),
        words={"status": "the shell's exit code, or the signal"},
    ),
    Message(
        "subprocess-failed",
        words(
            r"command '?\[.{1,2000}?\]'? (?:died with <?signals\.(?P<signal>SIG\w{2,8})"
            r"|returned non-zero exit status (?P<status>-?[0-9]{1,4}))"
        ),
        "2.x and 3.x",
        "task log, log of the executor worker",
        "A program that a Python process had started and waited for failed. If it is `airflow "
        "tasks run … --local`, that was the supervisor of the task (2.x); else a child of the "
        "runner, such as a PythonVirtualenvOperator's.",
        "Not a mismatch: a child's PID is recorded nowhere, and a supervisor's neither.",
        "If it died by a signal, the recording has who sent it; its runner may live on.",
        ("match", "retry", "descendant-observed", "orphaned-still-running"),
        words={"signal": "the signal", "status": "its exit status"},
    ),
    Message(
        "metrics-ended",
        words(r"process not found \(most likely exited\), stop collecting metrics"),
        "2.11",
        "task log",
        "The thread of a supervisor that measures its runner found that it has ended.",
        "Not an alarm: so it is at the end of every task.",
        "Nothing to do.",
        ("match",),
    ),
    Message(
        "no-children-allowed",
        words(r"daemonic processes are not allowed to have children"),
        "2.x",
        "task log",
        "The task used multiprocessing. The workers of LocalExecutor are daemonic, and what is "
        "forked below them inherits that, so Python forbids it. No process was started.",
        "Not a mismatch.",
        "Let the task use threads, subprocess, or billiard; in 3.x it works.",
        ("match", "retry"),
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
