"""Error bars over pairs: influences against autograd, coverage of the population's value, bias, and cost."""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from regap_patch.errors import RowsError
from regap_patch.gap.integration_rate import MirResult, combine, mir, mir_difference, standard_error
from regap_patch.gap.layer import layer_term
from regap_patch.gap.outliers import outlier_mask

Samples = list[Tensor]


def ragged(seed: int, pairs: int, width: int, *, rank: int | None = None) -> tuple[Samples, Samples]:
    """Rows of float64 that share something within each pair."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.randn(rank or width, width, generator=generator, dtype=torch.float64)

    def rows(count: int, size: float) -> Tensor:
        own = torch.randn(1, rank or width, generator=generator, dtype=torch.float64)
        each = torch.randn(count, rank or width, generator=generator, dtype=torch.float64)
        return size * ((own + each) @ turn / width**0.5 + 1.0)

    return [rows(4 + i % 4, 3.0) for i in range(pairs)], [rows(3 + i % 3, 1.0) for i in range(pairs)]


def weighted_term(weights: Tensor, image: Samples, text: Samples) -> Tensor:
    """s^2 F where pair i counts `weights[i]` times: what the influence is the derivative of."""

    def cloud(samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.cat(samples)
        each = torch.repeat_interleave(weights, torch.tensor([len(sample) for sample in samples]))
        norms = rows.norm(dim=1)
        far = outlier_mask(norms)
        rows = torch.where(far[:, None], rows.sort(dim=0).values[(len(rows) - 1) // 2], rows)
        mean = (each[:, None] * rows).sum(0) / each.sum()
        factor = (rows - mean) * (each / each.sum() * len(rows) / (len(rows) - 1)).sqrt()[:, None]
        return mean, factor, (each * norms).sum() / each.sum()

    image_mean, image_factor, _ = cloud(image)
    text_mean, text_factor, norm = cloud(text)
    left, values, right = torch.linalg.svd(image_factor @ text_factor.T, full_matrices=False)
    rank = int((values > 1e-10 * values[0]).sum())
    left, right = left[:, :rank].detach(), right[:rank].detach()  # the gradient of a nuclear norm
    cross = (left * (image_factor @ text_factor.T @ right.T)).sum()
    spread = image_factor.square().sum() + text_factor.square().sum() - 2 * cross
    return ((image_mean - text_mean).square().sum() + spread) / norm**2


CASES = {
    "cholesky": {"pairs": 12, "width": 6},
    "spectral": {"pairs": 20, "width": 12, "rank": 7},
    "rows": {"pairs": 12, "width": 55},
    "rows x rows": {"pairs": 5, "width": 40},
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_influence_is_the_derivative(case: str, swapped: bool):
    """On every route, with ragged pairs and an outlier on either side."""
    image, text = ragged(1, **CASES[case])
    if swapped:
        image, text = text, image
    image[2][1] *= 30
    text[3][0] *= 30
    weights = torch.ones(len(image), dtype=torch.float64, requires_grad=True)
    weighted = weighted_term(weights, image, text)
    (slope,) = torch.autograd.grad(weighted, weights)
    expected = (slope - slope.mean()) * len(image)

    term = layer_term(image, text, errors=True)
    assert term.route == case
    assert term.image_outliers >= 1
    assert term.text_outliers >= 1
    assert term.frechet == pytest.approx(weighted.item(), rel=1e-6)
    assert term.influence is not None
    assert abs(term.influence.mean()) < 1e-9 * term.influence.abs().max()
    # The weights' derivative divides by N, the covariance by N - 1.
    torch.testing.assert_close(
        term.influence, expected, rtol=0.04, atol=0.04 * float(expected.abs().max()), check_dtype=True
    )
    correlation = torch.corrcoef(torch.stack([term.influence, expected]))[0, 1]
    assert correlation > 0.9995


def test_influences_are_added_over_layers_before_their_spread_is_taken():
    """A second layer that repeats the first doubles the sum and leaves the relative error as it is."""
    image, text = ragged(1, 40, 6)
    once = mir([(image, text)])
    twice = mir([(image, text), (image, text)])
    assert twice.value == pytest.approx(once.value + math.log10(2))
    assert once.stderr == pytest.approx(twice.stderr)
    term = once.per_layer[0]
    assert term.influence is not None
    spread = float(term.influence.std()) / math.sqrt(40) / (math.log(10) * term.frechet)
    assert once.stderr == pytest.approx(spread)
    assert once.pairs == 40


def test_the_jackknife_is_the_textbooks():
    """G MIR - (G - 1) mean of MIR without each group, all taken from scratch; no outliers to hold fixed."""
    layers = [ragged(seed, 23, 6) for seed in (1, 2)]
    layers = [([s.clamp(-9, 9) for s in image], [s.clamp(-3, 3) for s in text]) for image, text in layers]
    got = mir(layers, groups=5)
    assert all(term.image_outliers == term.text_outliers == 0 for term in got.per_layer)
    without = []
    for group in range(5):
        rest = [i for i in range(23) if i % 5 != group]
        without.append(mir([([v[i] for i in rest], [t[i] for i in rest]) for v, t in layers]).value)
    assert got.corrected == pytest.approx(5 * got.value - 4 * sum(without) / 5, abs=1e-9)
    assert mir(layers).corrected is None
    single = mir(layers, groups=23)
    assert single.corrected == pytest.approx(got.corrected, abs=got.stderr)


@pytest.mark.parametrize("case", ["rows", "rows x rows", "spectral"])
def test_the_jackknife_on_every_route(case: str):
    """Against the rest alone; none of these rows is an outlier, in all of them or in the rest."""
    image, text = ragged(7 if case == "spectral" else 3, **CASES[case])
    term = layer_term(image, text, groups=len(image))
    for left in (0, 3):
        rest = [i for i in range(len(image)) if i != left]
        alone = layer_term([image[i] for i in rest], [text[i] for i in rest])
        outliers = (term.image_outliers, term.text_outliers, alone.image_outliers, alone.text_outliers)
        assert outliers == (0, 0, 0, 0)
        assert term.without_group[left] == pytest.approx(alone.frechet, rel=1e-6)


def test_a_jackknife_that_leaves_one_row_is_refused():
    image, text = [torch.randn(1, 3) for _ in range(2)], [torch.randn(2, 3) for _ in range(2)]
    with pytest.raises(RowsError, match="leaves 1 of the image rows of layer 1 when a group is out"):
        mir([(image, text)], groups=2)


# --- against a population that is known ---


@pytest.fixture(scope="module")
def population() -> ModuleType:
    """The script that prints the table of coverages, in which the population is described."""
    path = Path(__file__).parents[2] / "scripts" / "bench" / "mir_coverage.py"
    spec = importlib.util.spec_from_file_location("mir_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mir_coverage"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.full
def test_coverage_of_the_population(population: ModuleType):
    """200 repetitions at 6 pairs for each dimension: intervals hold the value that 20 000 pairs give."""
    found = population.coverage(12, 72, repetitions=200)
    print(found)
    assert 0.90 <= found.coverage <= 0.99
    assert found.mean_stderr == pytest.approx(found.deviation, rel=0.2)
    assert found.bias > 0.4 * found.mean_stderr, "without the correction"
    assert abs(found.bias_corrected) < 0.3 * found.mean_stderr


def test_a_paired_difference_is_surer_than_its_parts():
    """Two states of a model on the same pairs: what the pairs do to both cancels."""
    generator = torch.Generator().manual_seed(3)
    found, apart = [], []
    for _ in range(80):
        shared = torch.randn(2, 60, 1, 8, generator=generator)
        image, text = (
            3 * (torch.randn(60, 9, 8, generator=generator) + shared[0]),
            torch.randn(60, 7, 8, generator=generator) + shared[1] + 1.0,
        )
        first = mir([(list(image), list(text))])
        second = mir([(list(0.9 * image - 0.3), list(text))])
        found.append(mir_difference(first, second))
        apart.append(math.hypot(first.stderr, second.stderr))
        low, high = found[-1].interval()
        assert low < found[-1].value == second.value - first.value < high
    spread = float(torch.tensor([each.value for each in found]).std())
    claimed = sum(each.stderr for each in found) / len(found)
    print(f"deviation {spread:.5f}, claimed {claimed:.5f}; unpaired {sum(apart) / len(apart):.5f}")
    assert claimed == pytest.approx(spread, rel=0.25)
    assert claimed < 0.4 * sum(apart) / len(apart)


def test_a_difference_is_corrected_where_both_are():
    one, other = [ragged(1, 20, 6)], [ragged(2, 20, 6)]
    first, second = mir(one, groups=4), mir(other, groups=4)
    assert mir_difference(first, second).value == second.corrected - first.corrected
    assert mir_difference(first, mir(other)).value == second.value - first.value
    assert mir_difference(first, second).pairs == 20


def test_differences_that_mean_nothing_are_refused():
    layers = [ragged(1, 20, 6)]
    whole, without = mir(layers), mir(layers, errors=False)
    with pytest.raises(RowsError, match="needs the influence of each pair"):
        mir_difference(whole, without)
    with pytest.raises(RowsError, match="needs the same pairs, but there are 20 and 12"):
        mir_difference(whole, mir([ragged(1, 12, 6)]))


def test_a_result_from_numbers_alone():
    """What a file holds is enough to compare: values and influences."""
    influence = torch.tensor([0.1, -0.2, 0.1], dtype=torch.float64)
    first = MirResult(1.0, (), stderr=standard_error(influence), pairs=3, influence=influence)
    second = MirResult(1.5, (), stderr=standard_error(influence), pairs=3, influence=influence)
    difference = mir_difference(first, second)
    assert difference.value == 0.5
    assert difference.stderr == 0.0
    assert first.interval(0.95)[1] == pytest.approx(1.0 + 1.959964 * first.stderr)


def test_terms_without_influence_give_no_error_bar():
    image, text = ragged(1, 20, 6)
    mixed = combine([layer_term(image, text, errors=True), layer_term(image, text)])
    assert mixed.stderr is None
    assert mixed.influence is None


def test_an_error_bar_costs_less_than_four_terms():
    """CPU time, the best of five turns taken one after the other in one run."""
    generator = torch.Generator().manual_seed(0)
    image = [torch.randn(64, 384, generator=generator) * 2 for _ in range(50)]
    text = [torch.randn(64, 384, generator=generator) + 0.5 for _ in range(50)]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(5):
        for errors, taken in seconds.items():
            start = time.process_time()
            layer_term(image, text, errors=errors)
            taken.append(time.process_time() - start)
    ratio = min(seconds[True]) / min(seconds[False])
    print(f"with error bar / without: {ratio:.2f}")
    assert ratio < 4
