"""What the patch measures and adds, against sums over samples that share no code with it."""

from __future__ import annotations

import pytest
import torch

from regap_patch import ReGapConfig, apply_regap
from regap_patch.gap.losses import LOSSES
from tests.unit.gap_by_hand import centroid, clouds, reduced
from tests.unit.no_waiting import NoWaiting
from tests.unit.toy_llava import BOS, IMAGE, NEWLINE, batch, toy


@pytest.mark.parametrize("kind", ["plain", "mixed"])
@pytest.mark.parametrize("items", [None, 37])
def test_loss_is_lm_and_alpha_times_gap(kind: str, items: int | None):
    model, data = toy(), batch(1, size=5, kind=kind)
    extra = {} if items is None else {"num_items_in_batch": items}
    alone = model(**data, **extra)["loss"]
    patch = apply_regap(model, ReGapConfig(alpha=0.7))
    loss = model(**data, **extra)["loss"]
    expected = reduced(model, data, items)
    assert loss.item() == pytest.approx(alone.item() + 0.7 * expected, rel=1e-6)
    assert patch.last.loss_gap.item() == pytest.approx(expected, rel=1e-5)
    assert patch.last.loss_lm.item() == alone.item()
    pairs = clouds(model, data)
    assert patch.last.valid.tolist() == [pair is not None for pair in pairs]
    for index, pair in enumerate(pairs):
        if pair is not None:
            assert patch.last.stats.centroid_l2[index].item() == pytest.approx(
                centroid(pair).item(), rel=1e-5
            )
            image, text = pair
            assert patch.last.stats.pairwise_sq[index].item() == pytest.approx(
                torch.cdist(image, text).square().mean().item(), rel=1e-5
            )


def test_gradient_is_that_of_the_written_sum():
    model, data = toy(), batch(1, kind="mixed")
    apply_regap(model, ReGapConfig(alpha=0.7))
    model(**data)["loss"].backward()
    got = [parameter.grad.clone() for parameter in model.model.mm_projector.parameters()]

    model = toy()
    loss = model(**data)["loss"]
    patches = data["images"].flatten(2)[..., :12].reshape(-1, 3, 4)
    features = model.model.mm_projector(model.model.vision_tower(patches))
    slot, counts = 0, (data["labels"][:, 1:] != -100).sum(1)
    for row, pair in enumerate(clouds(model, data)):
        shown = data["input_ids"][row].tolist().count(IMAGE)
        image = features[slot : slot + shown].flatten(0, 1)
        slot += max(shown, 1)
        if pair is not None:
            gap = (image.mean(0) - pair[1].mean(0).float()).norm()
            loss = loss + 0.7 * gap * counts[row] / counts.sum()
    loss.backward()
    for mine, parameter in zip(got, model.model.mm_projector.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-7)


def test_no_gradient_into_text_embeddings_also_when_the_lm_trains():
    """With the language model's own loss switched off by hand, only the projector hears the gap."""
    model, data = toy(frozen=False), batch(1)
    patch = apply_regap(model, ReGapConfig(alpha=1.0, allow_finetune=True))
    loss = model(**data)["loss"]
    alone = toy(frozen=False)
    (loss - alone(**data)["loss"].detach()).backward()
    alone(**data)["loss"].backward()
    torch.testing.assert_close(model.model.embed_tokens.weight.grad, alone.model.embed_tokens.weight.grad)
    assert not torch.equal(model.model.mm_projector[2].bias.grad, alone.model.mm_projector[2].bias.grad)
    assert patch.last.loss_weighted.item() > 0


def test_text_rows_are_the_caption_without_its_newline_and_without_padding():
    model = toy()
    patch = apply_regap(model, ReGapConfig(weight=0))
    data = batch(2, size=1)
    ids = data["input_ids"]
    assert ids[0, 1] == IMAGE
    assert ids[0, -1] == NEWLINE
    model(**data)
    said = model.model.embed_tokens.weight[ids[0, 2:-1]].norm(dim=-1).mean()
    assert patch.last.stats.text_norm.item() == pytest.approx(said.item(), rel=1e-6)
    padded = {
        name: torch.nn.functional.pad(value, (0, 4), value=-100 if name == "labels" else 0)
        if name != "images"
        else value
        for name, value in data.items()
    }
    padded["input_ids"][0, -4:] = 9  # an ordinary word as padding: only the mask knows
    padded["labels"][0, -4:] = 9
    model(**padded)
    assert patch.last.stats.text_norm.item() == pytest.approx(said.item(), rel=1e-6)


def test_a_caption_of_one_newline_has_no_gap():
    model = toy()
    patch = apply_regap(model, ReGapConfig(alpha=1.0))
    data = batch(2, size=2)
    data["input_ids"][0] = torch.tensor([BOS, IMAGE, NEWLINE, *[0] * (data["input_ids"].shape[1] - 3)])
    data["labels"][0] = torch.tensor([-100, -100, NEWLINE, *[-100] * (data["labels"].shape[1] - 3)])
    data["attention_mask"][0] = (data["input_ids"][0] != 0).long()
    loss = model(**data)["loss"]
    loss.backward()
    assert patch.last.valid.tolist() == [False, True]
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.model.mm_projector.parameters())


def test_a_text_only_batch_runs_the_same_graph():
    """Dummy images only: the gap is 0, and the projector still gets its (zero) gradient."""
    model, data = toy(), batch(0, size=2)
    data["input_ids"][:, 1] = 5
    patch = apply_regap(model, ReGapConfig(alpha=1.0))
    alone = toy()(**data)["loss"]
    loss = model(**data)["loss"]
    loss.backward()
    assert loss.item() == alone.item()
    assert patch.last.loss_gap.item() == 0.0
    assert not patch.last.valid.any()
    assert all((parameter.grad == 0).all() for parameter in model.model.mm_projector.parameters())
    assert set(patch.step().floats()) == {"loss_lm", "loss_gap", "loss_weighted"}


def test_images_as_a_list_of_tiles_and_surplus_images():
    model = toy()
    patch = apply_regap(model, ReGapConfig(weight=0))
    data = batch(3, size=3, kind="mixed")  # 0, 1 and 2 placeholders: 4 slots
    model(**data)
    flat = patch.last.stats
    model(**{**data, "images": torch.cat([data["images"], torch.randn(1, 1, 4, 4)])})
    torch.testing.assert_close(patch.last.stats.centroid_l2, flat.centroid_l2)
    model(**{**data, "images": list(data["images"])})
    torch.testing.assert_close(patch.last.stats.centroid_l2, flat.centroid_l2)


def test_measuring_in_evaluation_mode():
    model, data = toy(), batch(1)
    patch = apply_regap(model, ReGapConfig(alpha=1.0))
    model.eval()
    with torch.no_grad():
        alone = model(**data)["loss"]
        assert patch.last is None, "evaluation pays nothing"
        with patch.measuring():
            assert model(**data)["loss"].item() == alone.item()
    expected = sum(centroid(pair).item() for pair in clouds(model, data)) / len(data["input_ids"])
    assert patch.last.floats()["centroid_l2"] == pytest.approx(expected, rel=1e-5)

    data.pop("labels")
    mask = (data["input_ids"] > 2) & (data["input_ids"] != NEWLINE) & data["attention_mask"].bool()
    before = patch.last.stats.centroid_l2
    with torch.no_grad(), patch.measuring(text_mask=mask):
        model(**data)
    torch.testing.assert_close(patch.last.stats.centroid_l2, before)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "off"])
def test_each_loss_lowers_its_own_quantity(name: str):
    model, data = toy(), batch(1, size=6)
    patch = apply_regap(model, ReGapConfig(loss=name, calibration_steps=2))
    optimizer = torch.optim.AdamW(model.model.mm_projector.parameters(), lr=2e-2)
    seen = []
    for _ in range(60):
        model(**data)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(patch.step()["loss_gap"].item())
    assert seen[-1] < 0.5 * seen[1]


def test_no_waiting_for_the_device_in_the_hooks():
    """The toy itself waits, so only what the patch does is watched."""
    model, data = toy(), batch(1, size=3, kind="mixed")
    patch = apply_regap(model, ReGapConfig(alpha=1.0, loss="pairwise_l2"))
    settle = patch.settle

    def watched(arguments, output):
        with NoWaiting():
            return settle(arguments, output)

    patch.settle = watched
    for items in (None, torch.tensor(20)):
        model(**data, num_items_in_batch=items)["loss"].backward()
    assert patch.last.loss_gap.item() > 0


def test_a_loss_in_half_precision_does_not_round_what_alpha_is_measured_from():
    model, data = toy(), batch(1)
    model.register_forward_hook(lambda module, args, output: {**output, "loss": output["loss"].bfloat16()})
    patch = apply_regap(model, ReGapConfig(calibration_steps=2))
    model(**data)["loss"].backward()
    assert patch.last.loss_lm.dtype == torch.bfloat16
    means = patch.step()
    assert float(means["loss_lm"]) == float(patch.last.loss_lm)
    assert float(means["loss_gap"]) == float(patch.last.loss_gap) != float(patch.last.loss_gap.bfloat16())
