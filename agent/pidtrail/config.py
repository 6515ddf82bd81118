"""
The service's settings: a TOML file, strictly read. Everything has a default; empty is valid.

A file with a key that is not known, a value of another kind, or something that cannot be,
is refused in one line with the file and the key, never with the value: it may be a secret.
Secrets stand in files of their own, which this one names.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import structs

from pidtrail.airflow.lognames import LogTemplate, UnreadableTemplate
from pidtrail.errors import PidtrailError
from pidtrail.redact import redact_url

DAY_S: Final = 86_400
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}
BYTES: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
AGE: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z")
SIZE: Final = re.compile(r"([1-9][0-9]{0,8})(KB|MB|GB|TB)\Z")
LEAST_AGE_S: Final = 60
LEAST_BYTES: Final = 16 * 10**6
WHERE: Final = re.compile(r"(.*?) - at `(\$[^`]*)`\Z", re.DOTALL)

Path = Annotated[str, msgspec.Meta(pattern="^/")]
"""A place on this host; systemd starts us in the root directory, so it says where by itself."""
PathOrNone = Annotated[str, msgspec.Meta(pattern="^(/.*)?$")]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Capture(Table, frozen=True):
    """Where events come from; `interval` is how often source procfs looks, in seconds."""

    source: Literal["auto", "core", "bcc", "connector", "procfs"] = "auto"
    interval: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 0.1


class Airflow(Table, frozen=True):
    """
    Where Airflow's own records are; "" is as the found Airflow's settings say, or not at all.

    `db` is the database's URL, or `db_file` names a file that holds it: one with a password
    in it belongs there. `plugin` is the socket at which tasks tell who they are, or false.
    """

    db: str = ""
    db_file: PathOrNone = ""
    api: str = ""
    api_user: str = ""
    api_password_file: PathOrNone = ""
    api_token_file: PathOrNone = ""
    plugin: Path | Literal[False] = "/run/pidtrail/claims.sock"
    log_template: PathOrNone = ""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, and a password in the open. Raises ValueError."""
        if self.db and self.db_file:
            raise ValueError("db and db_file are both set: one is enough")
        if redact_url(self.db) != self.db:
            raise ValueError("db holds a password: put the URL into a file and name that, db_file")
        if self.log_template:
            try:
                LogTemplate(self.log_template)
            except UnreadableTemplate as error:
                raise ValueError(f"log_template cannot be read back: {error}") from None


class HistoryBounds(Table, frozen=True):
    """Where what was captured is kept, for how long and how much of it."""

    directory: Path = "/var/lib/pidtrail/history"
    max_age: str = "7d"
    max_size: str = "1GB"

    def __post_init__(self) -> None:
        """Refuse what makes no bound. Raises ValueError."""
        if self.max_age_s < LEAST_AGE_S:
            raise ValueError("max_age must be 60s or more")
        if self.max_bytes < LEAST_BYTES:
            raise ValueError("max_size must be 16MB or more")

    @property
    def max_age_s(self) -> int:
        """`max_age` in seconds."""
        match = AGE.match(self.max_age)
        if match is None:
            raise ValueError("max_age must be such as 12h or 7d")
        return int(match[1]) * SECONDS[match[2]]

    @property
    def max_bytes(self) -> int:
        """`max_size` in bytes."""
        match = SIZE.match(self.max_size)
        if match is None:
            raise ValueError("max_size must be such as 500MB or 1GB")
        return int(match[1]) * BYTES[match[2]]


class Socket(Table, frozen=True):
    """Where users of this host may ask, or false; and which group may, beside root."""

    path: Path | Literal[False] = "/run/pidtrail/pidtrail.sock"
    group: str = "pidtrail"


class Config(Table, frozen=True):
    """All settings of the service."""

    capture: Capture = Capture()
    airflow: Airflow = Airflow()
    history: HistoryBounds = HistoryBounds()
    socket: Socket = Socket()


LIVE: Final = frozenset(
    {"[history] max_age", "[history] max_size", "[socket] path", "[socket] group"}
)
"""What can be changed while the service runs, and nothing is lost; all else, at its next start."""


def changed(old: Config, new: Config) -> list[str]:
    """Return which settings differ, as `[table] key`."""
    return [
        f"[{table}] {key}"
        for table in Config.__struct_fields__
        for key in getattr(old, table).__struct_fields__
        if getattr(getattr(old, table), key) != getattr(getattr(new, table), key)
    ]


def with_live(old: Config, new: Config) -> Config:
    """Return the old settings with those of the new ones that LIVE names."""
    history = structs.replace(
        old.history, max_age=new.history.max_age, max_size=new.history.max_size
    )
    return structs.replace(old, history=history, socket=new.socket)


def parsed(text: str, name: str) -> Config:
    """Return the settings in the text of a file. Raises PidtrailError, one line that names it."""
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PidtrailError(f"{name} is not TOML: {error}") from None
    try:
        return msgspec.convert(found, Config)
    except msgspec.ValidationError as error:
        raise PidtrailError(f"{name}: {in_words(str(error))}") from None


def in_words(said: str) -> str:
    """Return what is wrong as `[table] key: what`, of msgspec's `what - at `$.table.key``."""
    match = WHERE.match(said)
    what, path = (match[1], match[2]) if match is not None else (said, "$")
    names = path.removeprefix("$").strip(".").split(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    if unknown is not None:
        names, what = [*names, unknown[1]], "there is no such setting"
    if "matching regex" in what:
        what = "it must begin with /"
    table, _, key = " ".join(filter(None, names)).partition(" ")
    place = " ".join(filter(None, (table and f"[{table}]", key)))
    return f"{place}: {what[:1].lower()}{what[1:]}" if place else f"{what[:1].lower()}{what[1:]}"
