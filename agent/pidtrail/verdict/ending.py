"""How a process ended, and who ended it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from pidtrail.events import ProcessKey
from pidtrail.verdict.model import KilledBy, Who

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidtrail.events import Signal
    from pidtrail.node import Node
    from pidtrail.tree import ProcessTree

    RoleOf = Callable[[Node, int], str]

FAULTS: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)
"""Raised by the instruction that a thread itself executes (signal(7), force_sig_fault)."""
ENDING: Final = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGABRT, signal.SIGKILL}
)
HANDLED_WITHIN_NS: Final = 60_000_000_000
"""Between SIGTERM and exit; Airflow kills after 60 s (killed_task_cleanup_time)."""
OBEYED_WITHIN_NS: Final = 5_000_000_000
"""Between SIGTERM and exit with 0: who goes on for longer has not ended because of it."""
OUTSIDERS: Final = {
    "systemd": "service_manager",
    "supervisord": "service_manager",
    "runsv": "service_manager",
    "runc": "container_runtime",
    "crun": "container_runtime",
    "conmon": "container_runtime",
    "crio": "container_runtime",
    "dockerd": "container_runtime",
    "containerd-shim": "container_runtime",
    "tini": "container_init",
    "dumb-init": "container_init",
    "docker-init": "container_init",
    "podman-init": "container_init",
    "catatonit": "container_init",
}
"""Roles of senders that no word of Airflow's names, by comm (15 characters)."""


def killed_by(node: Node, tree: ProcessTree, role_of: RoleOf) -> KilledBy | None:
    """
    Return how a process ended, None while it lives or where the source cannot tell.

    For a process that exited after it had been sent an ending signal, `kind` is
    `exit` and `sig` and `sender` say which signal came before. `role_of` gives the
    role of a process at an instant (CLOCK_BOOTTIME).
    """
    ended = node.exit
    if ended is None or (ended.termsig is None and ended.exit_code is None):
        return None
    if ended.termsig is None:
        last = asked(node, None)
        return (
            KilledBy("exit") if last is None
            else KilledBy("exit", last.sig, sender(last, tree, role_of))
        )  # fmt: skip
    if node.oom is not None and ended.termsig == signal.SIGKILL:
        return KilledBy("oom", ended.termsig)
    last = asked(node, ended.termsig)
    if last is None:
        if ended.termsig in FAULTS:
            return KilledBy("self", ended.termsig)
        return KilledBy("signal", ended.termsig, Who(None))
    if is_self(last, node) or (last.sender_pid is None and ended.termsig in FAULTS):
        return KilledBy("self", ended.termsig)
    return KilledBy("signal", ended.termsig, sender(last, tree, role_of))


def asked(node: Node, sig: int | None) -> Signal | None:
    """
    Return the last signal that a process ended by or after, None if there was none.

    `sig` is what the wait status names. Without one the process exited: then any
    ending signal counts that came shortly before from somebody else.
    """
    ended = node.exit
    if ended is None:
        return None
    before = [s for s in node.signals if s.ts_boot_ns <= ended.ts_boot_ns]
    if ended.termsig is not None:
        found = [s for s in before if s.sig == sig]
    else:
        limit = HANDLED_WITHIN_NS if ended.exit_code else OBEYED_WITHIN_NS
        found = [s for s in before if s.sig in ENDING and ended.ts_boot_ns - s.ts_boot_ns < limit]
    return found[-1] if found else None


def is_self(record: Signal, node: Node) -> bool:
    """Return whether a process sent a signal to itself."""
    return (record.sender_pid, record.sender_start_ticks) == node.key[:2]


def sender(record: Signal, tree: ProcessTree, role_of: RoleOf) -> Who | None:
    """
    Return who sent a signal, with the role that it had then; None if that was the kernel.

    A record without its `code` does not say that it was.
    """
    if record.sender_pid is None:
        return None if record.code is not None else Who(None)
    node = tree.node(ProcessKey(record.sender_pid, record.sender_start_ticks))
    role = role_of(node, record.ts_boot_ns) if node is not None else None
    if role in {None, "other"}:
        role = outsider(record, tree, node) or role
    return Who(record.sender_pid, record.sender_start_ticks, role, record.sender_comm)


def outsider(record: Signal, tree: ProcessTree, node: Node | None) -> str | None:
    """
    Return the role of a sender outside of Airflow, whose node is `node`, None if it has none.

    Any user can call a process by any name: the name counts if root sent the signal. A
    container's init may be of any user. It is known by its number, or, where it was not
    traced itself, by its name and by being the parent of who was traced first.
    """
    named = OUTSIDERS.get(record.sender_comm or "")
    if named is not None and record.sender_uid == 0:
        return named
    if node is not None and is_first(node):
        return "container_init"
    target = tree.node(record.key)
    if named != "container_init" or target is None or len(target.ns_pids or ()) < 2:
        return None
    above = tree.lineage(target.key)[-1].first_parent
    sent_it = (record.sender_pid, record.sender_start_ticks)
    return named if above is not None and above[:2] == sent_it else None


def is_first(node: Node) -> bool:
    """Return whether a process is process 1 of a PID namespace below another."""
    numbers = node.ns_pids
    return numbers is not None and len(numbers) > 1 and numbers[-1] == 1


def first_ended(node: Node, sent: Signal, tree: ProcessTree) -> Node | None:
    """
    Return whose end made the kernel send a process SIGKILL, None if it was no such end.

    With process 1 of a PID namespace all in there are killed: after its exit record,
    and before its parent can collect it (kernel/pid_namespace.c zap_pid_ns_processes,
    called by kernel/exit.c exit_notify).
    """
    return next(
        (
            above
            for above in tree.lineage(node.key)[1:]
            if is_first(above)
            and above.exit is not None
            and above.exit.ts_boot_ns <= sent.ts_boot_ns
            and (above.reap is None or sent.ts_boot_ns <= above.reap.ts_boot_ns)
        ),
        None,
    )


def ending_seqs(node: Node) -> list[int]:
    """Return the records that prove the end: the exit, the last ending signal, the OOM choice."""
    seqs = [node.exit.seq] if node.exit is not None else []
    if node.exit is not None and node.exit.termsig is not None:
        seqs += [s.seq for s in node.signals if s.sig == node.exit.termsig][-1:]
    if node.oom is not None:
        seqs.append(node.oom.seq)
    return seqs


def ended_in_words(node: Node) -> str:
    """Return how a process ended in a few words."""
    ended = node.exit
    if ended is None or (ended.termsig is None and ended.exit_code is None):
        return "is still running" if node.ended_ns is None else "ended (how is not known)"
    if ended.termsig is not None:
        core = " and dumped core" if ended.core_dumped else ""
        return f"was ended by {signal_name(ended.termsig)}{core}"
    return f"exited with {ended.exit_code}"


def signal_name(number: int | None) -> str:
    """Return `SIGKILL` and the like; real-time signals by number."""
    if number is None:
        return "an unknown signal"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
