"""A patch is a value with a lifetime: what it refuses, what it leaves alone, and how it ends."""

from __future__ import annotations

import copy
import io
import re

import pytest
import torch
from torch import nn

from regap_patch import ReGapConfig, apply_regap, find_patch
from regap_patch.errors import (
    AlreadyPatchedError,
    CalibrationError,
    ConfigError,
    FinetuneError,
    PatchStateError,
    ReGapError,
    UnknownHostError,
    UnsupportedModelError,
)
from tests.unit.toy_llava import ToyLlava, batch, toy

FIXED = ReGapConfig(alpha=0.5)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def loss_and_gradients(model: nn.Module, data: dict) -> list[torch.Tensor]:
    model.zero_grad()
    output = model(**data)
    loss = output[0] if isinstance(output, tuple) else output["loss"]
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_keys_unchanged_and_remove_restores_everything():
    model, data = toy(), batch()
    keys, before = list(model.state_dict()), loss_and_gradients(model, data)
    patch = apply_regap(model, FIXED)
    assert list(model.state_dict()) == keys
    assert hooks(model) == 3
    assert not same(loss_and_gradients(model, data), before)
    patch.remove()
    patch.remove()
    assert hooks(model) == 0
    assert find_patch(model) is None
    assert same(loss_and_gradients(model, data), before)
    assert "removed" in repr(patch)


def test_twice_is_safe_and_another_config_is_refused():
    model = toy()
    patch = apply_regap(model, FIXED)
    assert apply_regap(model, ReGapConfig(alpha=0.5)) is patch
    assert find_patch(model) is patch
    with pytest.raises(AlreadyPatchedError, match="remove"):
        apply_regap(model, ReGapConfig(alpha=0.6))
    assert hooks(model) == 3


def test_context_manager_removes_also_on_error():
    model = toy()
    with pytest.raises(KeyError), apply_regap(model, FIXED):
        raise KeyError
    assert hooks(model) == 0


@pytest.mark.parametrize("config", [ReGapConfig(weight=0), ReGapConfig(loss="off")])
def test_weight_zero_and_off_are_bit_identical_and_still_record(config: ReGapConfig):
    model, data = toy(frozen=False), batch(1, kind="mixed")
    before = loss_and_gradients(model, data)
    patch = apply_regap(model, config)
    assert same(loss_and_gradients(model, data), before)
    means = patch.step().floats()
    assert means["centroid_l2"] > 0
    assert means["loss_weighted"] == 0
    assert patch.alpha == 0
    assert "recording only" in repr(patch)


def test_calibration_measures_first_and_then_acts():
    model, data = toy(), batch()
    before = loss_and_gradients(model, data)
    patch = apply_regap(model, ReGapConfig(weight=2.0, calibration_steps=2))
    for _ in range(2):
        assert patch.alpha == 0
        assert same(loss_and_gradients(model, data), before)
        record = patch.last
        patch.step()
    assert patch.alpha == pytest.approx(2 * record.loss_lm.item() / record.loss_gap.item(), rel=1e-6)
    assert loss_and_gradients(model, data)[0].item() == pytest.approx(3 * before[0].item(), rel=1e-5)


@pytest.mark.parametrize("measured", [True, False])
def test_the_ramp_grows_in_equal_parts_once_alpha_is_known(measured: bool):
    model, data = toy(), batch()
    alone = model(**data)["loss"].item()
    how = {"calibration_steps": 2} if measured else {"alpha": 0.5}
    patch = apply_regap(model, ReGapConfig(ramp_steps=3, **how))
    shares = []
    for _ in range(7):
        loss_and_gradients(model, data)
        means = patch.step().floats()
        shares.append(means["loss_weighted"] / means["loss_gap"] / (patch.calibration.alpha or 1.0))
        assert means["loss_lm"] == pytest.approx(alone)
    expected = [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert shares == pytest.approx([0, 0, *expected[:5]] if measured else expected, rel=1e-5)


def test_a_loss_that_nobody_trains_on_is_refused():
    """As a Trainer leaves it whose compute_loss makes its own from the logits."""
    for config in (FIXED, ReGapConfig(calibration_steps=3)):
        model, data = toy(), batch()
        patch = apply_regap(model, config)
        model(**data)["logits"].square().mean().backward()
        with pytest.raises(PatchStateError, match="no backward pass reached it.*compute_loss must return it"):
            patch.step()
        loss_and_gradients(model, data)
        patch.step()
    with apply_regap(toy(), ReGapConfig(weight=0)) as patch:
        patch.outer(**data)
        patch.step()


def test_noisy_embeddings_lend_no_noise_and_draw_no_number():
    """NEFTune's hook adds noise to embeddings in training mode; words are measured without it."""
    model, data = toy(), batch()
    with apply_regap(model, ReGapConfig(weight=0)) as patch:
        model(**data)
    clean = patch.last.stats.text_norm

    def noise(module, args, output):
        return output + torch.rand_like(output) if module.training else output

    model.model.embed_tokens.register_forward_hook(noise)
    torch.manual_seed(5)
    before = loss_and_gradients(model, data)
    with apply_regap(model, ReGapConfig(weight=0)) as patch:
        torch.manual_seed(5)
        assert same(loss_and_gradients(model, data), before)
    assert torch.equal(patch.last.stats.text_norm, clean)
    assert model.model.embed_tokens.training


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_gradient_calibration_is_the_ratio_of_norms_at_the_projector(scale: float):
    """The reference differentiates the two losses apart. The trainer's scaling must not matter."""
    model, parts = toy(), [batch(1), batch(2, kind="mixed")]
    squares = {"lm": 0.0, "gap": 0.0}
    rows = []
    handle = model.model.mm_projector.register_forward_hook(lambda module, args, out: rows.append(out))
    for data in parts:
        lm = model(**data)["loss"]
        squares["lm"] += torch.autograd.grad(lm, rows[-1])[0].square().sum().item()
    for data in parts:
        with apply_regap(model, FIXED):
            both = model(**data)["loss"]
        together = torch.autograd.grad(both, rows[-1])[0]
        lm = torch.autograd.grad(model(**data)["loss"], rows[-1])[0]
        squares["gap"] += ((together - lm) / 0.5).square().sum().item()
    handle.remove()
    patch = apply_regap(model, ReGapConfig(calibration="gradient", calibration_steps=1))
    for data in parts:
        (model(**data)["loss"] / 2 * scale).backward()
    patch.step()
    assert patch.alpha == pytest.approx((squares["lm"] / squares["gap"]) ** 0.5, rel=1e-4)


def test_micro_batches_are_averaged_as_the_trainer_does():
    """Without num_items each pass counts once; with it the split does not matter."""
    model = toy()
    patch = apply_regap(model, ReGapConfig(weight=0))
    whole = batch(1, size=8)
    parts = [{name: value[i : i + 2] for name, value in whole.items()} for i in range(0, 8, 2)]
    lone = [model(**part)["loss"].item() for part in parts]
    assert patch.step()["loss_lm"].item() == pytest.approx(sum(lone) / 4, rel=1e-6)

    model(**whole)
    expected = patch.step().floats()
    items = (whole["labels"][:, 1:] != -100).sum()
    for part in parts:
        model(**part, num_items_in_batch=items)
    assert patch.step().floats() == pytest.approx(expected, rel=1e-6)


def test_deepcopy_and_pickle_carry_their_own_patch():
    model, data = toy(), batch()
    patch = apply_regap(model, FIXED)
    before = loss_and_gradients(model, data)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert same(loss_and_gradients(twin, data), before)
        other = find_patch(twin)
        assert other is not patch
        assert other.outer is twin
        nn.init.zeros_(model.model.mm_projector[2].weight)
        assert same(loss_and_gradients(twin, data), before), "the copy reads its own projector"
        model.load_state_dict(twin.state_dict())
        other.remove()
        assert hooks(twin) == 0
        assert hooks(model) == 3


def test_tuple_outputs_and_positional_arguments():
    data = batch()
    expected = loss_and_gradients(model := toy(), data)[0]
    apply_regap(model, FIXED)
    expected = loss_and_gradients(model, data)
    tuples = toy(tuples=True)
    apply_regap(tuples, FIXED)
    assert same(loss_and_gradients(tuples, data), expected)
    positional = tuples(data["input_ids"], data["attention_mask"], data["labels"], data["images"])
    assert torch.equal(positional[0].detach(), expected[0])
    assert len(positional) == 2


def test_hooks_of_others_stay():
    model = toy()
    calls = []
    theirs = model.model.mm_projector.register_forward_hook(lambda *_: calls.append(1))
    apply_regap(model, FIXED).remove()
    model(**batch())
    assert calls == [1]
    theirs.remove()


def test_evaluation_and_generation_pay_nothing():
    model, data = toy(), batch()
    patch = apply_regap(model, FIXED)
    data.pop("labels")
    with torch.no_grad():
        model(**data)
    model.eval()
    assert model(**data)["logits"].requires_grad
    assert patch.last is None


def test_training_forwards_that_cannot_carry_the_gap_are_refused():
    model, data = toy(), batch()
    apply_regap(model, FIXED)
    without = {name: value for name, value in data.items() if name != "labels"}
    with pytest.raises(PatchStateError, match="no labels"):
        model(**without)
    with pytest.raises(PatchStateError, match="no input_ids"):
        model(inputs_embeds=torch.randn(2, 4, 6), labels=torch.ones(2, 4, dtype=torch.long))
    projector = model.model.mm_projector
    model.model.mm_projector = nn.Sequential(*projector)  # the same layers, but the hook does not run
    with pytest.raises(PatchStateError, match="saw none of them"):
        model(**data)
    model.model.mm_projector = projector
    assert model(**data)["loss"].isfinite(), "a refused pass leaves nothing behind"


def test_a_model_that_returns_no_loss_is_refused():
    model, data = toy(), batch()
    forward = model.forward
    model.forward = lambda **kwargs: {"logits": forward(**kwargs)["logits"]}
    apply_regap(model, FIXED)
    with pytest.raises(PatchStateError, match="must return its loss"):
        model(**data)


def test_second_firing_and_leftovers_are_refused():
    model, data = toy(), batch()
    patch = apply_regap(model, FIXED)
    features = torch.randn(1, 3, 4)
    model.model.mm_projector(features)
    with pytest.raises(PatchStateError, match="did not return a loss after it"):
        model(**data)
    model.model.mm_projector(features)
    with pytest.raises(PatchStateError, match="ran twice"):
        model.model.mm_projector(features)
    model.model.mm_projector(features)
    with pytest.raises(PatchStateError, match="did not return a loss after it"):
        patch.step()
    with pytest.raises(PatchStateError, match="no training forward"):
        patch.step()
    model(**data)["loss"].backward()
    patch.step()


def test_a_forward_that_raises_leaves_no_graph_behind():
    model, data = toy(), batch()
    patch = apply_regap(model, FIXED)
    head, model.lm_head = model.lm_head, None
    with pytest.raises(TypeError):
        model(**data)
    model.lm_head = head
    assert patch._captured is None
    assert model(**data)["loss"].isfinite()


def test_a_projector_recomputed_in_backward_counts_once():
    model, data = toy(), batch()
    expected = (apply_regap(twin := toy(), FIXED), loss_and_gradients(twin, data))[1]
    inner = model.model.mm_projector
    patch = apply_regap(model, FIXED)

    class Checkpointed(nn.Module):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)

    model.model._modules["mm_projector"] = Checkpointed()
    got = [model(**data)["loss"]]
    got[0].backward()
    torch.testing.assert_close(got[0], expected[0])
    gradients = [parameter.grad for parameter in inner.parameters()]
    for mine, theirs in zip(gradients, expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs)
    patch.step()


def test_finetuning_is_refused_at_the_first_training_forward():
    model, data = toy(frozen=False), batch()
    patch = apply_regap(model, FIXED)
    with pytest.raises(FinetuneError, match=r"such as model\.embed_tokens\.weight"):
        model(**data)
    model.requires_grad_(False)
    model.model.mm_projector.requires_grad_(True)
    model.model.vision_tower.requires_grad_(True)
    model(**data)
    patch.remove()
    model.requires_grad_(True)
    apply_regap(model, ReGapConfig(alpha=0.5, allow_finetune=True))
    model(**data)


def test_a_frozen_projector_cannot_learn_the_gap():
    model = toy()
    model.model.mm_projector.requires_grad_(False)
    model.model.mix.requires_grad_(True)
    apply_regap(model, ReGapConfig(alpha=0.5, allow_finetune=True))
    with pytest.raises(PatchStateError, match="carries no gradient"):
        model(**batch())


def test_warmup_needs_somebody_who_knows_it():
    model, data = toy(), batch()
    patch = apply_regap(model)
    with pytest.raises(CalibrationError, match=r"attach\(trainer\).*calibration_steps"):
        model(**data)
    with pytest.raises(CalibrationError, match=r"warm-up steps.*--regap_calibration_steps"):
        patch.resolve_warmup(0)
    patch.resolve_warmup(3)
    model(**data)
    assert "0 of 3 steps" in repr(patch)


def test_unknown_models_are_named_with_what_was_looked_for():
    class Odd(nn.Linear):
        pass

    with pytest.raises(UnknownHostError) as caught:
        apply_regap(Odd(2, 2))
    text = str(caught.value)
    for part in ("Odd", "Linear, Module", "llava looked for model.mm_projector", "regap_patch.hosts"):
        assert part in text
    bare = ToyLlava()
    del bare.model.mm_projector
    with pytest.raises(UnknownHostError, match="projector already"):
        apply_regap(bare)
    assert hooks(bare) == 0


def test_encoder_decoders_and_latecomers_are_refused():
    model = toy()
    model.config.is_encoder_decoder = True
    with pytest.raises(UnsupportedModelError, match="decoder-only"):
        apply_regap(model)
    model.config.is_encoder_decoder = False

    class DeepSpeedEngine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model

    with pytest.raises(UnsupportedModelError, match=re.escape("before deepspeed.initialize()")):
        apply_regap(DeepSpeedEngine())
    model.compile(backend="eager")
    with pytest.raises(UnsupportedModelError, match=r"after torch\.compile never run"):
        apply_regap(model)
    assert hooks(model) == 0


def test_config_is_checked_and_travels():
    for wrong, text in (
        ({"loss": "mmd"}, "choose one of centroid_l2"),
        ({"weight": -1}, "at least 0"),
        ({"weight": float("nan")}, "at least 0"),
        ({"calibration": "mean"}, "ratio, gradient"),
        ({"calibration_steps": 0}, "at least 1"),
        ({"calibration_steps": "warm"}, "'warmup'"),
        ({"alpha": -0.1}, "at least 0"),
        ({"alpha": 1.0, "weight": 2.0}, "one of the two"),
        ({"ramp_steps": -1}, "at least 0"),
        ({"ramp_steps": 0.5}, "whole number"),
        ({"allow_finetune": "yes"}, "True or False"),
    ):
        with pytest.raises(ConfigError, match=text):
            ReGapConfig(**wrong)
    config = ReGapConfig(loss="pairwise_sq", weight=0.3, calibration_steps=7)
    assert ReGapConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="temperature is no setting"):
        ReGapConfig.from_dict({"temperature": 1})
    read = ReGapConfig.from_text({"weight": "0.3", "loss": "pairwise_sq", "calibration_steps": "7"})
    assert read == config
    assert ReGapConfig.from_text({"alpha": "none", "allow_finetune": "True"}) == ReGapConfig(
        allow_finetune=True
    )
    with pytest.raises(ConfigError, match="calibration_steps='many' cannot be read: a whole number"):
        ReGapConfig.from_text({"calibration_steps": "many"})
    assert (config.loss, ReGapConfig().loss, ReGapConfig().weight) == ("pairwise_sq", "centroid_l2", 1.0)
    assert all(issubclass(kind, ReGapError) for kind in (ConfigError, FinetuneError, UnknownHostError))


def test_a_third_party_host_registers_by_entry_point(monkeypatch: pytest.MonkeyPatch):
    from dataclasses import replace

    from regap_patch.hosts import table
    from regap_patch.hosts.llava import LLAVA

    host = replace(LLAVA, name="theirs", projector=("bridge",))

    class Point:
        name = "theirs"

        def load(self):
            return host

    monkeypatch.setattr(table, "entry_points", lambda group: [Point()] if group == table.ENTRY_POINTS else [])
    model = toy()
    model.bridge = model.model.mm_projector
    del model.model.mm_projector
    assert apply_regap(model, FIXED).host is host
