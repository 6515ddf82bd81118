"""
What kernel, systemd, containers and shells say of an end, and whose processes are no task's.

Read in the log of Linux 6.18, in systemd 252, gunicorn/arbiter.py @ 25.1, uvicorn/server.py and
supervisors/multiprocess.py @ 0.54, airflow/dag_processing/{manager,processor}.py @ 2.11.2 and
3.3.2. Messages without codes are of processes that no verdict is about.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

ENDED: Final = ("match", "retry", "worker-restart", "died-unrecorded", "orphaned-still-running")
PIDS: Final = ("pid", "pid1", "pid2", "pid3", "pid4", "pid5", "pid6")
READER: Final = "a process that reads DAG files, no task's"

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "kernel-oom",
        words(
            r"out of memory: kill(?:ed)? process N(pid)(?: \((?P<comm>[^()]{1,40})\))?"
            r"|\boom-kill:constraint=..\btask=(?P<comm1>[^,]{1,40}),pid=N(pid1)"
            r"|\boom_reaper: reaped process N(pid2)"
        ),
        "any",
        "kernel log (dmesg, journal)",
        "The kernel killed a process because memory ran out: that of the host, or with `Memory "
        "cgroup` that of its container or unit. The name is the first 15 characters of its title.",
        "Real, and the best evidence there is: `Likely out of memory` of Airflow is a guess.",
        "The number is the host's. Airflow's, in a container, is another one of the same process. "
        "With a recording the verdict says `oom` in `killed_by`.",
        ENDED,
        {
            "pid": "the process that was killed, by its number on the host",
            "pid1": "the process that was killed, by its number on the host",
            "pid2": "the process whose memory was taken back",
        },
        {"comm": "its name", "comm1": "its name"},
    ),
    Message(
        "unit-ended",
        words(
            r"a process of this unit has been killed by the oom killer"
            r"|(?:main|control) process exited, code=(?P<code>\w{1,12}), "
            r"status=(?P<status>[\w/]{1,24})"
            r"|failed with result '?(?:oom-kill|signal|timeout|watchdog|core-dump)"
            r"|killing process N(pid) \((?P<comm>[^()]{1,40})\) with signal (?P<signal>SIG\w{2,8})"
            r"|unit process N(pid1) \([^()]{1,40}\) remains running after unit stopped"
        ),
        "any",
        "journal",
        "systemd tells of a unit's processes. Stopping or restarting one signals all of its "
        "processes at once, the runners too, unless KillMode= says otherwise.",
        "Real for the unit. Who ended a task is another question: systemd, the kernel, or Airflow.",
        "A task that was cut short runs again in a new process: `worker-restart`. One that remains "
        "lives on without its supervisor.",
        ENDED,
        {"pid": "a process that systemd ends", "pid1": "a process that outlived its unit"},
        {
            "code": "how the main process ended",
            "status": "its status or signal",
            "comm": "its name",
            "signal": "the signal",
        },
    ),
    Message(
        "container-killed",
        words(r"\boom_?killed\b(?!\W{1,4}false)|\b(?:exit code|exit_code|exited)\W{1,12}137\b"),
        "any",
        "Kubernetes, Docker, Podman",
        "The first process of a container was killed: 137 is 128 and 9, SIGKILL. `OOMKilled` says "
        "that the kernel did it for memory. In a worker's container that is the worker, in a "
        "task's the supervisor; all others in the container die with it.",
        "Real. 137 without `OOMKilled` says SIGKILL and nothing of who sent it.",
        "On that node a recording has the sender, and whether it was for memory: `killed_by`.",
        ENDED,
    ),
    Message(
        "shell-killed",
        words(r"\bline N(line): {1,3}N(pid) {1,3}(?P<how>killed|terminated|segmentation fault)\b"),
        "any",
        "task log, of a BashOperator",
        "A shell tells that what it had started was ended by a signal.",
        "Not of the process on record: the number is a child of the shell, which is a child of the "
        "runner.",
        "`explain --pid` of it names the task, and its end has the sender of the signal.",
        ("match", "retry", "descendant-observed"),
        {"pid": "a child of the task's shell"},
        {"line": "the line of the script", "how": "how it ended"},
    ),
    Message(
        "dag-reader",
        words(
            r"DagFileProcessorManager(?: \(pid=N(pid)\)| with pid: N(pid1))"
            r"|processor for ..\bwith pid N(pid2) (?:started at|has been running)"
            r"|started (?:a )?process \(?pid[=:]N(pid3)\)? to work on"
            r"|killing DAGFileProcessorProcess \(pid=N(pid4)\)"
            r"|\bpid (?:current duration|runtime) # dags"
            r"|(?:terminating|killing) child pid: N(pid5)|\bterminated pid N(pid6)"
        ),
        "2.x and 3.x",
        "scheduler log, DAG processor log",
        "This is of the processes that read DAG files. They run no task, and nothing records "
        "their PIDs.",
        "Not of a task: no mismatch can come from it.",
        "If a task has trouble too, look for its own line.",
        (),
        dict.fromkeys(PIDS, READER),
    ),
    Message(
        "web-worker",
        words(
            r"\bworker timeout \(pid:N(pid)\)|\bworker \(pid:N(pid1)\) was sent SIG\w{2,8}"
            r"|\bworker \(pid:N(pid2)\) exited with code|\bbooting worker with pid: N(pid3)"
            r"|\bworker exiting \(pid: ?N(pid4)\)|no response from gunicorn master within"
            r"|\b(?:(?:started|finished) server|(?:started|stopping) parent|child) process "
            r"\[N(pid5)\]"
        ),
        "2.x (gunicorn) and 3.x (uvicorn)",
        "log of the webserver, the api-server, or the one that serves logs",
        "This is of the processes that answer web requests. They run no task, and nothing records "
        "their PIDs. `Perhaps out of memory?` is a guess.",
        "Not of a task. In 3.x tasks need the api-server: if it was away, heartbeats fail.",
        "If a task has trouble too, look for its own line.",
        (),
        dict.fromkeys(PIDS[:6], "a web worker, no task's"),
    ),
    Message(
        "pid-file",
        words(
            r"the W(name) is already running under pid N(pid)"
            r"|worker process with pid N(pid1) is not running, pid file"
            r"|pid file W(file) is stale|\bpidfile\b..\balready exists"
        ),
        "2.x and 3.x",
        "where a component is started",
        "A component (scheduler, worker, triggerer) found the file that names its own kind's PID. "
        "It compares that number with the processes that live, and with nothing else: after a "
        "restart of the host or of a container the number may be a stranger's.",
        "Not of a task, whose PIDs stand in no file.",
        "See what the process with this number is. If it is no Airflow, remove the file.",
        (),
        {"pid": "what the file names, perhaps a stranger by now", "pid1": "what the file names"},
        {"name": "the component", "file": "the file"},
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
