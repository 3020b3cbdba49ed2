"""`measure_mir` beyond the hosts: depth and memory, layers that lean on each other, offloading, refusals."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from regap_patch.errors import MeasureError, UnknownHostError
from regap_patch.gap import COMPAT_IN_WORDS, combine, layer_term, reference_term
from regap_patch.measure import MirSettings, measure_gap, measure_mir, offload, streaming
from tests.contract.host_rows import HF_LLAVA
from tests.contract.host_samples import BOS, EOS, IMG
from tests.contract.stored_states import MEASURED, batches, stored
from tests.contract.tiny_hosts import llava_configs

NAMES = [f"picture {number} with story {number}" for number in range(6)]


def samples(count: int, seed: int = 0) -> list:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 14, (count,), generator=draw).tolist()
    return [
        ([BOS, IMG], [*torch.randint(10, 60, (length,), generator=draw).tolist(), EOS]) for length in lengths
    ]


def deep_llava(layers: int) -> nn.Module:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    configs = llava_configs()
    configs["text_config"].num_hidden_layers = layers
    return LlavaForConditionalGeneration(LlavaConfig(**configs)).eval()


@pytest.fixture(scope="module")
def model():
    return deep_llava(3)


@pytest.fixture(scope="module")
def pairs():
    return batches(HF_LLAVA, samples(6))


@pytest.fixture(scope="module")
def layers(model, pairs):
    return stored(HF_LLAVA, model, samples(6), pairs)


def test_a_curve_takes_the_first_pairs(model, pairs, layers):
    report = measure_mir(model, pairs, MirSettings(sizes=(2, 4), groups=3))
    assert sorted(report.curve) == [2, 4, 6]
    assert report.curve[6] is report.result
    for size in (2, 4):
        terms = [layer_term(image[:size], text[:size], errors=True) for image, text in layers]
        assert report.curve[size] == combine(terms[1:], layer_zero=terms[0])
    terms = [layer_term(image, text, errors=True, groups=3) for image, text in layers]
    assert report.result == combine(terms[1:], layer_zero=terms[0])
    assert report.result.corrected != report.result.value


def test_the_published_scripts_numbers_come_beside(model, pairs, layers):
    report = measure_mir(model, pairs, MirSettings(compat=tuple(COMPAT_IN_WORDS)))
    for mode in COMPAT_IN_WORDS:
        terms = [reference_term(image, text, mode) for image, text in layers]
        assert report.compat[mode].value == pytest.approx(combine(terms[1:]).value, nan_ok=True, rel=1e-5)
    with pytest.raises(MeasureError, match=r"\(mir-accurate\) was asked for, .* leave --compat out"):
        measure_mir(model, pairs, MirSettings(compat=("mir-accurate",), evaluation="streaming"))


def test_what_is_held_does_not_grow_with_depth(pairs):
    peaks, ratios = {}, {}
    for depth in (8, 32):
        memory = measure_mir(deep_llava(depth), pairs).memory
        peaks[depth] = memory["collector_peak"]
        ratios[depth] = memory["store_everything"] / memory["collector_peak"]
    print(f"\nheld: {peaks} bytes; storing everything: {ratios[8]:.1f} and {ratios[32]:.1f} times as much")
    assert peaks[32] == pytest.approx(peaks[8], rel=0.1)
    assert ratios[32] > 3.5 * ratios[8]


def test_flat_pictures_of_the_layers_asked_for(model, pairs, layers):
    report = measure_mir(model, pairs, MirSettings(project_layers=(0, -1)))
    assert [picture.layer for picture in report.projections] == [0, 3]
    image, text = (torch.cat(side) for side in layers[3])
    flat = torch.tensor(report.projections[1].image + report.projections[1].text)
    assert len(report.projections[1].image) == len(report.projections[1].text) == min(len(image), len(text))
    shown = torch.cat([image, text[torch.linspace(0, len(text) - 1, len(image)).round().long()]])
    assert len(image) <= len(text)
    centred = shown - shown.mean(0)
    leading = torch.linalg.eigvalsh(centred.t() @ centred).flip(0)
    assert (flat.t() @ flat).diagonal() == pytest.approx(leading[:2], rel=1e-3)
    assert report.projections[1].explained == pytest.approx((leading[:2] / leading.sum()).tolist(), abs=1e-3)
    with pytest.raises(MeasureError, match=r"Layer 4 was asked for, but there are 0 \(the input\) to 3"):
        measure_mir(model, pairs, MirSettings(project_layers=(4,)))


@pytest.fixture
def leaning(model):
    """Each layer adds what the one before left behind; `shared.far` throws one coordinate far out."""
    made = copy.deepcopy(model)
    decoder = made.model.language_model
    decoder.shared = shared = SimpleNamespace(left=None, far=0.0)

    def lean(inner, hidden_states, **kwargs):
        left, shared.left = shared.left, inner(hidden_states, **kwargs)
        found = shared.left if left is None else shared.left + 0.5 * left[:, -1:]
        return found * (1 + shared.far * (found == found.max()))

    for layer in decoder.layers:
        layer.forward = functools.partial(lean, layer.forward)
    decoder.register_forward_pre_hook(lambda module, args: setattr(shared, "left", None))
    return made


def test_layers_that_lean_on_each_other_are_streamed(leaning, pairs):
    expected = stored(HF_LLAVA, leaning, samples(6), pairs)
    terms = [layer_term(image, text) for image, text in expected]
    report = measure_mir(leaning, pairs, MirSettings(sizes=(4,), project_layers=(1,)))
    assert report.evaluation["mode"] == "streaming"
    assert "alone gives other bits than inside the model" in report.evaluation["why"]
    assert report.result.value == pytest.approx(combine(terms[1:]).value, abs=1e-6)
    assert [term.frechet for term in report.result.per_layer] == pytest.approx(
        [term.frechet for term in terms[1:]], rel=1e-5
    )
    four = [layer_term(image[:4], text[:4]) for image, text in expected]
    assert report.curve[4].value == pytest.approx(combine(four[1:]).value, abs=1e-6)
    assert [picture.layer for picture in report.projections] == [1]
    with pytest.raises(
        MeasureError, match="Layer by layer was asked for, but layer 1 alone gives other bits"
    ):
        measure_mir(leaning, pairs, MirSettings(evaluation="layer_major"))


def test_a_stream_that_missed_an_outlier_runs_the_layer_again(leaning, pairs, monkeypatch):
    monkeypatch.setattr(streaming, "HELD_BEYOND", float("inf"))
    leaning.model.language_model.shared.far = 400.0
    expected = stored(HF_LLAVA, leaning, samples(6), pairs)
    certificate = (report := measure_mir(leaning, pairs)).evaluation["certificate"]
    assert certificate["outliers_missed"] > 0
    assert certificate["layers_run_again"]
    for layer in certificate["layers_run_again"]:
        found = report.result.layer_zero if layer == 0 else report.result.per_layer[layer - 1]
        assert found.frechet == layer_term(*expected[layer]).frechet


def test_a_stream_draws_its_median_rows_by_the_seed(leaning, pairs, monkeypatch):
    monkeypatch.setattr(streaming, "RESERVOIR", 8)
    first, second = (measure_mir(leaning, pairs) for _ in range(2))
    assert first.evaluation["certificate"]["median"] == "of 8 rows drawn by the seed"
    assert first.result == second.result


def test_one_layer_at_a_time_is_brought_to_the_device(model, pairs, monkeypatch):
    inside, most = [], []
    move = offload._moved
    counts = {len(offload._tensors(layer)) for layer in model.model.language_model.layers}

    def watched(tensors, device):
        class Watched:
            def __enter__(self):
                self.inner = move(tensors, device)
                self.inner.__enter__()
                inside.append(len(tensors))
                most.append(sum(size in counts for size in inside))

            def __exit__(self, *error):
                inside.remove(len(tensors))
                self.inner.__exit__(*error)

        return Watched()

    monkeypatch.setattr(offload, "_moved", watched)
    weights = [parameter.data_ptr() for parameter in model.parameters()]
    report = measure_mir(model, pairs, MirSettings(offload="cpu"))
    monkeypatch.undo()
    assert report.result == measure_mir(model, pairs).result
    assert max(most) == 1
    assert len(most) > 2 * 3
    assert not inside
    assert [parameter.data_ptr() for parameter in model.parameters()] == weights
    streamed = measure_mir(model, pairs, MirSettings(offload="cpu", evaluation="streaming")).result
    assert streamed.value == pytest.approx(report.result.value, abs=1e-6)


def poisoned(model, number: int, value: float) -> nn.Module:
    """A copy whose layer 2 puts a value into a text row of one sample, known by its length."""
    made = copy.deepcopy(model)
    length = batches(HF_LLAVA, samples(6))[number]["input_ids"].shape[1]

    def poison(module, args, output):
        if output.shape[1] == length:
            output = output.clone()
            output[0, -1, 5] = value
        return output

    made.model.language_model.layers[1].register_forward_hook(poison)
    return made


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("evaluation", ["auto", "streaming"])
def test_what_is_not_finite_is_named_with_layer_and_pair(model, pairs, value: float, evaluation: str):
    lengths = [one["input_ids"].shape[1] for one in pairs]
    number = lengths.index(max(lengths))
    with pytest.raises(
        MeasureError, match=rf"text rows of layer 2 must be finite.*story {number}"
    ) as refused:
        measure_mir(poisoned(model, number, value), pairs, MirSettings(evaluation=evaluation), names=NAMES)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize(
    ("side", "path"),
    [("image", "model.multi_modal_projector"), ("text", "model.language_model.embed_tokens")],
)
def test_rows_that_are_all_the_same_have_no_distance(model, pairs, side: str, path: str):
    flat = copy.deepcopy(model)
    flat.get_submodule(path).register_forward_hook(
        lambda module, args, output: torch.ones_like(output) * (2 if side == "image" else 3)
    )
    with pytest.raises(MeasureError, match=f"The {side} rows of layer 0 are all the same"):
        measure_mir(flat, pairs)
    with pytest.raises(MeasureError, match=f"All .* {side} rows are the same"):
        measure_gap(flat, pairs)


def test_pairs_that_lack_a_side_are_refused(model, pairs):
    textless = HF_LLAVA.collate([([BOS, IMG], [])], 0)
    imageless = HF_LLAVA.collate([([BOS, 30], [40, EOS])], 0)
    both = HF_LLAVA.collate(MEASURED[:2], 0)
    for wrong, sentence in (
        (textless, "pair 1 has no text behind its image"),
        (imageless, "pair 1 showed the model no image"),
        (both, "pair 1 came as a batch of 2"),
    ):
        wrong.pop("labels")
        with pytest.raises(MeasureError, match=sentence):
            measure_mir(model, [pairs[0], wrong])
    with pytest.raises(MeasureError, match="MIR was asked of 1 pairs, but 1 were given: it takes at least 2"):
        measure_mir(model, pairs[:1])
    with pytest.raises(MeasureError, match="MIR was asked of 6, 9 pairs, but 6 were given"):
        measure_mir(model, pairs, MirSettings(sizes=(9,)))
    with pytest.raises(MeasureError, match="at least 2 pairs, but 1 were given"):
        measure_gap(model, pairs[:1])


def test_text_that_does_not_fit_is_refused(model, llava_model, tiny):
    from tests.contract.host_rows import LLAVA

    long = ([BOS, IMG], [40] * 260)
    with pytest.raises(MeasureError, match="pair 0 takes 265 positions, but the language model has 256"):
        measure_mir(model, batches(HF_LLAVA, [long, long]))
    cut = copy.deepcopy(llava_model)
    cut.config.tokenizer_model_max_length = 30
    with pytest.raises(MeasureError, match="pair 1 has 40 ids behind its image, but 13 of them reached"):
        measure_mir(cut, batches(LLAVA, [([BOS, IMG], [40, 41, 42]), ([BOS, IMG], [40] * 40)]))


def test_a_model_without_images_has_no_host(model, pairs):
    with pytest.raises(UnknownHostError, match=r"No known host fits .*LlamaModel"):
        measure_mir(model.model.language_model, pairs)
