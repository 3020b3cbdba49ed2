"""Checkpoints in transformers' own formats: LLaVA, LLaVA-NeXT, BLIP-2, InstructBLIP, and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regap_patch.errors import MeasureError
from regap_patch.measure.llava_prompts import IMAGE, shortened

WORDS = "USER: <image>\nASSISTANT: {text}"
BARE = ("blip-2", "instructblip")  # their processors put the image in front by themselves


class HuggingFacePrompter:
    """Prompts by a processor: its chat template if it has one.

    Args:
        processor: of the model.
        model: of transformers.
        template: text with `{text}` and `<image>`.

    Raises:
        MeasureError: the template has no `{text}`.
    """

    def __init__(self, processor: Any, model: Any, template: str | None) -> None:
        self.processor, self.model = processor, model
        self.bare = model.config.model_type in BARE
        self.chat = template is None and bool(getattr(processor, "chat_template", None))
        self.words = template or ("{text}" if self.bare else WORDS)
        if "{text}" not in self.words:
            raise MeasureError(
                f"The template {template!r} was asked for, but a checkpoint of transformers takes text with "
                f"{{text}} and, where its processor wants it, <image>: write it out."
            )
        self.template = self._words("{text}", 1)

    def _words(self, text: str, images: int) -> str:
        if not self.chat:
            return self.words.replace(IMAGE, IMAGE * images).replace("{text}", text)
        turns = [
            {"role": "user", "content": [{"type": "image"}] * images},
            {"role": "assistant", "content": [{"type": "text", "text": text}]},
        ]
        return str(self.processor.apply_chat_template(turns, tokenize=False))

    def _arguments(self, words: str, images: Sequence[Any]) -> dict[str, Any]:
        made = self.processor(images=list(images), text=words, return_tensors="pt")
        kind, where = self.model.dtype, self.model.device
        return {
            name: value.to(where, kind) if value.is_floating_point() else value.to(where)
            for name, value in made.items()
        }

    def prompt(self, images: Sequence[Any], text: str) -> dict[str, Any]:
        """The user shows the images, the model says the text."""
        return self._arguments(self._words(text, len(images)), images)

    def caption(self, images: Sequence[Any], text: str) -> dict[str, Any]:
        """The images, and right behind them the text."""
        return self._arguments(text if self.bare else IMAGE * len(images) + text, images)

    def shorten(self, text: str, tokens: int) -> str:
        """The first `tokens` tokens, as text."""
        return shortened(self.processor.tokenizer, text, tokens)


def load(
    path: str, base: str | None, template: str | None, device: str, dtype: str
) -> tuple[Any, HuggingFacePrompter]:
    """The model and its prompter; `base` is not looked at: these checkpoints are whole."""
    import torch
    import transformers

    models: Any = transformers.AutoModelForImageTextToText
    processors: Any = transformers.AutoProcessor
    model = models.from_pretrained(path, dtype=getattr(torch, dtype)).to(device)
    return model, HuggingFacePrompter(processors.from_pretrained(path), model, template)
