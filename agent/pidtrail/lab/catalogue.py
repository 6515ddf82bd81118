"""All experiments, in the order in which they are told."""

from __future__ import annotations

from typing import Final

from pidtrail.lab.cgroup_move import CgroupMove
from pidtrail.lab.context_switch import ContextSwitch
from pidtrail.lab.cpu_migration import CpuMigration, CpuMigrationThreads
from pidtrail.lab.exec_from_thread import ExecFromThread
from pidtrail.lab.exec_image import ExecImage
from pidtrail.lab.experiment import Experiment
from pidtrail.lab.fork import DoubleFork, Fork, PosixSpawn, VforkExec
from pidtrail.lab.freeze import Freeze
from pidtrail.lab.memory_pressure import MemoryPressure
from pidtrail.lab.page_out import PageOut
from pidtrail.lab.pid_namespace import PidNamespace
from pidtrail.lab.pid_reuse import PidReuse
from pidtrail.lab.ptrace_attach import PtraceAttach
from pidtrail.lab.rename import Rename
from pidtrail.lab.reparent import Reparent, Subreaper
from pidtrail.lab.restart import Restart
from pidtrail.lab.retry import Retry
from pidtrail.lab.scheduling_class import SchedulingClass
from pidtrail.lab.setsid_setpgid import SetsidSetpgid
from pidtrail.lab.setuid import Setuid
from pidtrail.lab.shell_pipeline import ShellPipeline
from pidtrail.lab.stop_continue import StopContinue
from pidtrail.lab.sudo_chain import SudoChain

KINDS: Final[tuple[type[Experiment], ...]] = (
    *(CpuMigration, CpuMigrationThreads, ContextSwitch, PageOut, StopContinue),
    *(SchedulingClass, CgroupMove, ExecImage, ExecFromThread, SetsidSetpgid, Setuid, Rename),
    *(Reparent, Subreaper, Freeze, PtraceAttach, MemoryPressure),
    *(Fork, VforkExec, PosixSpawn, DoubleFork, Retry, Restart, SudoChain, ShellPipeline),
    *(PidNamespace, PidReuse),
)
EXPERIMENTS: Final[dict[str, type[Experiment]]] = {kind.name: kind for kind in KINDS}
