"""One run of `pidtrail trace`: what is followed, by which source, to where, until when."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from pidtrail.airflow.account import Account, checked_template
from pidtrail.airflow.credentials import (
    DATABASE,
    exposed,
    named_files,
    take_credentials,
    take_database,
)
from pidtrail.cli import give_up_output, signals
from pidtrail.cli.airflows import Airflows
from pidtrail.cli.child import Child
from pidtrail.cli.logs import log
from pidtrail.cli.summary import print_verdicts, wait_for_reader
from pidtrail.cli.troubles import Troubles
from pidtrail.errors import PidtrailError, UsageError
from pidtrail.redact import redact_url
from pidtrail.runtime import TURN_SECONDS, Session, make_header
from pidtrail.sinks.feed import Feed
from pidtrail.sources import proc
from pidtrail.sources.ladder import AUTO, Climb, open_below, open_best
from pidtrail.store import Recorder

if TYPE_CHECKING:
    from pidtrail.airflow.rest import Rest
    from pidtrail.events import AirflowFact
    from pidtrail.sinks.sink import Sink
    from pidtrail.sources.source import Source


GRACE_SECONDS = 10.0
MAX_LEFT = 10
"""So many of the processes that outlive their command are named."""


class Trace:
    """One run of the command: its options, and what they led to."""

    def __init__(
        self,
        *,
        source_name: str,
        pids: tuple[int, ...],
        airflow: bool,
        duration: float | None,
        form: str,
        interval: float | None,
        migrations: bool,
        airflow_db: str | None,
        airflow_api: str | None,
        airflow_plugin: str | None,
        log_template: str | None,
        output: Path | None,
        command: tuple[str, ...],
    ) -> None:
        if sum(map(bool, (pids, airflow, command))) != 1:
            raise UsageError("name what to follow: --pid PID, --airflow, or -- CMD")
        if duration is not None and not duration > 0:  # which nan is not either
            raise UsageError("--duration must be more than 0 seconds")
        self.source_name, self.migrations, self.interval = source_name, migrations, interval
        self.pids, self.airflow, self.command = pids, airflow, command
        self.duration, self.form, self.output = duration, form, output
        self.airflow_api = airflow_api
        self.plugin_path = None if airflow_plugin is None else self.tell_command(airflow_plugin)
        if log_template is not None:
            try:
                checked_template(log_template, "--log-template")
            except PidtrailError as error:
                raise UsageError(error.message) from None
        self.account = Account(
            os.environ,
            database=self.database(airflow_db),
            rest=self.make_rest() if airflow_api is not None else None,
            template=log_template,
        )
        self.airflows = Airflows(self.account)
        self.signals: list[int] = []
        self.child: Child | None = None
        self.recorder: Recorder | None = None
        self.feed: Feed | None = None
        self.said_problem: str | None = None
        self.told_source = ""
        self.troubles = Troubles()

    def run(self) -> int:
        """Run the session and return the exit status."""
        with ExitStack() as stack:
            signals.note(self.signals)
            roots = self.find_roots()
            with log.aside():
                session = self.open(roots, stack)
                try:
                    session.start(self.log_facts(roots))
                    self.airflows.tell(session, self.airflows.roots)
                    log.info("attached", source=session.source.name, roots=roots)
                    if (missed := session.source.fidelity.expected_miss) is not None:
                        name = session.source.name
                        log.warning("not all will be seen", source=name, missed=missed)
                    if self.child is not None:
                        self.child.release()
                    self.loop(session, roots)
                except OSError:
                    # Nobody takes the events any more, as behind `head` or on a full disk: end as
                    # SIGPIPE would end us, or with the error.
                    self.end_child(session)
                    raise
                finally:
                    self.signals.clear()
                    session.finish()
            try:
                signals.interrupt()
                if self.feed is not None:
                    wait_for_reader(self.feed, is_over=lambda: bool(self.signals))
                self.show(session)
            except KeyboardInterrupt:
                give_up_output()
                if self.child is None:
                    raise
        return self.child.exit_status if self.child is not None else 0

    def find_roots(self) -> list[int]:
        """Return the pids to follow; a command is forked for it. Raises PidtrailError."""
        if self.command:
            self.child = Child(self.command, stdout_to_stderr=self.form == "jsonl")
            return [self.child.pid]
        if self.airflow:
            from pidtrail.airflow.running import root_processes

            roots = self.airflows.found(root_processes())
            if not roots:
                raise PidtrailError("no Airflow scheduler, worker or triggerer runs here")
            return roots
        for pid in self.pids:
            process = proc.process_of(pid)
            if process is None:
                raise PidtrailError(f"no process {pid}")
            if process == os.getpid():
                raise PidtrailError(f"process {pid} is this pidtrail, which does not trace itself")
            if process != pid:
                raise PidtrailError(f"{pid} is a thread of process {process}", "name the process")
        roots = list(dict.fromkeys(self.pids))
        if len(roots) > 1:
            from pidtrail.airflow.running import ROOT_ROLES, airflow_processes

            found = [p for p in airflow_processes() if p.pid in roots and p.role in ROOT_ROLES]
            self.airflows.found(found)
        return roots

    def open(self, roots: list[int], stack: ExitStack) -> Session:
        """Open the source, the sinks and Airflow's claims; undone if one of them fails."""
        try:
            source, refused = open_best(
                self.source_name, roots, migrations=self.migrations, interval_s=self.interval
            )
            for name, reason in refused.items():
                log.warning("source not taken", source=name, reason=reason)
        except BaseException:
            if self.child is not None:
                self.child.abandon()
            raise
        try:
            urls, shown, problem = self.databases(roots)
            header = make_header(source, roots, refused, shown, problem)
            if self.airflow_api is not None:
                header = structs.replace(header, airflow_api=redact_url(self.airflow_api))
            header = structs.replace(header, airflow_plugin=self.plugin_path)
            sinks: list[Sink] = []
            if self.output is not None or self.form != "none":
                self.recorder = Recorder(self.recording_path(stack), header)
                sinks.append(self.recorder)
            if self.form == "jsonl":
                self.feed = Feed(sys.stdout.fileno(), header)
                sinks.append(self.feed)
                self.check_feed()
            if self.plugin_path is not None:
                self.account.listen(self.plugin_path, proc.start_ticks)
            self.account.read(urls)
            return self.session(source, sinks)
        except BaseException:
            source.close()
            if self.child is not None:
                self.child.abandon()
            raise

    def session(self, source: Source, sinks: list[Sink]) -> Session:
        """Return the session; only a source that nobody named may become another one."""
        session = Session(source, sinks, [self.account])
        if self.source_name == AUTO:
            session.step_down = partial(open_below, interval_s=self.interval)
            session.climb = Climb(migrations=self.migrations, interval_s=self.interval)
        return session

    def make_rest(self) -> Rest:
        """Take the credentials out of the environment, before a command inherits it."""
        from pidtrail.airflow.rest import Rest

        return Rest(
            self.airflow_api or "", take_credentials(os.environ), since_epoch_ns=time.time_ns()
        )

    def database(self, given: str | None) -> str | None:
        """Return the URL that the user named; from the environment before a command inherits it."""
        named = take_database(os.environ)
        for line in exposed(named_files(os.environ)):
            log.warning(line)
        if given is not None and redact_url(given) != given:
            log.warning(
                "--airflow-db shows its password to every user of this host",
                instead=f"{DATABASE} or {DATABASE}_FILE",
            )
        return given or named

    def tell_command(self, path: str) -> str:
        """Return the path of the plugin's socket; a command that we start will find it there."""
        from pidtrail.airflow.claims import SOCKET, SOCKET_VARIABLE

        full = str(Path(path or os.environ.get(SOCKET_VARIABLE) or SOCKET).absolute())
        os.environ[SOCKET_VARIABLE] = full
        return full

    def databases(self, roots: list[int]) -> tuple[set[str], str | None, str | None]:
        """Return the URLs of the databases to read, them without secrets, and what is not known."""
        airflows = self.airflows
        if airflows.roots:
            urls = {url for url in airflows.roots.values() if url is not None}
            return urls, airflows.databases, airflows.problem
        location = self.account.locate(self.airflow_pid(roots))
        if location is None:
            return set(), None, None
        if location.url is None:
            return set(), None, location.problem
        return {location.url}, redact_url(location.url), None

    def log_facts(self, roots: list[int]) -> list[AirflowFact]:
        """Return how the Airflows that are followed name the logs of tasks, each once."""
        pids: list[int | None] = [*self.airflows.roots] or [self.airflow_pid(roots)]
        facts = (fact for pid in pids for fact in self.account.log_facts(pid))
        return list({str(fact.detail): fact for fact in facts}.values())

    def airflow_pid(self, roots: list[int]) -> int | None:
        """Return whose environment tells of Airflow; a command's is our own."""
        return None if self.child is not None else roots[0]

    def recording_path(self, stack: ExitStack) -> Path:
        """Return where to record: the verdicts at the end are made from it in any case."""
        if self.output is not None:
            return self.output
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pidtrail-"))
        return Path(folder) / "session.db"

    def loop(self, session: Session, roots: list[int]) -> None:
        """Turn until the end: the command's, the duration's, the roots', or a signal."""
        deadline = None if self.duration is None else time.monotonic() + self.duration
        pause = TURN_SECONDS
        watched: set[int] = set()
        for pid in roots:
            with suppress(ProcessLookupError):
                watched.add(os.pidfd_open(pid))
        try:
            while True:
                plugin = self.account.plugin
                wake = plugin.wake_fd() if plugin is not None else None
                also = set() if wake is None else {wake}
                ready, _, _ = select.select(watched | also, [], [], pause)
                ended = watched.intersection(ready)
                pause = session.pause_s(session.turn())
                self.check_feed()
                self.tell_problems(session)
                if self.child is not None and self.child.wait(0):
                    return
                if self.child is None:
                    watched.difference_update(ended)
                    for fd in ended:
                        os.close(fd)
                    if not watched and not session.live:
                        return
                if deadline is not None and time.monotonic() >= deadline:
                    self.end_child(session)
                    return
                if self.signals and self.on_signal(session):
                    return
        finally:
            for fd in watched:
                os.close(fd)

    def on_signal(self, session: Session) -> bool:
        """Return whether the session ends now; a command gets the signal first."""
        numbers = list(self.signals)
        del self.signals[: len(numbers)]
        if self.child is None:
            return True
        if signal.SIGINT in numbers and not (sys.stdin is not None and sys.stdin.isatty()):
            self.child.send(signal.SIGINT)
        if signal.SIGTERM in numbers or signal.SIGHUP in numbers:
            self.child.send(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        # A second signal means: now.
        while not self.signals and not self.child.wait(0) and time.monotonic() < deadline:
            session.turn()
            time.sleep(TURN_SECONDS)
        self.end_child(session)
        return True

    def end_child(self, session: Session) -> None:
        """End the command if it still runs, and go on capturing how it ends."""
        if self.child is None or self.child.wait(0):
            return
        self.child.send(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while not self.child.wait(0) and time.monotonic() < deadline and not self.signals:
            session.turn()
            time.sleep(TURN_SECONDS)
        self.child.end(0)

    def tell_problems(self, session: Session) -> None:
        """Say once what goes wrong in a source, that it is another one, how the recording does."""
        if session.source.name != self.told_source:
            if self.told_source:
                log.warning("another source", before=self.told_source, source=session.source.name)
            self.told_source = session.source.name
        for trouble in getattr(session.source, "problems", list)():
            log.warning("trouble", source=session.source.name, problem=trouble)
        problem = self.recorder.problem if self.recorder is not None else None
        if problem != self.said_problem:
            self.said_problem = problem
            if problem is not None:
                log.error("recording incomplete", problem=problem)
            else:
                log.info("recording goes on")
        # Who traces for hours wants it now; it is said again at the end.
        for lasting in self.troubles.lasting(session.problems(), time.monotonic()):
            log.warning(self.airflow_word, problem=lasting)

    @property
    def airflow_word(self) -> str:
        """What a problem with Airflow's records is said of."""
        several = self.airflow_api is not None or self.plugin_path is not None
        return "airflow" if several else "airflow database"

    def check_feed(self) -> None:
        """Raise the OSError for which nothing more can be written to stdout, if there is one."""
        if self.feed is not None:
            self.feed.check()

    def show(self, session: Session) -> None:
        """Print what the session showed."""
        log.info("ended", events=session.events, lost=session.lost)
        if self.feed is not None and self.feed.missed:
            log.warning("the reader of stdout was too slow", missed=self.feed.missed)
        if self.child is not None and session.live:
            # `airflow standalone` ends at SIGTERM without its parts, for one.
            left = sorted(key.pid for key in session.live)
            log.warning("still running", count=len(left), pids=left[:MAX_LEFT])
        for problem in session.problems():
            log.warning(self.airflow_word, problem=problem)
        if self.form == "none" or self.recorder is None:
            return
        print_verdicts(self.recorder.path, session, to_stderr=self.form == "jsonl")
