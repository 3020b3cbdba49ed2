"""Read `mm_projector.bin` (and its relatives) into a model, with errors that say what does not fit."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llava.model.multimodal_projector.builder import projector_shape
from llava.model.zero3 import gathered, load_gathered

PROJECTOR_FILE = "mm_projector.bin"
logger = logging.getLogger(__name__)

PROJECTOR_KEY = "mm_projector."
NEWLINE_KEY = "image_newline"
EMBEDDING_KEY = "embed_tokens.weight"


def read_projector_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of the file, under the names in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a dictionary of tensors, or none of them belongs to a projector.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"The projector file '{path}' does not exist; pass the mm_projector.bin that stage 1 wrote."
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"The projector file '{path}' cannot be read as a torch file of tensors "
            f"({type(error).__name__}); pass the mm_projector.bin that stage 1 wrote."
        ) from error
    if not isinstance(tensors, Mapping) or not any(PROJECTOR_KEY in key for key in tensors):
        found = sorted(tensors)[:3] if isinstance(tensors, Mapping) else type(tensors).__name__
        raise ValueError(
            f"The projector file '{path}' holds no key with '{PROJECTOR_KEY}' (found {found}); pass the "
            "mm_projector.bin that stage 1 wrote."
        )
    return dict(tensors)


def load_projector(
    projector: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike[str]
) -> None:
    """Load the tensors named `<anything>mm_projector.<key>`, all of them and nothing else.

    Args:
        projector: of the model; its dtype and device stay. May be partitioned by ZeRO-3.
        tensors: as `read_projector_file` gives them.
        source: named in the error.

    Raises:
        ValueError: another type of projector, or other widths.
    """
    state = {
        key.split(PROJECTOR_KEY, 1)[1]: tensor for key, tensor in tensors.items() if PROJECTOR_KEY in key
    }
    held, wanted = projector_shape(state), projector_shape(dict(projector.named_parameters()))
    if held != wanted:
        raise ValueError(
            f"The projector file '{source}' holds {held}, but the model wants {wanted}; pass "
            f"--mm_projector_type {held.kind} with the same vision tower and language model as in stage 1, "
            "or another file."
        )
    try:
        load_gathered(projector, state)
    except RuntimeError as error:
        raise ValueError(
            f"The projector file '{source}' is incomplete or damaged: {' '.join(str(error).split())}"
        ) from error


def load_newline(
    newline: nn.Parameter | None, tensors: Mapping[str, Tensor], source: str | os.PathLike[str]
) -> None:
    """Copy `<anything>image_newline`, with a warning where only one of file and model has it.

    Args:
        newline: (D,) of the model; None for a merge of tiles that has none.
        tensors: as `read_projector_file` gives them.
        source: named in the messages.

    Raises:
        ValueError: another width.
    """
    saved = next((tensor for key, tensor in tensors.items() if key.endswith(NEWLINE_KEY)), None)
    if newline is None:
        if saved is not None:
            logger.warning(
                "'%s' holds an image_newline, which is left aside: --mm_patch_merge_type spatial_unpad was "
                "not asked for.",
                source,
            )
        return
    if saved is None:
        logger.warning(
            "'%s' holds no image_newline (upstream's stage 1 saves none): it keeps its random first value.",
            source,
        )
        return
    with gathered([newline], write=True):
        if saved.shape != newline.shape:
            raise ValueError(
                f"The projector file '{source}' holds an image_newline of {saved.numel()} numbers, but the "
                f"model wants {newline.numel()}; pass a file of the same language model."
            )
        newline.data.copy_(saved)


def load_token_embeddings(embedding: nn.Embedding, tensors: Mapping[str, Tensor], new_tokens: int) -> None:
    """Copy the input embeddings of added tokens (`<im_start>`, `<im_end>`) to the last rows of the table.

    Args:
        embedding: the model's, already of its final number of rows.
        tensors: as `read_projector_file` gives them; the whole table, or the rows of the added tokens.
        new_tokens: number of added tokens.

    Raises:
        ValueError: the file has neither.
    """
    rows = next((tensor for key, tensor in tensors.items() if key.endswith(EMBEDDING_KEY)), None)
    with gathered([embedding.weight], write=True):
        whole = embedding.weight.shape
        if rows is None or tuple(rows.shape) not in (tuple(whole), (new_tokens, whole[1])):
            found = "no embeddings" if rows is None else f"embeddings of shape {tuple(rows.shape)}"
            raise ValueError(
                f"The projector file holds {found}, but {new_tokens} added tokens of a table of shape "
                f"{tuple(whole)} need theirs; pass a file of a stage 1 with --mm_use_im_start_end, or leave "
                "the flag out."
            )
        embedding.weight.data[-new_tokens:] = rows[-new_tokens:].to(embedding.weight)
