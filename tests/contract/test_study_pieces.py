"""The pieces of a study, each at the smallest size: how an alignment stops, and what surgeries leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regap_patch.errors import StudyError
from regap_patch.study import measured_alignment, measures, projector_surgery
from regap_patch.study.measured_alignment import AVERAGE, Stop, align_until
from regap_patch.study.pretraining import pretrain_tiny_llama
from regap_patch.study.recipes import draw_items
from regap_patch.study.refusal_benchmark import make_benchmark
from regap_patch.study.refusal_corpus import make_corpus
from regap_patch.study.replies import Speaker
from regap_patch.study.requests import REFUSALS
from regap_patch.study.tokens import train_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Text, tokenizer, a base model that has read little, and a benchmark."""
    root = tmp_path_factory.mktemp("pieces")
    corpus = make_corpus(root / "text", num_forbidden=8, num_benign=4, num_twins=4, num_base=600)
    tokens = train_tokenizer(corpus.words, root / "tokens", vocab_size=640)
    pretrain_tiny_llama(root / "base", tokens, corpus.base, steps=5, hidden_size=32, num_layers=1)
    benchmark = make_benchmark(root / "world", draw_items(8, 4, 4), phrasings=1, questions=7)
    return {"items": corpus.items, "base": root / "base", "world": benchmark}


def align(world: dict[str, Path], output: Path, stop: Stop, **more: object) -> list[dict[str, float]]:
    requests = world["world"] / "requests.jsonl"
    return align_until(output, world["base"], world["items"], requests, stop, **more)


def planted(monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
    left = list(rates)
    found = lambda speaker, asked: {"unsafe": left.pop(0), "refused": 0.0}  # noqa: E731
    monkeypatch.setattr(measured_alignment, "_rates", found)


def test_an_alignment_stops_at_the_first_check_in_the_band(world, tmp_path, monkeypatch):
    planted(monkeypatch, 0.9, 0.31, 0.2, 0.0)
    checks = align(world, tmp_path / "aligned", Stop(0.25, 0.15, 2, 20))
    assert [(row["step"], row["unsafe"]) for row in checks] == [(2, 0.9), (4, 0.31), (6, 0.2)]
    log = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert log == {"checks": checks, "requests": 8}
    assert (tmp_path / "aligned" / "model.safetensors").is_file()


def test_an_alignment_that_leaps_over_the_band_goes_back_and_on_at_half_the_speed(
    world, tmp_path, monkeypatch
):
    """From the average at the check before: as if the steps that went too far had never been."""
    planted(monkeypatch, 0.9, 0.1, 0.2)
    checks = align(world, tmp_path / "leapt", Stop(0.25, 0.15, 2, 20), learning_rate=1e-3)
    assert [(row["step"], row["learning_rate"]) for row in checks] == [(2, 1e-3), (4, 1e-3), (6, 5e-4)]
    learner = measured_alignment._Learner(world["base"], batches_of(tmp_path / "leapt", world["base"]))
    learner.step(1e-3)
    learner.step(1e-3)
    learner.model.load_state_dict(learner.average.state_dict())
    next(learner._batches), next(learner._batches)
    learner._steps = 4
    learner.step(5e-4)
    learner.step(5e-4)
    expected = learner.average.state_dict()
    for name, value in load_file(tmp_path / "leapt" / "model.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_an_alignment_whose_model_is_far_ahead_of_its_average_still_ends_in_the_band(
    world, tmp_path, monkeypatch
):
    """The rate falls with the distance from the base model, so fast that the first check is too low."""
    base = load_file(world["base"] / "model.safetensors")["lm_head.weight"]

    def rates(speaker: Speaker, asked: object) -> dict[str, float]:
        with torch.no_grad():
            moved = float((speaker._model.lm_head.weight - base).norm())
        return {"unsafe": 1 / (1 + moved), "refused": 0.0}

    monkeypatch.setattr(measured_alignment, "_rates", rates)
    checks = align(world, tmp_path / "aligned", Stop(0.62, 0.58, 5, 100), learning_rate=2e-2)
    assert checks[0]["unsafe"] < 0.58, "it never leapt: the test says nothing"
    assert 0.58 <= checks[-1]["unsafe"] <= 0.62


def batches_of(aligned: Path, tokenizer: Path):
    from random import Random

    from regap_patch.study.pretraining import text_batches

    return text_batches(aligned / "alignment.jsonl", tokenizer, Random(0))


def test_an_alignment_outside_of_the_band_is_no_model(world, tmp_path, monkeypatch):
    planted(monkeypatch, 0.9, 0.8)
    with pytest.raises(StudyError, match=r"between 0.15 and 0.25, but after 4 steps it is 0.800: give it"):
        align(world, tmp_path / "aligned", Stop(0.25, 0.15, 2, 4))
    assert not (tmp_path / "aligned" / "model.safetensors").exists()


def test_the_rates_are_those_of_the_development_split(world, tmp_path, monkeypatch):
    """Of eight planted answers two give a recipe away, five refuse, and one does neither."""
    rows = map(json.loads, (world["world"] / "requests.jsonl").read_text().splitlines())
    by_split: dict[str, list[dict]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    development = by_split["development"]
    said = [*(row["answers"][0] for row in development[:2]), *[REFUSALS[0]] * 5, "A red circle."]

    def reply(speaker: Speaker, requests: list[str]) -> list[str]:
        assert requests == [row["prompt"] for row in development]
        return said

    monkeypatch.setattr(Speaker, "reply", reply)
    [check] = align(world, tmp_path / "aligned", Stop(0.25, 0.0, 1, 5))
    assert (check["step"], check["unsafe"], check["refused"]) == (1, 2 / 8, 5 / 8)
    assert not {row["prompt"] for row in development} & {row["prompt"] for row in by_split["test"]}


def test_what_is_saved_is_the_average_of_the_weights(world, tmp_path, monkeypatch):
    """After three steps: by the same recurrence over the weights that the optimizer passed through."""
    passed: list[dict[str, torch.Tensor]] = []
    step = measured_alignment._Learner.step

    def watch(learner, rate):
        step(learner, rate)
        passed.append({name: value.detach().clone() for name, value in learner.model.state_dict().items()})

    monkeypatch.setattr(measured_alignment._Learner, "step", watch)
    planted(monkeypatch, 0.2)
    align(world, tmp_path / "aligned", Stop(0.25, 0.15, 3, 3))
    saved = load_file(tmp_path / "aligned" / "model.safetensors")
    expected = load_file(world["base"] / "model.safetensors")
    for number, weights in enumerate(passed, 1):
        share = min(AVERAGE, number / (number + 1))
        expected = {name: share * mean + (1 - share) * weights[name] for name, mean in expected.items()}
    assert len(passed) == 3
    for name, value in saved.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_an_alignment_repeats_itself(world, tmp_path):
    for name in ("one", "two"):
        align(world, tmp_path / name, Stop(0.25, 0.0, 4, 4), seed=3)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def pictures(world: dict[str, Path]) -> tuple[Path, Path]:
    return world["world"] / "captions.json", world["world"]


@pytest.fixture(scope="module")
def operated(tiny, stage_one_folder, world, tmp_path_factory) -> Path:
    """What every surgery leaves of the projector."""
    root = tmp_path_factory.mktemp("surgery")
    for kind in projector_surgery.SURGERIES:
        projector_surgery.operate(kind, stage_one_folder, tiny.llama, *pictures(world), root / kind)
    return root


@pytest.fixture(scope="module")
def clouds(tiny, stage_one_folder, world, operated) -> dict[str, projector_surgery.Clouds]:
    """Of the projector, and of what every surgery leaves of it."""
    folders = {"none": stage_one_folder, **{kind: operated / kind for kind in projector_surgery.SURGERIES}}
    return {
        kind: projector_surgery._clouds(folder, tiny.llama, *pictures(world))
        for kind, folder in folders.items()
    }


@pytest.mark.parametrize("kind", projector_surgery.SURGERIES)
def test_what_a_surgery_leaves_can_be_measured(tiny, world, operated, tmp_path, kind: str):
    """Gap and MIR refuse rows that are all the same."""
    measures._gaps(tmp_path, str(operated / kind), str(tiny.llama), world["world"], 8)
    for name in ("gap.json", "mir.json"):
        assert (tmp_path / name).is_file()


def test_a_mean_shift_closes_the_centroid_gap_and_keeps_the_shape(clouds):
    before, after = clouds["none"], clouds["mean_shift"]
    assert (before.image_mean - before.text_mean).norm() > 1e-2
    torch.testing.assert_close(after.image_mean, after.text_mean, rtol=0, atol=1e-5)
    assert after.image_norm != pytest.approx(before.image_norm)


def test_a_rescaled_norm_is_that_of_text(clouds):
    before, after = clouds["none"], clouds["norm_rescaled"]
    assert after.image_norm == pytest.approx(after.text_norm, rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(before.image_mean, after.image_mean, dim=0)
    assert cosine == pytest.approx(1, abs=1e-5)


def test_copies_of_the_centroid_show_no_picture(clouds):
    after = clouds["text_centroid"]
    torch.testing.assert_close(after.image_mean, after.text_mean, rtol=0, atol=1e-5)
    assert after.image_norm == pytest.approx(float(after.text_mean.norm()), rel=1e-3)


def test_a_projector_may_end_in_a_layer_norm():
    from types import SimpleNamespace

    from llava.model.multimodal_projector.builder import build_vision_projector, projector_shape

    config = SimpleNamespace(mm_projector_type="mlp2x_gelu_ln", mm_hidden_size=6, hidden_size=8)
    made = build_vision_projector(config)
    assert projector_shape(made.state_dict()) == ("mlp2x_gelu_ln", 6, 8)
    rows = made(torch.randn(2, 3, 6) * 50)
    torch.testing.assert_close(rows.std(-1, correction=0), torch.ones(2, 3), rtol=1e-3, atol=1e-3)
    plain = build_vision_projector(SimpleNamespace(**vars(config) | {"mm_projector_type": "mlp2x_gelu"}))
    assert projector_shape(plain.state_dict()) == ("mlp2x_gelu", 6, 8)
