"""The files of a trained LLaVA, in the formats that upstream reads and writes.

Stage 1 leaves the projector: `config.json` and `mm_projector.bin`. Stage 2 leaves the whole model under the
names of published checkpoints (the model class sees to that), and its tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llava.model.checkpoint_files import read_tensors
from llava.model.projector_file import PROJECTOR_FILE
from llava.model.published_names import current_state_dict
from llava.model.publishing import without_idle_sampling, write_tokenizer  # noqa: F401 - saving is here
from llava.model.zero3 import gathered

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def maybe_zero_3(param: Tensor, ignore_status: bool = False, name: str | None = None) -> Tensor:
    """A whole copy of a parameter on the CPU; gathers it if ZeRO-3 has cut it (then all ranks must call).

    Args:
        param: any parameter or tensor.
        ignore_status: accepted for callers of upstream's function; gathering never needs it.
        name: likewise.
    """
    with gathered([param]):
        return param.detach().cpu().clone()


def get_mm_adapter_state_maybe_zero_3(
    named_params: Iterable[tuple[str, Tensor]], keys_to_match: Iterable[str]
) -> dict[str, Tensor]:
    """Whole CPU copies of the parameters whose name contains one of `keys_to_match`."""
    keys = list(keys_to_match)
    return {name: maybe_zero_3(param) for name, param in named_params if any(key in name for key in keys)}


def adapter_state(model: nn.Module, use_im_start_end: bool = False) -> dict[str, Tensor]:
    """What stage 1 trains, under the names of `mm_projector.bin`: `model.mm_projector.0.weight` and so on.

    With tiles that end in a newline (`spatial_unpad`), `model.image_newline` is among them.

    Args:
        model: a LLaVA, not wrapped.
        use_im_start_end: the input embeddings were trained too, for `<im_start>` and `<im_end>`.
    """
    keys = ["mm_projector", "image_newline", *(["embed_tokens"] if use_im_start_end else [])]
    return get_mm_adapter_state_maybe_zero_3(model.named_parameters(), keys)


def projector_file(output_dir: Path) -> Path:
    """Where the projector goes: as upstream, beside an output folder that is itself named `checkpoint-*`."""
    if output_dir.name.startswith("checkpoint-"):
        return output_dir.parent / "mm_projector" / f"{output_dir.name}.bin"
    return output_dir / PROJECTOR_FILE


@contextmanager
def config_for_use(model: PreTrainedModel) -> Iterator[None]:
    """Training switches the cache off; whoever loads what is written inside the block wants to generate."""
    training = model.config.use_cache
    model.config.use_cache = True
    try:
        yield
    finally:
        model.config.use_cache = training


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Put the weights of a checkpoint folder of either stage into a model.

    Args:
        model: a LLaVA, not wrapped.
        checkpoint: a folder that `LLaVATrainer` wrote.

    Raises:
        FileNotFoundError: it holds no weights.
        RuntimeError: of torch, a tensor is missing, left over or of another shape.
    """
    projector = checkpoint / PROJECTOR_FILE
    if projector.is_file():
        state = torch.load(projector, map_location="cpu", weights_only=True)
        unexpected = model.load_state_dict(state, strict=False).unexpected_keys
        if unexpected:
            raise RuntimeError(f"{projector} holds {unexpected}, which this model does not have.")
        return
    state = read_whole(checkpoint)
    refuse_other_names(model, state, checkpoint)
    model.load_state_dict(state, strict=False)


def read_whole(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of a whole model, under the names of current transformers.

    Raises:
        FileNotFoundError: there are none.
    """
    state = current_state_dict(read_tensors(checkpoint, ""))
    if not state:
        raise FileNotFoundError(
            f"The checkpoint {checkpoint} holds neither {PROJECTOR_FILE} nor whole weights."
        )
    return state


def refuse_other_names(model: nn.Module, state: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Check that the weights of a whole model are those of this one, by name.

    Raises:
        RuntimeError: one is missing that is not tied to another, or there is one too many.
    """
    ours = model.state_dict().keys()
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    missing, unexpected = sorted(ours - state.keys() - set(tied)), sorted(state.keys() - ours)
    if unexpected or missing:
        raise RuntimeError(f"{checkpoint} lacks {missing} and has {unexpected} too many for this model.")


def make_savable(model: Any) -> None:
    """Make the generation settings ones that transformers agrees to write: the final save must not fail.

    Settings of sampling beside greedy decoding, as Vicuna ships them, are dropped: they have no effect. If
    anything else is refused, only the special tokens are kept.
    """
    from transformers import GenerationConfig

    config = model.generation_config = without_idle_sampling(model.generation_config)
    try:
        config.validate(strict=True)
    except ValueError:
        special = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(config, name) for name in special})
