"""
What the logs of HTTP say of the calls by which a supervisor of 3.x tells of its process.

Read in airflow/api_fastapi/execution_api/routes/task_instances.py @ 3.0.6 to 3.3.2 and
airflow/sdk/execution_time/supervisor.py; the lines are uvicorn's (3.0, 3.1), Airflow's own
(`request finished`), httpx's, and those of proxies.
"""

from __future__ import annotations

from typing import Final

from pidtrail.airflow.message_form import Message, words

STATUS: Final = "the status of the answer"
TI: Final = "the task instance's id"
WHERE: Final = "api-server log, log of the executor worker, log of a proxy"


def call(name: str) -> str:
    """Return the pattern of a call: the path and then the status, or the other way round."""
    answered = r"(?:status(?:_code)?\W{1,4}|http/[0-9.]{1,3}\W{1,4})"
    return (
        rf"task-instances/U(ti)/{name}\b..{answered}(?P<status>[1-5][0-9]{{2}})\b"
        rf"|\berror '(?P<status1>[45][0-9]{{2}}) ..task-instances/U(ti1)/{name}\b"
    )


GROUPS: Final = {"ti": TI, "ti1": TI, "status": STATUS, "status1": STATUS}

TABLE: Final[tuple[Message, ...]] = (
    Message(
        "call-of-start",
        words(call("run")),
        "3.x",
        WHERE,
        "A supervisor has forked a process and asks to start a task in it. 200: its host and PID "
        "are on record now, and it begins. 409: the row was not queued; the process is killed with "
        "SIGKILL before it runs anything, and its PID is recorded nowhere. After 5xx, and after a "
        "wait that was too long, which the api-server logs as 400, it asks again.",
        "None of 200. Of 409 real: a process was started and refused; the task may be running "
        "rightly in another one.",
        "The answer beside a 409, `invalid_state`, has the state that the row was in.",
        ("match", "aborted-start", "stale-executor-event"),
        words=GROUPS,
    ),
    Message(
        "call-of-heartbeat",
        words(call("heartbeat")),
        "3.x",
        WHERE,
        "A supervisor tells that its runner lives, with host and PID. 204: that is what the row "
        "says. 409: the row has another host or PID (running_elsewhere), or does not say running "
        "(not_running). 404 or 410: that try is over. After these the supervisor ends its runner. "
        "Of 5xx three in a row end it too.",
        "None of 204. Of 404, 409 and 410 real: the process is terminated.",
        "The answer beside it has the kind of refusal, and the row's host and PID.",
        ("match", "concurrent-duplicate", "clear", "orphan-reset", "heartbeat-timeout"),
        words=GROUPS,
    ),
    Message(
        "call-of-result",
        words(call("state")),
        "3.x",
        WHERE,
        "A supervisor tells how its task ended, or that it waits. 204: that is in the row now. "
        "409: the row did not say running any more; what the process did is not kept.",
        "None of 204. Of 409 real: user code ran to its end, for nothing.",
        "`previous_state` in the answer says what the row had become; see who wrote it.",
        ("match", "heartbeat-timeout", "clear", "orphan-reset", "concurrent-duplicate"),
        words=GROUPS,
    ),
    Message(
        "started-3",
        words(r"\btask started\b(?=.{0,400}\bprevious_state\b)"),
        "3.x",
        "api-server log",
        "The api-server has recorded who runs a task: host and PID of the runner, and with them "
        "the state running, in one statement.",
        "Not an alarm.",
        "From here on the row has this try's PID; before, it was that of the one before.",
        ("match", "stale-between-tries"),
        word_keys={"hostname": "the host of the runner", "previous_state": "what the row said"},
    ),
)
"""The first that matches at a place is taken: what is peculiar stands before what is part of it."""
