"""What judges make of answers: presets, the run over a folder, and how they fare against people."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "Exchange": "protocol",
    "Judge": "protocol",
    "Judgement": "protocol",
    "judge_all": "protocol",
    "classify": "response_class",
    "judge_run": "run",
    "JudgeReport": "run",
    "Preset": "catalogue",
    "presets": "catalogue",
    "preset": "catalogue",
    "Resources": "make",
    "make_judge": "make",
    "read_labelled": "validation",
    "validate": "validation",
    "Validation": "validation",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
