"""What can be asked: a LLaVA, a model in transformers' own format, a server."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {"LlavaTarget": "llava", "HuggingFaceTarget": "huggingface", "EndpointTarget": "endpoint"}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
