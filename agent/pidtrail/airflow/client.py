"""
One read-only way into Airflow's REST API, of 2.x (`/api/v1`) and 3.x (`/api/v2`).

Rule 1: GET, and of 3.x the login (POST /auth/token); there is no code that sends
        anything else, and no redirect is followed.
Rule 2: credentials go to nobody who has not first answered as Airflow does.
Rule 3: bounded: each wait and each answer.
Rule 4: an error is one line, made of our words: what a server sends is not repeated.

The standard library's client suffices: a few requests a second at most, from one
thread. TLS certificates are verified; a private authority is named by SSL_CERT_FILE.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import (
    BaseHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    ProxyHandler,
    Request,
    build_opener,
)

import msgspec

from pidtrail.airflow.credentials import TOKEN, USER, Credentials
from pidtrail.clock import epoch_ns_of
from pidtrail.errors import ApiError
from pidtrail.redact import redact_url

TIMEOUT_S = 3.0
_MOST_BYTES = 32 * 1024 * 1024
_MOST_SECONDS = 10.0
# A refused password is not offered again for so long: FAB locks out who is wrong too often
# ([fab] auth_rate_limit: 5 per 40 seconds).
_REFUSED_S = 60.0
_HISTORY_SINCE = (2, 10)


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: it could lead a password, or a token, anywhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    """
    The API at `base` (as `checked_url` gives it). Not for use by several threads.

    Before `find` has found out the version nothing can be asked. `skew_ns` is how
    far the server's clock is ahead of this host's, in nanoseconds, 0 if unknown;
    its precision is a second.
    """

    def __init__(self, base: str, credentials: Credentials) -> None:
        self._base = base
        self._credentials = credentials
        self._token = credentials.token
        # The last given token that was refused: another one was got for the password since.
        self._spent: str | None = None
        self._refused: tuple[float, ApiError] | None = None
        self.shown = redact_url(base)[:200]
        self.api = ""
        self.release: tuple[int, ...] = ()
        self.skew_ns = 0
        parts = urlsplit(base)
        handlers: list[BaseHandler] = [_NoRedirect()]
        # To read the host's certificates takes longer than most answers of the API.
        if parts.scheme == "https":
            handlers.append(HTTPSHandler(context=ssl.create_default_context()))
        if _is_loopback(parts.hostname or ""):
            handlers.append(ProxyHandler({}))
        self._opener = build_opener(*handlers)

    @property
    def old_try_numbers(self) -> bool:
        """
        Tell whether `try_number` counts as before 2.10, when there was no history of tries.

        api_connexion/schemas/task_instance_schema.py @ 2.9.3 gives the column itself.
        """
        return self.release < _HISTORY_SINCE

    def find(self) -> None:
        """
        Find out which API is there, without credentials; raises ApiError if none is.

        GET /version is open to everybody (api_fastapi/core_api/routes/public/version.py
        @ 3.3.2, api_connexion/endpoints/version_endpoint.py @ 2.11.2). A wrong path of a
        3.x server answers 200 with its page, of 2.x 404.
        """
        self._wait_if_refused()
        status = 0
        for api in ("v2", "v1"):
            status, body = self._send(Request(f"{self._base}/api/{api}/version"))  # noqa: S310
            release = _release(body) if status == http.HTTPStatus.OK else ()
            if release:
                self.api, self.release = f"{self._base}/api/{api}", release
                return
            if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                break
        raise self._explained(status, finding=True)

    def get(
        self, path: str, query: list[tuple[str, str]] | None = None, *, may_refuse: bool = False
    ) -> Any:
        """
        Return the JSON that is at a path below the API, None if nothing is (404).

        `path` begins with "/" and is quoted. Logs in where that is needed, once more
        if the token is refused. With `may_refuse` None too where this user may not read
        that (403), for one who was let in already. Raises ApiError.
        """
        self._wait_if_refused()
        url = f"{self.api}{path}" + (f"?{urlencode(query)}" if query else "")
        status, body = self._send(self._signed(url))
        if status == http.HTTPStatus.UNAUTHORIZED and self._renew():
            status, body = self._send(self._signed(url))
        if status == http.HTTPStatus.NOT_FOUND or (
            may_refuse and status == http.HTTPStatus.FORBIDDEN
        ):
            return None
        if status != http.HTTPStatus.OK:
            raise self._explained(status)
        return self._decoded(body)

    def _signed(self, url: str) -> Request:
        """Return a GET with the token, in 2.x the password, where there is one."""
        request = Request(url)  # noqa: S310 (checked_url has seen the scheme)
        given = self._credentials
        if self._token is None and given.user is not None and self._is_3:
            self._login()
        if self._token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        elif given.user is not None:
            pair = f"{given.user}:{given.password}".encode()
            basic = base64.b64encode(pair).decode("ascii")
            request.add_unredirected_header("Authorization", f"Basic {basic}")
        return request

    @property
    def _is_3(self) -> bool:
        return self.release >= (3,)

    def _renew(self) -> bool:
        """Look for other credentials after a 401; tell whether to ask once more."""
        before, spent = self._credentials, self._token
        self._credentials = before.reread()
        if spent is not None and spent == before.token:
            self._spent = spent
        if self._credentials.token not in {None, spent, self._spent}:
            self._token = self._credentials.token
            return True
        if spent is not None and self._credentials.user is not None:
            # The token has expired: 3.x gives another for the password, 2.x takes that itself.
            self._token = None
            return True
        return self._credentials != before

    def _login(self) -> None:
        """
        Get a token for the password.

        POST /auth/token, 201 (api_fastapi/auth/managers/simple/routes/login.py @ 3.3.2;
        FAB's manager has the same). Raises ApiError.
        """
        given = self._credentials
        login = {"username": given.user, "password": given.password}
        request = Request(  # noqa: S310 (checked_url has seen the scheme)
            f"{self._base}/auth/token",
            method="POST",
            data=msgspec.json.encode(login),
            headers={"Content-Type": "application/json"},
        )
        status, body = self._send(request)
        if status not in {http.HTTPStatus.OK, http.HTTPStatus.CREATED}:
            raise self._explained(status, doing="let us log in")
        answer = self._decoded(body)
        token = answer.get("access_token") if isinstance(answer, dict) else None
        # As in a header: one that cannot stand there would be quoted in http.client's error.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ApiError(f"{self.shown} gives no token")
        self._token = token

    def _send(self, request: Request) -> tuple[int, bytes]:
        """Return status and body; the body of an error is not read. Raises ApiError."""
        request.add_header("Accept", "application/json")
        request.add_header("User-Agent", "pidtrail")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                self._note_clock(answer.headers.get("Date"))
                return answer.status, self._body(answer)
        except HTTPError as error:
            error.close()
            return error.code, b""
        except (URLError, OSError, http.client.HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, URLError) else error
            raise ApiError(f"Airflow's API at {self.shown} {_why(cause)}") from None

    def _body(self, answer: IO[bytes]) -> bytes:
        deadline = time.monotonic() + _MOST_SECONDS
        pieces, size = [], 0
        while piece := answer.read1(65_536):  # type: ignore[attr-defined]
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_BYTES:
                raise ApiError(f"Airflow's API at {self.shown} answers with too much")
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(pieces)

    def _note_clock(self, date: str | None) -> None:
        try:
            there_ns = epoch_ns_of(parsedate_to_datetime(date or ""))
        except (ValueError, TypeError, OverflowError):
            return
        self.skew_ns = there_ns - time.time_ns()

    def _decoded(self, body: bytes) -> Any:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ApiError(f"{self.shown} does not answer as Airflow's API does") from None

    def _wait_if_refused(self) -> None:
        """Raise the refusal again, without asking, while the same password would be offered."""
        if self._refused is None:
            return
        until, error = self._refused
        fresh = self._credentials.reread()
        if time.monotonic() < until and fresh == self._credentials:
            raise error
        self._refused, self._credentials, self._token = None, fresh, fresh.token

    def _explained(self, status: int, *, finding: bool = False, doing: str = "") -> ApiError:
        """Return what a status means here; a refusal is remembered."""
        who = f"Airflow's API at {self.shown}"
        if finding and status in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
            return ApiError(f"{self.shown} wants a login before it says that it is Airflow's")
        # 2.x says 403 of a wrong password too (api_connexion/security.py @ 2.11.2), and counts it.
        forbidden = status == http.HTTPStatus.FORBIDDEN and not doing
        if status == http.HTTPStatus.UNAUTHORIZED or (forbidden and not self._is_3):
            error = self._refusal(who, status)
            self._refused = (time.monotonic() + _REFUSED_S, error)
            return error
        if forbidden:
            return ApiError(f"{who} does not let this user read task instances (403)")
        if status == http.HTTPStatus.TOO_MANY_REQUESTS:
            return ApiError(f"{who} is asked too often (429)")
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            return ApiError(f"{who} fails (status {status})")
        if finding:
            hint = "give the address that [api] base_url or [webserver] base_url says"
            if http.HTTPStatus.MULTIPLE_CHOICES <= status < http.HTTPStatus.BAD_REQUEST:
                hint = f"it redirects (status {status}): give the address it leads to"
            return ApiError(f"{self.shown} is not Airflow's: no /api/v2 and no /api/v1", hint)
        return ApiError(f"{who} does not {doing or 'answer the question'} (status {status})")

    def _refusal(self, who: str, status: int) -> ApiError:
        given = self._credentials
        if given.user is None and given.token is None:
            hint = f"set {TOKEN}, or {USER} and a password"
            return ApiError(f"{who} asks who we are ({status})", hint)
        if given.user is None:
            return ApiError(f"{who} refuses the token ({status})", "it may have expired")
        if self._is_3:
            return ApiError(f"{who} refuses user and password ({status})")
        return ApiError(
            f"{who} refuses user and password, or does not let them read task instances ({status})",
            "[api] auth_backends must name basic_auth",
        )


def _release(body: bytes) -> tuple[int, ...]:
    """Return the version that /version tells, e.g. (3, 3); () if it is not an Airflow's."""
    try:
        said = msgspec.json.decode(body)
        major, minor = str(said["version"]).split(".")[:2]
        release = int(major), int(minor)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, TypeError, KeyError):
        return ()
    return release if release >= (2,) else ()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _why(error: object) -> str:
    """Return what went wrong, in words that hold nothing of the request or the answer."""
    if isinstance(error, TimeoutError):
        return f"does not answer within {TIMEOUT_S:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "does not speak TLS: is it http, not https?"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closes the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached: {error.strerror}"
    return f"cannot be reached: {type(error).__name__}"
