"""The page of `soundspot serve`, built with Gradio (extra `app`).

Only this machine can reach the server (127.0.0.1). Neither the server nor the page loads anything from the network: no
analytics, no share link, installed fonts. Uploads and outputs are in a temporary folder, which is removed at the end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.apps.localize.serve.uploads import MEGABYTE, Answer, Limits
from pipeline.apps.localize.video.overlay import OnProgress
from pipeline.common.errors import SoundspotError
from pipeline.common.packages import load_package
from pipeline.figures.response_curve import response_curve

HOST = "127.0.0.1"
_HOSTS = [HOST, "localhost"]
Localize = Callable[[list[Path], Path, OnProgress], Answer]

# The browser blocks everything that the page would load from elsewhere, even if a later version of Gradio asks for it.
_POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'"
# Gradio puts labels over videos, lets a result be removed, leaves figures white on a dark page and targets too small for a finger, and
# a video fills the first screen, so that the curve below it is not seen.
_STYLE = """
:is(#video, #image, #curve) [data-testid=block-label] { position: static; display: inline-flex; }
:is(#video video, #image img) { max-height: 30rem; }
#files .or { color: inherit; }
#outputs .label-clear-button { display: none; }
.dark #curve img { filter: invert(1) hue-rotate(180deg); }
@media (pointer: coarse) {
  :is(button, [role=button], .download-link):not(#boxes *) { min-width: 40px; min-height: 40px; }
  .download-link, [role=button] { display: inline-flex !important; align-items: center; justify-content: center; }
}
"""
_KEPT_S = 3600  # how long an upload is kept while the server runs


@contextmanager
def served(
    localize: Localize, limits: Limits, *, model: str, port: int = 0, open_browser: bool = False
) -> Iterator[str]:
    """Serve the page until the block ends; yield its address.

    Parameters
    ----------
    localize : callable
        Localizes the uploaded files; receives a folder for its outputs and a callable for its progress.
    limits : Limits
        For the page's text and for uploads.
    model : str
        The model's path, shown on the page.
    port : int in [0, 65535]
        0: the first free one from 7860 on.
    open_browser : bool

    Raises
    ------
    PackageError
        Gradio is not installed.
    SoundspotError
        The port cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="soundspot-serve-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": f"{folder}/uploads", "GRADIO_ANALYTICS_ENABLED": "False"}
        _reach_directly(HOST)
        gradio = load_package("gradio", purpose="soundspot serve", extra="app")
        page = _page(gradio, localize, Path(folder) / "localized", limits, model)
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=port or None,
                share=False,
                quiet=True,
                inbrowser=open_browser,
                prevent_thread_lock=True,
                max_file_size=round(limits.size_mb * MEGABYTE),
                footer_links=[],
                theme=_theme(gradio),
                css=_STYLE,
                ssr_mode=False,
                app_kwargs={"middleware": _middleware()},
            )
        except OSError as error:
            page.close(verbose=False)
            raise SoundspotError(f"port {port} of {HOST} cannot be used ({error}); choose another --port") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def _theme(gradio: Any) -> Any:
    # Names of installed fonts; the default theme would ask for others. Its orange is too light for white letters.
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    colors = {"button_primary_background_fill": "*primary_600", "button_primary_background_fill_hover": "*primary_700"}
    links = {"link_text_color_dark": "*secondary_300", "link_text_color_hover_dark": "*secondary_200"}
    theme = gradio.themes.Default(primary_hue="blue", **fonts)
    return theme.set(**colors, **{f"{name}_dark": color for name, color in colors.items()}, **links)


def _reach_directly(host: str) -> None:
    """Gradio asks its own server whether it runs; a proxy could not reach it."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))


def _middleware() -> list[Any]:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # Without the check of names, a page from elsewhere could reach the server under a name of its own (DNS rebinding).
    return [Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS), Middleware(_Policy)]


class _Policy:
    """ASGI middleware: refuses requests of pages from elsewhere, and adds the content security policy to every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        origin = dict(scope.get("headers", ())).get(b"origin")
        if scope["type"] == "http" and origin is not None and urlsplit(origin.decode("latin-1")).hostname not in _HOSTS:
            # A browser sends such a request before it looks at what the server allows.
            await PlainTextResponse("requests of other pages are refused", status_code=403)(
                scope, receive, send_with_policy
            )
        else:
            await self.app(scope, receive, send_with_policy)


def _page(gradio: Any, localize: Localize, folder: Path, limits: Limits, model: str) -> Any:
    def run(paths: Any, progress: Any = gradio.Progress()) -> list[Any]:  # noqa: B008, Gradio's way to pass it
        def on_progress(time_s: float, total_s: float | None) -> None:
            progress(min(time_s / total_s, 1.0) if total_s else None, desc=f"{time_s:.0f} s")

        try:
            answer = localize([Path(path) for path in paths or ()], folder, on_progress)
        except SoundspotError as error:
            return [_line("error", str(error)), *_shown(gradio, None)]
        except Exception as error:
            # A file that breaks a decoder must not look like a server that does not respond.
            return [_line("error", f"internal error: {type(error).__name__}: {error}"), *_shown(gradio, None)]
        return [_line("done", answer.summary), *_shown(gradio, answer)]

    with gradio.Blocks(title="soundspot", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as page:
        gradio.Markdown(
            "# Where does the sound come from?\nDrop a video, or an image together with an audio file. The limits are "
            f"{limits.size_mb:g} MB per file and {limits.duration_s:g} s per video. Everything stays on this machine."
        )
        with gradio.Row():
            with gradio.Column(scale=1):
                files = gradio.File(
                    file_count="multiple", label="A video, or an image and its audio", elem_id="files", height=180
                )
                button = gradio.Button("Localize", variant="primary", elem_id="localize")
                message = gradio.HTML(elem_id="message")
                gradio.HTML(f"<p>Model: <code>{escape(model)}</code></p>")
            with gradio.Column(scale=2):
                outputs = [
                    gradio.Video(label="Heat map", interactive=False, elem_id="video", visible=False),
                    gradio.Image(label="Heat map", interactive=False, elem_id="image", visible=False),
                    gradio.Plot(label="Highest response over time", format="png", elem_id="curve", visible=False),
                    gradio.File(
                        label="Files", file_count="multiple", interactive=False, elem_id="outputs", visible=False
                    ),
                    gradio.JSON(label="Boxes", open=False, max_height=400, elem_id="boxes", visible=False),
                ]
        button.click(run, files, [message, *outputs], api_visibility="private", show_progress_on=message)
    return page


def _shown(gradio: Any, answer: Answer | None) -> list[Any]:
    """Return what the outputs show: video, image, curve, files, boxes."""
    if answer is None:
        return [gradio.update(value=None, visible=False) for _ in range(5)]
    video, image = (str(answer.media), None) if answer.media.suffix == ".mp4" else (None, str(answer.media))
    maps = answer.record.get("maps")
    return [
        gradio.update(value=video, visible=image is None),
        gradio.update(value=image, visible=image is not None),
        gradio.update(value=response_curve(maps) if maps else None, visible=bool(maps)),
        gradio.update(value=[str(path) for path in answer.files], visible=True),
        gradio.update(value=answer.record, visible=True),
    ]


def _line(kind: str, text: str) -> str:
    # File names come from outside, so the text is escaped.
    words = escape(" ".join(text.split()))
    return f'<p role="{"alert" if kind == "error" else "status"}" data-kind="{kind}">{"Error: " * (kind == "error")}{words}</p>'
