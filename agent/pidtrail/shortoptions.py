"""
Which words of a command line are secret by where they stand, for the program that reads them.

`mysql -pX`, `curl -u ann:X`, `sqlplus scott/X@db`, `airflow variables set NAME X`: nothing in
such a word says what it is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

MARK = "[redacted]"
OPERATORS: Final = frozenset({";", "&", "|", "\n"})
"""What ends a command."""


class _Flags(NamedTuple):
    """
    What of a program's arguments is secret, once one of the words in `after` was read.

    `alone` are options with a value behind them, `joined` have it in the same word, `bundled`
    are letters that may end a bundle of short ones (`-sSu`). With `logon` the first word
    of the form user/password is one, if what `logon` is stands in it.
    """

    alone: frozenset[str] = frozenset()
    joined: tuple[str, ...] = ()
    after: frozenset[str] = frozenset()
    bundled: str = ""
    logon: str | None = None


_NO_FLAGS = _Flags()
_P = _Flags(frozenset({"-p"}), ("-p",))
_ZIP = _Flags(frozenset({"-P"}))
_LOGIN = _Flags(frozenset({"-p"}), after=frozenset({"login"}))
_MYSQL = _Flags(joined=("-p",))
_MSSQL = _Flags(frozenset({"-P"}), ("-P",))
_LOGON = _Flags(logon="/")
_U = _Flags(frozenset({"-u"}), ("-u",))
_W = _Flags(frozenset({"-w"}), ("-w",))
_AUTH = _Flags(frozenset({"-a", "--auth"}), ("--auth=",))
_PROGRAMS: Final = {
    "airflow": _P._replace(after=frozenset({"users"})),
    "aws": _Flags(frozenset({"--value"}), ("--value=",), frozenset({"put-parameter"})),
    "az": _Flags(frozenset({"-p", "--value"}), ("--value=",), frozenset({"login", "secret"})),
    "curl": _Flags(
        frozenset({"--user", "--proxy-user", "-b"}), ("-u", "-U", "--user="), bundled="uU"
    ),
    "redis-cli": _Flags(frozenset({"-a"})),
    "openssl": _Flags(frozenset({"-k", "-K"})),
    "prefect": _Flags(frozenset({"-k", "--key"}), after=frozenset({"login"})),
    "ssh-keygen": _Flags(frozenset({"-N", "-P"})),
    "vault": _Flags(frozenset({"login"})),
    **dict.fromkeys(("7z", "7za", "7zr"), _MYSQL),
    **dict.fromkeys(("docker", "helm", "podman"), _LOGIN),
    **dict.fromkeys(("bcp", "sqlcmd"), _MSSQL),
    **dict.fromkeys(("beeline", "cqlsh", "ncftpget", "ncftpput", "sshpass", "twine"), _P),
    **dict.fromkeys(("http", "https"), _AUTH),
    **dict.fromkeys(("ldapmodify", "ldapsearch", "vsql"), _W),
    **dict.fromkeys(("lftp", "open"), _U),
    **dict.fromkeys(("rpcclient", "smbclient"), _Flags(frozenset({"-U"}), ("-U",))),
    **dict.fromkeys(("unzip", "zip"), _ZIP),
    **dict.fromkeys(("expdp", "impdp", "rman", "sqlldr", "sqlplus"), _LOGON),
    # `az sql`, `snow sql`: of the word alone nothing follows.
    "sql": _Flags(logon="@"),
}
_FAMILIES: Final = {"mysql": _MYSQL, "maria": _MYSQL, "mongo": _P}
"""By the first five letters: mysqldump, mariadb-import, mongorestore."""
_SETTER_AND_NAME: Final = 2
_TELLING: Final = ("password", "passwd", "passphrase", "pass", "token", "secret")
_SETTERS: Final = frozenset({("variables", "set"), ("configure", "set")})
"""`airflow variables set NAME VALUE`, `aws configure set NAME VALUE`."""
_LOGON_WORD: Final = re.compile(r'"?[\w$#.-]{1,128}(?:\[[\w$#]{1,128}\])?/(?=[^@/\s"]{1,128}(.?))')
_FILE: Final = re.compile(r"[^@]*\.[a-z]{2,6}\Z")
_ELSEWHERE: Final = re.compile(r"(?:env|file|fd):|stdin\Z")


def is_elsewhere(word: str) -> bool:
    """Return whether a value only says where the secret is: `openssl -passin env:NAME`."""
    return _ELSEWHERE.match(word) is not None


class _Reader:
    """Reads the words of a command line, and tells which hide a secret behind a short option."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was read: another command follows."""
        self.flags = _NO_FLAGS
        self.armed = self.value_expected = self.logged_on = False
        self.setting, self.last = 0, ""

    def kept(self, word: str) -> int | None:
        """Return how much of the next word may stay, or None if all of it."""
        if word in OPERATORS:
            self.begin()
            return None
        before, self.last = self.last, word
        if self.value_expected:
            self.value_expected = False
            return None if word == MARK or is_elsewhere(word) else 0
        if self.setting:
            self.setting += not word.startswith("-")
            return (
                0 if self.setting > _SETTER_AND_NAME and word[:1] != "-" and word != MARK else None
            )
        if (before, word) in _SETTERS:
            self.setting = 1
            return None
        if before == "set" and word.lower().endswith(_TELLING):
            self.value_expected = True
            return None
        name = word.rpartition("/")[2]
        known = _PROGRAMS.get(name) or _FAMILIES.get(name[:5])
        if known is not None and not (known.logon and self.flags.logon):
            self.flags, self.armed = known, not known.after
            self.logged_on = False
            return None
        return self.of_option(word)

    def of_option(self, word: str) -> int | None:
        """Return how much of a word may stay by the flags of the program before it."""
        flags = self.flags
        if word in flags.after:
            self.armed = True
        elif not self.armed:
            return None
        elif word in flags.alone or is_bundle(word, flags.bundled):
            self.value_expected = True
        elif flags.logon is not None:
            return self.of_logon(word) if flags.logon in word else None
        else:
            for prefix in flags.joined:
                if word.startswith(prefix) and word[len(prefix) :] not in {"", MARK}:
                    return len(prefix)
        return None

    def of_logon(self, word: str) -> int | None:
        """Return how much of `user/password@database` may stay; paths of scripts stay whole."""
        found = None if self.logged_on else _LOGON_WORD.match(word)
        if found is None or found[1] == "/" or _FILE.match(word):
            return None
        self.logged_on = True
        return None if word[found.end() :].startswith(MARK) else found.end()


def is_bundle(word: str, letters: str) -> bool:
    """Return whether a word is a bundle of short options that ends with one of some letters."""
    return (
        1 < len(word) <= 8
        and word[0] == "-"
        and word[-1] in letters
        and (len(word) == 2 or word[1:].isalpha())
    )


def hidden(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield which words hide a secret by their place, and how much of them may stay."""
    reader = _Reader()
    for number, word in enumerate(words):
        kept = reader.kept(word)
        if kept is not None:
            yield number, kept
