"""A server on loopback that passes requests on to another, and notes what was sent."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def recorded(port: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Give a URL that leads to 127.0.0.1:`port`, and the (method, path) of each request there."""
    noted: list[tuple[str, str]] = []
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            noted.append((self.command, self.path.partition("?")[0]))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            kept = {
                name: value
                for name, value in self.headers.items()
                if name.lower() in {"authorization", "content-type", "accept"}
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{self.path}", body, kept, method=self.command
            )
            try:
                answer = opener.open(request, timeout=20)
            except urllib.error.HTTPError as error:
                answer = error
            except OSError:
                self.send_error(502)
                return
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", noted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
