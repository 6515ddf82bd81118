"""
The judge: what was captured against what was expected. Pure.

The experiment says whom to compare; everything else is worked out here from records
and identities, the same for all experiments. A result that contradicts its
expectation is never explained away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msgspec import structs

from pidtrail.codec import to_object, type_name
from pidtrail.events import Event, Exit, Lost, Observed
from pidtrail.lab.experiment import Experiment, Trial, exercised
from pidtrail.lab.identity import is_of, refined, same_process
from pidtrail.lab.model import Check, Identity, Result

SHOWN: Final = 3
"""So many of the first and of the last records of a kind are kept as evidence."""

WORDS: Final = {
    "migrate": ("move between CPUs", "moves between CPUs"),
    "title": ("rename", "renames"),
    "fork": ("birth", "births"),
    "exec": ("execve", "execves"),
    "exit": ("end", "ends"),
    "children": ("child", "children"),
    "adoptions": ("adoption", "adoptions"),
    "forks_in_between": ("birth in between", "births in between"),
    "numbers": ("number", "numbers"),
    "levels_without_terminal": ("process", "processes without a terminal"),
    "levels_with_terminal": ("process", "processes with a terminal"),
}
"""What a reader calls what is counted; other names are in the plural, or a signal's."""


def judge(experiment: Experiment, trial: Trial) -> Result:
    """Return the result of an experiment that was done."""
    trial = trial._replace(
        before=refined(trial.before, trial.events), after=refined(trial.after, trial.events)
    )
    counts = exercised(trial) | experiment.counts(trial)
    expected = experiment.expected
    same = same_process(trial.before, trial.after)
    changed = pid_changed(trial)
    parent = parent_changed(trial)
    # A process that did not stay itself is a finding, however little was seen of why.
    denied = experiment.family == "keeps" and (changed or not same)
    short = too_little(experiment, counts)
    if short is not None and not denied:
        return skipped(experiment, short, counts)
    checks = [
        Check(
            said("the number is another one", expected.pid_changed), changed == expected.pid_changed
        ),
        Check(said("it is one process", expected.same_process), same == expected.same_process),
        Check(
            said("a parent is another one", expected.parent_changed),
            parent == expected.parent_changed,
        ),
        *lived_on(experiment, trial),
        *experiment.checks(trial),
    ]
    contradicted = [check.text for check in checks if not check.holds]
    return Result(
        name=experiment.name,
        family=experiment.family,
        claim=experiment.claim,
        exercised=counts,
        before=trial.before,
        after=trial.after,
        pid_changed=changed,
        same_process=same,
        parent_changed=parent,
        expected=structs.replace(expected, also=[check.text for check in checks[3:]]),
        holds=not contradicted,
        contradicted=contradicted,
        conclusion=conclusion(trial, same=same, changed=changed, contradicted=contradicted),
        evidence=evidence(trial),
        skipped=None,
        headline=headline(experiment, counts),
        notes=experiment.notes(trial),
    )


def skipped(experiment: Experiment, reason: str, counts: dict[str, int] | None = None) -> Result:
    """Return the result of an experiment that was not done, or not evidenced."""
    return Result(
        name=experiment.name,
        family=experiment.family,
        claim=experiment.claim,
        exercised=counts or {},
        before=None,
        after=None,
        pid_changed=None,
        same_process=None,
        parent_changed=None,
        expected=experiment.expected,
        holds=None,
        contradicted=[],
        conclusion=f"not tested: {reason}",
        evidence=[],
        skipped=reason,
    )


def said(text: str, expected: bool) -> str:  # noqa: FBT001 (what is expected, in words)
    """Return an expectation in words."""
    return text if expected else f"not: {text}"


def too_little(experiment: Experiment, counts: dict[str, int]) -> str | None:
    """Return in words what was not seen often enough to test anything, or None."""
    short = [
        f"{counts.get(name, 0):,} of the {least:,} {name.replace('_', ' ')} that it takes"
        for name, least in experiment.wants.items()
        if counts.get(name, 0) < least
    ]
    return f"only {' and '.join(short)} were seen" if short else None


def pid_changed(trial: Trial) -> bool:
    """
    Return whether the numbers before and after differ, or a process had two.

    All records bear numbers of one PID namespace, the lab's, so the records of one
    process must agree, whatever number the experiment compares.
    """
    if trial.before.pid != trial.after.pid:
        return True
    return any(
        len({event.pid for event in trial.about(who) if event.pid is not None}) > 1
        for who in (trial.before, trial.after)
    )


def parent_changed(trial: Trial) -> bool:
    """Return whether one of the two got another parent than the one it had first."""
    return any(len(parents_of(trial, who)) > 1 for who in (trial.before, trial.after))


def parents_of(trial: Trial, identity: Identity) -> set[int]:
    """Return every parent that a process is known to have had."""
    told = {
        event.ppid
        for event in trial.about(identity)
        if isinstance(event, Exit | Observed) and event.ppid is not None
    }
    birth = trial.birth(identity)
    if birth is not None and birth.ppid is not None:
        told.add(birth.ppid)
    probed = (who for who in (trial.before, trial.after) if same_process(who, identity))
    return told | {who.ppid for who in probed if who.ppid is not None}


def lived_on(experiment: Experiment, trial: Trial) -> Iterator[Check]:
    """Yield that one process lived all through, where it is one."""
    if not experiment.expected.same_process:
        return
    first, last = trial.before.at_ns or 0, trial.after.at_ns or 0
    ends = [e for e in trial.about(trial.before) if isinstance(e, Exit)]
    yield Check("it did not end meanwhile", not any(first < e.ts_boot_ns < last for e in ends))


def conclusion(trial: Trial, *, same: bool, changed: bool, contradicted: list[str]) -> str:
    """Return what came out, in one sentence."""
    if contradicted:
        return f"CONTRADICTED: expected {'; '.join(contradicted)}"
    before, after = trial.before, trial.after
    if same and not changed:
        return f"one process, PID {before.pid} all through"
    if same:
        numbers = ", ".join(map(str, after.ns_pids or [before.pid, after.pid]))
        return f"one process with several numbers at once: {numbers}"
    if changed:
        return f"two processes, {before.pid} and {after.pid}: neither changed its number"
    return f"two processes had the number {before.pid}, one after the other"


def headline(experiment: Experiment, counts: dict[str, int]) -> str:
    """Return the counts that matter, in words."""
    names = experiment.headline or tuple(experiment.wants)
    return ", ".join(
        f"{counts[name]:,} {words(name, counts[name])}" for name in names if name in counts
    )


def words(name: str, number: int) -> str:
    """Return what is counted, in words."""
    one, many = WORDS.get(name, (name, name))
    return (one if number == 1 else many).replace("_", " ")


def evidence(trial: Trial) -> list[dict[str, Any]]:
    """Return the records of both processes and of all births: of many alike the first and last."""
    groups: dict[tuple[str, int | None], list[Event]] = {}
    for event in trial.events:
        if (
            is_of(trial.before, event)
            or is_of(trial.after, event)
            or isinstance(event, Lost)
            or type_name(event) in {"fork", "exec", "exit"}
        ):
            whose = event.pid if is_of(trial.before, event) or is_of(trial.after, event) else None
            groups.setdefault((type_name(event), whose), []).append(event)
    kept: list[Event] = []
    for alike in groups.values():
        kept += alike if len(alike) <= 2 * SHOWN else [*alike[:SHOWN], *alike[-SHOWN:]]
    return [to_object(event) for event in sorted(kept, key=lambda e: (e.ts_boot_ns, e.seq))]
