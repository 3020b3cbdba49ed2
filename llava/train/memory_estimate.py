"""How much memory a process of a run needs, worked out before it is needed: an estimate, not a promise.

Weights, gradients and optimizer state follow from the parameters and are exact but for DeepSpeed's buffers.
Activations are those of LLaMA's layers for a batch of the longest samples: an upper share. What CUDA and its
allocator take beside, about 1 GiB and a tenth, is in nobody's count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

# How many times the width, and the inner width, a layer of LLaMA keeps of a token for its backward pass, as
# counted by torch: an input that is multiplied by a weight is kept only if the weight trains.
KEPT = {"trained": (6, 4), "frozen": (2, 3), "adapters": (4, 4), "adapters with dropout": (14, 5)}
MASTER_AND_ADAM = 12  # DeepSpeed keeps a float32 copy of what trains, and Adam's two moments in float32


@dataclass(frozen=True)
class MemoryPlan:
    """What the memory of one process depends on.

    Attributes:
        weights: bytes of all weights, those of the tower included, on however many processes.
        trained: number of parameters that train.
        gradients: bytes of theirs.
        states: bytes of the optimizer's state for them.
        largest: bytes of the weights that ZeRO-3 may hold whole at one time.
        quantised: whether the language model is held in 4 or 8 bits, which ZeRO-3 cannot cut.
        zero: stage of ZeRO; 0 is none.
        processes: in all.
        offloaded: whether ZeRO keeps the optimizer state, with stage 3 the weights too, in host memory.
        checkpointed: whether layers are computed again in the backward pass.
        batch: samples of a process at once.
        positions: of its longest sample, image tokens included.
        layers, width, inner, key_width, vocabulary: of the language model.
        element: bytes of an activation.
        language_model: how it learns, a key of `KEPT`.
    """

    weights: int
    trained: int
    gradients: int
    states: float
    largest: int
    quantised: bool
    zero: int
    processes: int
    offloaded: bool
    checkpointed: bool
    batch: int
    positions: int
    layers: int
    width: int
    inner: int
    key_width: int
    vocabulary: int
    element: int
    language_model: str


@dataclass(frozen=True)
class MemoryShares:
    """Bytes of one process on its device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory_shares(plan: MemoryPlan) -> MemoryShares:
    """What one process holds where a step needs most."""

    def cut(amount: float, from_stage: int) -> float:
        return amount / plan.processes if plan.zero >= from_stage else amount

    weights = cut(plan.weights, 3)
    if plan.zero >= 3:
        weights = (0 if plan.offloaded else weights) + min(
            plan.largest, plan.weights - plan.weights / plan.processes
        )
    gradients = cut(plan.gradients, 2)
    if plan.zero == 0 and plan.processes > 1:
        gradients *= 2  # DDP copies them into buckets
    optimizer = 0.0 if plan.offloaded else cut(plan.states, 1)
    return MemoryShares(weights, gradients, optimizer, _activations(plan))


def _activations(plan: MemoryPlan) -> float:
    tokens = plan.batch * plan.positions
    wide, inner, element = plan.width, plan.inner, plan.element
    of_width, of_inner = KEPT[plan.language_model]
    of_norms = 2 * 4 * wide  # their inputs, in float32
    layer = tokens * (element * (of_width * wide + 2 * plan.key_width + of_inner * inner) + of_norms)
    kept = plan.layers * tokens * element * wide + layer if plan.checkpointed else plan.layers * layer
    # logits, their float32 copy, and the gradients of both
    return kept + tokens * plan.vocabulary * 2 * (element + 4)


def remedies(plan: MemoryPlan) -> Iterator[tuple[str, MemoryPlan]]:
    """Changes that keep what is learned, each on top of those before, with the plan that they lead to."""
    if not plan.checkpointed:
        plan = replace(plan, checkpointed=True)
        yield "--gradient_checkpointing True", plan
    if plan.zero < 3 and plan.processes > 1 and not plan.quantised:
        plan = replace(plan, zero=3, states=plan.trained * MASTER_AND_ADAM)
        yield "--deepspeed deepspeed_configs/zero3.json", plan
    while plan.batch > 1:
        plan = replace(plan, batch=plan.batch // 2)
        yield f"--per_device_train_batch_size {plan.batch}, accumulating in proportion", plan
    if plan.zero == 3 and not plan.offloaded:
        plan = replace(plan, offloaded=True)
        yield "--deepspeed deepspeed_configs/zero3_offload.json", plan
