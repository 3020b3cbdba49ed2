"""Write weights into a module whose parameters DeepSpeed's ZeRO-3 may have cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def gathered(parameters: Iterable[nn.Parameter], *, write: bool = False) -> Iterator[None]:
    """Whole parameters inside the block, also under ZeRO-3; free without it.

    Args:
        parameters: of any modules.
        write: what the block writes on rank 0 is what all ranks keep.

    Raises:
        ValueError: weights were put aside for want of memory: what is written to them gets lost.
    """
    parameters = list(parameters)
    if any(parameter.is_meta for parameter in parameters):
        raise ValueError(
            "The model does not fit into the device's memory as a whole, and weights that were put aside (on "
            "disk or beside a GPU) cannot be held against, or replaced by, those of another file; pass "
            "device='cpu', load in 4 bits, or take a device with more memory."
        )
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if write else None):
        yield


def give_one_dtype(model: nn.Module) -> None:
    """Give what trains the dtype of the weights that ZeRO-3 has cut; does nothing where all of it is of one.

    DeepSpeed lays what trains side by side in one buffer. What is made after the language model, projector
    and adapters, is whole still and may be of another dtype; the optimizer keeps an exact copy, in float32.
    """
    training = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cut = next((p.ds_tensor.dtype for p in model.parameters() if hasattr(p, "ds_tensor")), None)
    if cut is not None and len({parameter.dtype for parameter in training}) > 1:
        for parameter in training:
            if not hasattr(parameter, "ds_tensor"):
                parameter.data = parameter.data.to(cut)


def load_gathered(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """`module.load_state_dict(state_dict)`, strictly, on whole parameters.

    Raises:
        RuntimeError: of torch, names or shapes do not fit.
    """
    with gathered(module.parameters(), write=True):
        module.load_state_dict(state_dict)
