"""What a patch promises, on every row of the table of hosts.

`conformance.json` says which test does not apply to which row, and why: conftest.py leaves that one out. Rows
of transformers 4.37.2 run in upstream's environment (tests/integration/test_upstream_conformance.py).
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import io
import json
from pathlib import Path

import pytest
import torch

from regap_patch import ReGapConfig, apply_regap, find_patch
from regap_patch.errors import (
    AlreadyPatchedError,
    FinetuneError,
    PatchStateError,
    UnknownHostError,
    UnsupportedModelError,
)
from regap_patch.gap import mir
from regap_patch.hosts.table import HOSTS
from regap_patch.measure import MirSettings, measure_gap, measure_mir
from tests.contract.host_rows import ROWS
from tests.contract.host_samples import BOS, EOS, IMAGE, IMG, MIXED, RAGGED, TEXT_ONLY
from tests.contract.stored_states import MEASURED, SEVERAL, batches, stored
from tests.contract.tiny_hosts import OLD
from tests.unit.no_waiting import NoWaiting

TABLE = json.loads(Path(__file__).with_name("conformance.json").read_text())
HERE = [name for name, row in TABLE["rows"].items() if row["transformers"] == ("4.37.2" if OLD else "5")]
FIXED = ReGapConfig(alpha=0.5)
PAIRWISE = ReGapConfig(alpha=0.5, loss="pairwise_l2")
CHECKPOINTING = {"reentrant": True, "non-reentrant": False}


@pytest.fixture(scope="module", params=HERE)
def row(request):
    return ROWS[request.param]


@pytest.fixture(autouse=True)
def what_it_needs(request):
    needed = TABLE["needs"].get(request.node.originalname)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}")


@pytest.fixture(scope="module")
def pristine(row, tiny):
    """As stage 1 trains it, and never run: the hooks that transformers' first pass installs do not pickle."""
    model = row.build(tiny).train().requires_grad_(False)
    model.get_submodule(row.projector).requires_grad_(True)
    return model


@pytest.fixture
def model(pristine):
    return copy.deepcopy(pristine)


@pytest.fixture
def data(row):
    return row.collate(RAGGED, 0)


def hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def loss_and_gradients(model, data, **extra) -> list[torch.Tensor]:
    model.zero_grad()
    output = model(**data, **extra)
    loss = output[0] if isinstance(output, tuple) else output["loss"]
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(left, right) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def moved(data, to):
    return {name: value.to(to) if value.is_floating_point() else value for name, value in data.items()}


def centroids(clouds) -> list[float]:
    return [0.0 if pair is None else (pair[0].mean(0) - pair[1].mean(0)).norm().item() for pair in clouds]


def weighted_mean(values, samples, items=None) -> float:
    """As the language model's loss is: each sample counts by its supervised words."""
    counts = [len(answer) for _, answer in samples]
    return sum(n * value for n, value in zip(counts, values, strict=True)) / (items or sum(counts))


class TestConformance:
    def check_record(self, row, model, samples, **tolerance):
        data = moved(
            row.collate(samples, 1), model.get_submodule(row.projector).parameters().__next__().dtype
        )
        clouds = row.clouds(model, samples, data)
        with torch.no_grad():
            alone = model(**data).loss.item()
        patch = apply_regap(model, PAIRWISE)
        loss = model(**data).loss.item()
        close = {"rel": 1e-4, "abs": 1e-6, **tolerance}
        gaps = [0.0 if pair is None else torch.cdist(*pair).mean().item() for pair in clouds]
        assert patch.last.valid.tolist() == [pair is not None for pair in clouds]
        assert patch.last.loss_gap.item() == pytest.approx(weighted_mean(gaps, samples), **close)
        assert loss == pytest.approx(alone + 0.5 * weighted_mean(gaps, samples), **close)
        stats = patch.last.stats
        for index, (pair, gap) in enumerate(zip(clouds, centroids(clouds), strict=True)):
            if pair is None:
                continue
            image, text = pair
            assert stats.centroid_l2[index].item() == pytest.approx(gap, **close)
            assert stats.image_norm[index].item() == pytest.approx(image.norm(dim=-1).mean().item(), **close)
            assert stats.text_norm[index].item() == pytest.approx(text.norm(dim=-1).mean().item(), **close)
            spread = image.var(0, correction=0).sum().item()
            assert stats.image_trace[index].item() == pytest.approx(spread, **{"abs": 1e-5, **close})

    # ---- the record, against a reference for each sample

    def test_record_of_ragged_captions(self, row, model):
        self.check_record(row, model, RAGGED)

    def test_record_of_several_images_and_of_none(self, row, model):
        self.check_record(row, model, MIXED)

    def test_record_of_a_text_only_batch(self, row, model):
        data = row.collate(TEXT_ONLY, 0)
        alone = model(**data).loss
        patch = apply_regap(model, FIXED)
        loss = model(**data).loss
        assert torch.equal(loss, alone)
        assert not patch.last.valid.any()
        assert patch.last.loss_gap.item() == 0

    def test_num_items_in_batch(self, row, model, data):
        gaps = centroids(row.clouds(model, RAGGED, data))
        patch = apply_regap(model, FIXED)
        model(**data, num_items_in_batch=torch.tensor(23))
        expected = weighted_mean(gaps, RAGGED, items=23)
        assert patch.last.loss_gap.item() == pytest.approx(expected, rel=1e-4)

    def test_bfloat16(self, row, model):
        self.check_record(row, model.bfloat16(), RAGGED, rel=2e-2, abs=1e-2)
        data = moved(row.collate(RAGGED, 0), torch.bfloat16)
        loss, *gradients = loss_and_gradients(model, data)
        assert loss.isfinite()
        assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}

    # ---- what is added, and to whom

    def test_gradient_is_that_of_the_written_sum(self, row, model, data):
        twin = copy.deepcopy(model)
        apply_regap(model, FIXED)
        got = loss_and_gradients(model, data)[1:]
        gaps = [(v.mean(0) - t.mean(0)).norm() for v, t in row.clouds(twin, RAGGED, data, graph=True)]
        (twin(**data).loss + 0.5 * weighted_mean(gaps, RAGGED)).backward()
        expected = [p.grad for p in twin.get_submodule(row.projector).parameters()]
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)

    def test_no_gradient_into_text_embeddings_when_all_trains(self, row, model, data):
        model.requires_grad_(True)
        twin = copy.deepcopy(model)
        loss_and_gradients(twin, data)
        apply_regap(model, ReGapConfig(alpha=5.0, allow_finetune=True))
        loss_and_gradients(model, data)
        mine, theirs = (some.get_input_embeddings().weight.grad for some in (model, twin))
        assert torch.equal(mine, theirs)
        mine, theirs = (next(some.get_submodule(row.projector).parameters()).grad for some in (model, twin))
        assert not torch.equal(mine, theirs)

    def test_weight_zero_is_bit_identical(self, row, model):
        model.requires_grad_(True)
        data = row.collate(MIXED, 0)
        before = loss_and_gradients(model, data)
        for config in (ReGapConfig(weight=0), ReGapConfig(loss="off")):
            with apply_regap(model, config) as patch:
                assert same(loss_and_gradients(model, data), before)
                assert patch.step()["centroid_l2"] > 0

    def test_calibration_measures_first_and_then_acts(self, row, model, data):
        before = loss_and_gradients(model, data)
        patch = apply_regap(model, ReGapConfig(calibration_steps=1))
        assert same(loss_and_gradients(model, data), before)
        patch.step()
        assert loss_and_gradients(model, data)[0].item() == pytest.approx(2 * before[0].item(), rel=1e-4)

    def test_finetuning_is_refused(self, row, model, data):
        apply_regap(model, FIXED)
        model.get_input_embeddings().requires_grad_(True)
        with pytest.raises(FinetuneError, match="language model train"):
            model(**data)
        model.requires_grad_(False)
        vision = [part for name, part in model.named_parameters() if "vision" in name or "qformer" in name]
        for part in (*vision, *model.get_submodule(row.projector).parameters()):
            part.requires_grad_(True)
        assert model(**data).loss.isfinite()

    # ---- lifetime

    def test_keys_unchanged(self, row, model):
        keys = list(model.state_dict())
        patch = apply_regap(model, FIXED)
        assert list(model.state_dict()) == keys
        assert patch.host.name == row.host

    def test_remove_restores_outputs_and_hook_counts(self, row, model, data):
        before, count = loss_and_gradients(model, data), hooks(model)
        patch = apply_regap(model, FIXED)
        assert hooks(model) == count + 3
        assert not same(loss_and_gradients(model, data), before)
        patch.remove()
        patch.remove()
        assert hooks(model) == count
        assert same(loss_and_gradients(model, data), before)

    def test_twice_is_safe(self, row, model):
        patch = apply_regap(model, FIXED)
        count = hooks(model)
        assert apply_regap(model, ReGapConfig(alpha=0.5)) is patch
        assert hooks(model) == count

    def test_another_config_is_refused(self, row, model):
        apply_regap(model, FIXED)
        with pytest.raises(AlreadyPatchedError, match="remove"):
            apply_regap(model, ReGapConfig(alpha=0.6))

    def test_deepcopy_and_pickle(self, row, model, data):
        apply_regap(model, FIXED)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        twins = [copy.deepcopy(model), torch.load(buffer, weights_only=False)]
        expected = loss_and_gradients(model, data)
        for twin in twins:
            assert find_patch(twin).outer is twin
            assert same(loss_and_gradients(twin, data), expected)

    def test_save_and_load(self, row, model, tmp_path):
        model.save_pretrained(tmp_path / "plain")
        apply_regap(model, FIXED)
        model.save_pretrained(tmp_path / "patched")
        files = [
            {p.name: p.read_bytes() for p in (tmp_path / side).iterdir()} for side in ("plain", "patched")
        ]
        assert files[0] == files[1]
        loaded = type(model).from_pretrained(tmp_path / "patched")
        assert find_patch(loaded) is None
        weights, stored = model.state_dict(), loaded.state_dict()
        assert all(torch.equal(stored[name], weights[name]) for name in stored)

    def test_generation_is_untouched(self, row, model):
        asked = row.collate([([3, 30, IMG, 31], [44])], 0)
        asked.pop("labels")
        asked[row.ids] = asked.pop("input_ids")
        limits = {"max_new_tokens": 4, "do_sample": False}
        expected = model.eval().generate(**asked, **limits)
        patch = apply_regap(model, FIXED)
        assert torch.equal(model.generate(**asked, **limits), expected)
        assert torch.equal(model.train().generate(**asked, **limits), expected)
        assert patch.last is None

    # ---- how models are trained

    @pytest.mark.parametrize("kind", CHECKPOINTING)
    def test_activation_checkpointing(self, row, model, data, kind):
        patch = apply_regap(model, FIXED)
        expected = loss_and_gradients(model, data)
        model.config.use_cache = False
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": CHECKPOINTING[kind]}
        )
        got = loss_and_gradients(model, data)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs)
        patch.step()

    def test_lora(self, row, model, data):
        """LoRA that has learned nothing changes nothing, so the loss must be the patched model's own."""
        import peft

        with apply_regap(model, FIXED):
            expected = model(**data).loss
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=row.lora))
        model.get_submodule(row.projector).requires_grad_(True)  # PEFT freezes all that it finds
        patch = apply_regap(wrapped, FIXED)
        with pytest.raises(FinetuneError, match="lora_A"):
            wrapped(**data)
        patch.remove()
        patch = apply_regap(wrapped, ReGapConfig(alpha=0.5, allow_finetune=True))
        loss = wrapped(**data).loss
        torch.testing.assert_close(loss, expected)
        loss.backward()
        assert patch.step()["loss_weighted"] > 0

    def test_four_bit(self, row, model, tmp_path):
        from transformers import BitsAndBytesConfig

        model.save_pretrained(tmp_path)
        kept = [row.projector, "vision_tower", "vision_model", "qformer", "lm_head"]
        how = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=kept)
        small = type(model).from_pretrained(tmp_path, quantization_config=how, dtype=torch.float32).train()
        if row.host == "llava":  # as its loader does
            small.get_vision_tower().load_model()
        assert any(type(part).__name__ == "Linear4bit" for part in small.modules())
        small.requires_grad_(False).get_submodule(row.projector).requires_grad_(True)
        self.check_record(row, small, RAGGED)

    @pytest.mark.full
    def test_compile_after_the_patch(self, row, model, data):
        twin = copy.deepcopy(model)
        apply_regap(twin, FIXED)
        expected = loss_and_gradients(twin, data)
        patch = apply_regap(model, FIXED)
        compiled = torch.compile(model, backend="eager")
        loss = compiled(**data).loss
        torch.testing.assert_close(loss.detach(), expected[0])
        loss.backward()
        assert patch.step()["loss_weighted"] > 0
        torch._dynamo.reset()

    def test_compile_before_the_patch_is_refused(self, row, model):
        for late in (torch.compile(copy.deepcopy(model), backend="eager"), model):
            if late is model:
                model.compile(backend="eager")
            with pytest.raises(UnsupportedModelError, match=r"after torch\.compile never run"):
                apply_regap(late, FIXED)

    # ---- calls

    def test_label_smoothing_is_refused(self, row, model, data, tmp_path):
        from transformers import Trainer, TrainingArguments

        args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", label_smoothing_factor=0.1)
        trainer = Trainer(model=model, args=args)
        apply_regap(model, FIXED)
        with pytest.raises(PatchStateError, match="label smoothing"):
            trainer.compute_loss(model, dict(data))

    def test_missing_labels_are_refused(self, row, model, data):
        apply_regap(model, FIXED)
        labels = data.pop("labels")
        with pytest.raises(PatchStateError, match="no labels"):
            model(**data)
        assert model(**data, labels=labels).loss.isfinite(), "a refused pass leaves nothing behind"

    def test_tuple_outputs(self, row, model, data):
        apply_regap(model, FIXED)
        expected = loss_and_gradients(model, data)
        assert same(loss_and_gradients(model, data, return_dict=False), expected)

    def test_positional_arguments(self, row, model, data):
        apply_regap(model, FIXED)
        expected = model(**data).loss
        parameters = inspect.signature(model.forward).parameters.values()
        named = [part for part in parameters if part.kind is part.POSITIONAL_OR_KEYWORD]
        values = [data.get(part.name, part.default) for part in named]
        values = [None if value is inspect.Parameter.empty else value for value in values]
        assert torch.equal(model(*values).loss, expected)

    # ---- what it refuses to patch

    def test_a_model_without_its_projector_is_unknown(self, row, model):
        path, _, name = row.projector.rpartition(".")
        delattr(model.get_submodule(path), name)
        with pytest.raises(UnknownHostError) as caught:
            apply_regap(model)
        text = str(caught.value)
        assert type(model).__name__ in text
        assert "PreTrainedModel" in text, "its bases"
        for host in HOSTS:
            assert f"{host.name} looked for {host.projector[0]}" in text
        assert hooks(model) == 0

    def test_encoder_decoders_are_refused(self, row, model):
        model.config.is_encoder_decoder = True
        with pytest.raises(UnsupportedModelError, match="decoder-only"):
            apply_regap(model)

    # ---- no waiting for the device

    def let_the_model_not_wait(self, model, monkeypatch):
        """transformers 5 waits on its own account: to count placeholders, and to see if a mask is needed."""
        if OLD:
            return
        from transformers import masking_utils

        monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *args, **kwargs: False)
        model.set_attn_implementation("eager")
        for part in model.modules():
            if hasattr(part, "get_placeholder_mask"):
                monkeypatch.setattr(
                    part, "get_placeholder_mask", lambda ids, **kwargs: (ids == IMAGE)[..., None]
                )

    def test_the_patch_never_waits(self, row, model, monkeypatch):
        patch = apply_regap(model, PAIRWISE)
        settle, capture = patch.settle, patch.capture

        def watched(call):
            def inside(*args):
                with NoWaiting():
                    return call(*args)

            return inside

        monkeypatch.setattr(patch, "settle", watched(settle))
        monkeypatch.setattr(patch, "capture", watched(capture))
        for samples in (RAGGED, MIXED):
            model(**row.collate(samples, 0)).loss.backward()
        assert patch.last.loss_gap.item() > 0

    def test_the_training_forward_never_waits(self, row, model, monkeypatch):
        self.let_the_model_not_wait(model, monkeypatch)
        apply_regap(model, PAIRWISE)
        for samples in (RAGGED, MIXED):
            data = row.collate(samples, 0)
            with NoWaiting():
                loss = model(**data).loss
            loss.backward()

    def test_the_patch_runs_on_meta_tensors(self, row, model, monkeypatch):
        """The shapes of a real pass, without its numbers: nothing in the patch may ask for one."""
        patch = apply_regap(model, PAIRWISE)
        settle = patch.settle
        seen = []

        def kept(arguments, output):
            seen.append((arguments, output.loss, patch._captured))
            return settle(arguments, output)

        monkeypatch.setattr(patch, "settle", kept)
        for samples in (RAGGED, MIXED):
            model(**row.collate(samples, 0))
        patch.remove()
        patch = apply_regap(model.to("meta"), PAIRWISE)
        for arguments, loss, rows in seen:
            patch.capture(rows.detach().to("meta").requires_grad_())
            given = {
                name: value.to("meta") if torch.is_tensor(value) else value
                for name, value in arguments.items()
            }
            output = patch.settle(given, {"loss": loss.detach().to("meta").requires_grad_()})
            output["loss"].backward()

    def test_the_training_forward_runs_on_meta_tensors(self, row, model, monkeypatch):
        self.let_the_model_not_wait(model, monkeypatch)
        model.to("meta")
        apply_regap(model, PAIRWISE)
        data = {name: value.to("meta") for name, value in row.collate(RAGGED, 0).items()}
        model(**data).loss.backward()
        assert all(p.grad.is_meta for p in model.get_submodule(row.projector).parameters())

    def check_mir(self, row, model, samples):
        """Layer by layer against every state stored: the same bits, on the same statistics code."""
        data = batches(row, samples)
        layers = stored(row, copy.deepcopy(model).eval(), samples, data)
        before = hooks(model)
        report = measure_mir(model, data, MirSettings(groups=0))
        assert report.evaluation == {"mode": "layer_major"}
        assert report.host == row.host
        assert report.rows == {
            kind: sum(map(len, layers[0][side])) for side, kind in enumerate(("image", "text"))
        }
        expected = mir(layers[1:], layer_zero=layers[0])
        assert report.result == expected
        assert torch.equal(report.result.influence, expected.influence)
        assert len(report.result.per_layer) == len(layers) - 1
        assert model.training
        if before:  # transformers' first pass installs hooks of its own
            assert hooks(model) == before
        return report

    def test_mir_has_the_bits_of_storing_every_state(self, row, model):
        self.check_mir(row, model, MEASURED)

    def test_mir_of_several_images(self, row, model):
        self.check_mir(row, model, MEASURED + SEVERAL)

    def test_mir_in_one_streaming_pass(self, row, model):
        data = batches(row, MEASURED)
        exact = measure_mir(model, data, MirSettings(groups=0))
        report = measure_mir(model, data, MirSettings(evaluation="streaming"))
        assert report.evaluation["mode"] == "streaming"
        certificate = report.evaluation["certificate"]  # what it missed, it ran again with the rows stored
        assert bool(certificate["outliers_missed"]) == bool(certificate["layers_run_again"])
        assert report.result.stderr is None
        assert report.result.value == pytest.approx(exact.result.value, abs=1e-6)
        assert report.result.layer_zero.frechet == pytest.approx(exact.result.layer_zero.frechet, rel=1e-5)

    def test_gap_at_the_input(self, row, model):
        samples = [([BOS, IMG], [40, 41, 42, EOS]), ([BOS, IMG], [50, 51]), ([BOS, IMG], [53, 54, 55, EOS])]
        data = batches(row, samples)
        pairs = [row.clouds(model.eval(), [one], args)[0] for one, args in zip(samples, data, strict=True)]
        report = measure_gap(model, data)
        assert [each["centroid_l2"] for each in report.samples] == pytest.approx(centroids(pairs), rel=1e-4)
        image, text = (torch.cat(clouds) for clouds in zip(*pairs, strict=True))
        assert report.corpus["centroid_l2"] == pytest.approx(centroids([(image, text)])[0], rel=1e-4)
        assert report.corpus["pairwise_sq"] == pytest.approx(
            torch.cdist(image, text).square().mean().item(), rel=1e-4
        )
        assert report.corpus["norm_ratio"] == pytest.approx(
            (image.norm(dim=1).mean() / text.norm(dim=1).mean()).item(), rel=1e-4
        )


def test_the_table_names_what_exists(row):
    methods = {name for name in vars(TestConformance) if name.startswith("test_")}
    assert len(methods) >= 18
    assert set(TABLE["rows"]) == set(ROWS)
    assert set(TABLE["needs"]) <= methods
    for entry in TABLE["rows"].values():
        assert set(entry["not_applicable"]) <= methods
