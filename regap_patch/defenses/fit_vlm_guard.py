"""Directions of VLM-Guard from pairs of a harmful and a harmless request, as text alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regap_patch.defenses.anchors import Opposed
from regap_patch.defenses.directions import agreement, span
from regap_patch.defenses.fit_files import Fit, write_fit
from regap_patch.defenses.protocol import Model, Turn
from regap_patch.defenses.stack import check_text_only
from regap_patch.defenses.states import decoder_of, last_states, read_last
from regap_patch.defenses.vlm_guard import VlmGuard
from regap_patch.errors import DefenseError
from regap_patch.hosts.decoder import find_decoder

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Aligned:
    """The language model from before it saw: the published directions are taken on it.

    Attributes:
        module: a causal language model of transformers, in evaluation mode.
        files: SHA-256 of each of its files.
    """

    module: Any
    files: Mapping[str, str]


def fit_vlm_guard(
    model: Model,
    pairs: Sequence[Opposed],
    output_path: Path,
    *,
    rank: int = 8,
    aligned: Aligned | None = None,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> Fit:
    """Measure and write the first directions of each layer.

    Costs two prefills of text a pair.

    Args:
        model: loaded; its template is used.
        pairs: `rank` or more.
        output_path: folder to write.
        rank: how many directions.
        aligned: whose states are read; None for the model's own, without a picture.
        batch_size: pairs at once.
        progress: told what, how many are done, of how many.

    Raises:
        UnsupportedModelError: the model answers nothing without a picture.
        DefenseError: an aligned model with other layers.
        RowsError: fewer pairs than directions, or states that are not finite.
    """
    check_text_only(model, VlmGuard.name)
    decoder = decoder_of(model)
    parts: list[Tensor] = []
    for start in range(0, len(pairs), batch_size):
        some = pairs[start : start + batch_size]
        turns = [
            Turn(number, text, text)
            for number, text in enumerate([pair.harmful for pair in some] + [pair.harmless for pair in some])
        ]
        states = last_states(model, decoder, turns) if aligned is None else _read(model, aligned, turns)
        harmful, harmless = states.cpu().chunk(2)
        parts.append(harmful - harmless)
        if progress is not None:
            progress("pairs", start + len(some), len(pairs))
    found = torch.cat(parts)
    count = len(decoder.layers)
    if found.shape[1] != count:
        raise DefenseError(
            f"Directions were to be taken on an aligned model of {found.shape[1]} layers, but the one that "
            f"they are for has {count}: name the language model that it was made from."
        )
    shares, cosines = agreement(found)
    more = {
        "aligned_files": None if aligned is None else dict(aligned.files),
        "rank": rank,
        "per_layer": [
            {"layer": number, "first_component": share, "cosine_with_mean": cosine}
            for number, (share, cosine) in enumerate(zip(shares.tolist(), cosines.tolist(), strict=True), 1)
        ],
    }
    items = [item for pair in pairs for item in pair.fitted()]
    return write_fit(output_path, VlmGuard.name, model, {"directions": span(found, rank)}, items, more)


def _read(model: Model, aligned: Aligned, turns: Sequence[Turn]) -> Tensor:
    """States (B, K, D) of the aligned model on the prompts of these turns."""
    assert model.host is not None
    rows = [model.tokenizer(model.prompt(turn))["input_ids"] for turn in turns]
    longest = max(map(len, rows))
    device = aligned.module.device
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }
    width = model.module.get_input_embeddings().weight.shape[-1]
    found = read_last(aligned.module, find_decoder(model.host, aligned.module), inputs)
    if found.shape[-1] != width:
        raise DefenseError(
            f"Directions were to be taken on an aligned model of width {found.shape[-1]}, but the one that "
            f"they are for has {width}: name the language model that it was made from."
        )
    return found
