"""The memory estimate against what a run really holds, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.integration.mini_run import LORA, flags, prepared

RUNS = {
    "stage1": (1, {}),
    "stage2": (2, {}),
    "lora": (2, LORA),
    "lora-plain": (2, LORA | {"lora_dropout": 0.0}),
    "qlora": (2, LORA | {"bits": 4}),
}


def size(tensors: object) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("kind", RUNS)
def test_weights_gradients_and_state_are_those_of_a_step(tiny, tmp_path: Path, kind: str):
    from llava.train.memory_estimate import memory_shares
    from llava.train.memory_report import plan_of

    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    stage, changes = RUNS[kind]
    trainer = prepared(flags(tiny, stage, tmp_path, max_steps=1, **changes))
    shares = memory_shares(plan_of(trainer))
    model = trainer.model
    assert shares.weights == pytest.approx(size(model.parameters()), rel=0.06)  # constants of 4 bits beside

    batch = next(iter(trainer.get_train_dataloader()))
    batch.pop("sample_ids")
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    optimizer = trainer.create_optimizer()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = model(**batch)
        loss = output.loss
    held = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    activations = sum(bytes_ for place, bytes_ in kept.items() if place not in held)
    loss.backward()
    assert shares.gradients == size(p.grad for p in model.parameters() if p.grad is not None)
    optimizer.step()
    moments = [
        state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq") if state
    ]
    assert shares.optimizer == size(moments)

    # of this batch, and without the logits: a forward pass keeps one copy of them, the whole step several
    plan = replace(plan_of(trainer), batch=1, positions=output.logits[..., 0].numel())
    logits = memory_shares(plan).activations - memory_shares(replace(plan, vocabulary=0)).activations
    layers = memory_shares(plan).activations - logits
    assert activations - logits / 4 == pytest.approx(layers, rel=0.25)  # and projector, tower, rotations


@pytest.mark.parametrize("kind", ["of the world", "without spaces", "of many images"])
def test_longest_sample_is_as_long_as_the_model_sees_it(tiny, tmp_path: Path, kind: str):
    from llava.train.memory_report import plan_of

    samples = json.loads(tiny.world.finetune_json.read_text())
    pictures = [sample["image"] for sample in samples if "image" in sample][:10]
    said = {"without spaces": ("\u554f" * 120, []), "of many images": ("<image>" * 10, pictures)}.get(kind)
    if said is not None:
        turns = [{"from": "human", "value": said[0]}, {"from": "gpt", "value": "so"}]
        samples.insert(7, {"id": "long", "conversations": turns} | ({"image": said[1]} if said[1] else {}))
    (tmp_path / "data.json").write_text(json.dumps(samples))
    trainer = prepared(flags(tiny, 2, tmp_path / "run", max_steps=1, data_path=tmp_path / "data.json"))
    items = map(trainer.train_dataset.__getitem__, range(len(samples)))
    positions = [len(ids := item["input_ids"]) + 15 * int((ids == -200).sum()) for item in items]
    assert plan_of(trainer).positions == max(positions) < 512


def test_too_little_memory_comes_with_what_to_change(tiny, tmp_path: Path):
    from llava.train.memory_estimate import memory_shares, remedies
    from llava.train.memory_report import describe, plan_of

    plan = replace(plan_of(prepared(flags(tiny, 2, tmp_path, max_steps=1))), layers=32, positions=2048)
    total = memory_shares(plan).total
    assert describe(plan, None).endswith("in all.")
    assert describe(plan, int(2 * total)).endswith("there.")
    first, second = list(remedies(plan))[:2]
    for room, changes in ((first[1], [first[0]]), (second[1], [first[0], second[0]])):
        said = describe(plan, int(1.11 * memory_shares(room).total))
        assert said.endswith(f"That is too tight: pass {'; '.join(changes)}.")
    assert "more devices or a smaller model" in describe(plan, 1000)


def test_zero_3_as_a_remedy_still_gathers_weights(tiny, tmp_path: Path):
    from llava.train.memory_estimate import memory_shares, remedies
    from llava.train.memory_report import plan_of

    plan = replace(plan_of(prepared(flags(tiny, 2, tmp_path, max_steps=1))), processes=4)
    cut = next(changed for change, changed in remedies(plan) if "zero3" in change)
    assert memory_shares(cut).weights == plan.weights  # so few fit among those that may be whole
