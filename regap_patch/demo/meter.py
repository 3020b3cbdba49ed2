"""The gap of one input in a loaded checkpoint: at the language model's input, and layer by layer.

The prompt stands right behind the picture, as a caption does in `regap gap`, so that the numbers can be held
against that command's.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from regap_patch.errors import DemoError
from regap_patch.measure.centroids import LayerDistance, centroids_by_layer
from regap_patch.measure.checkpoints import Prompter
from regap_patch.measure.gap import gap_of_pair
from regap_patch.safety.target import Question

NAME = "this input"


def gap_of(target: Any, question: Question) -> dict[str, float]:
    """Statistics of one sample, as `regap_patch.measure.gap_of_pair` names them.

    Args:
        target: a loaded one of `safety.targets`.
        question: with a picture.

    Raises:
        DemoError: nothing of a gap is in reach.
        MeasureError: the input has none.
        UnknownHostError: the model's family is not known.
    """
    model, arguments = _pair(target, question)
    found = gap_of_pair(model, arguments, name=NAME)
    return {name: value for name, value in found.items() if isinstance(value, float)}


def layers_of(target: Any, question: Question) -> list[LayerDistance]:
    """Distance of the centroids at every layer; arguments and errors as `gap_of`."""
    model, arguments = _pair(target, question)
    return centroids_by_layer(model, arguments, name=NAME)


def _pair(target: Any, question: Question) -> tuple[Any, dict[str, Any]]:
    if question.picture is None:
        raise DemoError("No picture is shown, so there is no gap.")
    if not hasattr(target, "loaded"):
        raise DemoError("The model is behind an address: its inside is out of reach.")
    from PIL import Image

    model, tokenizer = target.loaded()
    with Image.open(BytesIO(question.picture)) as opened:
        picture = opened.convert("RGB")
    return model, _prompter(target, model, tokenizer).caption([picture], question.prompt)


def _prompter(target: Any, model: Any, tokenizer: Any) -> Prompter:
    if target.kind == "llava":
        from regap_patch.measure.llava_prompts import LlavaPrompter

        processor = model.get_vision_tower().image_processor
        return LlavaPrompter(tokenizer, model, processor, target.options.template)
    from regap_patch.measure.huggingface_prompts import HuggingFacePrompter

    return HuggingFacePrompter(target.processor(), model, target.options.template)
