"""
The claims of the article, in our words, and what the experiments say to each. Pure.

docs/claims.md tells the same at length; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from pidtrail.lab.model import ClaimAnswer, Result

Answer = Literal["refuted", "true", "half true"]


class Claim(NamedTuple):
    """A claim, which experiments decide it, and what follows if all of them hold."""

    text: str
    experiments: tuple[str, ...]
    answer: Answer
    because: str


CLAIMS: Final = (
    Claim(
        "A PID may be different after a context switch",
        ("context-switch", "stop-continue", "scheduling-class"),
        "refuted",
        "switching tasks out and in changes no number",
    ),
    Claim(
        "A PID may be different after migration between CPU cores",
        ("cpu-migration", "cpu-migration-threads"),
        "refuted",
        "the kernel changes the CPU of a task and nothing of its identity",
    ),
    Claim(
        "A PID may be different after swapping or paging",
        ("page-out",),
        "refuted",
        "pages come and go, the process stays",
    ),
    Claim(
        "Under resource pressure, throttling or a pause the system may give a process another PID",
        ("memory-pressure", "freeze", "cgroup-move"),
        "refuted",
        "a process short of resources is slow, and the same; Airflow may start a new one for it",
    ),
    Claim(
        "A process that changes its program, name, user or session changes its PID",
        ("exec", "exec-from-thread", "rename", "setuid", "setsid-setpgid", "ptrace-attach"),
        "refuted",
        "the one number that changes is the tid of a thread that calls execve",
    ),
    Claim(
        "The PID changes when a worker or scheduler is restarted",
        ("restart", "reparent", "subreaper"),
        "half true",
        "a new process has a new PID; the old one may live on, with another parent and its own PID",
    ),
    Claim(
        "The PID changes with a retry",
        ("retry", "fork"),
        "half true",
        "the retry is a new process; the PID of the first attempt never changed",
    ),
    Claim(
        "The PID of what was started is the PID of what runs",
        ("fork", "vfork-exec", "posix-spawn", "double-fork", "sudo-chain", "shell-pipeline"),
        "refuted",
        "whatever forks in between (sudo, a shell, a daemon) makes further processes",
    ),
    Claim(
        "A process has one PID",
        ("pid-namespace",),
        "refuted",
        "it has one in each PID namespace above it: a container's PID is not the host's",
    ),
    Claim(
        "A PID stands for one process",
        ("pid-reuse",),
        "refuted",
        "numbers are used again: only number and start time together name a process",
    ),
)


def answers(results: Iterable[Result]) -> list[ClaimAnswer]:
    """Return the answer to each claim that any of these results bears on."""
    found = {result.name: result for result in results}
    return [
        answer(claim, [found[name] for name in claim.experiments if name in found])
        for claim in CLAIMS
        if any(name in found for name in claim.experiments)
    ]


def answer(claim: Claim, results: list[Result]) -> ClaimAnswer:
    """Return what some results say to a claim, in one sentence."""
    names = [result.name for result in results]
    against = [result for result in results if result.holds is False]
    if against:
        what = "; ".join(f"{r.name}: {', '.join(r.contradicted)}" for r in against)
        return ClaimAnswer(
            claim.text, "contradicted", f"not as expected on this kernel: {what}", names
        )
    held = [result for result in results if result.holds]
    if not held:
        why = f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} skipped"
        return ClaimAnswer(claim.text, "not tested", f"not tested here: {why}", names)
    numbers = "; ".join(
        f"{result.name}: {result.headline or 'done'}, {shown(result)}" for result in held
    )
    sentence = f"{claim.answer} ({numbers}): {claim.because}."
    return ClaimAnswer(claim.text, claim.answer, sentence, [result.name for result in held])


def shown(result: Result) -> str:
    """Return the numbers before and after."""
    assert result.before is not None  # noqa: S101 (it was done)
    assert result.after is not None  # noqa: S101
    one, other = result.before.pid, result.after.pid
    return f"PID {one} before and after" if one == other else f"PIDs {one} and {other}"
