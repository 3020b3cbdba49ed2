"""Overwrite parameters of a loaded model by those that a later run trained as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llava.model.projector_file import PROJECTOR_KEY, load_projector
from llava.model.published_names import current_state_dict
from llava.model.zero3 import gathered

_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")


@torch.no_grad()
def load_trained_weights(model: Any, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors to the parameters and buffers of the same names; dtypes and devices stay.

    Embeddings of more (or fewer) tokens resize the model's. A projector is loaded as a whole, unless only its
    biases are there (`--lora_bias all`).

    Args:
        model: a language model or a LLaVA, its tower loaded if tensors of it are given.
        tensors: by the model's own names; towers also by published ones.
        source: where they are from, for errors.

    Raises:
        ValueError: a name that the model does not have, another shape, or weights put aside for want of
            memory.
    """
    tensors = current_state_dict(tensors)
    projector = {name: tensor for name, tensor in tensors.items() if PROJECTOR_KEY in name}
    own_projector = getattr(getattr(model, "model", None), "mm_projector", None)
    if own_projector is not None and any(name.endswith("weight") for name in projector):
        load_projector(own_projector, projector, source)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in projector}
    for name, tensor in tensors.items():
        if name.endswith(_EMBEDDINGS) and len(tensor) != model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tensor), mean_resizing=False)
    # Tied parameters have both names.
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        found = own.get(name)
        if found is None or found.shape != tensor.shape:
            has = "no such parameter" if found is None else f"it with shape {tuple(found.shape)}"
            raise ValueError(
                f"'{source}' belongs to another model: it has {name} with shape {tuple(tensor.shape)}, and "
                f"the model has {has}; pass the base and the configuration that it was trained with."
            )
        with gathered([found], write=True):
            found.copy_(tensor)
