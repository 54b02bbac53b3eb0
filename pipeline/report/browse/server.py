"""A read-only server for one browser on this machine: the page, pages of clips as JSON, and their media.

It listens on 127.0.0.1 and answers only requests that name it so: otherwise any web page could read from it through a host name
that resolves to this machine.
"""

from __future__ import annotations

import base64
import json
import sys
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from pipeline.common.errors import SoundspotError
from pipeline.figures.heatmap import HIGHEST_OPACITY, heatmap_rgba
from pipeline.report.browse.run_clips import RunClips
from pipeline.report.page.encoding import array_base64
from pipeline.report.page.page import STYLES, json_for_script, source_hash
from pipeline.report.page.templating import joined, render_template

HOST = "127.0.0.1"
SCRIPTS = ("base.js", "maps.js", "gallery.js", "browse.js")
MEDIA = ("frame", "mel", "audio")


class BrowseServer(ThreadingHTTPServer):
    """Serves the clips of one run until it is stopped.

    Parameters
    ----------
    clips : RunClips
    title : str
    port : int
        0 takes any free port.
    """

    daemon_threads = True

    def __init__(self, clips: RunClips, *, title: str, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.clips = clips
        # Browsers ask in parallel, and open files are not meant for that.
        self.lock = Lock()
        self.style, self.script = joined(STYLES), joined(SCRIPTS)
        gallery = clips.gallery()
        data = {"palette": array_base64(heatmap_rgba()), "galleries": {"run": gallery}}
        self.page = render_template(
            "browse.html",
            title=title,
            gallery=gallery,
            opacity=round(100 * HIGHEST_OPACITY),
            style=Markup(self.style),
            script=Markup(self.script),
            data=Markup(json_for_script(data)),
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing if the browser has closed the connection, as it does when you turn the page."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: BrowseServer

    def do_GET(self) -> None:
        port = self.server.server_port
        suffixes = (f":{port}", "") if port == HTTP_PORT else (f":{port}",)  # browsers leave out the default
        if self.headers.get("Host", "") not in {name + end for name in (HOST, "localhost") for end in suffixes}:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", f"open {self.server.address}".encode())
            return
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            with self.server.lock:
                kind, content = self._content(parts.path.removeprefix("/"), query)
        except KeyError:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        except SoundspotError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode())
        else:
            self._answer(HTTPStatus.OK, kind, content)

    def _content(self, path: str, query: dict[str, str]) -> tuple[str, bytes]:
        """Return the media type and the bytes. Raises KeyError if there is nothing at this address."""
        if path == "":
            return "text/html", self.server.page.encode()
        if path == "clips":
            return "application/json", json.dumps(self.server.clips.gallery(**query), allow_nan=False).encode()
        if path not in MEDIA:
            raise KeyError(path)
        head, content = self.server.clips.medium(path, query["clip"]).split(",", 1)
        return head.removeprefix("data:").removesuffix(";base64"), base64.b64decode(content)

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        policy = (
            f"default-src 'none'; script-src {source_hash(self.server.script)}; style-src {source_hash(self.server.style)}; "
            "img-src 'self' data: blob:; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", policy),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: a page takes a hundred requests."""
