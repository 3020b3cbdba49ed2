"""Which stage of training this is: the regulariser belongs to that in which the language model is frozen."""

from __future__ import annotations

from torch import nn

from regap_patch.errors import FinetuneError
from regap_patch.hosts.host import Host


def refuse_finetuning(host: Host, model: nn.Module) -> None:
    """Make sure that no parameter of the language model trains, LoRA's included.

    Args:
        host: the model family.
        model: the model without wrappers.

    Raises:
        FinetuneError: naming how many do, and one of them.
    """
    training = [name for name, parameter in host.lm_parameters(model) if parameter.requires_grad]
    if training:
        raise FinetuneError(
            f"The regulariser belongs to projector pretraining, but {len(training)} parameters of the "
            f"language model train (such as {training[0]}): freeze them, set weight=0 to record only, or "
            f"pass allow_finetune=True (--regap_allow_finetune) if you mean it."
        )
