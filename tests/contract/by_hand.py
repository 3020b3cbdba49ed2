"""Defences taken apart: prompts written out, layers' `forward` replaced, greedy steps without a cache.

Nothing of `regap_patch.defenses` is used, and of `regap_patch.safety` the pictures alone. One row at a time:
no padding. Axes: L positions, K layers, D width, V vocabulary.
"""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace

import torch
from PIL import Image

LLAVA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions."
)


def opened(picture: bytes) -> Image.Image:
    return Image.open(BytesIO(picture)).convert("RGB")


class Llava:
    """This repository's, in the template vicuna_v1."""

    def __init__(self, target) -> None:
        self.model, self.tokenizer = target.loaded()
        self.layers = self.model.model.layers
        self.norm = self.model.model.norm

    def start(self, text: str, picture: bytes | None):
        from llava.mm_utils import process_images, tokenizer_image_token

        words = f"<image>\n{text}" if picture is not None else text
        ids = tokenizer_image_token(
            f"{LLAVA_SYSTEM} USER: {words} ASSISTANT:", self.tokenizer, return_tensors="pt"
        )[None]
        if picture is None:
            return self.model.model.embed_tokens(ids)
        image = opened(picture)
        processor = self.model.get_vision_tower().image_processor
        pixels = process_images([image], processor, self.model.config)
        made = self.model.prepare_inputs_labels_for_multimodal(
            ids, None, None, None, None, pixels, [image.size]
        )
        return made[4]

    def step(self, embeds) -> torch.Tensor:
        return self.model(inputs_embeds=embeds, use_cache=False).logits

    def longer(self, embeds, token: int):
        return torch.cat([embeds, self.model.model.embed_tokens(torch.tensor([[token]]))], 1)


class Huggingface:
    """Of transformers, in the template of the tests' folders."""

    def __init__(self, target) -> None:
        self.model, self.tokenizer = target.loaded()
        self.processor = target.processor()
        self.layers = self.model.model.language_model.layers
        self.norm = self.model.model.language_model.norm

    def start(self, text: str, picture: bytes | None):
        if picture is None:
            return dict(self.processor(text=[f"USER: {text} ASSISTANT:"], return_tensors="pt"))
        prompt = f"USER: <image>\n{text} ASSISTANT:"
        return dict(self.processor(text=[prompt], images=[opened(picture)], return_tensors="pt"))

    def step(self, inputs) -> torch.Tensor:
        return self.model(**inputs, use_cache=False).logits

    def longer(self, inputs, token: int):
        ids = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def states(hand, text: str, picture: bytes | None) -> torch.Tensor:
    """What each layer puts out at the last position: (K, D), seen where the next module takes it in."""
    seen = []
    takers = [*list(hand.layers)[1:], hand.norm]

    def look(module, args, kwargs):
        seen.append((args[0] if args else kwargs["hidden_states"])[0, -1].clone())

    hooks = [module.register_forward_pre_hook(look, with_kwargs=True) for module in takers]
    try:
        with torch.no_grad():
            hand.step(hand.start(text, picture))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen)


@contextmanager
def replaced(hand, change):
    """Each layer's `forward` gives `change(number, state (1, L, D))`."""

    def wrapped(number, forward):
        return lambda *args, **kwargs: change(number, forward(*args, **kwargs))

    for number, layer in enumerate(hand.layers):
        layer.forward = wrapped(number, layer.forward)
    try:
        yield
    finally:
        for layer in hand.layers:
            del layer.forward


def length(hand, text: str, picture: bytes | None) -> int:
    """Positions of a prompt."""
    with torch.no_grad():
        return hand.step(hand.start(text, picture)).shape[1]


def greedy(hand, prompts, count: int, combine=lambda rows: rows[0], change=None):
    """Tokens, and the scores that each was taken from.

    Args:
        hand: how the model is run.
        prompts: (text, picture) of each branch; all go on with the same tokens.
        count: tokens.
        combine: last logits (V,) of each branch -> (V,).
        change: of each layer's states, see `replaced`.
    """
    inputs = [hand.start(*prompt) for prompt in prompts]
    tokens, scores = [], []
    with torch.no_grad(), replaced(hand, change or (lambda number, state: state)):
        for _ in range(count):
            found = combine([hand.step(one)[0, -1] for one in inputs])
            scores.append(found)
            tokens.append(int(found.argmax()))
            inputs = [hand.longer(one, tokens[-1]) for one in inputs]
    return SimpleNamespace(tokens=tokens, scores=torch.stack(scores))
