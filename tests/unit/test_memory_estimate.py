"""The arithmetic of the memory estimate, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llava.train.memory_estimate import MemoryPlan, memory_shares, remedies

PARAMETERS = 7_000_000_000
PLAN = MemoryPlan(  # stage 2 of 7B in bf16 on eight devices, without anything that saves memory
    weights=2 * PARAMETERS,
    trained=PARAMETERS,
    gradients=2 * PARAMETERS,
    states=4 * PARAMETERS,
    largest=2 * 10**9,
    quantised=False,
    zero=0,
    processes=8,
    offloaded=False,
    checkpointed=False,
    batch=16,
    positions=2048,
    layers=32,
    width=4096,
    inner=11008,
    key_width=4096,
    vocabulary=32000,
    element=2,
    language_model="trained",
)
ZERO = replace(PLAN, states=12 * PARAMETERS)


def test_ddp_keeps_everything_everywhere_and_copies_gradients():
    shares = memory_shares(PLAN)
    assert (shares.weights, shares.gradients, shares.optimizer) == (14e9, 2 * 14e9, 28e9)
    assert memory_shares(replace(PLAN, processes=1)).gradients == 14e9


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "optimizer"),
    [
        (1, 14e9, 14e9, 84e9 / 8),
        (2, 14e9, 14e9 / 8, 84e9 / 8),
        (3, 14e9 / 8 + 2e9, 14e9 / 8, 84e9 / 8),
    ],
)
def test_each_stage_of_zero_cuts_one_thing_more(
    zero: int, weights: float, gradients: float, optimizer: float
):
    shares = memory_shares(replace(ZERO, zero=zero))
    assert (shares.weights, shares.gradients, shares.optimizer) == (weights, gradients, optimizer)


def test_offloading_leaves_what_is_gathered():
    shares = memory_shares(replace(ZERO, zero=3, offloaded=True))
    assert (shares.weights, shares.optimizer) == (2e9, 0)


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all():
    without = [memory_shares(replace(PLAN, layers=layers)).activations for layers in (1, 2)]
    with_it = [
        memory_shares(replace(PLAN, layers=layers, checkpointed=True)).activations for layers in (1, 2)
    ]
    tokens = 16 * 2048
    assert with_it[1] - with_it[0] == tokens * 2 * 4096
    assert without[1] - without[0] > 10 * (with_it[1] - with_it[0])
    logits = with_it[0] - tokens * 2 * 4096 - (without[1] - without[0])
    assert logits == tokens * 32000 * (2 + 4 + 2 + 4)


def test_what_does_not_train_keeps_less():
    kinds = ("frozen", "adapters", "trained", "adapters with dropout")
    kept = [memory_shares(replace(PLAN, language_model=kind)).activations for kind in kinds]
    assert kept == sorted(kept)


def test_remedies_help_one_after_the_other():
    plans = [(None, PLAN), *remedies(PLAN)]
    totals = [memory_shares(plan).total for _, plan in plans]
    assert totals == sorted(totals, reverse=True)
    assert [change.split()[0] for change, _ in plans[1:]] == [
        "--gradient_checkpointing",
        "--deepspeed",
        *["--per_device_train_batch_size"] * 4,
        "--deepspeed",
    ]
    assert not list(remedies(replace(PLAN, checkpointed=True, batch=1, quantised=True)))
