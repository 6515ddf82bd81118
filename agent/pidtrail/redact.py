"""
Secrets, taken out of what processes say of themselves before anything is written.

Rule 1: total and idempotent. Any text, broken encodings included.
Rule 2: what was removed is marked `[redacted]`; what stands around it stays.
Rule 3: rather a harmless word too many than a secret: nobody misses `--token`.
Rule 4: linear time. Argument lists reach 128 KiB each (MAX_ARG_STRLEN), and
        their authors may be hostile; no pattern rescans what another has read.

The common command line holds nothing of the kind: a handful of substring tests
says so, and the same object comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

MARK = "[redacted]"

# Names whose value is secret: of options, JSON members, properties, headers and query parameters,
# in any case. A name must end so: `--token-count 5` and `--password-file F` are not meant.
_WORDS = (
    r"(?:pass(?:word|wd|phrase)|pwd|token|secret|cookie|signature|jwt|credentials?"
    r"|(?:api|access|account|secret|shared|fernet|private|encryption)[-_.]?key(?:[-_.]?id)?)"
)
# Arguments that carry whole documents: Airflow connections, and a workload with its token
# (airflow/sdk/execution_time/execute_workload.py @ 1.3.2).
_DOCUMENTS = r"(?:json-string|conn-uri|conn-json|conn-extra|from-literal|connection-string)"
_OPTION = (
    rf"-(?!-?no-)-?(?:[a-z0-9_.-]{{0,40}}?(?:{_WORDS}|pass|auth|bearer|webhook(?:[-_]url)?)"
    rf"|pw|passin|passout|{_DOCUMENTS})"
)

# Environment names: the whole name is upper case, so the tail after the telling word is too.
_VARIABLE = (
    r"(?:(?:PASSWORD|PASSWD|PASSPHRASE|PWD|SECRET|TOKEN|FERNET_KEY|API_KEY|ACCESS_KEY|PRIVATE_KEY"
    r"|CREDENTIALS?|SQL_ALCHEMY_CONN|RESULT_BACKEND|BROKER_URL|AIRFLOW_CONN_|AIRFLOW_VAR_"
    r"|WEBHOOK)[A-Z0-9_]{0,200}|_AUTH|_PAT)"
)
# A shell word: quoted pieces, escapes and bare characters, up to a blank or an operator.
_SHELL = r"""(?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|'[^']*+(?:'|\Z)|\\.|[^\s"'\\;&|<>])++"""
_SHELL_WORD = re.compile(rf"[;&|\n]|{_SHELL}", re.DOTALL)
_BARE_WORD = re.compile(r"[;&|\n]|[^\s;&|]+")

_OPTION_ALONE = re.compile(rf"{_OPTION}\Z", re.IGNORECASE)
_OPTION_JOINED = re.compile(rf"({_OPTION}=).", re.IGNORECASE | re.DOTALL)
_OPTION_IN_TEXT = re.compile(
    rf"(?<![\w-])({_OPTION}['\"]?(?:=|\s++))(?!--)({_SHELL})", re.IGNORECASE | re.DOTALL
)
# The repr of an argument list, in titles of 2.x: '--password', 'x'
_OPTION_IN_REPR = re.compile(
    rf"""(['"]{_OPTION}['"]\s*+,\s*+)(?:'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))""",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(rf"([-\w.=]{{0,200}}?(?:{_VARIABLE}|(?i:{_WORDS}))=).", re.DOTALL)
_ASSIGNED_IN_TEXT = re.compile(rf"({_VARIABLE}=)({_SHELL})", re.DOTALL)
# name=value, name = "value", "name": "value", name: value, ['name'] = 'value'; within a quoted
# document a backslash stands before each quote.
_NAMED = re.compile(
    rf"""({_WORDS}\\*+['"]?\]?\s*+(?:=(?!=)|:(?!//|:))\s*+)(?!\\*["']?\[redacted\])"""
    r"""(?:(\\++["'])[^"']*+(?:["']|\Z)|(")(?:[^"\\]|\\.)*+(?:"|\\?\Z)|(')(?:[^'\\]|\\.)*+(?:'|\\?\Z)"""
    r"""|[\[{][^\]}]*+(?:[\]}]|\Z)|[^\s&;,#'"]++)""",
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(
    r"(authorization['\"]?\s*+[:=]\s*+['\"]?)(?:[a-z]+ )?[^\s'\"\[][^\s'\"]*+", re.IGNORECASE
)
_BEARER = re.compile(r"\b(bearer\s++)[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE)
# JSON with spaces follows: everything behind it goes (sdk execution_time/task_runner.py @ 1.3.2).
_STARTUP = re.compile(r"(_AIRFLOW__STARTUP_MSG=).+", re.DOTALL)
# user:password@host where no scheme stands before it, and Oracle's thin:user/password@host.
_USERINFO = re.compile(
    r"((?<![\w/@:.%+-])[\w.+-]{0,64}:|thin:[\w$#]{1,64}/)[^\s@/:'\"\[\]]{1,200}+(?=@(?!sha256:)[\w/])"
)
# What is known for a secret wherever it stands: tokens of GitHub, GitLab, Slack and AWS, JSON web
# tokens, addresses of web hooks, signatures in addresses (Azure), private keys.
_SHAPES = re.compile(
    r"(?<![\w-])(?:gh[opusr]_\w{20,255}+|github_pat_\w{20,255}+|glpat-[\w-]{20,255}+"
    r"|xox[abeprs]-[\w-]{10,255}+|A[KS]IA[0-9A-Z]{16}\b|eyJ[\w-]++\.eyJ[\w-]++\.[\w-]*+)"
    r"|(?:(?<=hooks\.slack\.com/services/)|(?<=discord\.com/api/webhooks/)|(?<=[?&]sig=))"
    r"[^\s&'\"\[][^\s&'\"]*+"
    r"|(?<=PRIVATE KEY-----)[^-\[]++"
)
_URL = re.compile(r"(?:[-\w.]{1,80}=)?[A-Za-z][A-Za-z0-9+.-]{0,40}://")
_PASSES = 10
_PORT_THEN_PATH = re.compile(r"[^:]*:[0-9]{1,5}(?:[/?#\"']|\Z)")


class _Flags(NamedTuple):
    """What of a program's short arguments is secret, once the word `after` was read."""

    alone: frozenset[str]
    joined: tuple[str, ...] = ()
    after: str | None = None


_NO_FLAGS = _Flags(frozenset())
_LOGIN = _Flags(frozenset({"-p"}), after="login")
_MYSQL = _Flags(frozenset(), ("-p",))
_MSSQL = _Flags(frozenset({"-P"}), ("-P",))
_P = _Flags(frozenset({"-p"}), ("-p",))
_PROGRAMS: Final = {
    "airflow": _P._replace(after="users"),
    "curl": _Flags(frozenset({"-u", "--user", "-U", "--proxy-user"}), ("-u", "-U", "--user=")),
    "redis-cli": _Flags(frozenset({"-a"})),
    "openssl": _Flags(frozenset({"-k", "-K"})),
    "ldapsearch": _Flags(frozenset({"-w"}), ("-w",)),
    "unzip": _Flags(frozenset({"-P"})),
    "zip": _Flags(frozenset({"-P"})),
    "vault": _Flags(frozenset({"login"})),
    **dict.fromkeys(("az", "docker", "helm", "podman"), _LOGIN),
    **dict.fromkeys(("mysql", "mysqladmin", "mysqldump", "mariadb", "mariadb-dump"), _MYSQL),
    **dict.fromkeys(("bcp", "sqlcmd"), _MSSQL),
    **dict.fromkeys(("cqlsh", "mongo", "mongosh", "mongodump", "sshpass"), _P),
}
_OPERATORS: Final = frozenset({";", "&", "|", "\n"})
_SETTER_AND_NAME: Final = 2
_SETTERS: Final = frozenset({("variables", "set"), ("configure", "set")})
"""`airflow variables set NAME VALUE`, `aws configure set NAME VALUE`."""


def redact_argv(argv: Sequence[str]) -> list[str]:
    """
    Return the words of a command line with the secrets among them replaced.

    The same list comes back where there is nothing to remove.
    """
    words = argv if isinstance(argv, list) else list(argv)
    if not _suspicious("\0".join(words)):
        return words
    redacted: list[str] = []
    kept_of = dict(_short(words))
    value_expected = False
    for number, word in enumerate(words):
        if value_expected and not word.startswith("--"):
            redacted.append(MARK)
            value_expected = False
            continue
        kept = kept_of.get(number)
        redacted.append(_word(word) if kept is None else word[:kept] + MARK)
        value_expected = _OPTION_ALONE.match(word) is not None
    return words if redacted == words else redacted


def redact_text(text: str) -> str:
    """
    Return a title, a shell command or a message with the secrets in it replaced.

    Also of the argument lists that 2.x titles contain.
    """
    return _scrub(text) if _suspicious(text) else text


def redact_url(url: str) -> str:
    """
    Return a URL of any scheme with its password and its secret parameters replaced.

    Unlike in a text, blanks belong to it; so do unencoded `@` and `/` in the password,
    as far as what is meant can be guessed.
    """
    for _ in range(_PASSES):
        before, (scheme, separator, rest) = url, url.partition("://")
        if separator:
            rest = _without_userinfo(rest)
        else:
            scheme, rest = "", url
        url = scheme + separator + _SHAPES.sub(MARK, _NAMED.sub(_named, rest))
        if url == before:
            break
    if len(lines := url.splitlines()) > 1:  # perhaps several
        return "\n".join(map(redact_url, lines))
    return url


def _suspicious(text: str) -> bool:
    """Tell whether one of the words stands in the text without which nothing is removed."""
    lower = text.lower()
    # Written out: a generator over a tuple takes three times as long, on every exec.
    return (
        "@" in lower
        or "pass" in lower
        or "key" in lower
        or "token" in lower
        or "secret" in lower
        or "auth" in lower
        or "conn" in lower
        or "pwd" in lower
        or "json" in lower
        or "credential" in lower
        or "_url=" in lower
        or "backend=" in lower
        or "bearer" in lower
        or "startup_msg" in lower
        or "cookie" in lower
        or "signature" in lower
        or "sig=" in lower
        or "jwt" in lower
        or "webhook" in lower
        or "hooks." in lower
        or "curl" in lower
        or "mysql" in lower
        or "mariadb" in lower
        or "mongo" in lower
        or "redis-cli" in lower
        or "openssl" in lower
        or "sqlcmd" in lower
        or "bcp" in lower
        or "cqlsh" in lower
        or "ldapsearch" in lower
        or "zip" in lower
        or "login" in lower
        or "users" in lower
        or "variables" in lower
        or "airflow_var_" in lower
        or "configure" in lower
        or "-pw" in lower
        or "_pat=" in lower
        or "literal" in lower
        or "eyj" in lower
        or "gh" in lower
        or "glpat-" in lower
        or "xox" in lower
        or "akia" in lower
        or "asia" in lower
    )


def _word(word: str) -> str:
    """Return one word of a command line; an assignment's value is all the rest of it."""
    for pattern in (_OPTION_JOINED, _ASSIGNED, _STARTUP):
        found = pattern.match(word)
        if found is not None:
            return found[1] + MARK
    # Unlike in a text, blanks belong to a URL that is a word.
    return redact_text(redact_url(word) if _URL.match(word) else word)


def _scrub(text: str) -> str:
    """Redact until nothing changes: what one pattern puts in place may complete another's."""
    for _ in range(_PASSES):
        before, text = text, _pass(text)
        if text == before:
            break
    return text


def _pass(text: str) -> str:
    text = _STARTUP.sub(rf"\1{MARK}", text)
    text = _urls(text)
    text = _OPTION_IN_REPR.sub(rf"\1'{MARK}'", text)
    text = _NAMED.sub(_named, text)
    text = _OPTION_IN_TEXT.sub(rf"\1{MARK}", text)
    text = _ASSIGNED_IN_TEXT.sub(rf"\1{MARK}", text)
    text = _HEADER.sub(rf"\1{MARK}", text)
    text = _BEARER.sub(rf"\1{MARK}", text)
    text = _USERINFO.sub(rf"\1{MARK}", text)
    text = _SHAPES.sub(MARK, text)
    # By the shell's words, and within a quoted command by its own.
    if "'" in text or '"' in text:
        text = _short_in_text(text, _SHELL_WORD)
    return _short_in_text(text, _BARE_WORD)


def _named(found: re.Match[str]) -> str:
    quote = found[2] or found[3] or found[4] or ""
    return f"{found[1]}{quote}{MARK}{quote}"


class _Reader:
    """Reads the words of a command line, and tells which hide a secret behind a short option."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was read: another command follows."""
        self.flags = _NO_FLAGS
        self.armed = self.value_expected = False
        self.setting, self.last = 0, ""

    def kept(self, word: str) -> int | None:
        """Return how much of the next word may stay, or None if all of it."""
        if word in _OPERATORS:
            self.begin()
            return None
        before, self.last = self.last, word
        if self.value_expected:
            self.value_expected = False
            return None if word == MARK else 0
        if self.setting:
            self.setting += not word.startswith("-")
            return (
                0 if self.setting > _SETTER_AND_NAME and word[:1] != "-" and word != MARK else None
            )
        if (before, word) in _SETTERS:
            self.setting = 1
            return None
        known = _PROGRAMS.get(word.rpartition("/")[2])
        if known is not None:
            self.flags, self.armed = known, known.after is None
            return None
        return self.of_option(word)

    def of_option(self, word: str) -> int | None:
        """Return how much of a word may stay by the flags of the program before it."""
        if word == self.flags.after:
            self.armed = True
        elif self.armed and word in self.flags.alone:
            self.value_expected = True
        elif self.armed:
            for prefix in self.flags.joined:
                if word.startswith(prefix) and word[len(prefix) :] not in {"", MARK}:
                    return len(prefix)
        return None


def _short(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield which words hide a secret behind a short option, and how much of them may stay."""
    reader = _Reader()
    for number, word in enumerate(words):
        kept = reader.kept(word)
        if kept is not None:
            yield number, kept


def _core(piece: str) -> str:
    """Return a word of a text without the quotes, commas and brackets around it."""
    core = piece.strip("[](),'\"")
    if MARK in piece and core.endswith(MARK[1:-1]):
        return MARK if core == MARK[1:-1] else f"{core}]"
    return core or piece


def _short_in_text(text: str, pattern: re.Pattern[str]) -> str:
    """Return the text without what short options hide; quotes, commas and brackets stay."""
    pieces = list(pattern.finditer(text))
    cores = [_core(piece[0]) for piece in pieces]
    done, at = [], 0
    for number, kept in _short(cores):
        begin = pieces[number].start() + pieces[number][0].find(cores[number])
        done += [text[at : begin + kept], MARK]
        at = begin + len(cores[number])
    return "".join([*done, text[at:]]) if done else text


def _urls(text: str) -> str:
    """Return the text with the passwords in all its URLs replaced."""
    if "://" not in text or "@" not in text:
        return text
    head, *pieces = text.split("://")
    done = [head]
    for piece in pieces:
        blank = re.search(r"\s", piece)
        end = len(piece) if blank is None else blank.start()
        done.append(_without_userinfo(piece[:end]) + piece[end:])
    return "://".join(done)


def _without_userinfo(rest: str) -> str:
    """Return what follows `://`, with the password before its host replaced."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    at = authority.rfind("@")
    if at < 0:
        # An unencoded "/", "?" or "#" in the password; not an "@" in a path behind host:port.
        at = rest.find("@")
        if at < 0 or ":" not in rest[:at] or _PORT_THEN_PATH.match(rest):
            return rest
    user, separator, password = rest[:at].partition(":")
    if separator:
        # A further one before the query: rather the host too many than half of the password.
        at = max(at, rest.partition("?")[0].rfind("@"))
        return f"{user}:{MARK}{rest[at:]}" if password else rest
    # A lone, long user name is a token, as with code hosts.
    return MARK + rest[at:] if len(user) >= 20 else rest
