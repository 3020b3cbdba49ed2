"""Where the page is served, and to whom: this machine alone, unless somebody says otherwise."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from regap_patch.demo.headers import SafeHeaders
from regap_patch.demo.markup import style
from regap_patch.demo.pictures import MOST_BYTES

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Where:
    """Where the page is served, and to whom.

    Attributes:
        host: address to listen at.
        port: 0 for any free one.
        root_path: under which a proxy shows the page.
        auth: whether a name and a password are right; None to let everybody in.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    root_path: str = ""
    auth: Callable[[str, str], bool] | None = None


def serve(app: Any, where: Where) -> str:
    """Serve a page, in the background; its address.

    Args:
        app: of `build_app`.
        where: and to whom.
    """
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    middleware = [Middleware(SafeHeaders)]
    if where.host in LOOPBACK and not where.root_path:  # another site's name that leads here is not ours
        middleware.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
        )
    _, address, _ = app.launch(
        share=False,
        server_name=where.host,
        server_port=where.port or None,
        root_path=where.root_path or None,
        auth=where.auth,
        max_file_size=MOST_BYTES,
        max_threads=64,
        state_session_capacity=200,
        app_kwargs={"middleware": middleware},
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=style("demo"),
        footer_links=["api", "settings"],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    return str(address)


def until_ended() -> None:
    """Wait for Ctrl-C or a polite kill."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _as_ctrl_c(*_: object) -> NoReturn:
    raise KeyboardInterrupt
