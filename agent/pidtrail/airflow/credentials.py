"""
Whom to say that we are to Airflow's REST API, and where that API and the database are.

Rule 1: never from the command line: every user of the host can read it.
Rule 2: what a file holds is read again when Airflow refuses it: tokens expire and
        are replaced in place.
Rule 3: no secret in a repr, in an error, or in the environment of a traced command.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pidtrail.errors import UsageError

USER = "PIDTRAIL_AIRFLOW_USER"
PASSWORD = "PIDTRAIL_AIRFLOW_PASSWORD"  # noqa: S105 (the variable's name)
TOKEN = "PIDTRAIL_AIRFLOW_TOKEN"  # noqa: S105
DATABASE = "PIDTRAIL_AIRFLOW_DB"
_MOST_BYTES = 65_536


@dataclass(frozen=True)
class Credentials:
    """
    A token, a user with a password, both, or nothing (SimpleAuthManager's all-admins mode).

    Where a file is named, `reread` gives what it holds now.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    token_file: Path | None = None

    def reread(self) -> Credentials:
        """Return what the files hold now; the same values where they cannot be read."""
        try:
            password = self._again(PASSWORD, self.password_file, self.password)
            token = self._again(TOKEN, self.token_file, self.token)
            return _checked(self.user, password, token, self.password_file, self.token_file)
        except UsageError:
            return self

    @staticmethod
    def _again(name: str, path: Path | None, value: str | None) -> str | None:
        return value if path is None else _read(name, path)


def take_credentials(environ: MutableMapping[str, str]) -> Credentials:
    """
    Return what the environment says, and take the secrets out of it.

    A command that is traced inherits the environment; it is to learn no
    password from it. Raises UsageError, without a secret, for what contradicts
    itself or cannot be read.
    """
    user = environ.get(USER) or None
    password, password_file = _value(environ, PASSWORD)
    token, token_file = _value(environ, TOKEN)
    return _checked(user, password, token, password_file, token_file)


def take_database(environ: MutableMapping[str, str]) -> str | None:
    """
    Return the URL of the metadata database that the environment names, and take it out of it.

    It may hold a password. Raises UsageError for a file that cannot be read, without
    what stands in it.
    """
    url = _value(environ, DATABASE)[0]
    if url is not None and not url.isprintable():
        # As where two URLs stand in a file: the second would be shown as a part of the first.
        raise UsageError(f"{DATABASE} holds more than one line, or a control character")
    return url


def exposed(files: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of these files whose mode lets every user of this host read it."""
    for file in files:
        with suppress(OSError):
            mode = stat.S_IMODE(Path(file).stat().st_mode)
            if mode & stat.S_IROTH:
                yield f"mode {mode:04o} of {file} lets every user read it whom its folder lets in"


def named_files(environ: Mapping[str, str]) -> list[str]:
    """Return the files with secrets that the environment names."""
    return [file for name in (DATABASE, PASSWORD, TOKEN) if (file := environ.get(f"{name}_FILE"))]


def checked_url(url: str) -> str:
    """
    Return the address of Airflow's web server or api-server, without `/` or `/api/vN` at its end.

    Raises UsageError, which does not repeat the URL, for one that is none or
    holds a user, a password or parameters.
    """
    if "@" in url:
        raise UsageError(
            "--airflow-api may not hold a user or a password: the command line is public",
            f"set {USER} and {PASSWORD}, or {TOKEN}",
        )
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in {"http", "https"}
            and parts.hostname is not None
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--airflow-api must be a URL such as http://127.0.0.1:8080")
    if "?" in url or "#" in url:
        raise UsageError("--airflow-api must be an address without parameters")
    base = url.rstrip("/")
    for version in ("/api/v1", "/api/v2"):
        base = base.removesuffix(version)
    return base.rstrip("/")


def _value(environ: MutableMapping[str, str], name: str) -> tuple[str | None, Path | None]:
    """Return what a variable, or the file that another one names, holds; and that file."""
    value = environ.pop(name, None) or None
    named = environ.get(f"{name}_FILE")
    if not named:
        return value, None
    if value is not None:
        raise UsageError(f"{name} and {name}_FILE are both set: one is enough")
    path = Path(named).absolute()
    return _read(name, path), path


def _read(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{name}_FILE: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name}_FILE: {path} is not text") from None
    text = text.rstrip("\r\n")
    if not text:
        raise UsageError(f"{name}_FILE: {path} is empty")
    return text


def _checked(
    user: str | None,
    password: str | None,
    token: str | None,
    password_file: Path | None,
    token_file: Path | None,
) -> Credentials:
    """Return the credentials. Raises UsageError where they cannot be sent as they are."""
    if (user is None) != (password is None):
        missing = USER if user is None else f"{PASSWORD} or {PASSWORD}_FILE"
        raise UsageError(f"Airflow's API takes a user with a password: {missing} is not set")
    if user is not None and ":" in user:
        raise UsageError(f"{USER} may not hold a colon")
    # A token stands in a header as it is; http.client would quote a bad one in its error.
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(f"{TOKEN} holds characters that a token cannot have")
    return Credentials(user, password, token, password_file, token_file)
