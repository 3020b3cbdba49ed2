"""The table of hosts: ours first, then what other distributions registered."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from torch import nn

from regap_patch.errors import UnknownHostError, UnsupportedModelError
from regap_patch.hosts.host import Host
from regap_patch.hosts.huggingface import BLIP_2, HF_LLAVA, INSTRUCT_BLIP
from regap_patch.hosts.llava import LLAVA
from regap_patch.hosts.llava_next import LLAVA_NEXT

HOSTS: tuple[Host, ...] = (LLAVA, HF_LLAVA, LLAVA_NEXT, BLIP_2, INSTRUCT_BLIP)
# Another distribution adds a row by `[project.entry-points."regap_patch.hosts"] mine =
# "package.module:HOST"`.
ENTRY_POINTS = "regap_patch.hosts"


def all_hosts() -> tuple[Host, ...]:
    """Our rows, then those of the entry point group `regap_patch.hosts`, in order of their names."""
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)
    return HOSTS + tuple(point.load() for point in found)


def unwrapped(model: Any) -> nn.Module:
    """The model inside DDP and PEFT wrappers: the one whose attributes the table's paths start from.

    Example:
        >>> unwrapped(get_peft_model(model, lora_config)) is model
        True
    """
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return unwrapped(model.module)
    base: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def find_host(model: nn.Module) -> tuple[Host, nn.Module]:
    """The first host whose projector this model has, and that projector.

    Raises:
        UnknownHostError: naming the class, its bases, each host tried and the attributes it looked for.
        UnsupportedModelError: for an encoder-decoder language model, whose labels are no continuation of its
            input.
    """
    base = unwrapped(model)
    hosts = all_hosts()
    for host in hosts:
        projector = host.find_projector(base)
        if projector is None:
            continue
        config: Any = getattr(base, "config", None)
        if any(
            getattr(part, "is_encoder_decoder", False)
            for part in (config, getattr(config, "text_config", None))
        ):
            raise UnsupportedModelError(
                f"{type(base).__name__} has an encoder-decoder language model, where text rows and image "
                f"rows do not meet at one input: use a decoder-only one."
            )
        return host, projector
    kind = type(base)
    bases = ", ".join(parent.__name__ for parent in kind.__mro__[1:-1])
    tried = "; ".join(host.looked_for for host in hosts)
    raise UnknownHostError(
        f"No known host fits {kind.__module__}.{kind.__name__} (bases: {bases}): {tried}; patch a model "
        f"that has its projector already, or register a host under the entry point group {ENTRY_POINTS!r}."
    )
