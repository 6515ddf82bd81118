"""
What sudo says where it does not start the task of another user (run_as_user), and Airflow then.

Read in sudo 1.9.13 and in airflow/task/task_runner of 2.11.2; every line was taken from the
log of a real run. 2.x puts `Job N: Subtask TASK` before sudo's words.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

NO_MISMATCH: Final = "Real: no user code ran, and no PID is wrong: 3.x has recorded that of sudo."
HANGS: Final = (
    "In 2.x the row may go on saying running for ever: the supervisor misses the end of a sudo "
    "that ends soon. Clear the task once sudo is right."
)
CODES: Final = ("aborted-start", "retry")

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "sudo-password",
        words(
            r"sudo: (?:a terminal is required to read the password|a password is required"
            r"|no tty present and no askpass program specified)"
        ),
        "2.x and 3.x",
        "task log",
        "sudo was to start the task as another user and wants a password, which nobody can type. "
        "It asks for one also before it says that there is no rule for that user.",
        NO_MISMATCH,
        f"Give Airflow's user a rule with NOPASSWD for the users that tasks run as. {HANGS}",
        CODES,
    ),
    Message(
        "sudo-not-allowed",
        words(r"user W(who) is not allowed to execute ..\bas W(user)(?: on W(host))?"),
        "2.x and 3.x",
        "task log",
        "The rules of sudo do not let Airflow's user run this command as that user.",
        NO_MISMATCH,
        f"Add a rule: sudo -l -U USER, as root, lists what a user may do. {HANGS}",
        CODES,
        words={"who": "the user that Airflow runs as", "user": "run_as_user", "host": "the host"},
    ),
    Message(
        "sudo-unknown-user",
        words(r"sudo: (?:error initializing audit plugin W(plugin)|unknown user:? W(user))"),
        "2.x and 3.x",
        "task log; in 2.x the log of the executor worker",
        "run_as_user names a user that this host does not have.",
        NO_MISMATCH,
        "Make the user on every host that runs such tasks, or correct run_as_user.",
        CODES,
        words={"user": "run_as_user", "plugin": "what complains of it a second time"},
    ),
    Message(
        "sudo-no-command",
        words(r"sudo: (?:unable to execute )?W(command): (?:command not found|permission denied)"),
        "2.x and 3.x",
        "task log",
        "sudo may start the task and cannot find or enter its program: 2.x gives it as `airflow`, "
        "which is looked for in secure_path; 3.x gives the path of its interpreter.",
        NO_MISMATCH,
        f"Add the folder of `airflow` to secure_path, or let that user enter it. {HANGS}",
        CODES,
        words={"command": "what was to be started"},
    ),
    Message(
        "sudo-errand",
        words(r"command '?\['sudo', 'chown', 'W(user)', ..\bnon-zero exit status N(status)"),
        "2.x",
        "log of the executor worker or of the scheduler",
        "Before it starts the task of another user, a supervisor of 2.x gives that user the "
        "configuration, with `sudo chown`, which failed. No process of the task was started.",
        "Real: no user code ran.",
        "Let Airflow's user run chown by sudo as root, and see whether that user exists.",
        CODES,
        words={"user": "run_as_user", "status": "the exit status of sudo"},
    ),
    Message(
        "not-started-yet",
        words(r"heartbeat failed with exception:? process is not started yet"),
        "2.10.1 to 2.11",
        "task log, at every heartbeat",
        "The supervisor has no process any more and does not know how it ended: with run_as_user "
        "somebody else in it had collected a sudo that ended soon. It waits for ever.",
        "Real, and the words are wrong: the process was started and has ended.",
        "The first lines of the log have sudo's words. Clear the task; its supervisor then ends.",
        CODES,
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
