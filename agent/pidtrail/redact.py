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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from pidtrail import secretforms as form
from pidtrail.shortoptions import MARK, hidden, is_elsewhere

__all__ = ["MARK", "redact_argv", "redact_text", "redact_url"]

_PASSES = 10


def redact_argv(argv: Sequence[str]) -> list[str]:
    """
    Return the words of a command line with the secrets among them replaced.

    The same list comes back where there is nothing to remove.
    """
    words = argv if isinstance(argv, list) else list(argv)
    if not _suspicious("\0".join(words)):
        return words
    redacted: list[str] = []
    kept_of = dict(hidden(words))
    value_expected = False
    for number, word in enumerate(words):
        if value_expected and form.NOT_OPTION.match(word):
            redacted.append(word if is_elsewhere(word) else MARK)
            value_expected = False
            continue
        kept = kept_of.get(number)
        redacted.append(_word(word) if kept is None else word[:kept] + MARK)
        value_expected = word[:1] == "-" and form.OPTION_ALONE.match(word) is not None
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
            rest = _without_userinfo(scheme, rest)
        else:
            scheme, rest = "", url
        rest = form.SHAPES.sub(MARK, form.NAMED.sub(_named, rest))
        url = form.ADDRESS.sub(rf"\1{MARK}", scheme + separator + rest)
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
        or ("://" in lower and form.MAYBE_CUT.search(lower) is not None)
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
        or ("-p" in lower and _has(lower, _WITH_P))
        or "sqlplus" in lower
        or "sqlldr" in lower
        or "vsql" in lower
        or "redis-cli" in lower
        or "openssl" in lower
        or "ldap" in lower
        or "login" in lower
        or "logon" in lower
        or "userid=" in lower
        or "variables" in lower
        or "airflow_var_" in lower
        or "configure" in lower
        or "_pat=" in lower
        or "literal" in lower
        or "eyj" in lower
        or "gh" in lower
        or "glpat-" in lower
        or "xox" in lower
        or "akia" in lower
        or "asia" in lower
        or "dapi" in lower
        or "aiza" in lower
        or "/bot" in lower
        or "mfa" in lower
        or "otp" in lower
        or "pdp" in lower
        or "ftp" in lower
        or "prefect" in lower
        or "smbclient" in lower
        or "put-parameter" in lower
        or "identified" in lower
        or "assword" in lower
        or "<<<" in lower
        or ("|" in lower and ("echo " in lower or "printf " in lower))
        or "http\0-a" in lower
        or "http -a" in lower
    )


def _word(word: str) -> str:
    """Return one word of a command line; an assignment's value is all the rest of it."""
    if "=" in word and _has(word.lower(), _VARIABLES_AND_OPTIONS):
        for pattern in (form.OPTION_JOINED, form.ASSIGNED, form.STARTUP):
            found = pattern.match(word)
            if found is not None:
                return found[1] + MARK
    if "://" not in word or not form.URL.match(word):
        return _scrub(word)
    for _ in range(_PASSES):
        # Unlike in a text, blanks belong to a URL that is a word.
        before, word = word, _scrub(redact_url(word))
        if word == before:
            break
    return word


def _scrub(text: str) -> str:
    """
    Redact until nothing changes: what one pattern puts in place may complete another's.

    A quote within a quoted command is three: they are read as one, with a backslash.
    """
    plain = text
    if "'\"'\"'" in text or "'\\''" in text:
        plain = text.replace("'\"'\"'", "\\'").replace("'\\''", "\\'")
    done = plain
    for _ in range(_PASSES):
        before, done = done, _pass(done)
        if done == before:
            break
    return text if done == plain else done


def _pass(text: str) -> str:
    """Redact once. A pattern is asked only where what it needs stands: most words have little."""
    lower = text.lower()
    for needs, rule in _RULES:
        if _has(lower, needs):
            text = rule(text)
    if not form.BLANK.search(text):
        return text
    # By the shell's words, and within a quoted command by its own.
    if "'" in text or '"' in text:
        text = _short_in_text(text, form.SHELL_WORD)
    return _short_in_text(text, form.BARE_WORD)


def _has(lower: str, needs: tuple[str, ...]) -> bool:
    """Return whether one of some words stands in a text."""
    for need in needs:  # noqa: SIM110 (a generator takes three times as long)
        if need in lower:
            return True
    return False


def _quoted_options(text: str) -> str:
    """Return the text without what stands behind telling options in quotes."""
    if "'-" in text or '"-' in text:
        text = form.OPTION_IN_REPR.sub(rf"\1'{MARK}'", text)
        text = form.OPTION_QUOTED.sub(rf"\1\3{MARK}\2\4", text)
    return text


def _options(text: str) -> str:
    """Return the text without what stands behind telling options."""
    if "-" in text and form.BEHIND.search(text):
        text = form.OPTION_IN_TEXT.sub(rf"\1{MARK}", text)
    return text


def _named(found: re.Match[str]) -> str:
    quote = found[2] or found[3] or found[4] or ""
    return f"{found[1]}{quote}{MARK}{quote}"


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
    for number, kept in hidden(cores):
        begin = pieces[number].start() + pieces[number][0].find(cores[number])
        done += [text[at : begin + kept], MARK]
        at = begin + len(cores[number])
    return "".join([*done, text[at:]]) if done else text


def _urls(text: str) -> str:
    """Return the text with the passwords in all its URLs replaced."""
    head, *pieces = text.split("://")
    done = [head]
    for piece in pieces:
        blank = re.search(r"\s", piece)
        end = len(piece) if blank is None else blank.start()
        done.append(_without_userinfo(done[-1][-20:], piece[:end]) + piece[end:])
    return "://".join(done)


def _without_userinfo(before: str, rest: str) -> str:
    """Return what follows `://`, with the password before its host replaced."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    at = authority.rfind("@")
    if at < 0:
        # An unencoded "/", "?" or "#" in the password; not an "@" in a path behind host:port.
        at = rest.find("@")
        if at < 0:
            return _cut(before, authority) + rest[len(authority) :]
        if ":" not in rest[:at] or form.PORT_THEN_PATH.match(rest):
            return rest
    user, separator, behind = rest[:at].partition(":")
    if behind not in {"", "x-oauth-basic"}:
        # A further one before the query: rather the host too many than half of the password.
        at = max(at, rest.partition("?")[0].rfind("@"))
        return f"{user}:{MARK}{rest[at:]}"
    # A lone user of a web address is a token, with code hosts; a name may be one.
    is_token = len(user) >= 20 or (before.endswith(("http", "https")) and not form.NAME.match(user))
    if user and user != MARK and (separator or is_token) and not form.CONTAINERS.search(before):
        return MARK + rest[at - len(behind) - len(separator) :]
    return rest


def _cut(before: str, authority: str) -> str:
    """Return an authority without what is no port: its end, with the host, was cut off."""
    if "[" in authority or form.IMAGES.search(before):
        return authority
    hosts = re.split(r"([,;])", authority)
    for number, host in enumerate(hosts):
        name, separator, port = host.partition(":")
        if separator and not form.PORT.match(port):
            hosts[number] = f"{name}:{MARK}"
    return "".join(hosts)


_WITH_P = (
    *("mysql", "maria", "mongo", "sqlcmd", "bcp", "cqlsh", "zip", "users", "-pw", "-pin", "7z"),
    *("beeline", "twine"),
)
"""Who hides a secret behind -p or -P, in lower case."""
_NAMES = (
    *("pass", "token", "secret", "key", "pw", "credential", "cookie", "signature", "jwt", "code"),
)
_OPTIONS = (*_NAMES, "auth", "conn", "string", "literal", "bearer", "webhook", "otp", "pin")
_VARIABLES_AND_OPTIONS = (*_OPTIONS, "_backend", "broker_url", "airflow_var_", "_pat", "startup")
_VARIABLES = (*_NAMES, "auth", "conn", "_backend", "broker_url", "airflow_var_", "webhook", "_pat")
_RULES: Final[tuple[tuple[tuple[str, ...], Callable[[str], str]], ...]] = (
    (("startup_msg",), partial(form.STARTUP.sub, rf"\1{MARK}")),
    (("://",), _urls),
    (_OPTIONS, _quoted_options),
    (("'", '"'), partial(form.IN_CALL.sub, rf"\1\2'{MARK}\2'")),
    (_NAMES, partial(form.NAMED.sub, _named)),
    (_OPTIONS, _options),
    (_VARIABLES, partial(form.ASSIGNED_IN_TEXT.sub, rf"\1{MARK}")),
    (("|",), partial(form.PIPED.sub, rf"\1{MARK} ")),
    (("<<<",), partial(form.HERE.sub, rf"\1{MARK}")),
    (("logon", "userid=", "thin:"), partial(form.LOGON.sub, rf"\1{MARK}")),
    (("authorization",), partial(form.HEADER.sub, rf"\1{MARK}")),
    (("bearer",), partial(form.BEARER.sub, rf"\1{MARK}")),
    (("@",), partial(form.USERINFO.sub, rf"\1{MARK}")),
    (("://", "/bot", "sig="), partial(form.ADDRESS.sub, rf"\1{MARK}")),
    (("_", "-", "eyj", "akia", "asia", "dapi", "aiza"), partial(form.SHAPES.sub, MARK)),
)
"""What does one thing to a text, and what has to stand in it, in lower case: one of these."""
