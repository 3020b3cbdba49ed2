"""The parity gate: whether answers in a batch are the answers that were given alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regap_patch.records import Sample, digest
from regap_patch.safety.blocks import Shard
from regap_patch.safety.folder import RunFolder, write_whole
from regap_patch.safety.manifest import Settings
from regap_patch.safety.target import Question, Reply, Target

ITEMS = 32
MAX_NAMED = 8  # flips in a message


def check_parity(
    folder: RunFolder,
    target: Target,
    reference: Target | None,
    samples: Sequence[Sample],
    question: Callable[[Sample], Question],
    settings: Settings,
    shard: Shard,
) -> Mapping[str, Any] | None:
    """Answer 32 items alone and in batches, in float32, and write to `parity.json` which differ.

    Differences in lower precision are rounding, which batches may change; those in float32 are a fault of
    padding, masks or positions that makes every batched answer of the run doubtful. Shard 0 does it, once;
    at batch size 1, where answers are drawn at random, or without a reference, there is nothing to compare.

    Args:
        folder: of the run.
        target: of the run.
        reference: the same in float32; the target itself if it is.
        samples: all of the run's; 32 of them are taken, spread evenly.
        question: of a sample.
        settings: of the run.
        shard: of this process.

    Returns:
        What `parity.json` says; None where there is none.
    """
    if folder.parity.is_file():
        return dict(json.loads(folder.parity.read_text(encoding="utf-8")))
    if reference is None or shard.index or settings.batch_size == 1 or settings.decoding.temperature > 0:
        return None
    chosen = spread(samples, ITEMS)
    alone = _answers(reference, chosen, question, settings, 1)
    together = _answers(reference, chosen, question, settings, settings.batch_size)
    if reference is not target:
        reference.close()  # before the target takes its place in memory
    flips = [
        {
            "uid": sample.uid,
            "image_mode": sample.image_mode,
            "same_characters": _shared(one.text, other.text),
        }  # no text: this file is quoted whole where texts are blurred
        for sample, one, other in zip(chosen, alone, together, strict=True)
        if (one.text, one.finish_reason) != (other.text, other.finish_reason)
    ]
    found = {
        "batch_parity": not flips,
        "items": len(chosen),
        "batch_size": settings.batch_size,
        "dtype": "float32",
        "asked": digest([[sample.uid, sample.image_mode] for sample in chosen]),
        "flips": flips,
    }
    write_whole(folder.parity, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def parity_sentence(found: Mapping[str, Any]) -> str:
    """What the gate found, for people."""
    flips = found["flips"]
    where = f"batch 1 and {found['batch_size']} in {found['dtype']}"
    if not flips:
        return f"Batches change no answer: {found['items']} items are the same at {where}."
    named = ", ".join(
        f"{flip['uid']} ({flip['image_mode']}, from character {flip['same_characters']})"
        for flip in flips[:MAX_NAMED]
    )
    more = f" and {len(flips) - MAX_NAMED} more" if len(flips) > MAX_NAMED else ""
    return (
        f"Batches change answers: {len(flips)} of {found['items']} items differ between {where}: "
        f"{named}{more}; every number of this run says batch_parity false, and --batch_size 1 avoids it."
    )


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples at even distances."""
    if len(samples) <= count:
        return list(samples)
    return [samples[number * len(samples) // count] for number in range(count)]


def _answers(
    target: Target,
    samples: Sequence[Sample],
    question: Callable[[Sample], Question],
    settings: Settings,
    size: int,
) -> list[Reply]:
    found: list[Reply] = []
    for start in range(0, len(samples), size):
        batch = [question(sample) for sample in samples[start : start + size]]
        found += target.answer(batch, settings.decoding, [0] * len(batch))
    return found


def _shared(one: str, other: str) -> int:
    """Characters at the beginning that two texts share."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
