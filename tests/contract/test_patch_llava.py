"""The patch on our LLaVA (tiny, random weights): rows from real batches, manners, and no waiting."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from regap_patch import ReGapConfig, apply_regap, find_patch
from regap_patch.errors import PatchStateError
from regap_patch.gap.losses import LOSSES
from tests.contract.test_llava_model import make_model
from tests.unit.test_gap_losses import NoWaiting

BOS, EOS, PAD, NEWLINE = 1, 2, 0, 13
FIXED = ReGapConfig(alpha=0.5)


@pytest.fixture(scope="module")
def pristine(tiny):
    model = make_model(tiny)
    model.requires_grad_(False)
    model.model.mm_projector.requires_grad_(True)
    return model.train()


@pytest.fixture
def model(pristine):
    """As stage 1 trains it; each test gets its own."""
    return copy.deepcopy(pristine)


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])


def collated(rows: list[tuple[list[int], list[int]]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of (prompt, answer) as LLaVA's collator leaves them: `<unk>` pads, a dummy for text alone."""
    ids = [prompt + answer for prompt, answer in rows]
    labels = [[-100] * len(prompt) + answer for prompt, answer in rows]
    slots = sum(max(prompt.count(IMAGE_TOKEN_INDEX), 1) for prompt, _ in rows)
    padded = pad(ids, PAD)
    images = torch.randn(slots, 3, 56, 56, generator=torch.Generator().manual_seed(seed))
    mask = pad([[1] * len(row) for row in ids], 0).bool()
    return {"input_ids": padded, "labels": pad(labels, -100), "attention_mask": mask, "images": images}


PLAIN = [
    ([BOS, IMAGE_TOKEN_INDEX], [40, 41, 42, 43, NEWLINE]),
    ([BOS, IMAGE_TOKEN_INDEX], [50, NEWLINE]),
    ([BOS, IMAGE_TOKEN_INDEX], [60, 61, NEWLINE]),
]
MIXED = [
    ([BOS, 30, 31], [44, 45, EOS]),
    ([BOS, 30, IMAGE_TOKEN_INDEX, 31], [46, EOS]),
    ([BOS, IMAGE_TOKEN_INDEX, 33, IMAGE_TOKEN_INDEX, 34], [47, 48, 49, EOS]),
]
BATCHES = {"plain": PLAIN, "mixed": MIXED}


def reference(model, rows, data) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
    """Image rows and text rows of each sample, from the model's own parts, one image at a time."""
    table = model.get_input_embeddings().weight.detach().double()
    clouds, slot = [], 0
    for prompt, answer in rows:
        shown = prompt.count(IMAGE_TOKEN_INDEX)
        images = data["images"][slot : slot + max(shown, 1)]
        slot += max(shown, 1)
        words = [word for word in answer if word not in (EOS, NEWLINE)]
        with torch.no_grad():
            image = torch.cat([model.encode_images(image[None])[0] for image in images]).double()
        clouds.append((image, table[words]) if shown else None)
    return clouds


def hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def loss_and_gradients(model, data, **extra) -> list[torch.Tensor]:
    model.zero_grad()
    loss = model(**data, **extra).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(left, right) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("items", [None, 23])
def test_record_and_loss_against_a_reference_per_sample(kind, items, model):
    rows, data = BATCHES[kind], collated(BATCHES[kind])
    extra = {} if items is None else {"num_items_in_batch": torch.tensor(items)}
    alone = model(**data, **extra).loss.item()
    clouds = reference(model, rows, data)
    patch = apply_regap(model, ReGapConfig(alpha=0.5, loss="pairwise_l2"))
    loss = model(**data, **extra).loss.item()
    counts = [len(answer) for _, answer in rows]
    gaps = [0.0 if pair is None else torch.cdist(*pair).mean().item() for pair in clouds]
    total = sum(count * gap for count, gap in zip(counts, gaps, strict=True)) / (items or sum(counts))
    assert loss == pytest.approx(alone + 0.5 * total, rel=1e-5)
    assert patch.last.valid.tolist() == [pair is not None for pair in clouds]
    stats = patch.last.stats
    for index, pair in enumerate(clouds):
        if pair is None:
            continue
        image, text = pair
        centred = (image.mean(0) - text.mean(0)).norm().item()
        assert stats.centroid_l2[index].item() == pytest.approx(centred, rel=1e-4)
        assert stats.pairwise_sq[index].item() == pytest.approx(
            torch.cdist(*pair).square().mean().item(), rel=1e-4
        )
        assert stats.image_norm[index].item() == pytest.approx(image.norm(dim=-1).mean().item(), rel=1e-4)
        assert stats.text_trace[index].item() == pytest.approx(
            text.var(0, correction=0).sum().item(), abs=1e-6
        )


def test_a_row_without_an_image_and_without_a_dummy(model):
    """Our LLaVA also takes None for the slot of a text-only row."""
    data = collated(MIXED)
    patch = apply_regap(model, FIXED)
    model(**data)
    expected = patch.last
    data["images"] = [None, *data["images"][1:]]
    model(**data)
    torch.testing.assert_close(patch.last.stats.centroid_l2[1:], expected.stats.centroid_l2[1:])
    assert patch.last.valid.tolist() == [False, True, True]


def test_several_tiles_of_one_image_are_all_its_rows(model):
    tiles = torch.randn(3, 2, 3, 56, 56)
    data = collated(PLAIN)
    patch = apply_regap(model, FIXED)
    model(**{**data, "images": tiles})
    stacked = patch.last.stats.centroid_l2
    ragged = [tiles[0], tiles[1, 0], tiles[2]]
    model(**{**data, "images": ragged})
    torch.testing.assert_close(patch.last.stats.centroid_l2[[0, 2]], stacked[[0, 2]])
    table = model.get_input_embeddings().weight
    alone = model.encode_images(tiles[1, :1])[0].mean(0) - table[50]
    assert patch.last.stats.centroid_l2[1].item() == pytest.approx(alone.norm().item(), rel=1e-4)


@pytest.mark.parametrize("config", [ReGapConfig(weight=0), ReGapConfig(loss="off")])
def test_off_is_bit_identical_also_when_everything_trains(config, model):
    model.requires_grad_(True)
    data = collated(MIXED)
    before = loss_and_gradients(model, data)
    patch = apply_regap(model, config)
    assert same(loss_and_gradients(model, data), before)
    assert patch.last.floats()["centroid_l2"] > 0


def test_lifecycle(model, pristine):
    data, keys = collated(PLAIN), list(model.state_dict())
    before, count = loss_and_gradients(model, data), hooks(model)
    fresh = copy.deepcopy(pristine)
    patch = apply_regap(model, FIXED)
    assert list(model.state_dict()) == keys
    patched = loss_and_gradients(model, data)
    assert not same(patched, before)
    apply_regap(fresh, FIXED)  # transformers' own hooks, which the first forward installs, do not pickle
    buffer = io.BytesIO()
    torch.save(fresh, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert find_patch(twin).outer is twin
        assert same(loss_and_gradients(twin, data), patched)
    patch.remove()
    assert hooks(model) == count
    assert same(loss_and_gradients(model, data), before)


def test_saved_files_are_untouched(model, tmp_path):
    model.save_pretrained(tmp_path / "plain")
    apply_regap(model, FIXED)
    model.save_pretrained(tmp_path / "patched")
    files = [{p.name: p.read_bytes() for p in (tmp_path / side).iterdir()} for side in ("plain", "patched")]
    assert files[0] == files[1]


def test_generation_and_evaluation_are_untouched(model):
    data = collated(PLAIN[:1])
    asked = {"inputs": data["input_ids"], "images": data["images"], "max_new_tokens": 5, "do_sample": False}
    expected = model.eval().generate(**asked)
    patch = apply_regap(model, FIXED)
    assert torch.equal(model.generate(**asked), expected)
    assert torch.equal(model.train().generate(**asked), expected), "training mode, but without gradient"
    assert patch.last is None
    loss = model(**data).loss
    loss.backward()
    patch.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(dtype, reentrant, model):
    data = collated(PLAIN)
    model = model.to(dtype)
    data["images"] = data["images"].to(dtype)
    apply_regap(model, FIXED)
    expected = loss_and_gradients(model, data)
    model.config.use_cache = False
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    got = loss_and_gradients(model, data)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    find_patch(model).step()


def test_tuples_positions_and_missing_labels(model):
    data = collated(PLAIN)
    apply_regap(model, FIXED)
    expected = model(**data).loss
    assert torch.equal(model(**data, return_dict=False)[0], expected)
    rest = {name: data[name] for name in ("labels", "images")}
    assert torch.equal(model(data["input_ids"], data["attention_mask"], **rest).loss, expected)
    data.pop("labels")
    with pytest.raises(PatchStateError, match="label smoothing"):
        model(**data)


@pytest.mark.parametrize("first", ["patch", "peft"])
def test_peft_before_and_after(first, model):
    """LoRA that has learned nothing changes nothing, so the loss must be the patched model's own."""
    peft = pytest.importorskip("peft")
    config = ReGapConfig(alpha=0.5, allow_finetune=True)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=r".*layers.*q_proj", exclude_modules=r".*vision_tower.*"
    )
    data = collated(PLAIN)
    expected = (apply_regap(twin := copy.deepcopy(model), FIXED), twin(**data).loss)[1]
    if first == "patch":
        apply_regap(model, config)
    wrapped = peft.get_peft_model(model, lora)
    model.model.mm_projector.requires_grad_(True)  # PEFT freezes all that it finds
    patch = apply_regap(wrapped, config)
    loss = wrapped(**data).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert patch.step()["loss_weighted"] > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_no_waiting_after_the_model_is_done(loss, model, monkeypatch):
    """Everything that the patch does in a training forward, in the common and in the ragged case."""
    patch = apply_regap(model, ReGapConfig(alpha=0.5, loss=loss))
    settle = patch.settle

    def watched(arguments, output):
        with NoWaiting():
            return settle(arguments, output)

    monkeypatch.setattr(patch, "settle", watched)
    for rows in BATCHES.values():
        model(**collated(rows)).loss.backward()
    monkeypatch.undo()
    assert patch.step()["loss_lm"] > 0


def test_a_trainer_drives_the_patch_that_its_model_carries(model, tmp_path):
    from transformers import Trainer, TrainingArguments

    from regap_patch.train import ReGapCallback

    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", max_steps=3, warmup_steps=1)
    trainer = Trainer(model=model, args=args, train_dataset=[0])
    with pytest.raises(PatchStateError, match="call apply_regap"):
        ReGapCallback.attach(trainer)
    patch = apply_regap(model)
    callback = ReGapCallback.attach(trainer)
    assert ReGapCallback.attach(trainer) is callback
    assert {"log", "save_model", "train"} <= set(vars(trainer))
    trainer.state.max_steps = 3
    callback.on_train_begin(args, trainer.state, trainer.control)
    assert patch.calibration.steps == 1
    model(**collated(PLAIN)).loss.backward()
    callback.on_step_end(args, trainer.state, trainer.control)
    trainer.log({"loss": 1.0})
    trainer.log({"eval_loss": 1.0})
    logged = trainer.state.log_history
    assert logged[0]["regap/centroid_l2"] > 0
    assert "regap/centroid_l2" not in logged[1]
    trainer.model = copy.deepcopy(model)  # as model_init does
    with pytest.raises(PatchStateError, match="another model"):
        callback.on_train_begin(args, trainer.state, trainer.control)
    callback.detach()
    assert not {"log", "save_model", "train"} & set(vars(trainer))
    assert callback not in trainer.callback_handler.callbacks
