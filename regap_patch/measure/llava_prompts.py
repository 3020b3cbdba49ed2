"""LLaVA's checkpoints: ours, upstream's and those of forks, loaded by the `llava` that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regap_patch.errors import MeasureError

DEFAULT_TEMPLATE = "vicuna_v1"  # the published procedure's, for every model
IMAGE = "<image>"


class LlavaPrompter:
    """Prompts by LLaVA's conversation templates.

    Args:
        tokenizer: of the model.
        model: a LLaVA.
        image_processor: of its tower.
        template: name among LLaVA's templates.

    Raises:
        MeasureError: there is no such template.
    """

    def __init__(self, tokenizer: Any, model: Any, image_processor: Any, template: str | None) -> None:
        from llava.conversation import conv_templates

        name = template or DEFAULT_TEMPLATE
        if name not in conv_templates:
            raise MeasureError(
                f"The template {name!r} was asked for, but LLaVA has {', '.join(sorted(conv_templates))}: "
                f"choose one."
            )
        self.conversation = conv_templates[name]
        self.tokenizer, self.model, self.image_processor = tokenizer, model, image_processor
        self.template = self._words("{text}", 1)

    def _words(self, text: str, images: int) -> str:
        from llava.mm_utils import place_images

        conversation = self.conversation.copy()
        start_end = getattr(self.model.config, "mm_use_im_start_end", False)
        conversation.append_message(conversation.roles[0], place_images("", images, start_end))
        conversation.append_message(conversation.roles[1], text)
        return str(conversation.get_prompt())

    def _arguments(self, words: str, images: Sequence[Any]) -> dict[str, Any]:
        from llava.mm_utils import process_images, tokenizer_image_token

        ids: Any = tokenizer_image_token(words, self.tokenizer, return_tensors="pt")
        pixels = process_images(images, self.image_processor, self.model.config)
        placed = {"device": self.model.device, "dtype": self.model.dtype}
        return {
            "input_ids": ids[None].to(self.model.device),
            "images": pixels.to(**placed) if hasattr(pixels, "to") else [one.to(**placed) for one in pixels],
            "image_sizes": [image.size for image in images],
        }

    def prompt(self, images: Sequence[Any], text: str) -> dict[str, Any]:
        """The user shows the images, the model says the text."""
        return self._arguments(self._words(text, len(images)), images)

    def caption(self, images: Sequence[Any], text: str) -> dict[str, Any]:
        """As stage 1 trains, in the `plain` template, without its final newline."""
        return self._arguments(IMAGE * len(images) + text, images)

    def shorten(self, text: str, tokens: int) -> str:
        """The first `tokens` tokens, as text."""
        return shortened(self.tokenizer, text, tokens)


def shortened(tokenizer: Any, text: str, tokens: int) -> str:
    """The text of its first tokens, or itself if it has no more."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= tokens else str(tokenizer.decode(ids[:tokens])).strip()


def load(
    path: str, base: str | None, template: str | None, device: str, dtype: str
) -> tuple[Any, LlavaPrompter]:
    """The model and its prompter, through `llava.model.builder`."""
    import torch

    from llava.model.builder import load_pretrained_model

    tokenizer, model, image_processor, _ = load_pretrained_model(
        path, base, "llava", device_map={"": device}, device=device, torch_dtype=getattr(torch, dtype)
    )
    return model, LlavaPrompter(tokenizer, model, image_processor, template)
