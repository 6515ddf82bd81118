"""Why a supervisor ended its runner: `why` of `killed_by`, and the sentence about it."""

from __future__ import annotations

import signal

import pytest
from msgspec import structs

from pidtrail.verdict.model import KilledBy, Verdict, Who
from tests.unit.story import Airflow2, Airflow3, Story, at, ref, uuid

TASK = ref(1, uuid(1))


def running() -> Airflow3:
    """A 3.x story in which a runner is at work, and a shell stands by."""
    story = Airflow3().root("shell", "/bin/bash")
    return story.run("worker", "runner", TASK)


def ended(story: Story, verdict: Verdict | None = None) -> KilledBy:
    """Return how the last runner of a story ended."""
    verdict = verdict or story.verdict()
    found = [one.killed_by for one in verdict.processes if one.role == "runner"][-1]
    assert found is not None
    return found


def terminated(story: Airflow3) -> Airflow3:
    """Let the worker end the runner as 3.x does: SIGTERM, and SIGKILL after five seconds."""
    story.signal(signal.SIGTERM, "runner", "worker").wait(5)
    return story.signal(signal.SIGKILL, "runner", "worker").exit("runner", signal.SIGKILL)


def test_foreign_pid_in_the_row_is_the_reason() -> None:
    """The row names another PID, then the supervisor ends its runner."""
    story = terminated(running().report(TASK, "running", 99_999).wait(1))

    assert ended(story).why == "its heartbeat was refused, for the row said PID 99999"
    assert "SIGTERM and, 5.0 s later, SIGKILL by its supervisor" in story.verdict().summary


def test_own_pid_in_the_row_is_no_reason() -> None:
    """The near miss: a row that names the runner explains nothing, and nothing is said."""
    assert ended(terminated(running().wait(1))).why is None


def test_other_host_in_the_row_is_the_reason() -> None:
    """The row names this number, but on another host."""
    story = running().report(TASK, "running", "runner", hostname="worker-2").wait(1)

    assert ended(terminated(story)).why == (
        "its heartbeat was refused, for the row said host worker-2"
    )


def test_row_that_changed_after_the_signal_is_no_reason() -> None:
    """What the runner's own end wrote into the row came after the signal."""
    story = running().signal(signal.SIGTERM, "runner", "worker").wait(0.1)
    story.report(TASK, "failed", "runner").exit("runner", 1 << 8)

    assert ended(story).why is None


@pytest.mark.parametrize(("written_s", "is_known"), [(-0.3, True), (0.1, False)])
def test_row_that_was_read_after_the_signal_counts_from_when_it_was_written(
    *, written_s: float, is_known: bool
) -> None:
    """A heartbeat may be refused before the row is read again; the row says since when."""
    story = running().wait(1)
    written = at(story.now_ns + int(written_s * 1e9))
    story.signal(signal.SIGTERM, "runner", "worker").wait(0.2)
    story.report(TASK, "running", 99_999, updated_at=written).wait(4.8)
    story.signal(signal.SIGKILL, "runner", "worker").exit("runner", signal.SIGKILL)

    assert (ended(story).why is not None) is is_known


def test_state_set_by_hand_names_the_user() -> None:
    """The audit row of the API says who set the state."""
    story = running().fact(ref(None), "log", "patch_task_instance", owner="eve")
    story.report(TASK, "failed", "runner").wait(1)

    assert ended(terminated(story)).why == (
        "user eve had set its state to failed (audit row `patch_task_instance`)"
    )


def test_state_without_an_audit_row_blames_nobody() -> None:
    """The row alone says the state and not who set it."""
    story = running().report(TASK, "failed", "runner").wait(1)

    assert ended(terminated(story)).why == "the row said failed by then"


def test_skipped_with_a_failed_run_is_a_dagrun_timeout() -> None:
    """A DAG run that failed while its task ran, and a row that says skipped."""
    story = running().fact(ref(None), "dag_run", "failed").report(TASK, "skipped", "runner")

    assert "dagrun_timeout" in (ended(terminated(story.wait(1))).why or "")


def test_skipped_without_a_failed_run_is_not_called_a_timeout() -> None:
    """The near miss: a person may have marked it as skipped."""
    story = running().report(TASK, "skipped", "runner").wait(1)

    assert ended(terminated(story)).why == "the row said skipped by then"


@pytest.mark.parametrize("row", [True, False])
def test_clear_is_the_reason(*, row: bool) -> None:
    """Cleared while it ran: the state `restarting` says so, or an audit row, which says by whom."""
    story = running()
    if row:
        story.report(TASK, "restarting", "runner")
    else:
        story.fact(ref(None), "log", "post_clear_task_instances", owner="eve")

    why = ended(terminated(story.wait(1))).why or ""

    assert why.startswith(f"{'somebody' if row else 'user eve'} had cleared the task instance")


def test_clear_of_an_earlier_attempt_is_no_reason() -> None:
    """A clear before the process was born has nothing to do with its end."""
    story = Airflow3().fact(ref(None), "log", "post_clear_task_instances", owner="eve").wait(1)
    story.run("worker", "runner", TASK).wait(1)

    assert ended(terminated(story)).why is None


def test_supervisor_that_was_asked_to_end_names_who_asked() -> None:
    """2.x: who sends SIGTERM to the supervisor ends the runner through it."""
    story = Airflow2().root("shell", "/bin/bash").start("1", 3)
    story.report(ref(), "running", "runner1").wait(1)
    story.signal(signal.SIGTERM, "supervisor1", "shell")
    story.signal(signal.SIGTERM, "runner1", "supervisor1").exit("runner1", 2 << 8)

    assert ended(story).why == (
        f"{story.pids['supervisor1']} had itself been sent SIGTERM by "
        f"shell {story.pids['shell']}, which is not one of Airflow's own"
    )


def test_shell_has_no_reason_that_airflow_knows() -> None:
    """A row that changed before a person's SIGKILL is no reason of that person's."""
    story = running().report(TASK, "failed", "runner").wait(1)
    story.signal(signal.SIGKILL, "runner", "shell").exit("runner", signal.SIGKILL)

    assert ended(story).why is None
    assert "which is not one of Airflow's own" in story.verdict().summary


def test_role_of_a_sender_is_that_of_the_moment() -> None:
    """A 3.x worker is idle again when all is over; when it ended the runner it supervised it."""
    found = ended(terminated(running().wait(1)).idle("worker"))

    assert found.sender is not None
    assert found.sender.role == "supervisor"


def test_exit_with_0_soon_after_sigterm_is_told_with_it() -> None:
    """A runner of 2.x whose state was set by hand handles SIGTERM and exits with 0."""
    story = running().signal(signal.SIGTERM, "runner", "worker").wait(1).exit("runner")

    assert ended(story).sig == signal.SIGTERM


def test_exit_with_0_long_after_sigterm_is_not() -> None:
    """A runner of 3.x goes on after SIGTERM, and its end has nothing to do with it."""
    story = running().signal(signal.SIGTERM, "runner", "shell").wait(20).exit("runner")

    assert ended(story) == KilledBy("exit")


def test_child_of_the_task_is_named_as_such() -> None:
    """A shell below the runner that kills it."""
    story = running().fork("runner", "sh").signal(signal.SIGKILL, "runner", "sh")
    story.exit("runner", signal.SIGKILL)

    found = ended(story)

    assert found.sender is not None
    assert found.sender.role == "operator_child"
    assert "a child of the task itself" in story.verdict().summary


@pytest.mark.parametrize(
    ("comm", "uid", "role"),
    [
        ("systemd", 0, "service_manager"),
        ("runc", 0, "container_runtime"),
        ("containerd-shim", 0, "container_runtime"),
        # It ends by itself what entered a container (KillExecPIDs); the rest by runc or crun.
        ("crio", 0, "container_runtime"),
        ("tini", 0, "container_init"),
        ("podman-init", 0, "container_init"),
        # Anyone may call a process of his own so.
        ("systemd", 1000, None),
        ("bash", 0, None),
    ],
)
def test_service_manager_outside_of_the_trace_is_known(
    comm: str, uid: int, role: str | None
) -> None:
    """Who is no process of the tree is known by name, if it is root's."""
    story = running().outside(signal.SIGTERM, "runner", comm, uid).exit("runner", 1 << 8)

    found = ended(story)

    assert found.sender is not None
    assert (found.sender.pid, found.sender.comm, found.sender.role) == (1, comm, role)


def test_sender_that_was_not_seen_is_not_the_kernel() -> None:
    """Without a record of the signal nobody knows who sent it."""
    story = running().exit("runner", signal.SIGKILL)

    found = ended(story)

    assert found.sender is not None
    assert found.sender.pid is None
    assert "Who sent SIGKILL" in story.verdict().summary


def test_overwritten_pid_is_told_with_the_one_before() -> None:
    """The row said the runner, then a number of nobody's: somebody wrote it."""
    story = running().report(TASK, "running", 99_999).exit("runner")
    story.report(TASK, "success", 99_999)

    verdict = story.verdict()

    assert verdict.code == "undetermined"
    assert f"who wrote PID 99999 over {story.pids['runner']}" in verdict.summary


def test_number_of_a_child_that_is_asked_about_leads_to_its_task() -> None:
    """Asked about a child, the attempt is told as descendant-observed; the runner's own is not."""
    story = running().fork("runner", "bash").exec("bash", "/bin/bash", "-c", "ls").exit("bash")
    story.exit("runner").report(TASK, "success", "runner")

    (child,) = story.judge(pid=story.pids["bash"]).verdicts
    (own,) = story.judge(pid=story.pids["runner"]).verdicts

    assert (child.code, own.code) == ("descendant-observed", "match")
    assert f"recorded is {story.pids['runner']}" in child.summary


def other_task(sender: str) -> Verdict:
    """Verdict of a runner that was killed by a process of another task instance, or its worker."""
    other = structs.replace(TASK, task_id="evil", ti_id=uuid(9))
    story = (
        running()
        .worker("scheduler", "worker2")
        .title("worker2", f"airflow worker -- LocalExecutor: {other.ti_id}")
    )
    story.fork("worker2", "runner2").title("runner2", f"airflow worker -- {other.ti_id}")
    story.report(other, "running", "runner2").fork("runner2", "sh")
    story.signal(signal.SIGKILL, "runner", sender).exit("runner", signal.SIGKILL)
    return next(v for v in story.judge().verdicts if v.task.task_id == "load")


@pytest.mark.parametrize(
    ("sender", "words"),
    [
        ("runner2", ", which ran sales.evil try 1."),
        ("sh", ", a child of sales.evil try 1."),
        ("worker2", ", which is not above it."),
    ],
)
def test_another_task_that_kills_is_not_the_task_itself(sender: str, words: str) -> None:
    """A runner, or what it started, is told with the attempt for which it ran."""
    summary = other_task(sender).summary

    assert words in summary
    assert "the task itself" not in summary
    assert "by its" not in summary


def test_sender_that_a_record_leaves_open_is_not_the_kernel() -> None:
    """Neither a sender nor a code: the record does not say who it was."""
    story = running().signal(signal.SIGKILL, "runner", None)
    story.events[-1] = structs.replace(story.events[-1], code=None)
    story.exit("runner", signal.SIGKILL)

    assert ended(story).sender == Who(None)
    assert "Who sent SIGKILL" in story.verdict().summary


def test_sender_that_is_left_out_with_a_code_is_the_kernel() -> None:
    """The near miss: SI_KERNEL and no sender."""
    story = running().signal(signal.SIGKILL, "runner", None, code=128)
    story.exit("runner", signal.SIGKILL)

    assert ended(story).sender is None
    assert "was sent SIGKILL by the kernel" in story.verdict().summary
