"""How a language model is held in 4 or 8 bits by bitsandbytes, in training and for answers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# The projector is trained, the tower is small, and the output layer decides between near tokens. Names count
# from the start: a bare `mm_projector` would not be found in `model.mm_projector.0`.
NOT_QUANTISED = ("model.mm_projector", "model.vision_tower", "lm_head")
BITS = (4, 8)


def quantization_config(
    bits: int, compute_dtype: Any, *, quant_type: str = "nf4", double_quant: bool = True
) -> Any:
    """The `BitsAndBytesConfig` of a LLaVA.

    Args:
        bits: 4 or 8.
        compute_dtype: of the products with 4-bit weights.
        quant_type: of 4-bit weights, `nf4` or `fp4`.
        double_quant: quantise the constants of 4-bit weights too.
    """
    from transformers import BitsAndBytesConfig

    skipped = list(NOT_QUANTISED)
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped, llm_int8_threshold=6.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=skipped,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_quant_type=quant_type,
    )


def spare_odd_layers(model: nn.Module) -> None:
    """Keep 4-bit layers of odd widths away from a kernel that takes round ones only.

    On CPUs with AVX512-BF16, bitsandbytes packs weights anew for answers, and stops at a layer whose rows 32
    does not divide, or whose columns 64 does not. Unpacked they give the same answers, slower.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            odd = module.out_features % 32 or module.in_features % 64  # type: ignore[operator]
            module.support_avx512bf16_for_cpu = not odd  # type: ignore[assignment]
