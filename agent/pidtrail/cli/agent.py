"""`pidtrail agent`: the service, which waits for Airflow and keeps what it saw of it."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from msgspec import structs

from pidtrail.airflow.account import Account
from pidtrail.airflow.credentials import exposed
from pidtrail.cli.airflows import Airflows
from pidtrail.cli.logs import log
from pidtrail.config import LIVE, Airflow, Config, HistoryBounds, changed, parsed, with_live
from pidtrail.errors import PidtrailError, UsageError
from pidtrail.events import AirflowFact, Header, Lost
from pidtrail.keeper import Bounds, Keeper
from pidtrail.redact import redact_url
from pidtrail.runtime import Session, make_header, this_place
from pidtrail.service.live import Live
from pidtrail.service.notify import Notifier
from pidtrail.service.server import Server
from pidtrail.sources import proc
from pidtrail.sources.ladder import AUTO, Climb, better, open_below, open_best

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from types import FrameType

    from pidtrail.airflow.rest import Rest

ORIGIN: Final = "service"
AWAY: Final = "the service did not run"
TELL_SECONDS: Final = 5.0
LISTEN_SECONDS: Final = 60.0
MOST_SAID: Final = 200
MOST_ROOTS: Final = 1000
"""Source core takes 1024 at once."""
MOST_FILE_BYTES: Final = 65_536


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings, in TOML; what it does not say, or no FILE, is the default.",
)
@click.option("--check", is_flag=True, help="Say what is wrong with the settings, and end.")
def agent(config_file: Path | None, *, check: bool) -> None:
    """
    Run as a service: wait for Airflow, watch it, and keep what happened.

    Finds schedulers, Celery workers and triggerers by itself, follows their restarts, and
    keeps a history bounded in size and age, a folder of recordings that `pidtrail explain
    FILE` reads. `pidtrail explain` and `pidtrail tree` without FILE ask it. Ends at SIGTERM
    or Ctrl-C. At SIGHUP settings are read again: max_age, max_size and [socket] are taken over,
    others are named, and wait for the next start.

    \b
    Examples:
      pidtrail agent --config /etc/pidtrail/pidtrail.toml
      systemctl enable --now pidtrail
    """  # noqa: D301 (click wants the character \b itself)
    config = settings_in(config_file)
    if check:
        account_of(config.airflow, os.environ)
        return
    with log.aside():
        Agent(config, os.environ, config_file).run()


class Agent:
    """The service from its start to its end."""

    def __init__(
        self, config: Config, environ: MutableMapping[str, str], config_file: Path | None = None
    ) -> None:
        self.config, self.config_file = config, config_file
        self.notifier = Notifier(environ)
        self.account = account_of(config.airflow, environ)
        self.airflows = Airflows(self.account)
        self.signals: list[int] = []
        self.refused: dict[str, str] = {}
        self.server: Server | None = None
        self.said: dict[str, None] = {}
        self.tell_s = self.listen_s = 0.0

    def run(self) -> None:
        """Run until a signal. Raises PidtrailError where that is impossible."""
        # Where it hangs is told when the watchdog of the manager ends it (SIGABRT).
        faulthandler.enable()
        self.take_signals()
        history = self.config.history
        keeper = Keeper(Path(history.directory), bounds_of(history), this_place())
        try:
            session, live = self.open(keeper)
        except BaseException:
            keeper.close()
            raise
        try:
            self.start(session, keeper)
            self.listen(live)
            self.notifier.ready()
            self.tell_status(session, keeper)
            self.loop(session, keeper, live)
        finally:
            self.notifier.stopping()
            if self.server is not None:
                self.server.stop()
            session.finish()
            log.info("ended", events=session.events, lost=session.lost)

    def take_signals(self) -> None:
        """Note signals instead of dying of them: what was captured must be kept."""

        def note(number: int, _frame: FrameType | None) -> None:
            self.signals.append(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, note)

    def open(self, keeper: Keeper) -> tuple[Session, Live]:
        """Open the source and begin the history; undone if one of them fails."""
        capture = self.config.capture
        found = self.airflows.found(self.airflows.finder.look(()))
        # Who was followed and lost his parent meanwhile is below no root any more.
        roots = list(dict.fromkeys([*found, *proc.tops(keeper.standing.alive)]))[:MOST_ROOTS]
        source, self.refused = open_best(capture.source, roots, interval_s=capture.interval)
        try:
            source.seq = keeper.last_seq
            live = Live(make_header(source, roots, self.refused))
            session = Session(source, [keeper, live], [self.account])
            if capture.source == AUTO:
                session.step_down = partial(open_below, interval_s=capture.interval)
                session.climb = Climb(interval_s=capture.interval)
            keeper.begin(self.header(session))
            session.resume(keeper.standing.told_again(session.now_ns()), keeper.standing.alive)
        except BaseException:
            source.close()
            raise
        return session, live

    def header(self, session: Session) -> Header:
        """Return the header of a segment that begins now."""
        airflows, plugin = self.airflows, self.account.plugin
        above = better(session.source.name)
        header = make_header(
            session.source,
            list(airflows.roots),
            {name: why for name, why in self.refused.items() if name in above},
            airflows.databases,
            airflows.problem,
        )
        return structs.replace(
            header,
            airflow_api=redact_url(self.config.airflow.api) or None,
            airflow_plugin=plugin.path if plugin is not None else None,
        )

    def start(self, session: Session, keeper: Keeper) -> None:
        """Say what was missed since the service before, and who is there."""
        first: list[AirflowFact | Lost] = []
        if keeper.last_seq:
            lost = Lost(0, 0, ORIGIN, from_ns=keeper.last_ns, to_ns=session.now_ns(), reason=AWAY)
            first.append(lost)
        for pid in self.airflows.roots:
            first += self.account.log_facts(pid)
        session.start(first)
        self.airflows.tell(session, self.airflows.roots)
        self.airflows.read()
        log.info("attached", source=session.source.name, roots=list(self.airflows.roots))
        for name, reason in self.refused.items():
            log.warning("a better source does not work", source=name, reason=reason)
        if (missed := session.source.fidelity.expected_miss) is not None:
            log.warning("not all will be seen", source=session.source.name, missed=missed)

    def listen(self, live: Live) -> None:
        """Open the sockets; one that cannot be opened now is tried again, and ends nothing."""
        self.listen_s = time.monotonic() + LISTEN_SECONDS
        plugin, asked = self.config.airflow.plugin, self.config.socket
        try:
            if plugin and self.account.plugin is None:
                self.account.listen(plugin, proc.start_ticks)
            if asked.path and self.server is None:
                folder = Path(self.config.history.directory)
                self.server = Server(asked.path, folder, live, asked.group)
                self.server.start()
        except PidtrailError as error:
            self.warn(str(error))

    def loop(self, session: Session, keeper: Keeper, live: Live) -> None:
        """Turn until a signal says to end."""
        pause = 0.0
        while not self.ends(keeper):
            plugin = self.account.plugin
            wake = plugin.wake_fd() if plugin is not None else None
            select.select([] if wake is None else [wake], [], [], pause)
            pause = session.pause_s(session.turn())
            if self.airflows.finder.is_due():
                self.airflows.look(session)
            if live.wants_snapshot():
                session.take_snapshot(session.source.snapshot())
            self.keep(session, keeper, live)
            now_s = time.monotonic()
            if now_s >= self.listen_s:
                self.listen(live)
            if now_s >= self.tell_s:
                self.tell(session, keeper)
            self.notifier.turned(now_s)

    def ends(self, keeper: Keeper) -> bool:
        """Return whether a signal said to end; SIGHUP says to read the settings again."""
        numbers = list(self.signals)
        del self.signals[: len(numbers)]
        if any(number != signal.SIGHUP for number in numbers):
            return True
        if numbers:
            self.notifier.reloading()
            self.read_again(keeper)
            self.notifier.ready()
        return False

    def read_again(self, keeper: Keeper) -> None:
        """Take over of the settings what can change while we capture, and name the others."""
        try:
            new = settings_in(self.config_file)
        except PidtrailError as error:
            log.error("settings stay as they were", problem=str(error))
            return
        names = changed(self.config, new)
        self.config = with_live(self.config, new)
        keeper.bound(bounds_of(self.config.history))
        if self.server is not None and any(name.startswith("[socket]") for name in names):
            # Who is being answered is cut off, and not waited for: capture goes on.
            self.server.stop(seconds=0)
            self.server = None
            self.listen_s = 0.0
        log.info("settings read again", taken=[name for name in names if name in LIVE])
        if waiting := [name for name in names if name not in LIVE]:
            log.warning("some settings wait for the next start", settings=waiting)

    def keep(self, session: Session, keeper: Keeper, live: Live) -> None:
        """Begin a segment when it is time, or when the header of this one is not true any more."""
        told = keeper.header
        due = keeper.is_due()
        if told is not None and (told.source, told.airflow_db, told.airflow_problem) != (
            session.source.name,
            self.airflows.databases,
            self.airflows.problem,
        ):
            due = keeper.may_begin()
        if not due:
            return
        header = self.header(session)
        try:
            keeper.begin(header)
        except PidtrailError as error:
            keeper.put_off(str(error))
            return
        live.header = header
        if told is not None and told.source != header.source:
            log.warning("another source", before=told.source, source=header.source)
        session.take_snapshot(session.source.snapshot())

    def tell(self, session: Session, keeper: Keeper) -> None:
        """Say what goes wrong, once, and tell the manager how it goes."""
        problems = [*getattr(session.source, "problems", list)(), *session.problems()]
        if self.server is not None:
            problems += self.server.problems()
        if keeper.problem is not None:
            problems.append(keeper.problem)
        for problem in problems:
            self.warn(problem)
        self.tell_status(session, keeper)

    def tell_status(self, session: Session, keeper: Keeper) -> None:
        """Tell the manager in a line how it goes."""
        self.tell_s = time.monotonic() + TELL_SECONDS
        self.notifier.tell(
            f"source {session.source.name}, {len(self.airflows.roots)} roots of Airflow, "
            f"{session.events} records, {session.lost} lost"
            + (f"; {keeper.problem}" if keeper.problem is not None else "")
        )

    def warn(self, problem: str) -> None:
        """Log a problem, once."""
        if problem in self.said:
            return
        self.said[problem] = None
        if len(self.said) > MOST_SAID:
            del self.said[next(iter(self.said))]
        log.warning("trouble", problem=problem)


def account_of(airflow: Airflow, environ: Mapping[str, str]) -> Account:
    """Return where Airflow's own records are, as far as the settings say. Raises PidtrailError."""
    files = (airflow.db_file, airflow.api_password_file, airflow.api_token_file)
    for line in exposed(file for file in files if file):
        log.warning(line)
    url = airflow.db
    if airflow.db_file:
        url = text_of(Path(airflow.db_file)).strip()
        if len(url.split()) != 1:
            raise PidtrailError(f"{airflow.db_file} does not hold the URL of a database")
    rest = rest_of(airflow) if airflow.api else None
    template = airflow.log_template or None
    return Account(environ, database=url or None, rest=rest, template=template)


def rest_of(airflow: Airflow) -> Rest:
    """Return Airflow's API with the credentials that the settings name. Raises PidtrailError."""
    from pidtrail.airflow.credentials import PASSWORD, TOKEN, USER, take_credentials
    from pidtrail.airflow.rest import Rest

    password, token = f"{PASSWORD}_FILE", f"{TOKEN}_FILE"
    named = {
        USER: airflow.api_user,
        password: airflow.api_password_file,
        token: airflow.api_token_file,
    }
    settings = {
        f"{PASSWORD} or {password}": "api_password_file",
        password: "api_password_file",
        token: "api_token_file",
        PASSWORD: "api_password_file",
        TOKEN: "api_token_file",
        USER: "api_user",
        "--airflow-api": "api",
    }
    try:
        return Rest(airflow.api, take_credentials(named), since_epoch_ns=time.time_ns())
    except UsageError as error:
        line = str(error)
        for variable, setting in settings.items():
            line = line.replace(variable, setting)
        raise PidtrailError(f"[airflow]: {line}") from None


def settings_in(path: Path | None) -> Config:
    """Return the settings in a file, or all defaults. Raises PidtrailError."""
    return Config() if path is None else parsed(text_of(path), str(path))


def bounds_of(history: HistoryBounds) -> Bounds:
    """Return how much the history may hold."""
    return Bounds(history.max_age_s, history.max_bytes)


def text_of(path: Path) -> str:
    """Return what a file of settings holds. Raises PidtrailError."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_FILE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise PidtrailError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PidtrailError(f"{path} is not text") from None
