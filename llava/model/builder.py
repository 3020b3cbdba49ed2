"""Load a LLaVA, or a plain language model, from whatever a folder or hub name holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.checkpoint_files import read_config
from llava.model.layouts import Layout, read_layout
from llava.model.quantization import quantization_config, spare_odd_layers
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

    The files decide what is loaded (`llava.model.layouts` has the table): a whole LLaVA, a projector or a
    LoRA adapter on its base, or a plain language model. A LoRA adapter is merged, and stays beside weights
    in 4 or 8 bits.

    Args:
        model_path: folder or hub name of a checkpoint.
        model_base: the language model under a projector or an adapter; adapters name theirs.
        model_name: a hint that decides nothing any more: the files do.
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
        FileNotFoundError: no configuration, no weights or not all of them, or no base.
        ValueError: a kind of checkpoint that we do not load, or parts that do not fit each other.
    """
    import torch

    layout = read_layout(model_path, model_base)
    asked = kwargs.pop("dtype", torch_dtype)
    kwargs["dtype"] = torch.float16 if asked is None else asked
    kwargs = {"device_map": device_map if device == "cuda" else {"": device}, **kwargs}
    if load_8bit or load_4bit:
        if layout.quantised_by is not None:
            raise ValueError(
                f"4 or 8 bits were asked for, but '{layout.weights}' is quantised already "
                f"({layout.quantised_by}); load it without load_4bit and load_8bit, or pass the checkpoint "
                "that it was made from."
            )
        kwargs["quantization_config"] = quantization_config(4 if load_4bit else 8, kwargs["dtype"])
    if use_flash_attn:
        kwargs["attn_implementation"] = "flash_attention_2"

    tokenizer = load_tokenizer(layout.tokenizer)
    if not layout.is_llava:
        if model_name and "llava" in model_name.lower():
            logger.warning(
                "'%s' has no mm_vision_tower in its config.json: a plain language model.", model_path
            )
        model = _load_language_model(layout, kwargs)
        spare_odd_layers(model)
        return tokenizer, model.eval(), None, _context_length(model.config)

    model = _load_llava(layout, tokenizer, kwargs)
    spare_odd_layers(model)
    tower = model.get_vision_tower()
    if device_map != "auto":
        tower.to(dtype=model.dtype)
    return tokenizer, model.eval(), tower.image_processor, _context_length(model.config)


def _load_language_model(layout: Layout, kwargs: Mapping[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(layout.weights, **kwargs)
    if layout.adapter is not None:
        from llava.model.lora_merge import apply_lora

        model = apply_lora(model, layout.adapter, layout.weights)
    return model


def _load_llava(layout: Layout, tokenizer: Any, kwargs: Mapping[str, Any]) -> Any:
    """The whole model, tower included."""
    from llava.model.language_model.families import llava_class_for
    from llava.model.lora_merge import apply_lora, read_trained_file
    from llava.model.projector_file import read_projector_file
    from llava.model.trained_weights import load_trained_weights

    config_class, model_class = llava_class_for(layout.fields.get("model_type"))
    config = config_class.from_pretrained(layout.config)
    config.name_or_path = layout.weights  # where the tower looks for weights of its own
    if layout.tower is not None:
        config.mm_vision_tower = layout.tower
    if layout.weights != layout.config:
        _describe_weights(config, read_config(layout.weights))
    model, loading = model_class.from_pretrained(
        layout.weights, config=config, output_loading_info=True, **kwargs
    )
    tensors: Mapping[str, Any] = {}
    if layout.projector_file is not None:
        tensors = read_projector_file(layout.projector_file)
        _put_projector(model, tensors, layout.projector_file)
    if layout.trained_file is not None:
        tensors = read_trained_file(layout.trained_file)
    _refuse_missing_weights(loading["missing_keys"], tensors, layout)

    # A map of the language model's layers says nothing about the tower.
    placement = kwargs["device_map"]
    by_layer = isinstance(placement, dict) and "" not in placement
    model.get_vision_tower().load_model(device_map={"": model.device} if by_layer else placement)
    if layout.trained_file is not None:
        load_trained_weights(model, tensors, layout.trained_file)
    if layout.adapter is not None:
        model = apply_lora(model, layout.adapter, layout.weights)
    _add_image_tokens(model, tokenizer, tensors)
    return model


def _describe_weights(config: Any, base_fields: Mapping[str, Any]) -> None:
    """Take what concerns the weights from the base: the other configuration tells how training held them."""
    config.vocab_size = base_fields.get("vocab_size", config.vocab_size)  # added tokens come after loading
    if hasattr(config, "quantization_config"):  # of upstream's QLoRA
        del config.quantization_config
    if "quantization_config" in base_fields:
        config.quantization_config = base_fields["quantization_config"]


def _put_projector(model: Any, tensors: Mapping[str, Any], source: str) -> None:
    from llava.model.projector_file import load_newline, load_projector

    inner = model.get_model()
    load_projector(inner.mm_projector, tensors, source)
    load_newline(getattr(inner, "image_newline", None), tensors, source)


def _refuse_missing_weights(missing: set[str], tensors: Mapping[str, Any], layout: Layout) -> None:
    """Transformers gives what a file lacks random values, and says so in a table that nobody reads."""
    elsewhere = ["vision_tower."]  # reads its weights itself
    if layout.projector_file is not None:
        elsewhere += ["mm_projector.", "image_newline"]
    lost = sorted(key for key in missing if key not in tensors and not any(part in key for part in elsewhere))
    if lost:
        beside = f" and '{layout.trained_file}'" if layout.trained_file else ""
        raise ValueError(
            f"The weights in '{layout.weights}'{beside} lack {len(lost)} tensors of the model that "
            f"'{layout.config}' describes ({', '.join(lost[:3])}); pass the folder of a completed run."
        )


def _add_image_tokens(model: Any, tokenizer: Any, tensors: Mapping[str, Any]) -> None:
    """Give tokenizer and model the image tokens that the configuration asks for, if they lack them.

    Embeddings that no file holds are the mean of the others, as at the start of training: with LoRA they
    stayed so, and upstream does not save them.
    """
    from llava.model.projector_file import EMBEDDING_KEY, load_token_embeddings

    added, rows = 0, model.get_input_embeddings().num_embeddings
    if getattr(model.config, "mm_use_im_patch_token", True):
        tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
    if getattr(model.config, "mm_use_im_start_end", False):
        added = tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if added and any(key.endswith(EMBEDDING_KEY) for key in tensors):
        load_token_embeddings(model.get_input_embeddings(), tensors, added)
    elif len(tokenizer) > rows:
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
            embedding.weight.data[rows:] = embedding.weight.data[:rows].mean(0)


def _context_length(config: Any) -> int:
    """What the checkpoint was trained for: rows are cut there, whatever the positions would allow."""
    trained = getattr(config, "max_sequence_length", None)
    if trained is not None:
        return int(trained)
    limits = (
        getattr(config, name, None) for name in ("tokenizer_model_max_length", "max_position_embeddings")
    )
    return min((int(limit) for limit in limits if limit), default=DEFAULT_CONTEXT)
