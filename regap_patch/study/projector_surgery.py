"""Change a trained projector by hand: controls of what a regulariser does, without training.

`python -m regap_patch.study.projector_surgery KIND --projector P --base LLM --captions JSON --images DIR ...`

All of them change the last linear map alone, so the result is a projector like any other.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "mm_projector.bin"
TRACE_LEFT = 1e-4  # of what a picture shows, in `text_centroid`
PAIRS = 200  # pictures with their captions, on which the clouds are measured


class Clouds(NamedTuple):
    """What the surgeries need to know of image rows and text rows.

    Attributes:
        image_mean: (D,) float32.
        text_mean: (D,) float32.
        image_norm: mean norm of image rows.
        text_norm: mean norm of text rows.
    """

    image_mean: Tensor
    text_mean: Tensor
    image_norm: float
    text_norm: float


def mean_shift(weight: Tensor, bias: Tensor, clouds: Clouds) -> tuple[Tensor, Tensor]:
    """Image rows keep their shape, and their mean is that of text: the centroid gap is zero."""
    return weight, bias + clouds.text_mean - clouds.image_mean


def norm_rescaled(weight: Tensor, bias: Tensor, clouds: Clouds) -> tuple[Tensor, Tensor]:
    """Image rows keep their directions, and are as long as text rows on average."""
    scale = clouds.text_norm / clouds.image_norm
    return weight * scale, bias * scale


def text_centroid(weight: Tensor, bias: Tensor, clouds: Clouds) -> tuple[Tensor, Tensor]:
    """Every patch of every picture becomes the mean of text: no gap, and next to no picture either.

    A ten-thousandth of what tells patches apart is left: a gap between clouds needs rows that differ.
    """
    middle = clouds.text_mean + TRACE_LEFT * (bias - clouds.image_mean)
    return TRACE_LEFT * weight, middle


SURGERIES: dict[str, Callable[[Tensor, Tensor, Clouds], tuple[Tensor, Tensor]]] = {
    "mean_shift": mean_shift,
    "norm_rescaled": norm_rescaled,
    "text_centroid": text_centroid,
}


def operate(kind: str, projector: Path, base: Path, captions: Path, images: Path, output_path: Path) -> None:
    """Copy the folder of a projector with the last linear map changed.

    Args:
        kind: a key of `SURGERIES`.
        projector: folder that stage 1 left.
        base: its language model.
        captions: that stage 1 learned, in LLaVA's format: with their pictures they say where the clouds lie.
        images: folder of the pictures.
        output_path: folder to make.
    """
    import torch

    clouds = _clouds(projector, base, captions, images)
    weights = torch.load(projector / WEIGHTS, map_location="cpu", weights_only=True)
    last = max(name for name in weights if name.endswith(".weight")).removesuffix(".weight")
    changed = SURGERIES[kind](weights[f"{last}.weight"].float(), weights[f"{last}.bias"].float(), clouds)
    for name, tensor in zip(("weight", "bias"), changed, strict=True):
        weights[f"{last}.{name}"] = tensor.to(weights[f"{last}.{name}"].dtype)
    output_path.mkdir(parents=True, exist_ok=True)
    for file in projector.iterdir():
        if file.is_file() and file.name != "node.json":
            shutil.copyfile(file, output_path / file.name)
    torch.save(weights, output_path / WEIGHTS)


def _clouds(projector: Path, base: Path, captions: Path, images: Path) -> Clouds:
    import torch

    from regap_patch.measure import choose_pairs, load_checkpoint
    from regap_patch.measure.checkpoints import PreparedPairs

    chosen = choose_pairs(images, captions, count=PAIRS, pairing="captions")
    checkpoint = load_checkpoint(str(projector), base=str(base), device="cpu", dtype="float32")
    model, shown, said = checkpoint.model, [], []
    with torch.inference_mode():
        for given in PreparedPairs(checkpoint.prompter, chosen.pairs, bare=True):
            shown.append(model.encode_images(given["images"]).flatten(0, 1))
            ids = given["input_ids"][0]
            said.append(model.get_input_embeddings()(ids[ids > 2]))  # neither BOS nor the image's place
    image, text = torch.cat(shown), torch.cat(said)
    norms = [float(rows.norm(dim=1).mean()) for rows in (image, text)]
    return Clouds(image.mean(0).clone(), text.mean(0).clone(), *norms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Change a trained projector by hand.")
    parser.add_argument("kind", choices=sorted(SURGERIES))
    parser.add_argument("--projector", type=Path, required=True, help="folder that stage 1 left")
    parser.add_argument("--base", type=Path, required=True, help="its language model")
    parser.add_argument("--captions", type=Path, required=True, help="JSON that stage 1 learned from")
    parser.add_argument("--images", type=Path, required=True, help="folder of its pictures")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    operate(**vars(parser.parse_args()))
