"""Put a patch on a model: check everything, then mutate."""

from __future__ import annotations

import inspect

from torch import nn

from regap_patch.errors import AlreadyPatchedError, UnsupportedModelError
from regap_patch.hosts.host import Host
from regap_patch.hosts.table import find_host
from regap_patch.patch.config import ReGapConfig
from regap_patch.patch.handle import GapPatch
from regap_patch.patch.hooks import ForwardGate, LossAdder, ProjectorCapture


def apply_regap(model: nn.Module, config: ReGapConfig | None = None, *, host: Host | None = None) -> GapPatch:
    """Add the gap between image and text tokens to the loss that this model returns in training.

    Call it after PEFT has wrapped the model and before `torch.compile` and `deepspeed.initialize`. State-dict
    keys, outputs in evaluation mode and generation stay as they are.

    Args:
        model: the outermost module whose forward returns the loss (a wrapper such as DDP may come later).
        config: settings; by default `centroid_l2` with weight 1.
        host: the model family, where it is none of the table's and no installed package registers it.

    Returns:
        The patch. On a model that carries one with an equal config, that one.

    Raises:
        AlreadyPatchedError: if the model carries a patch with another config.
        UnknownHostError: if no known host fits.
        UnsupportedModelError: for a compiled or DeepSpeed-initialised model, or an encoder-decoder language
            model.
    """
    config = ReGapConfig() if config is None else config
    present = find_patch(model)
    if present is not None:
        if present.config != config:
            raise AlreadyPatchedError(
                f"The model carries a patch with {present.config}, but {config} was asked for: call its "
                f"remove() first."
            )
        return present
    _refuse_late(model)
    host, projector = find_host(model, host)
    names = tuple(
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )
    patch = GapPatch(config, host, model)
    try:
        patch.handles.append(projector.register_forward_hook(ProjectorCapture(patch)))
        patch.handles.append(model.register_forward_pre_hook(ForwardGate(patch)))
        # always_call: a forward that raises (out of memory) must not leave its graph behind
        patch.handles.append(
            model.register_forward_hook(LossAdder(patch, names), with_kwargs=True, always_call=True)
        )
    except BaseException:
        patch.remove()
        raise
    return patch


def find_patch(model: nn.Module) -> GapPatch | None:
    """The patch that this model carries, on itself or inside its wrappers; None without one."""
    for module in model.modules():
        for hook in module._forward_hooks.values():
            if isinstance(hook, LossAdder):
                return hook.patch
    return None


def _refuse_late(model: nn.Module) -> None:
    for name, module in model.named_modules():
        compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        if compiled:
            raise UnsupportedModelError(
                f"{name or type(module).__name__} is compiled, and hooks added after torch.compile never "
                f"run: call apply_regap() before it."
            )
        engine = any(kind.__name__ == "DeepSpeedEngine" for kind in type(module).__mro__)
        if engine or type(module._parameters).__name__ == "ZeROOrderedDict":
            raise UnsupportedModelError(
                f"{name or type(module).__name__} was initialised by DeepSpeed, whose hooks must come after "
                f"ours: call apply_regap() before deepspeed.initialize()."
            )
