"""LoRA folders as peft writes them, beside the model in memory that they are of."""

from __future__ import annotations

import torch


def with_adapter(model, **settings):
    """A model with LoRA that changes its answers, as after training; `settings` are peft's."""
    from peft import LoraConfig, get_peft_model

    defaults = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": r"model\.layers\..*(q_proj|down_proj)",
        "task_type": "CAUSAL_LM",
    }
    adapted = get_peft_model(model, LoraConfig(**{**defaults, **settings})).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) / 8
    return adapted


def write(adapted, folder, beside=()):
    """The folder of a run: adapter, configuration and, by the words in `beside`, what trained as a whole."""
    adapted.save_pretrained(folder, save_embedding_layers=False)
    adapted.config.save_pretrained(folder)
    whole = {
        name: parameter.detach().clone()
        for name, parameter in adapted.named_parameters()
        if "lora_" not in name and any(word in name for word in beside)
    }
    if whole:
        torch.save(whole, folder / "non_lora_trainables.bin")
    return folder
