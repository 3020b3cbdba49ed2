"""Which kind of checkpoint a folder (or hub repository) is: its files decide, its name decides nothing.

| in the folder                                    | what it is                                  |
|--------------------------------------------------|---------------------------------------------|
| weights, `mm_vision_tower` in `config.json`      | a whole LLaVA                               |
| weights, no such field                           | a plain language model                      |
| `mm_projector.bin`, and a base is given          | a stage 1: the projector on that base       |
| `adapter_config.json`                            | LoRA on the base that is given, or named in |
| the same and `mm_vision_tower` in `config.json`  | LoRA of a LLaVA                             |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llava.model.checkpoint_files import check_weight_files, find_file, find_weights, read_config, read_object
from llava.model.language_model.families import llava_class_for
from llava.model.projector_file import PROJECTOR_FILE

ADAPTER_CONFIG = "adapter_config.json"
TRAINED_FILE = "non_lora_trainables.bin"
TOWER_FOLDER = "vision_tower"
# Fields in which the configuration of a projector or an adapter must be that of its base.
_SHAPE_FIELDS = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")


@dataclass(frozen=True)
class Layout:
    """What is to be read, and from where; each place is a folder or a hub name."""

    path: str
    fields: Mapping[str, Any]
    """Of the `config.json` that describes the model."""
    config: str
    """Where that `config.json` is."""
    weights: str
    """Where the language model's weights are."""
    tokenizer: str
    projector_file: str | None = None
    """Path of a projector to put on the language model."""
    adapter: str | None = None
    """Where a LoRA adapter is."""
    trained_file: str | None = None
    """Path of what was trained beside the adapter: the projector above all."""
    tower: str | None = None
    """A vision tower that the checkpoint brings along, as ShareGPT4V's do."""

    @property
    def is_llava(self) -> bool:
        """Whether there is anything to see with."""
        return self.fields.get("mm_vision_tower") is not None

    @property
    def quantised_by(self) -> str | None:
        """The method by which the weights were quantised before they were saved, None if they are whole."""
        held = read_config(self.weights).get("quantization_config")
        if not held:
            return None
        return str(held.get("quant_method", "unnamed method")) if isinstance(held, Mapping) else str(held)


def read_layout(path: str, base: str | None = None) -> Layout:
    """Look at the files, without reading tensors.

    Args:
        path: folder or hub name of the checkpoint.
        base: the same of the language model under it, for a projector or an adapter.

    Raises:
        FileNotFoundError: a file that this kind of checkpoint needs is missing, or its base is.
        ValueError: a kind of checkpoint that is not loaded here, or a torn file.
    """
    if find_file(path, ADAPTER_CONFIG):
        layout = _adapter(path, base)
    else:
        fields = read_config(path)
        _refuse_format_of_transformers(path, fields)
        if fields.get("mm_vision_tower") is None:
            layout = _language_model(path, base, fields)
        elif base is None:
            layout = _whole(path, fields)
        else:
            layout = _projector(path, base, fields)
    if layout.is_llava:
        llava_class_for(layout.fields.get("model_type"))  # a family without classes is refused first
    check_weight_files(layout.weights)
    return layout


def _language_model(path: str, base: str | None, fields: Mapping[str, Any]) -> Layout:
    if base is not None:
        raise ValueError(
            f"A base model was passed, but '{path}' is a plain language model (no mm_vision_tower in its "
            "config.json); leave --model-base out."
        )
    return Layout(path, fields, config=path, weights=path, tokenizer=path)


def _whole(path: str, fields: Mapping[str, Any]) -> Layout:
    if find_weights(path) is None:
        if find_file(path, PROJECTOR_FILE):
            raise FileNotFoundError(
                f"'{path}' holds a projector ({PROJECTOR_FILE}) and no language model; pass the one that it "
                "was trained with as --model-base."
            )
        raise FileNotFoundError(f"'{path}' holds no weights; pass a folder whose saving was completed.")
    return Layout(path, fields, config=path, weights=path, tokenizer=path, tower=_find_tower(path))


def _projector(path: str, base: str, fields: Mapping[str, Any]) -> Layout:
    projector_file = find_file(path, PROJECTOR_FILE)
    if projector_file is None:
        whole = find_weights(path) is not None
        advice = "leave --model-base out to load it" if whole else "pass the folder that stage 1 wrote"
        found = "a whole model" if whole else "no weights"
        raise FileNotFoundError(
            f"With --model-base '{base}' the projector comes from {PROJECTOR_FILE}, but '{path}' holds "
            f"{found} and no such file; {advice}."
        )
    asker = f"The projector in '{path}'"
    weights = _with_weights(base, asker)
    _refuse_other_shape(asker, fields, weights, read_config(weights))
    return Layout(
        path,
        fields,
        config=path,
        weights=weights,
        tokenizer=base,
        projector_file=projector_file,
        tower=_find_tower(path),
    )


def _adapter(path: str, base: str | None) -> Layout:
    named = read_adapter_config(path).get("base_model_name_or_path")
    if base is None and not named:
        raise FileNotFoundError(
            f"'{path}' holds a LoRA adapter and its {ADAPTER_CONFIG} names no base model; pass the model "
            "that it was trained on as --model-base."
        )
    asker = f"The LoRA adapter in '{path}'"
    weights = _with_weights(base or named, asker, named=base is None)
    config = path if find_file(path, "config.json") else weights
    fields, base_fields = read_config(config), read_config(weights)
    _refuse_format_of_transformers(weights, base_fields)
    _refuse_other_shape(asker, fields, weights, base_fields)
    trained_file, projector_file = find_file(path, TRAINED_FILE), find_file(path, PROJECTOR_FILE)
    sees = fields.get("mm_vision_tower") is not None
    if sees and not (trained_file or projector_file) and base_fields.get("mm_vision_tower") is None:
        raise FileNotFoundError(
            f"'{path}' holds a LoRA adapter of a LLaVA and no projector: neither it has {TRAINED_FILE} (the "
            f"checkpoint-* folders of upstream lack it) nor is its base '{weights}' a LLaVA; pass the folder "
            "of the finished run."
        )
    own_tokenizer = any(find_file(path, name) for name in _TOKENIZER_FILES)
    return Layout(
        path,
        fields,
        config=config,
        weights=weights,
        tokenizer=path if own_tokenizer else weights,
        projector_file=None if trained_file else projector_file,
        adapter=path,
        trained_file=trained_file,
        tower=_find_tower(path) or _find_tower(weights),
    )


def read_adapter_config(path: str) -> dict[str, Any]:
    """`adapter_config.json` of a LoRA folder as it is in the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON object.
    """
    file_path = find_file(path, ADAPTER_CONFIG)
    if file_path is None:
        raise FileNotFoundError(f"'{path}' has no {ADAPTER_CONFIG}; pass the folder of a LoRA run.")
    return read_object(file_path)


def _with_weights(base: str, asker: str, *, named: bool = False) -> str:
    """`base`, if it is a checkpoint with weights."""
    if find_file(base, "config.json") and find_weights(base):
        return base
    remedy = "pass the place where that model is as --model-base"
    raise FileNotFoundError(
        f"{asker} needs its base model '{base}'{' (from adapter_config.json)' if named else ''}, and no "
        f"weights and config.json are found there, neither as a folder nor as a hub name; {remedy}."
    )


def _refuse_other_shape(
    asker: str, fields: Mapping[str, Any], base: str, base_fields: Mapping[str, Any]
) -> None:
    differ = {
        name: (fields[name], base_fields[name])
        for name in _SHAPE_FIELDS
        if name in fields and name in base_fields and fields[name] != base_fields[name]
    }
    if differ:
        said = ", ".join(f"{name} {own} where it has {its}" for name, (own, its) in differ.items())
        raise ValueError(
            f"{asker} was trained on another model than '{base}' ({said}); pass the right one as "
            "--model-base."
        )


def _refuse_format_of_transformers(path: str, fields: Mapping[str, Any]) -> None:
    if "vision_config" in fields and "text_config" in fields:
        raise ValueError(
            f"'{path}' is in transformers' own format ({fields.get('architectures')}); load it with "
            "transformers, or pass the checkpoint in LLaVA's format that it was made from."
        )


def _find_tower(path: str) -> str | None:
    """The folder `vision_tower/` of a checkpoint, if it holds one's configuration and weights."""
    names = ("config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin")
    config, processor, *weights = (find_file(path, f"{TOWER_FOLDER}/{name}") for name in names)
    if config is None or processor is None or not any(weights):
        return None
    return config.removesuffix("/config.json")
