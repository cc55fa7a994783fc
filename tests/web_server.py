"""A real web server on loopback, for tests that fetch."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable

Handle = Callable[[http.server.BaseHTTPRequestHandler], None]


class Web:
    """A web server on loopback whose paths are functions of the request."""

    def __init__(self) -> None:
        self.paths: dict[str, Handle] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                outer.paths.get(self.path, lambda request: answer(request, b"", status=404))(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def answer(request: http.server.BaseHTTPRequestHandler, body: bytes, *, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def page(body: bytes, *, status: int = 200, **headers: str) -> Handle:
    return lambda request: answer(request, body, status=status, **headers)
