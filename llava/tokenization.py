"""Token ids of text exactly as upstream gets them from the slow LLaMA tokenizer of transformers 4.37.

Current transformers has one LLaMA tokenizer, on another backend. It differs where text starts with a space:
SentencePiece puts its own space in front all the same. All text of this package becomes ids here, in prompts
and in training.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.model.checkpoint_files import find_file

Token = TypeVar("Token")


def load_tokenizer(path: str, **kwargs: Any) -> Any:
    """The tokenizer of a checkpoint.

    The configuration of a LLaVA does not help to find it (old ones have a name that is transformers' own):
    LLaMA's does. A LLaMA folder that does not say whether its tokenizer is `legacy` means that it is: that
    was the default when such folders were written, and newer ones say so.

    Args:
        path: folder or hub name.
        kwargs: of `AutoTokenizer.from_pretrained`: `model_max_length`, `padding_side`, ...
    """
    from transformers import AutoTokenizer, LlamaConfig

    if "mm_vision_tower" in _read_json(find_file(path, "config.json")):
        kwargs.setdefault("config", LlamaConfig())
    if find_file(path, "tokenizer.model") is not None:
        legacy = _read_json(find_file(path, "tokenizer_config.json")).get("legacy")
        kwargs.setdefault("legacy", legacy is None or legacy)
    return AutoTokenizer.from_pretrained(path, use_fast=False, **kwargs)


def text_to_ids(text: str, tokenizer: Any, **kwargs: Any) -> list[int]:
    """Ids of a text, with the tokenizer's special tokens (LLaMA: BOS in front).

    Args:
        text: any.
        tokenizer: any; only LLaMA's needs, and gets, what the module's text says.
        kwargs: of the tokenizer's call: `truncation`, `max_length`, `add_special_tokens`.
    """
    return tokenizer(_with_dummy_prefixes(text, tokenizer)[0], **kwargs).input_ids


def text_to_ids_and_places(text: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids as `text_to_ids`, and where each comes from.

    Args:
        text: any.
        tokenizer: one with offsets (`is_fast`).

    Returns:
        The ids, and for each the index in `text` of its last character, -1 for those without text (BOS).
    """
    written_text, written = _with_dummy_prefixes(text, tokenizer)
    coded = tokenizer(written_text, return_offsets_mapping=True, verbose=False)
    places = [
        end - 1 - bisect_left(written, end - 1) if end > start else -1
        for start, end in coded["offset_mapping"]
    ]
    return coded["input_ids"], places


def ids_around_images(
    prompt: str,
    code: Callable[[str, int], Sequence[Token]],
    image: Token,
    is_bos: Callable[[Token], bool],
) -> list[Token]:
    """A prompt with `<image>` in it as tokens.

    The text between images is tokenized piece by piece, as published models were trained: each piece has the
    tokenizer's own beginning (LLaMA: a space in front), and only the first keeps its BOS.

    Args:
        prompt: text.
        code: from a piece of it, and the place where that begins, to tokens: ids, or what goes with them.
        image: stands for each image.
        is_bos: whether a token is the BOS; only the first of a piece is asked about.
    """
    pieces, start = [], 0
    for piece in prompt.split(DEFAULT_IMAGE_TOKEN):
        pieces.append(code(piece, start))
        start += len(piece) + len(DEFAULT_IMAGE_TOKEN)
    has_bos = bool(pieces[0]) and is_bos(pieces[0][0])
    tokens = list(pieces[0])
    for coded in pieces[1:]:
        tokens += [image, *coded[has_bos:]]
    return tokens


def _read_json(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _with_dummy_prefixes(text: str, tokenizer: Any) -> tuple[str, list[int]]:
    """Write out the spaces that SentencePiece adds to a text, where this backend does not add them by itself.

    Returns:
        The text to tokenize, and where in it the written spaces stand, in order.
    """
    backend = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    scheme = getattr(backend, "prepend_scheme", "never")  # only Metaspace has one
    if scheme == "never":
        return text, []
    starts = [0]
    if scheme == "always":  # legacy: every stretch of text between special tokens has a prefix of its own
        # Those that were added later, as <im_end>, are not in all_special_tokens.
        specials = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        starts += [found.end() for found in re.finditer("|".join(map(re.escape, specials)), text)]
    starts = [start for start in starts if text[start : start + 1] in {" ", "\u2581"}]
    pieces = [text[start:end] for start, end in zip([0, *starts], [*starts, len(text)], strict=True)]
    return " ".join(pieces), [start + before for before, start in enumerate(starts)]
