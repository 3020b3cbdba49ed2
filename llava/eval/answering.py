"""Answer several prompts at once: what evaluation, chat and one-off questions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.mm_utils import process_images, tokenizer_image_token

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def answer_batch(
    model: Any,
    tokenizer: Any,
    image_processor: Any,
    prompts: Sequence[str],
    images: Sequence[Sequence[Image]] | None = None,
    *,
    temperature: float = 0.0,
    top_p: float | None = None,
    max_new_tokens: int = 128,
    **generation: Any,
) -> list[str]:
    """Answers to prompts of any lengths with any numbers of pictures, each as if it were asked alone.

    Args:
        model: a LLaVA, in evaluation mode.
        tokenizer: of the model.
        image_processor: of the model; may be None when no prompt has a picture.
        prompts: whole prompts (`Conversation.get_prompt()`), one `<image>` for each picture.
        images: RGB pictures of each prompt; an empty list for one without any, None if none has any.
        temperature: 0 for the likeliest answer, else of sampling.
        top_p: sample from the likeliest tokens of this total probability; without a meaning at temperature 0.
        max_new_tokens: length of the longest answer, in tokens.
        generation: everything else that transformers' `generate` takes (`num_beams`, `stop_strings`,
            `streamer`, ...); None leaves a setting at its default.

    Returns:
        One answer for each prompt, without special tokens, stop strings and white space around it.

    Raises:
        ValueError: a prompt has another number of `<image>` than pictures, or the model sees nothing.
    """
    pictures = [[] for _ in prompts] if images is None else [list(row) for row in images]
    check_images(prompts, pictures)
    slots, sizes = image_slots(pictures, image_processor, model)
    if temperature > 0:
        generation |= {"temperature": temperature, "top_p": top_p}
    generation = {name: value for name, value in generation.items() if value is not None}
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    generation.setdefault(
        "pad_token_id", padding
    )  # a special token: what follows an answer's end is not text
    if "stop_strings" in generation:
        generation["tokenizer"] = tokenizer
    output = model.generate(
        [tokenizer_image_token(prompt, tokenizer, return_tensors="pt") for prompt in prompts],
        images=slots,
        image_sizes=sizes,
        do_sample=temperature > 0,
        max_new_tokens=max_new_tokens,
        **generation,
    )
    answers = tokenizer.batch_decode(output, skip_special_tokens=True)
    stops = generation.get("stop_strings", ())
    for stop in [stops] if isinstance(stops, str) else stops:
        answers = [answer.partition(stop)[0] for answer in answers]
    return [answer.strip() for answer in answers]


def check_images(prompts: Sequence[str], pictures: Sequence[Sequence[Image]]) -> None:
    """One `<image>` in a prompt for each of its pictures.

    Raises:
        ValueError: it is not so; the sentence names the prompt.
    """
    if len(prompts) != len(pictures):
        raise ValueError(
            f"{len(prompts)} prompts came with pictures for {len(pictures)}; pass one list for each."
        )
    for number, (prompt, row) in enumerate(zip(prompts, pictures, strict=True), 1):
        asked = prompt.count(DEFAULT_IMAGE_TOKEN)
        if asked != len(row):
            raise ValueError(
                f"Prompt {number} of {len(prompts)} has {asked} {DEFAULT_IMAGE_TOKEN} and {len(row)} "
                f"pictures; write {DEFAULT_IMAGE_TOKEN} once for each picture."
            )


def image_slots(
    pictures: Sequence[Sequence[Image]], image_processor: Any, model: Any
) -> tuple[list[Tensor | None] | None, list[tuple[int, int] | None] | None]:
    """Pixels and sizes as `model.generate` takes them: a slot for each picture, None for a row without any.

    Args:
        pictures: RGB pictures of each row.
        image_processor: of the model.
        model: a LLaVA; the pixels get its device and dtype.

    Returns:
        Pixels, (3, H, W) or (tiles, 3, H, W) each, and (width, height) of each picture; two times None when
        no row has a picture.

    Raises:
        ValueError: there are pictures, and no image processor.
    """
    flat = [picture for row in pictures for picture in row]
    if not flat:
        return None, None
    if image_processor is None:
        raise ValueError(
            f"{len(flat)} pictures were shown to a plain language model, which sees nothing; pass a LLaVA."
        )
    pixels = iter(process_images(flat, image_processor, model.config))
    slots: list[Tensor | None] = []
    sizes: list[tuple[int, int] | None] = []
    for row in pictures:
        for picture in row or [None]:
            slots.append(None if picture is None else next(pixels).to(model.device, model.dtype))
            sizes.append(None if picture is None else picture.size)
    return slots, sizes
