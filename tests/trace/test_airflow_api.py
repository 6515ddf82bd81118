"""`pidtrail trace --airflow-api` as a user meets it: what is refused, and who learns what."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.unit.airflow_api import PASSWORD, USER, Api, instance, serving

ENVIRON = {"PIDTRAIL_AIRFLOW_USER": USER, "PIDTRAIL_AIRFLOW_PASSWORD": PASSWORD}


def trace(url: str, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Trace a command from /proc, which needs no privileges; events on stdout."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("PIDTRAIL_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pidtrail", "trace", "--source", "procfs"),
            *("--format", "jsonl", "--airflow-api", url, "--", *command),
        ],
        env=own | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_claims_are_in_the_stream_and_the_command_learns_no_password() -> None:
    """The command's environment, which it prints on stderr, holds no secret any more."""
    with serving(Api("3.3.2")) as api:
        api.tasks = [instance()]
        done = trace(api.url, "sh", "-c", "env; sleep 1", **ENVIRON)

    header, *events = [json.loads(line) for line in done.stdout.splitlines()]
    (claim,) = [event for event in events if event["type"] == "task_reported"]
    assert done.returncode == 0
    assert header["airflow_api"] == api.url
    assert (claim["via"], claim["recorded_pid"]) == ("rest", 4001)
    assert "PIDTRAIL_AIRFLOW_USER" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_an_api_that_cannot_be_read_does_not_stop_the_session() -> None:
    """Tracing goes on; the reason is said once."""
    done = trace("http://127.0.0.1:1", "sh", "-c", "exit 4", **ENVIRON)

    assert done.returncode == 4
    assert "127.0.0.1:1 cannot be reached: Connection refused" in done.stderr
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize(
    ("url", "environ"),
    [
        (f"http://{USER}:{PASSWORD}@127.0.0.1:1", {}),
        ("http://127.0.0.1:1", {"PIDTRAIL_AIRFLOW_PASSWORD": PASSWORD}),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(url: str, environ: dict[str, str]) -> None:
    """One line, before the command is started."""
    done = trace(url, "sh", "-c", "echo started >&2", **environ)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "started" not in done.stderr
    assert PASSWORD not in done.stderr
