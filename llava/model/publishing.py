"""Save a model so that readers of published LLaVA checkpoints, old and new, load it."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.model.checkpoint_files import find_file
from llava.model.published_names import published_config, published_state_dict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


class PublishedConfig:
    """Mixin before a configuration class: `config.json` has its old fields beside the new ones."""

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write the configuration; whole or not at all."""
        config = published_config(json.loads(self.to_json_string(use_diff=use_diff)))  # type: ignore
        partial = f"{os.fspath(json_file_path)}.tmp"
        with open(partial, "w", encoding="utf-8") as file:
            file.write(json.dumps(config, indent=2, sort_keys=True) + "\n")
        os.replace(partial, json_file_path)


class PublishedModel:
    """Mixin before a model class: weights have their published names, and saving does not fail at the end."""

    generation_config: Any

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, state_dict: Any = None, **kwargs: Any
    ) -> None:
        """As transformers', with the names of published checkpoints.

        A generation configuration with sampling values but without sampling, as Vicuna ships it, would be
        refused by transformers: it is saved without those values, which had no effect.
        """
        if state_dict is None:
            state_dict = self.state_dict()  # type: ignore
        tensors = published_state_dict(state_dict)
        generation_config = self.generation_config
        self.generation_config = without_idle_sampling(generation_config)
        try:
            kwargs["save_original_format"] = False  # the names are final
            super().save_pretrained(save_directory, *args, state_dict=tensors, **kwargs)  # type: ignore[misc]
        finally:
            self.generation_config = generation_config


def without_idle_sampling(generation_config: Any) -> Any:
    """The settings; where they decode greedily, a copy without those of sampling, idle there."""
    if generation_config is None or generation_config.do_sample:
        return generation_config
    cleaned = copy.deepcopy(generation_config)
    for field in _SAMPLING_FIELDS:
        if hasattr(cleaned, field):
            setattr(cleaned, field, None)
    return cleaned


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """The tokenizer's files, and the SentencePiece `tokenizer.model` that transformers 5 leaves behind."""
    tokenizer.save_pretrained(directory)
    if (directory / "tokenizer.model").is_file() or not tokenizer.name_or_path:
        return
    source = find_file(tokenizer.name_or_path, "tokenizer.model", local_only=True)
    if source is not None:
        shutil.copyfile(source, directory / "tokenizer.model")
