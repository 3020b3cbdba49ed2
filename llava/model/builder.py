"""Load a LLaVA, or a plain language model, from whatever a folder or hub name holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.checkpoint_files import find_file, find_weights, read_config
from llava.model.projector_file import PROJECTOR_FILE
from llava.model.quantization import quantization_config
from llava.tokenization import load_tokenizer

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    torch_dtype: Any = None,
    **kwargs: Any,
) -> tuple[Any, Any, Any, int]:
    """Load tokenizer, model, image processor and context length.

    The files decide what is loaded: `mm_vision_tower` in `config.json` makes it a LLaVA; with `model_base`
    the language model and tokenizer come from there and the projector from `mm_projector.bin`.

    Args:
        model_path: folder or hub name of a whole model, or of a stage 1 (projector only).
        model_base: the language model under a stage 1.
        model_name: a hint that decides nothing any more: `config.json` does.
        load_8bit: with bitsandbytes; tower, projector and output layer stay as they are.
        load_4bit: the same, nf4 with double quantisation.
        device_map: of transformers.
        device: other than "cuda": everything goes there.
        use_flash_attn: flash-attention 2, which must be installed.
        torch_dtype: of the language model and the projector; float16 as ever.
        kwargs: of `from_pretrained`.

    Returns:
        Tokenizer; model in evaluation mode; image processor, None for a plain language model; context length.
        The tower is float32 with `device_map="auto"`, else in `torch_dtype`.

    Raises:
        FileNotFoundError: no configuration, no weights, or a projector without its base.
        ValueError: a kind of checkpoint that we do not load, or a projector that does not fit.
    """
    import torch

    dtype = torch.float16 if torch_dtype is None else torch_dtype
    kwargs = {"device_map": device_map if device == "cuda" else {"": device}, **kwargs}
    if load_8bit or load_4bit:
        kwargs["quantization_config"] = quantization_config(4 if load_4bit else 8, dtype)
    if use_flash_attn:
        kwargs["attn_implementation"] = "flash_attention_2"
    kwargs["dtype"] = dtype

    fields = read_config(model_path)
    projector_file = find_file(model_path, PROJECTOR_FILE)
    _refuse_what_we_cannot_load(model_path, model_base, fields, projector_file)
    if "mm_vision_tower" not in fields:
        from transformers import AutoModelForCausalLM

        if model_name and "llava" in model_name.lower():
            logger.warning(
                "'%s' has no mm_vision_tower in its config.json: a plain language model.", model_path
            )
        model = AutoModelForCausalLM.from_pretrained(model_path, **kwargs)
        return load_tokenizer(model_path), model, None, _context_length(model.config)

    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

    config = LlavaConfig.from_pretrained(model_path)
    tokenizer = load_tokenizer(model_base or model_path)
    tensors: Mapping[str, Any] = {}
    if model_base is None or projector_file is None:
        model = LlavaLlamaForCausalLM.from_pretrained(model_path, config=config, **kwargs)
    else:
        model, tensors = _load_on_base(model_base, config, projector_file, kwargs)
    _add_image_tokens(model, tokenizer, tensors)

    tower = model.get_vision_tower()
    # A map of the language model's layers says nothing about the tower.
    placement = kwargs["device_map"]
    by_layer = isinstance(placement, dict) and "" not in placement
    tower.load_model(device_map={"": model.device} if by_layer else placement)
    if device_map != "auto":
        tower.to(dtype=model.dtype)
    return tokenizer, model.eval(), tower.image_processor, _context_length(model.config)


def _refuse_what_we_cannot_load(
    path: str, base: str | None, config: Mapping[str, Any], projector_file: str | None
) -> None:
    if find_file(path, "adapter_config.json"):
        raise ValueError(
            f"'{path}' holds a LoRA adapter, which this version does not load; pass a merged checkpoint."
        )
    if "vision_config" in config and "text_config" in config:
        raise ValueError(
            f"'{path}' is in transformers' own format ({config.get('architectures')}); load it with "
            "transformers, or pass the checkpoint in LLaVA's format that it was made from."
        )
    if "mm_vision_tower" not in config:
        if base is not None:
            raise ValueError(
                f"A base model was passed, but '{path}' is a plain language model (no mm_vision_tower in its "
                "config.json); leave --model-base out."
            )
        return
    weights = find_weights(path)
    if base is None and weights is None and projector_file:
        raise FileNotFoundError(
            f"'{path}' holds a projector ({PROJECTOR_FILE}) and no language model; pass the one that it was "
            "trained with as --model-base."
        )
    if base is None and weights is None:
        raise FileNotFoundError(f"'{path}' holds no weights; pass a folder whose saving was completed.")
    if base is not None and projector_file is None:
        advice = "leave --model-base out to load it" if weights else "pass the folder that stage 1 wrote"
        found = "a whole model" if weights else "no weights"
        raise FileNotFoundError(
            f"With --model-base '{base}' the projector comes from {PROJECTOR_FILE}, but '{path}' holds "
            f"{found} and no such file; {advice}."
        )


def _load_on_base(base: str, config: Any, projector_file: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The model, and all tensors of the projector's file."""
    from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
    from llava.model.projector_file import load_projector, read_projector_file

    tensors = read_projector_file(projector_file)
    config.vocab_size = read_config(base)["vocab_size"]  # added tokens come after loading
    model = LlavaLlamaForCausalLM.from_pretrained(base, config=config, **kwargs)
    load_projector(model.get_model().mm_projector, tensors, projector_file)
    return model, tensors


def _add_image_tokens(model: Any, tokenizer: Any, projector_file: Mapping[str, Any]) -> None:
    from llava.model.projector_file import EMBEDDING_KEY, load_token_embeddings

    added = 0
    if getattr(model.config, "mm_use_im_patch_token", True):
        tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
    if getattr(model.config, "mm_use_im_start_end", False):
        added = tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if added and any(key.endswith(EMBEDDING_KEY) for key in projector_file):
        load_token_embeddings(model.get_input_embeddings(), projector_file, added)


def _context_length(config: Any) -> int:
    """What the checkpoint was trained for: rows are cut there, whatever the positions would allow."""
    trained = getattr(config, "max_sequence_length", None)
    if trained is not None:
        return int(trained)
    limits = (
        getattr(config, name, None) for name in ("tokenizer_model_max_length", "max_position_embeddings")
    )
    return min((int(limit) for limit in limits if limit), default=DEFAULT_CONTEXT)
