"""A web server on this machine that answers requests for ranges of bytes, and fails when it is told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class RangeServer(ThreadingHTTPServer):
    """Serves `files`, by path; each item of `failures` spoils one request, and `requests` lists method, path and range."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        # 0 (none), a status, "cut" (the connection breaks in the middle), "stall" (no answer) or "ignore" (the whole file comes).
        self.failures: list[int | str] = []
        self.requests: list[tuple[str, str, str]] = []
        self.stalling = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing for connections that a client closes."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path, asked = unquote(self.path.split("?")[0]).lstrip("/"), self.headers.get("Range", "")
        self.server.requests.append((self.command, path, asked))
        failure = self.server.failures.pop(0) if self.server.failures else 0
        content = self.server.files.get(path)
        if failure == "stall":
            self.server.stalling.wait(20)
            self.close_connection = True
            return
        status = failure if isinstance(failure, int) and failure else 404
        if status == failure or content is None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size, found = len(content), re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if found and failure != "ignore":
            begin, end = int(found[1]), min(int(found[2]) + 1, size)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            content = content[begin:end]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if failure == "cut" else content)
        self.close_connection = failure == "cut"


@contextmanager
def range_server() -> Iterator[RangeServer]:
    """Run a server in a thread."""
    with RangeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.stalling.set()
            server.shutdown()
            thread.join()
