"""What a number must not be shown without: judge, template, decoding, denominator, interval, date."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLACES = ("target", "started")


def setting(metrics: Mapping[str, Any], *names: str) -> Any:
    """The first of these that the manifest has, at its top or in its `target` or `started`; None without."""
    manifest = metrics["provenance"]["manifest"]
    for place in (manifest, *(manifest.get(name) for name in _PLACES)):
        for name in names:
            if isinstance(place, Mapping) and place.get(name) is not None:
                return place[name]
    return None


def plain(value: Any) -> str:
    """A setting in words: `temperature=0.0, max_new_tokens=64`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={plain(part)}" for name, part in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def settings_of(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Of one run, by name, in words; "not recorded" where the manifest is silent."""
    found = {
        "template": setting(metrics, "template"),
        "decoding": setting(metrics, "decoding"),
        "seed": setting(metrics, "seed"),
        "dtype": setting(metrics, "dtype"),
        "hardware": setting(metrics, "hardware") or setting(metrics, "device"),
        "date": setting(metrics, "at"),
    }
    return {name: "not recorded" if value is None else plain(value) for name, value in found.items()}


def judges_in_words(runs: Sequence[Mapping[str, Any]]) -> str:
    """Names and revisions of all judges."""
    found = {
        f"{judge} (revision {revision}{_threshold(metrics, judge)})"
        for metrics in runs
        for judge, revision in metrics["provenance"]["judges"].items()
    }
    return ", ".join(sorted(found)) or "none"


def _threshold(metrics: Mapping[str, Any], judge: str) -> str:
    found = metrics["provenance"]["about_judges"].get(judge, {}).get("threshold")
    return "" if found is None else f", threshold {found}"


def caption(runs: Sequence[Mapping[str, Any]], what: str) -> str:
    """What a table or figure shows, and under which settings.

    Args:
        runs: metrics of all runs in it.
        what: it shows, with the kind of its intervals.
    """
    parts = [what, f"Judges: {judges_in_words(runs)}."]
    for name in ("template", "decoding", "seed", "dtype", "hardware", "date"):
        values = unique(settings_of(metrics)[name] for metrics in runs)
        parts.append(f"{name.capitalize()}: {'; '.join(values)}.")
    parts.append("n counts every attempted item, judged or not.")
    if any(metrics["provenance"]["parity"] is None for metrics in runs):
        parts.append("Batch parity was not tested.")
    return " ".join(parts)


def unique(values: Iterable[str]) -> list[str]:
    """In their order, once each."""
    return list(dict.fromkeys(values))
