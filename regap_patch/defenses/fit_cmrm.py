"""Vectors of CMRM from anchors: each one's words alone, and beside a picture that shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regap_patch.defenses.anchors import Anchor
from regap_patch.defenses.cmrm import Cmrm, differences
from regap_patch.defenses.directions import agreement, mean_vector, principal_vector
from regap_patch.defenses.fit_files import Fit, write_fit
from regap_patch.defenses.placeholder import placeholder_of
from regap_patch.defenses.protocol import Model, Turn
from regap_patch.defenses.stack import check_text_only
from regap_patch.defenses.states import decoder_of

Progress = Callable[[str, int, int], None]


def fit_cmrm(
    model: Model,
    anchors: Sequence[Anchor],
    output_path: Path,
    *,
    image: str = "blank",
    batch_size: int = 1,
    progress: Progress | None = None,
) -> Fit:
    """Measure and write the mean and the first component of each layer.

    Costs two prefills an anchor.

    Args:
        model: loaded.
        anchors: one or more.
        output_path: folder to write.
        image: the picture that shows nothing: blank, black, grey or noise; as large as the anchor's own.
        batch_size: anchors at once.
        progress: told what, how many are done, of how many.

    Raises:
        UnsupportedModelError: the model answers nothing without a picture.
        DefenseError: the template says more beside a picture than its placeholder.
        RowsError: states that are not finite, or that cancel out.
    """
    check_text_only(model, Cmrm.name)
    decoder = decoder_of(model)
    shown = anchors[0].turn(0)
    shown = shown.showing(model.meaningless(shown, image))
    piece = placeholder_of(model, shown)
    parts: list[Tensor] = []
    for start in range(0, len(anchors), batch_size):
        turns = [anchor.turn(number) for number, anchor in enumerate(anchors[start : start + batch_size])]
        parts.append(differences(model, decoder, turns, image).cpu())
        if progress is not None:
            progress("anchors", start + len(turns), len(anchors))
    found = torch.cat(parts)
    shares, cosines = agreement(found)
    tensors = {"mean": mean_vector(found), "pca": principal_vector(found)}
    more = {
        "image": image,
        "placeholder": piece,
        "prompts": {
            "beside_a_picture": _prompt(model, shown),
            "text_alone": _prompt(model, shown.showing(None)),
        },
        "per_layer": [
            {"layer": number, "norm": norm, "first_component": share, "cosine_with_mean": cosine}
            for number, (norm, share, cosine) in enumerate(
                zip(tensors["mean"].norm(dim=-1).tolist(), shares.tolist(), cosines.tolist(), strict=True), 1
            )
        ],
    }
    items = [anchor.fitted() for anchor in anchors]
    return write_fit(output_path, Cmrm.name, model, tensors, items, more)


def _prompt(model: Model, turn: Turn) -> dict[str, Any]:
    """The first anchor's prompt: text, and positions that it takes in the decoder."""
    mask = model.inputs([turn])["attention_mask"]
    return {"text": model.prompt(turn), "positions": int(mask.sum())}
