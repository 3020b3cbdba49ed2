"""Checkpoints on disk: of what kind they are by their files, and how they are shown a pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from regap_patch.errors import MeasureError, UnknownHostError
from regap_patch.measure.pairs import Pair

LLAVA, TRANSFORMERS = "llava", "huggingface"  # modules NAME_prompts load them
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
OF_TRAINING = ("optimizer", "scheduler", "rng_state", "training_args")  # beside weights, and none
SHOWS = (  # what else decides which numbers a pair becomes
    "config.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# A fingerprint reads files up to WHOLE bytes whole, and PAGE bytes of every STRIDE of larger ones: where the
# projector alone was trained, it lies in the middle of its file.
WHOLE, PAGE, STRIDE = 64 << 20, 4 << 10, 1 << 20


class Prompter(Protocol):
    """What a kind of checkpoint knows about prompts."""

    template: str

    def prompt(self, images: Sequence[Any], text: str) -> dict[str, Any]:
        """Forward arguments of images in the user's turn and the text in the model's."""

    def caption(self, images: Sequence[Any], text: str) -> dict[str, Any]:
        """Forward arguments of images and, right behind them, the text."""

    def shorten(self, text: str, tokens: int) -> str:
        """The text's beginning, if it has more tokens than that."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model.

    Attributes:
        path: folder or hub name.
        model: in evaluation mode, on its device.
        prompter: how pairs are shown to it.
        description: path, fingerprint, class and precision, for JSON.
    """

    path: str
    model: Any
    prompter: Prompter
    description: dict[str, Any]


class PreparedPairs(Sequence[dict[str, Any]]):
    """Forward arguments of pairs, made when they are asked for, so that pixels are never all in memory.

    Attributes:
        cut: numbers of pairs whose text was shortened.
    """

    def __init__(
        self,
        prompter: Prompter,
        pairs: Sequence[Pair],
        *,
        max_text_tokens: int | None = None,
        bare: bool = False,
    ) -> None:
        self.prompter, self.pairs = prompter, pairs
        self.max_text_tokens, self.bare = max_text_tokens, bare
        self.cut: set[int] = set()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Any:
        pair, text = self.pairs[index], self.pairs[index].text
        if self.max_text_tokens is not None:
            text = self.prompter.shorten(text, self.max_text_tokens)
            if text != pair.text:
                self.cut.add(index)
        images = [open_image(path) for path in pair.images]
        make = self.prompter.caption if self.bare else self.prompter.prompt
        return make(images, text)


def open_image(path: Path) -> Any:
    """A picture in RGB.

    Raises:
        MeasureError: it cannot be read as one.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise MeasureError(
            f"The image {path} cannot be read ({type(error).__name__}: {error}): mend it, or take it out."
        ) from error


def kind_of(path: str) -> str:
    """What loads this checkpoint, by its `config.json`.

    Raises:
        MeasureError: there is no such folder or it is no checkpoint.
        UnknownHostError: a model without images.
    """
    config = read_config(path)
    if "mm_vision_tower" in config:
        return LLAVA
    if "vision_config" in config:
        return TRANSFORMERS
    raise UnknownHostError(
        f"No known host fits {path}: its config.json (model_type {config.get('model_type')!r}) has neither "
        f"LLaVA's mm_vision_tower nor transformers' vision_config, so it sees no images: name a "
        f"vision-language checkpoint."
    )


def read_config(path: str) -> dict[str, Any]:
    """The fields of a checkpoint's `config.json`, from its folder or, for a hub name, from the cache.

    Raises:
        MeasureError: there is none.
    """
    folder = Path(path)
    try:
        if folder.exists():
            return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        from transformers import PretrainedConfig

        fields = PretrainedConfig.get_config_dict(path)[0]
    except (OSError, ValueError) as error:
        raise MeasureError(
            f"{path} was to be measured, but no config.json can be read there ({type(error).__name__}): name "
            f"the folder of a checkpoint, or a hub name."
        ) from error
    if not fields:
        raise MeasureError(
            f"{path} was to be measured, but it is neither a folder nor a model in reach: name the folder "
            f"of a checkpoint, or a hub name."
        )
    return dict(fields)


def fingerprint(path: str) -> str:
    """SHA-256 over a checkpoint's config, tokenizer and weights; of large files over a page of every MiB."""
    folder = Path(path)
    digest = hashlib.sha256()
    if not folder.is_dir():
        digest.update(f"{path}\0{read_config(path).get('_commit_hash')}".encode())
        return digest.hexdigest()
    for file in sorted(folder.iterdir()):
        weights = file.suffix in WEIGHTS and not file.name.startswith(OF_TRAINING)
        if weights or file.name in SHOWS:
            size = file.stat().st_size
            digest.update(f"{file.name}\0{size}\0".encode())
            with file.open("rb") as stream:
                if size <= WHOLE:
                    digest.update(stream.read())
                    continue
                for start in (*range(0, size, STRIDE), size - PAGE):
                    stream.seek(start)
                    digest.update(stream.read(PAGE))
    return digest.hexdigest()


def made_of(path: str, base: str | None = None) -> list[str]:
    """The checkpoint, and the folders beside it that its model is loaded from: vision tower and base.

    Args:
        path: folder or hub name.
        base: as `load_checkpoint`.
    """
    parts = [read_config(path).get("mm_vision_tower")]
    adapter = Path(path) / "adapter_config.json"
    if needs_base(path) and base is None and adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if needs_base(path):
        parts.append(base)
    return [path, *(part for part in parts if part and Path(part).is_dir())]


def needs_base(path: str) -> bool:
    """Whether a folder holds a projector or an adapter without a language model."""
    folder = Path(path)
    parts = {"mm_projector.bin", "adapter_config.json", "non_lora_trainables.bin"}
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    weights = {name for name in names if name.endswith((".safetensors", ".bin")) and "adapter" not in name}
    weights = {name for name in weights if not name.startswith(OF_TRAINING)}
    return bool(names & parts) and not weights - parts


def load_checkpoint(
    path: str,
    *,
    base: str | None = None,
    template: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> Checkpoint:
    """Load a model and what makes its prompts, by LLaVA's loader or by transformers.

    Args:
        path: folder or hub name.
        base: the language model of a projector or an adapter; others have their own.
        template: name of a conversation template of LLaVA, or text with `{text}` and `<image>`; None for the
            model's usual one.
        device: where to put it.
        dtype: `float32`, `float16` or `bfloat16`; None: float32 on the CPU, else float16.

    Raises:
        MeasureError: it is no checkpoint, or lacks a part.
        UnknownHostError: it sees no images.
    """
    kind = kind_of(path)
    load: Any = import_module(f"regap_patch.measure.{kind}_prompts").load
    loading: Any = import_module("transformers.utils.logging")
    precision = dtype or ("float32" if device == "cpu" else "float16")
    used = base if base is not None and needs_base(path) else None
    was = loading.get_verbosity()
    loading.disable_progress_bar()
    loading.set_verbosity_error()  # a projector that comes from another file is news on every load
    try:
        model, prompter = load(path, used, template, device, precision)
    except (OSError, ValueError, ImportError) as error:
        raise MeasureError(f"{path} cannot be loaded: {error}") from error
    finally:
        loading.set_verbosity(was)
    description = {
        "path": path,
        "base": used,
        "fingerprint": fingerprint(path),
        "class": type(model).__name__,
        "precision": precision,
        "device": device.partition(":")[0],
    }
    return Checkpoint(path, model.eval(), prompter, description)
