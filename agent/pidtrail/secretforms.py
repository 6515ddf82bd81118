"""
What secrets look like in a text, as patterns: behind which names and options, in which shape.

Each reads on from where it began and none goes back: linear time for hostile texts too.
Of each the groups stay, and the rest of what it found is the secret (redact.py).
"""

from __future__ import annotations

import re

# Names whose value is secret: of options, JSON members, properties, headers and query parameters,
# in any case. A name must end so: `--token-count 5` and `--password-file F` are not meant; in
# Azure's properties the account or container follows. PWD and OLDPWD are folders.
_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)|pwd(?!=/)|token|secret(?:_id(?==))?|cookie|signature|jwt"
    r"|credentials?(?!['\"]?\s*+[=:]\s*+['\"]?/)|(?:mfa|auth|token|verification)[-_.]?code"
    r"|(?:account[-_.]?key|client[-_.]?secret)\.[\w.-]{1,160}+"
    r"|(?:api|access|account|secret|shared|fernet|private|encryption|storage|subscription|signing"
    r"|routing|integration)[-_.]?key(?:[-_.]?id)?)"
)
# Arguments that carry whole documents or commands: Airflow connections, and a workload with its
# token (airflow/sdk/execution_time/execute_workload.py @ 1.3.2).
_DOCUMENTS = (
    r"(?:json-string|conn-uri|conn-json|conn-extra|from-literal|connection-string|secret-string"
    r"|string-value|[a-z_-]{0,20}password[-_]c(?:omman|m)d)"
)
_OPTION = (
    rf"-(?!-?(?:no|ask)-)-?(?:[a-z0-9_.-]{{0,40}}?(?:{_WORDS}|bearer|webhook(?:[-_]url)?)"
    r"|(?:[a-z0-9_.-]{0,40}[-_.])?(?:[a-z]{0,12}(?:store|key|db|user|root|ldap))?pass"
    rf"|(?:[a-z0-9_.-]{{0,40}}[-_.])?auth|pw|passin|passout|pin|t?otp|{_DOCUMENTS})"
)
# What follows a flag without value, though a secret may begin so too.
_NEXT_OPTION = r"--[a-z][a-z0-9]*+(?:-[a-z0-9]+)*+(?:[=\s'\"]|\Z)"

# Shorter than a word that tells: not of `compass`, and not of `where pass = 1`.
_SHORT = r"pass(?<![a-z]pass)"

# Environment names: the whole name is upper case, so the tail after the telling word is too.
_VARIABLE = (
    r"(?:(?:PASSWORD|PASSWD|PASSPHRASE|_PWD|SECRET|TOKEN|FERNET_KEY|API_KEY|ACCESS_KEY|PRIVATE_KEY"
    r"|CREDENTIALS?|SQL_ALCHEMY_CONN|RESULT_BACKEND|BROKER_URL|AIRFLOW_CONN_|AIRFLOW_VAR_"
    r"|WEBHOOK)[A-Z0-9_]{0,200}|_AUTH|_PAT|SSHPASS)"
)
# A shell word: quoted pieces, escapes and bare characters, up to a blank or an operator.
_SHELL = r"""(?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|'[^']*+(?:'|\Z)|\\.|[^\s"'\\;&|<>])++"""
SHELL_WORD = re.compile(rf"[;&|\n]|{_SHELL}", re.DOTALL)
BARE_WORD = re.compile(r"[;&|\n]|[^\s;&|]+")
# A string in code, and what it holds; with MARK in it, it is left.
_STRING = (
    r"""(?:'(?!\[redacted\]')(?:[^'\\]|\\.)*+(?:'|\\?\Z)"""
    r"""|"(?!\[redacted\]")(?:[^"\\]|\\.)*+(?:"|\\?\Z))"""
)

OPTION_ALONE = re.compile(rf"{_OPTION}\Z", re.IGNORECASE)
OPTION_JOINED = re.compile(rf"({_OPTION}=).", re.IGNORECASE | re.DOTALL)
NOT_OPTION = re.compile(rf"(?!{_NEXT_OPTION})", re.DOTALL)
OPTION_IN_TEXT = re.compile(
    rf"(?<![\w-])({_OPTION}['\"]?(?:=|\s++))(?!(?-i:{_NEXT_OPTION})|(?:env|file|fd):|stdin\b)"
    rf"({_SHELL})",
    re.IGNORECASE | re.DOTALL,
)
# The repr of an argument list, in titles of 2.x: '--password', 'x'
OPTION_IN_REPR = re.compile(
    rf"""(['"]{_OPTION}['"]\s*+,\s*+)(?!['"](?:(?-i:{_NEXT_OPTION})|(?:env|file|fd):)){_STRING}""",
    re.IGNORECASE | re.DOTALL,
)
OPTION_QUOTED = re.compile(
    rf"""('{_OPTION}=)(?:[^'\\]|\\.)*+('|\\?\Z)|("{_OPTION}=)(?:[^"\\]|\\.)*+("|\\?\Z)""",
    re.IGNORECASE | re.DOTALL,
)
ASSIGNED = re.compile(rf"([-\w.=]{{0,200}}?(?:{_VARIABLE}|(?i:{_WORDS}|{_SHORT}))=).", re.DOTALL)
ASSIGNED_IN_TEXT = re.compile(rf"({_VARIABLE}=)({_SHELL})", re.DOTALL)
# name=value, name = "value", "name": "value", name: value, ['name'] = 'value'; within a quoted
# document a backslash stands before each quote.
NAMED = re.compile(
    rf"""((?:{_WORDS}\\*+['"]?\]?\s*+(?:=>|=(?!=)|:(?!//|:))|{_SHORT}(?:=(?!=)|\\*+['"]\]?\s*+(?:=>|:)))"""
    r"""\s*+)(?!\\*["']?\[redacted\]|\*(?:[\s'"]|\Z))"""
    r"""(?:(\\++["'])[^"']*+(?:["']|\Z)|(")(?:[^"\\]|\\.)*+(?:"|\\?\Z)|(')(?:[^'\\]|\\.)*+(?:'|\\?\Z)"""
    r"""|[\[{][^\]}]*+(?:[\]}]|\Z)|[^\s&;,#'"]++)""",
    re.IGNORECASE | re.DOTALL,
)
HEADER = re.compile(
    r"(authorization['\"]?\s*+[:=]\s*+['\"]?)(?:[a-z]+ )?[^\s'\"\[][^\s'\"]*+", re.IGNORECASE
)
BEARER = re.compile(r"\b(bearer\s++)[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE)
# JSON with spaces follows: everything behind it goes (sdk execution_time/task_runner.py @ 1.3.2).
STARTUP = re.compile(r"(_AIRFLOW__STARTUP_MSG=).+", re.DOTALL)
# user:password@host where no scheme stands before it, and Oracle's thin:user/password@host.
USERINFO = re.compile(
    r"((?<![\w/@:.%+-])[\w.+-]{0,64}:|thin:[\w$#]{1,64}/)[^\s@/:'\"\[\]]{1,200}+(?=@(?!sha256:)[\w/])"
)
# What stands for a secret in SQL, and in calls: BY 'x', auth=('ann', 'x'), set("name.token", "x").
IN_CALL = re.compile(
    rf"""(\b(?:identified\s++by|password)(?:\s++|\s*+\(\s*+)(?=\\*')"""
    rf"""|\b\w{{0,20}}auth\w{{0,20}}\s*+=?\s*+\(\s*+\\*+['"][^'"]{{0,200}}+['"]\s*+,\s*+"""
    rf"""|\(\s*+\\*+['"][\w.-]{{0,160}}?{_WORDS}\\*+['"]\s*+,\s*+"""
    rf"""|assword[^\n]{{0,40}}?send\s++(?:--\s++)?)(\\*+){_STRING}""",
    re.IGNORECASE | re.DOTALL,
)
# Who reads a secret from where it is piped to, or from a here-string.
_STDIN = (
    r"(?:\bsudo\b[^|;&\n]{0,80}?\s-[a-z]{0,8}S|passw(?:or)?d-stdin|passphrase-fd[ =]0|\bchpasswd\b"
    r"|\bkinit\b|\bpasswd\s[^|;&\n]{0,40}?--stdin|-with-token|-pass(?:in)?\s++stdin|\bcryptsetup\b)"
)
PIPED = re.compile(
    r"""(\b(?:echo|printf)\s++)(?:[^|;&\n'"]|'[^'\n]{0,300}+'|"(?:[^"\\]|\\.){0,300}+"){1,300}+"""
    rf"(?=\|[^|;&\n]{{0,200}}?{_STDIN})"
)
HERE = re.compile(rf"({_STDIN}[^|;&\n<]{{0,200}}+<<<\s*+){_SHELL}", re.DOTALL)
LOGON = re.compile(
    r"((?:\blogon\s++|userid=['\"]?|thin:)[\w.$#-]{0,80}/?[\w.$#-]{0,80}[,/])[^\s@;'\"\[]++",
    re.IGNORECASE,
)
# What is known for a secret wherever it stands: tokens of GitHub, GitLab, Slack, AWS, Databricks
# and Google, JSON web tokens, private keys.
SHAPES = re.compile(
    r"(?<![\w-])(?:gh[opusr]_\w{20,255}+|github_pat_\w{20,255}+|glpat-[\w-]{20,255}+"
    r"|xox[abeprs]-[\w-]{10,255}+|A[KS]IA[0-9A-Z]{16}\b|eyJ[\w-]++\.eyJ[\w-]++\.[\w-]*+"
    r"|dapi[0-9a-f]{20,64}+|AIza[\w-]{30,64}+)"
    r"|(?<=PRIVATE KEY-----)[^-\[]++"
)
# Addresses of web hooks and bots, and signatures in addresses (Azure).
ADDRESS = re.compile(
    r"(hooks\.slack\.com/services/|/bot[0-9]{6,12}:|[?&]sig="
    r"|[?&]key=(?=[^\s&'\"]{0,80}[0-9])(?=[^\s&'\"]{0,80}[A-Z])(?=[^\s&'\"]{0,80}[a-z])"
    r"|https?://[^\s'\":]{0,300}?webhook[\w.-]{0,60}+/)[^\s&'\"\[][^\s&'\"]*+"
)
URL = re.compile(r"(?:[-\w.]{1,80}=)?[A-Za-z][A-Za-z0-9+.-]{0,40}://")
BEHIND = re.compile(r"[\s=]")
BLANK = re.compile(r"[\s;&|]")
CONTAINERS = re.compile(r"(?:abfs|wasb)s?\Z", re.IGNORECASE)
IMAGES = re.compile(r"(?:docker|oci|file|storage|daemon)\Z", re.IGNORECASE)
MAYBE_CUT = re.compile(r"://[^/\s@\0:]*:(?!\d)")
NAME = re.compile(
    r"(?!(?:gh[opusr]|glpat|github_pat|hf|npm|pypi|[prs]k)[_-])[A-Za-z]+(?:[._-][A-Za-z]+)*\Z"
)
PORT = re.compile(r"[0-9]{1,5}(?!\w)|[${%<*'\")\]}]|\Z")
PORT_THEN_PATH = re.compile(r"[^:]*:[0-9]{1,5}(?:[/?#\"']|\Z)")
