"""Two models side by side: the same prompt and picture, what each says, and what may be made of it.

`session` knows no user interface; `app` puts gradio on it.
"""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "Session": "session",
    "Comparison": "session",
    "Request": "requests",
    "Side": "side",
    "Answer": "side",
    "Line": "line",
    "Picture": "pictures",
    "checked": "pictures",
    "read_upload": "pictures",
    "redacted_page": "export",
    "build_app": "app",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
