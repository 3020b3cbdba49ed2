"""The three hooks of a patch, and the surgery on a model's output.

The projector's hook only captures; the loss is added in sight, where the model returns it. Hooks keep every
state-dict key, follow `deepcopy` and pickle, and live beside the hooks of others. They are objects, not
closures, so that they can.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from regap_patch.patch.handle import GapPatch


class ProjectorCapture:
    """Forward hook of the projector: keeps its output until the model's forward ends."""

    def __init__(self, patch: GapPatch) -> None:
        self.patch = patch

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Hand the output on; it is not changed."""
        self.patch.capture(output)


class ForwardGate:
    """Forward pre-hook of the outermost module: refuses a pass that could not get its loss."""

    def __init__(self, patch: GapPatch) -> None:
        self.patch = patch

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Check; inputs are not changed."""
        self.patch.admit(module)


class LossAdder:
    """Forward hook of the outermost module: adds the weighted gap to the loss in its output."""

    def __init__(self, patch: GapPatch, names: tuple[str, ...]) -> None:
        self.patch = patch
        self.names = names

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The output with the new loss, or None, which leaves it as it is."""
        if output is None:  # the forward raised: torch calls us so that we let go of the graph
            self.patch.forget()
            return None
        arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
        return self.patch.settle(arguments, output)


def loss_in(output: Any) -> Tensor | None:
    """The loss in a ModelOutput, a dict, or a tuple that starts with one; None where there is none."""
    if isinstance(output, Mapping):
        loss = output.get("loss")
    else:
        loss = output[0] if isinstance(output, tuple) and output else None
    return loss if torch.is_tensor(loss) and loss.dim() == 0 else None


def with_loss(output: Any, loss: Tensor) -> Any:
    """The same output with another loss: a mapping is changed in place, a tuple is made anew."""
    if isinstance(output, MutableMapping):
        output["loss"] = loss
        return output
    return (loss, *output[1:])


def in_backward() -> bool:
    """Whether backward is running: a module that runs now is recomputed by activation checkpointing."""
    task = getattr(torch._C, "_current_graph_task_id", None)
    return task is not None and task() != -1
