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
from collections.abc import Sequence

MARK = "[redacted]"

# Names whose value is secret: of options (after any prefix), of JSON members and of query
# parameters. A name must end so; `--token-count 5` and `--password-file F` are not meant.
_WORDS = (
    r"(?:password|passwd|passphrase|pwd|token|secret|api[-_]?key|access[-_]?key|secret[-_]?key"
    r"|fernet[-_]?key|private[-_]?key|access[-_]?key[-_]?id|client[-_]?secret)"
)
# Arguments that carry whole documents: Airflow connections, and a workload with its token
# (airflow/sdk/execution_time/execute_workload.py @ 1.3.2).
_DOCUMENTS = r"(?:json-string|conn-uri|conn-json|conn-extra)"
_OPTION = rf"--(?!no-)(?:[a-z0-9_-]{{0,40}}?{_WORDS}|{_DOCUMENTS})"

# Environment names: the whole name is upper case, so the tail after the telling word is too.
_VARIABLE = (
    r"(?:PASSWORD|PASSWD|PASSPHRASE|PWD|SECRET|TOKEN|FERNET_KEY|API_KEY|ACCESS_KEY|PRIVATE_KEY"
    r"|CREDENTIALS?|SQL_ALCHEMY_CONN|RESULT_BACKEND|BROKER_URL|AIRFLOW_CONN_)[A-Z0-9_]{0,200}"
)
# A shell word: quoted pieces, escapes and bare characters, up to a blank or an operator.
_SHELL = r"""(?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|'[^']*+(?:'|\Z)|\\.|[^\s"'\\;&|<>])++"""

_OPTION_ALONE = re.compile(rf"{_OPTION}\Z", re.IGNORECASE)
_OPTION_JOINED = re.compile(rf"({_OPTION}=).", re.IGNORECASE | re.DOTALL)
_OPTION_IN_TEXT = re.compile(
    rf"(?<![\w-])({_OPTION}(?:=|\s++))(?!-)({_SHELL})", re.IGNORECASE | re.DOTALL
)
# The repr of an argument list, in titles of 2.x: '--password', 'x'
_OPTION_IN_REPR = re.compile(
    rf"""(['"]{_OPTION}['"]\s*+,\s*+)(?:'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))""",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(rf"([A-Za-z0-9_]*{_VARIABLE}=).", re.DOTALL)
_ASSIGNED_IN_TEXT = re.compile(rf"({_VARIABLE}=)({_SHELL})", re.DOTALL)
# Lower case, as in the connection strings of libpq and in URL queries.
_PARAMETER = re.compile(
    rf"((?<![\w-])(?:ssl|access_|refresh_|auth_|id_|db_|x-amz-)?{_WORDS}=)[^\s&;,#'\"\[][^\s&;,#'\"]*+",
    re.IGNORECASE,
)
# Also as it looks within a quoted document, with a backslash before each quote.
_MEMBER = re.compile(
    rf"""(["'](?:[a-z0-9_.-]{{0,40}}?){_WORDS}\\*+["']\s*+:\s*+)"""
    r"""(?:(\\++["'])[^"']*+(?:["']|\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|'(?:[^'\\]|\\.)*+(?:'|\\?\Z))""",
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(
    r"(authorization['\"]?\s*+[:=]\s*+['\"]?)(?:[a-z]+ )?[^\s'\"\[][^\s'\"]*+", re.IGNORECASE
)
_BEARER = re.compile(r"\b(bearer\s++)[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE)
# JSON with spaces follows: everything behind it goes (sdk execution_time/task_runner.py @ 1.3.2).
_STARTUP = re.compile(r"(_AIRFLOW__STARTUP_MSG=).+", re.DOTALL)
_PASSES = 10
_PORT_THEN_PATH = re.compile(r"[^:]*:[0-9]{1,5}(?:[/?#\"']|\Z)")


def redact_argv(argv: Sequence[str]) -> list[str]:
    """
    Return the words of a command line with the secrets among them replaced.

    The same list comes back where there is nothing to remove.
    """
    words = argv if isinstance(argv, list) else list(argv)
    if not _suspicious("\0".join(words)):
        return words
    redacted: list[str] = []
    value_expected = False
    for word in words:
        if value_expected and not word.startswith("--"):
            redacted.append(MARK)
            value_expected = False
            continue
        redacted.append(_word(word))
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
        url = scheme + separator + _PARAMETER.sub(rf"\1{MARK}", rest)
        if url == before:
            break
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
    )


def _word(word: str) -> str:
    """Return one word of a command line; an assignment's value is all the rest of it."""
    for pattern in (_OPTION_JOINED, _ASSIGNED, _STARTUP):
        found = pattern.match(word)
        if found is not None:
            return found[1] + MARK
    return redact_text(word)


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
    text = _MEMBER.sub(_member, text)
    text = _OPTION_IN_TEXT.sub(rf"\1{MARK}", text)
    text = _ASSIGNED_IN_TEXT.sub(rf"\1{MARK}", text)
    text = _HEADER.sub(rf"\1{MARK}", text)
    text = _BEARER.sub(rf"\1{MARK}", text)
    return _PARAMETER.sub(rf"\1{MARK}", text)


def _member(found: re.Match[str]) -> str:
    quote = found[2] or found[0][len(found[1])]
    return f"{found[1]}{quote}{MARK}{quote}"


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
        return f"{user}:{MARK}{rest[at:]}" if password else rest
    # A lone, long user name is a token, as with code hosts.
    return MARK + rest[at:] if len(user) >= 20 else rest
