"""
Stories: streams of records written by hand, for tests of everything right of the source.

Names instead of numbers: each process is called something, gets a pid when it
is first mentioned, and time goes on by 10 ms with every sentence. A story knows
nothing of how it will be judged.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from msgspec import structs

from pidtrail.clock import rfc3339
from pidtrail.events import (
    EVENT_SCHEMA,
    AirflowFact,
    Event,
    Exec,
    Exit,
    Fidelity,
    Fork,
    Header,
    Lost,
    Observed,
    Oom,
    Reap,
    Signal,
    TaskRef,
    TaskReported,
    Title,
)
from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.model import Report, Verdict
from pidtrail.verdict.question import Question
from pidtrail.wstatus import decode_wstatus

STEP_NS = 10_000_000
SECOND = 1_000_000_000
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
OFFSET_NS = int(EPOCH.timestamp()) * SECOND
FULL = Fidelity(
    has_argv=True,
    has_titles=True,
    has_wstatus=True,
    has_start_ns=True,
    has_counters=True,
    has_signals=True,
    sees_short_lived=True,
    counts_loss=True,
)


def uuid(number: int) -> str:
    """Return a task instance id as Airflow 3.x makes them."""
    return f"01a201d9-c083-7000-8000-{number:012d}"


class Story:
    """A stream in the making; `now_ns` may be moved on by `wait`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.pids: dict[str, int] = {}
        self.starts: dict[str, int] = {}
        self.parents: dict[str, str] = {}
        self.now_ns = 100 * SECOND
        self.seq = 0

    def next(self) -> tuple[int, int, str]:
        """Go on by one step; return seq, time and origin of the next record."""
        self.seq += 1
        self.now_ns += STEP_NS
        return self.seq, self.now_ns, "core"

    def identity(self, name: str) -> tuple[int, int, int]:
        """Return pid, start_ticks and start_ns of a process, which must have been born."""
        start = self.starts[name]
        return self.pids[name], start // STEP_NS, start

    def wait(self, seconds: float) -> Self:
        """Let time pass."""
        self.now_ns += int(seconds * SECOND)
        return self

    def born(self, name: str, pid: int | None = None) -> None:
        """Give a process its number and start."""
        self.pids[name] = pid if pid is not None else 1000 + len(self.pids)
        self.starts[name] = self.now_ns

    def root(
        self, name: str, *argv: str, pid: int | None = None, ns_pids: list[int] | None = None
    ) -> Self:
        """Find a process that was there before us; its parent is process 1."""
        head = self.next()
        self.born(name, pid)
        seen: dict[str, Any] = {
            "ppid": 1,
            "parent_start_ticks": 1,
            "argv": list(argv),
            "ns_pids": ns_pids,
        }
        self.events.append(Observed(*head, *self.identity(name), **seen))
        return self

    def fork(
        self, parent: str, name: str, pid: int | None = None, ns_pids: list[int] | None = None
    ) -> Self:
        """Let a process be born; `ns_pids` are its numbers if it is in several namespaces."""
        head = self.next()
        self.born(name, pid)
        self.parents[name] = parent
        ppid, ticks, _ = self.identity(parent)
        self.events.append(
            Fork(
                *head,
                *self.identity(name),
                ppid=ppid,
                parent_start_ticks=ticks,
                comm=parent[:15],
                ns_pids=ns_pids,
            )
        )
        return self

    def title(self, name: str, title: str) -> Self:
        """Let a process name itself."""
        self.events.append(Title(*self.next(), *self.identity(name), title=title, comm=title[:15]))
        return self

    def exec(self, name: str, *argv: str) -> Self:
        """Let a process become another program."""
        self.events.append(
            Exec(
                *self.next(),
                *self.identity(name),
                filename=argv[0],
                argv=list(argv),
                comm=argv[0].rpartition("/")[2][:15],
            )
        )
        return self

    def log(self, name: str, path: str) -> Self:
        """See that a process holds a log open."""
        self.events.append(Observed(*self.next(), *self.identity(name), log_path=path))
        return self

    def seen(self, name: str, *argv: str) -> Self:
        """See a process's command line in /proc, as a source does that polls."""
        event = Observed(*self.next(), *self.identity(name), argv=list(argv), comm=argv[0][:15])
        self.events.append(event)
        return self

    def signal(self, sig: int, target: str, sender: str | None, code: int = 0) -> Self:
        """Let a signal be sent, by the kernel if there is no sender."""
        by: dict[str, Any] = {}
        if sender is not None:
            pid, ticks, _ = self.identity(sender)
            by = {"sender_pid": pid, "sender_start_ticks": ticks, "sender_comm": sender}
        self.events.append(Signal(*self.next(), *self.identity(target), sig=sig, code=code, **by))
        return self

    def outside(self, sig: int, target: str, comm: str, uid: int) -> Self:
        """Let process 1, which is not traced, send a signal."""
        by: dict[str, Any] = {"sender_pid": 1, "sender_start_ticks": 1, "sender_uid": uid}
        self.events.append(
            Signal(*self.next(), *self.identity(target), sig=sig, code=0, sender_comm=comm, **by)
        )
        return self

    def oom(self, name: str) -> Self:
        """Let the kernel choose a victim."""
        self.events.append(Oom(*self.next(), *self.identity(name), victim_comm=name))
        return self

    def exit(self, name: str, wstatus: int = 0, ppid: int | None = None, **counters: Any) -> Self:
        """Let a process end; its parent is who it was born of unless told."""
        code, sig, core = decode_wstatus(wstatus)
        parent = self.parents.get(name)
        self.events.append(
            Exit(
                *self.next(),
                *self.identity(name),
                wstatus=wstatus,
                exit_code=code,
                termsig=sig,
                core_dumped=core,
                ppid=ppid if ppid is not None else self.pids[parent] if parent else 1,
                **counters,
            )
        )
        return self

    def reap(self, name: str, zombie_ns: int) -> Self:
        """Let a dead process be collected."""
        self.events.append(Reap(*self.next(), *self.identity(name), zombie_ns=zombie_ns))
        return self

    def lose(self, count: int | None) -> Self:
        """Lose records in the last second."""
        seq, now, _ = self.next()
        self.events.append(
            Lost(seq, now, "core", count=count, from_ns=now - SECOND, to_ns=now, reason="ring full")
        )
        return self

    def report(
        self, task: TaskRef, state: str | None, pid: int | str | None, **columns: Any
    ) -> Self:
        """Let a row of Airflow say something; `pid` may name a process."""
        seq, now, _ = self.next()
        number = self.pids[pid] if isinstance(pid, str) else pid
        columns = {"table": "task_instance", "via": "db", "hostname": "worker-1"} | columns
        self.events.append(
            TaskReported(
                seq, now, "airflow-db", task=task, state=state, recorded_pid=number, **columns
            )
        )
        return self

    def tell(self, name: str, task: TaskRef, state: str | None = "running") -> Self:
        """Let a process say through the plugin what it runs."""
        seq, now, _ = self.next()
        pid, ticks, _ = self.identity(name)
        self.events.append(
            TaskReported(
                *(seq, now, "airflow-plugin", pid, ticks),
                task=task,
                recorded_pid=pid,
                state=state,
                via="plugin",
            )
        )
        return self

    def fact(self, task: TaskRef, table: str, event: str | None = None, **detail: Any) -> Self:
        """Let another row of Airflow's say something."""
        seq, now, _ = self.next()
        at = (EPOCH + timedelta(microseconds=now // 1000)).isoformat()
        self.events.append(
            AirflowFact(
                *(seq, now, "airflow-db"),
                task=task,
                table=table,
                event=event,
                at=at,
                detail=detail or None,
            )
        )
        return self

    def job(self, number: int, state: str) -> Self:
        """Let the row of a scheduler's job have a state."""
        head, detail = self.next(), {"job_type": "SchedulerJob"}
        self.events.append(
            AirflowFact(*head, table="job", row_id=str(number), event=state, detail=detail)
        )
        return self

    def judge(
        self,
        fidelity: Fidelity = FULL,
        problems: list[str] | None = None,
        pid: int | None = None,
        addresses: list[str] | None = None,
    ) -> Report:
        """Return what pidtrail makes of it; `pid` is asked about, `addresses` are the host's."""
        head = structs.replace(header(fidelity), addresses=addresses)
        question = Question(pid=pid)
        return judge_stream(head, self.events, problems=problems or [], question=question)

    def verdict(self, try_number: int | None = None) -> Verdict:
        """Return the only verdict, or that of a try."""
        verdicts = self.judge().verdicts
        if try_number is not None:
            verdicts = [v for v in verdicts if v.task.try_number == try_number]
        assert len(verdicts) == 1, [(v.task, v.code) for v in verdicts]
        return verdicts[0]


def header(fidelity: Fidelity = FULL) -> Header:
    """Return the header that stories begin with."""
    return Header(
        schema=EVENT_SCHEMA,
        host="worker-1",
        boot_id="00000000-0000-4000-8000-000000000000",
        clk_tck=100,
        wall_offset_ns=OFFSET_NS,
        source="core",
        fidelity=fidelity,
        roots=[],
        version="0.0.0",
    )


def at(now_ns: int) -> str:
    """Return an instant of a story as Airflow writes it."""
    return rfc3339(now_ns + OFFSET_NS)


def ref(try_number: int | None = 1, ti_id: str | None = None, map_index: int = -1) -> TaskRef:
    """Return the task instance that most stories are about."""
    return TaskRef("sales", "load", "manual__1", map_index, try_number, ti_id)


LOG = "/srv/airflow/logs/dag_id=sales/run_id=manual__1/task_id=load/attempt={}.log"


class Airflow3(Story):
    """A 3.x scheduler with one idle LocalExecutor worker, which supervises what it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.root("scheduler", "/usr/bin/python3", "/usr/bin/airflow", "scheduler")
        self.worker("scheduler", "worker")

    def worker(self, scheduler: str, name: str) -> Self:
        """Let a scheduler fork a worker."""
        return self.fork(scheduler, name).title(name, "airflow worker -- LocalExecutor: <idle>")

    def start(self, worker: str, runner: str, task: TaskRef, pid: int | None = None) -> Self:
        """Let a worker take a task instance and fork its runner; nothing is recorded yet."""
        self.title(worker, f"airflow worker -- LocalExecutor: {task.ti_id}")
        self.log(worker, LOG.format(task.try_number))
        self.fork(worker, runner, pid)
        return self.title(runner, f"airflow worker -- {task.ti_id}")

    def run(self, worker: str, runner: str, task: TaskRef, pid: int | None = None) -> Self:
        """Let a worker start a task instance, and Airflow record it."""
        return self.start(worker, runner, task, pid).report(task, "running", runner)

    def idle(self, worker: str) -> Self:
        """Let a worker be done."""
        return self.title(worker, "airflow worker -- LocalExecutor: <idle>")


class Airflow2(Story):
    """A 2.x scheduler with one worker; supervisor and runner are two forks below it."""

    def __init__(self) -> None:
        super().__init__()
        self.root("scheduler", "/usr/bin/python3", "/usr/bin/airflow", "scheduler")
        self.fork("scheduler", "worker").title("worker", "airflow worker -- LocalExecutor")

    def start(
        self,
        suffix: str,
        job: int,
        *,
        log: int | None = 1,
        run_as_own_user: bool = False,
        sudo_levels: int = 0,
    ) -> Self:
        """
        Let the worker start supervisor and runner: `supervisor1`, `runner1` for suffix 1.

        As another user the runner is exec'ed: with sudo it becomes sudo, and
        `python` runs below its last level.
        """
        words = (
            "['airflow', 'tasks', 'run', 'sales', 'load', 'manual__1', '--local', "
            "'--subdir', 'DAGS_FOLDER/sales.py']"
        )
        run = ("/usr/bin/airflow", "tasks", "run", "sales", "load", "manual__1")
        raw = (*run, "--job-id", str(job), "--raw")
        supervisor, runner = f"supervisor{suffix}", f"runner{suffix}"
        self.title("worker", f"airflow worker -- LocalExecutor: {words}")
        self.fork("worker", supervisor).title(supervisor, f"airflow task supervisor: {words}")
        if log is not None:
            self.log(supervisor, LOG.format(log))
        self.fork(supervisor, runner)
        if sudo_levels:
            self.exec(runner, "/usr/bin/sudo", "-E", "-H", "-u", "etl", *raw)
            above = runner
            if sudo_levels > 1:
                self.fork(runner, "sudo")
                self.events[-1] = structs.replace(self.events[-1], comm="sudo")
                above = "sudo"
            return self.fork(above, "python").exec("python", "/usr/bin/python3", *raw)
        if run_as_own_user:
            return self.exec(runner, "/usr/bin/python3", *raw)
        return self.title(runner, f"airflow task runner: sales load manual__1 {job}")
