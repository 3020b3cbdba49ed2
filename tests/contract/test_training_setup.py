"""What trains, at which rate, and what happens when the loss is no number."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llava.train.nan_guard import NanGuard, NonFiniteLossError


@pytest.fixture(scope="module")
def parts(tiny):
    """A LLaVA on the tiny models, built as `train` builds it, and its three groups of arguments."""
    from llava.train import train as training
    from llava.train.arguments import parse_arguments
    from tests.integration.mini_run import flags

    groups = parse_arguments(flags(tiny, 2, tiny.root / "unused"))
    model_args, data_args, training_args = groups
    model = training.load_language_model(model_args, training_args, None)
    tokenizer = training.load_tokenizer(model_args, training_args, model)
    training.add_vision(model, tokenizer, model_args, data_args, training_args)
    return model, model_args, training_args


def kind(name: str) -> str:
    for part in ("mm_projector", "vision_tower", "lm_head", "embed_tokens"):
        if part in name:
            return part
    return "decoder"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"decoder", "embed_tokens", "lm_head", "mm_projector"}),
        ({"tune_mm_mlp_adapter": True}, {"mm_projector"}),
        ({"freeze_mm_mlp_adapter": True}, {"decoder", "embed_tokens", "lm_head"}),
        ({"freeze_backbone": True}, {"lm_head", "mm_projector"}),
        ({"freeze_backbone": True, "freeze_mm_mlp_adapter": True}, {"lm_head"}),
    ],
)
def test_flags_choose_what_trains(parts, changes: dict, expected: set):
    from llava.train.train import choose_what_trains

    model, model_args, training_args = parts
    freeze_projector = changes.get("freeze_mm_mlp_adapter", False)
    training_args.freeze_mm_mlp_adapter = freeze_projector
    asked = {name: value for name, value in changes.items() if name != "freeze_mm_mlp_adapter"}
    choose_what_trains(model, dataclasses.replace(model_args, **asked), training_args)
    by_kind: dict[str, set[bool]] = {}
    for name, parameter in model.named_parameters():
        by_kind.setdefault(kind(name), set()).add(parameter.requires_grad)
    assert all(len(answers) == 1 for answers in by_kind.values())
    assert {part for part, answers in by_kind.items() if answers == {True}} == expected


def test_flags_that_leave_nothing_to_train_are_refused(parts):
    from llava.train.train import choose_what_trains

    model, model_args, training_args = parts
    training_args.freeze_mm_mlp_adapter = True
    stage_1 = dataclasses.replace(model_args, tune_mm_mlp_adapter=True)
    with pytest.raises(ValueError, match="and --freeze_mm_mlp_adapter True rules that out; drop one"):
        choose_what_trains(model, stage_1, training_args)


def test_optimizer_groups_are_upstreams(parts):
    from llava.train.llava_trainer import optimizer_groups

    model, _, _ = parts
    model.requires_grad_(True)
    model.get_vision_tower().requires_grad_(False)
    named = {id(parameter): name for name, parameter in model.named_parameters()}

    def names(group):
        return {named[id(parameter)] for parameter in group["params"]}

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    projector = {name for name in trained if "mm_projector" in name}
    exempt = {name for name in trained if "norm" in name or name.endswith("bias")}

    together = optimizer_groups(model, 0.1)
    assert [names(group) for group in together] == [trained - exempt, exempt]
    assert [group["weight_decay"] for group in together] == [0.1, 0.0]
    assert not any("lr" in group for group in together)

    apart = optimizer_groups(model, 0.1, projector_lr=0.0)
    assert [names(group) for group in apart] == [
        trained - exempt - projector,
        exempt - projector,
        projector - exempt,
        projector & exempt,
    ]
    assert [group["weight_decay"] for group in apart] == [0.1, 0.0, 0.1, 0.0]
    assert [group.get("lr") for group in apart] == [None, None, 0.0, 0.0]
    assert all(apart), "the tiny model has parameters of every group"


def test_guard_names_the_step_and_the_samples():
    guard = NanGuard()
    labels = torch.tensor([[-100, 5, 6], [-100, -100, 3]])
    for step in (1, 2):
        guard.watch(torch.tensor(1.0), labels, step, ["a", "b"])
    assert guard.look() == 0
    guard.watch(torch.tensor(0.5), labels, 3, ["c", "d"])
    guard.watch(torch.tensor(float("nan")), labels, 4, ["e 1", "f"])
    with pytest.raises(NonFiniteLossError) as found:
        guard.look()
    assert str(found.value) == (
        "The loss became nan at step 4 on the samples e 1, f; look at them, or lower --learning_rate "
        "(the checkpoints were written before and hold no NaN)."
    )
    assert guard.look() == 0, "a window is looked at once"


def test_guard_counts_batches_without_a_supervised_token():
    guard = NanGuard()
    nothing = torch.tensor([[7, -100, -100]])  # the first position is never a target
    for labels in (nothing, torch.tensor([[-100, 3, -100]]), nothing, None):
        guard.watch(torch.tensor(0.0), labels, 1, ["a"])
    assert guard.look() == 2
    guard.watch(torch.tensor(0.0), nothing, 2, ["a"])
    assert guard.look() == 1
    assert guard.masked_batches == 3


def test_guard_asks_for_a_look_before_it_fills_the_memory():
    guard = NanGuard()
    while not guard.is_full:
        guard.watch(torch.tensor(1.0), None, 1, ["a"])
    guard.look()
    assert not guard.is_full


needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an operator: apt-get install g++"
)


@pytest.mark.parametrize("by_deepspeed", [False, pytest.param(True, marks=needs_compiler)])
def test_a_finished_command_leaves_its_group(by_deepspeed: bool, tmp_path: Path, monkeypatch):
    """Groups that are still there when Python ends let gloo abort one process in three."""
    import deepspeed

    from llava.train.processes import leave_group

    leave_group()  # nothing to leave
    alone = {"init_method": f"file://{tmp_path / 'store'}", "rank": 0, "world_size": 1}
    torch.distributed.init_process_group("gloo", **alone)
    if by_deepspeed:
        monkeypatch.setenv("DS_ACCELERATOR", "cpu")
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    leave_group()
    assert not torch.distributed.is_initialized()
    assert not deepspeed.comm.is_initialized()


def test_a_wrapped_model_in_a_cycle_does_not_outlive_its_group(tmp_path: Path):
    """A Trainer and its parts hold each other; the wrapped model among them holds the group."""

    from llava.train.processes import leave_group

    alone = {"init_method": f"file://{tmp_path / 'store'}", "rank": 0, "world_size": 1}
    torch.distributed.init_process_group("gloo", **alone)
    holder = SimpleNamespace(model=torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2)))
    holder.me = holder
    wrapped = weakref.ref(holder.model)
    gc.disable()
    try:
        del holder
        assert wrapped() is not None
        leave_group()
        assert wrapped() is None
    finally:
        gc.enable()
