"""A term and MIR against the published procedure in float64, the script's modes against its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regap_patch.errors import ConfigError, RowsError
from regap_patch.gap import reference_script
from regap_patch.gap.clouds import Cloud
from regap_patch.gap.curve import pairs_curve
from regap_patch.gap.integration_rate import combine, mir
from regap_patch.gap.layer import layer_term, term_from_moments
from regap_patch.gap.moments import MomentSums
from regap_patch.gap.outliers import find_replacement, lower_median, outlier_mask
from regap_patch.gap.reference_script import COMPAT_IN_WORDS, reference_term
from tests.unit import published_procedure

Samples = list[Tensor]


def layer_rows(
    seed: int, *, pairs: int = 40, width: int = 24, power: float = 0.5, dtype: torch.dtype = torch.float32
) -> tuple[Samples, Samples]:
    """Ragged rows of some pairs: image rows larger than text rows, some of either far out."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int, size: float) -> Tensor:
        spectrum = torch.arange(1, width + 1) ** -power
        return size * (torch.randn(count, width, generator=generator) * spectrum + 0.4)

    image = [rows(9 + i % 4, 5.0) for i in range(pairs)]
    text = [rows(6 + i % 5, 1.0) for i in range(pairs)]
    image[3][2] *= 60
    image[7][0] *= 25
    text[11][4] *= 90
    return [sample.to(dtype) for sample in image], [sample.to(dtype) for sample in text]


def golden_rows() -> tuple[Tensor, Tensor]:
    v = [[2 * math.sin(1 + 3 * i + 7 * k) + k for k in range(3)] for i in range(6)]
    t = [[0.5 * math.cos(2 + 5 * j + 11 * k) for k in range(3)] for j in range(5)]
    return torch.tensor(v, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)


CASES = {
    "plain": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "float64": {"dtype": torch.float64},
    "steep": {"power": 1.5},
    "fewer rows than columns": {"pairs": 12, "width": 150},
    "fewer text rows than columns": {"pairs": 14, "width": 130},
    "width 1": {"width": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_term_equals_the_published_procedure(case: str):
    image, text = layer_rows(0, **CASES[case])
    assert layer_term(image, text).frechet == pytest.approx(published_procedure.layer(image, text), rel=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_mir_equals_the_published_procedure(case: str):
    """To 1e-6 in MIR, over layers of different sizes and norms; layer 0 stays out of the sum."""
    layers = [layer_rows(seed, **CASES[case]) for seed in range(4)]
    layers = [([s * 2.0**k for s in image], text) for k, (image, text) in enumerate(layers)]
    expected = [published_procedure.layer(image, text) for image, text in layers]
    result = mir(iter(layers[1:]), layer_zero=layers[0], errors=False)
    assert result.value == pytest.approx(math.log10(sum(expected[1:])), abs=1e-6)
    assert [term.frechet for term in result.per_layer] == pytest.approx(expected[1:], rel=2e-6)
    assert result.layer_zero is not None
    assert result.layer_zero.frechet == pytest.approx(expected[0], rel=2e-6)
    assert result.stderr is None
    assert result.interval() is None


def test_golden_numbers():
    """Worked out away from this code; no row is an outlier under either median."""
    image, text = golden_rows()
    term = layer_term(image, text)
    assert term.scale == pytest.approx(1.640561, abs=6e-7)
    assert term.mean_part == pytest.approx(12.810371, abs=6e-6)
    assert term.image_trace == pytest.approx(25.996044, abs=6e-6)
    assert term.text_trace == pytest.approx(1.265921, abs=6e-7)
    assert term.cross == pytest.approx(3.002269, abs=6e-7)
    assert term.frechet == pytest.approx(34.067797, abs=6e-6)
    assert term.centroid_l2 == pytest.approx(2.181667, abs=6e-7)
    assert term.pairwise_sq == pytest.approx(13.184935, abs=6e-6)
    assert (term.image_outliers, term.text_outliers) == (0, 0)
    assert reference_term(image, text, "mir-accurate").frechet == pytest.approx(34.067797, rel=1e-4)


def test_golden_fixed_point_of_the_fast_mode(monkeypatch: pytest.MonkeyPatch):
    """These six rows have rank 2, so round-off drifts off the fixed point, and the term is flagged."""
    image, text = golden_rows()
    drifted = reference_term(image, text, "mir-fast-defect")
    assert drifted.flags == ("ill_conditioned",)
    monkeypatch.setattr(reference_script, "STEPS", 0)
    fixed = reference_term(image, text, "mir-fast-defect")
    assert fixed.cross == pytest.approx(5.839340, rel=1e-6)
    assert fixed.frechet == pytest.approx(28.393656, rel=1e-6)
    assert drifted.cross != pytest.approx(fixed.cross, rel=0.1)


def test_what_a_term_says_beside_its_number():
    image, text = layer_rows(0)
    v, t = torch.cat(image).double(), torch.cat(text).double()
    term = layer_term(image, text)
    assert term.image_norm == pytest.approx(float(v.norm(dim=1).mean()), rel=1e-7)
    assert term.norm_ratio == pytest.approx(float(v.norm(dim=1).mean() / t.norm(dim=1).mean()), rel=1e-7)
    assert (term.image_rows, term.text_rows, term.width) == (len(v), len(t), 24)
    assert term.image_outliers >= 2
    assert term.text_outliers >= 1
    v, t = (torch.from_numpy(rows) / term.scale for rows in published_procedure.prepared(image, text))
    assert term.centroid_l2 == pytest.approx(float((v.mean(0) - t.mean(0)).norm()), rel=1e-6)
    cosine = torch.nn.functional.cosine_similarity(v.mean(0), t.mean(0), dim=0)
    assert term.cosine == pytest.approx(float(cosine), rel=1e-6)
    assert term.pairwise_sq == pytest.approx(float(torch.cdist(v, t).square().mean()), rel=1e-6)
    assert term.frechet == pytest.approx(term.mean_part + term.trace_part)
    assert term.flags == ()
    few = layer_term(*layer_rows(0, pairs=12, width=150), errors=True)
    assert few.flags == ("fewer_rows_than_width", "fewer_pairs_than_width")


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65])
def test_the_median_is_the_lower_one(count: int):
    rows = torch.randn(count + 1, 130, generator=torch.Generator().manual_seed(count))
    expected = rows.sort(dim=0).values[count // 2].double()
    assert torch.equal(lower_median(Cloud.of(list(rows.split(1)))), expected)


def test_the_outlier_rule_on_a_worked_example():
    """Norms 1 (nine times) and 2: lower median 1, unbiased deviation 0.316, so 2 is beyond three of them."""
    norms = torch.tensor([1.0] * 9 + [2.0], dtype=torch.float64)
    assert outlier_mask(norms * (1 + 1e-9)).tolist() == [False] * 9 + [True]
    assert not outlier_mask(torch.tensor([1.0] * 8 + [2.0])).any(), "eight: 1 is within 3 x 0.333"
    rows = torch.zeros(10, 2)
    rows[:, 0] = norms
    found = find_replacement(Cloud.of(rows), norms)
    assert (found.count, found.row.tolist()) == (1, [1.0, 0.0])


@pytest.mark.parametrize("products", [torch.float32, torch.float64], ids=str)
def test_a_stream_feeds_the_same_formula(products: torch.dtype):
    """Rows in uneven pieces, outliers kept out and their stand-in added at the end."""
    image, text = layer_rows(0)
    stored = layer_term(image, text)
    moments, norms = [], []
    for samples in (image, text):
        cloud = Cloud.of(samples)
        replacement = find_replacement(cloud, cloud.row_norms())
        sums = MomentSums(cloud.width, products=products)
        start = 0
        for sample in samples:
            sums.add(sample, ~replacement.mask[start : start + len(sample)])
            start += len(sample)
        sums.add_copies(replacement.row, replacement.count)
        moments.append(sums.moments())
        norms.append(float(cloud.row_norms().mean()))
    outliers = (stored.image_outliers, stored.text_outliers)
    term = term_from_moments(*moments, image_norm=norms[0], text_norm=norms[1], outliers=outliers)
    assert term.frechet == pytest.approx(stored.frechet, rel=1e-6)
    assert term.products == str(products).removeprefix("torch.")
    assert term.flags == ()


def test_a_stream_that_float32_does_not_resolve_is_flagged():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 12, generator=generator) @ torch.randn(12, 24, generator=generator)
    terms = []
    for products in (torch.float32, torch.float64):
        sums = MomentSums(24, products=products)
        sums.add(rows)
        other = MomentSums(24, products=products)
        other.add(torch.randn(300, 24, generator=torch.Generator().manual_seed(1)))
        terms.append(term_from_moments(sums.moments(), other.moments(), image_norm=5.0, text_norm=5.0))
    assert terms[0].flags == ("ill_conditioned",)
    assert terms[1].flags == ()


class Largest(TorchDispatchMode):
    """The largest tensor, in bytes, that any operation makes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        given = {x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)}
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, made.nbytes)
        return result


def test_no_copy_of_the_cloud():
    """Beside the rows: a block, some columns, and (D, D) in float64, whatever the number of rows."""
    generator = torch.Generator().manual_seed(0)
    image = [torch.randn(500, 256, generator=generator).bfloat16() for _ in range(24)]
    text = [torch.randn(500, 256, generator=generator).bfloat16() + 0.5 for _ in range(24)]
    image[0][0] *= 100
    with Largest() as largest:
        assert layer_term(image, text, errors=True, groups=2).image_outliers
    cloud = 24 * 500 * 256 * 2
    assert 256 * 256 * 8 <= largest.bytes <= cloud / 2, largest.bytes


def test_samples_and_one_tensor_agree_in_every_bit():
    image, text = layer_rows(0)
    assert layer_term(torch.cat(image), torch.cat(text)) == layer_term(image, text)


def test_a_curve_is_the_term_of_the_first_pairs():
    image, text = layer_rows(0)
    curve = pairs_curve(image, text, [40, 10, 20])
    assert list(curve) == [10, 20, 40]
    assert curve[20].frechet == layer_term(image[:20], text[:20]).frechet
    assert [combine([term]).pairs for term in curve.values()] == [10, 20, 40]
    with pytest.raises(RowsError, match="asked at 41 pairs, but there are 40"):
        pairs_curve(image, text, [41])


# --- the released script's modes ---


@pytest.mark.parametrize("mode", COMPAT_IN_WORDS)
@pytest.mark.parametrize("width", [8, 32, 96])
@pytest.mark.parametrize("power", [0.0, 0.2])
def test_the_scripts_numbers_where_they_are_determined(mode: str, width: int, power: float):
    image, text = layer_rows(1, pairs=80, width=width, power=power)
    v, t = torch.cat(image), torch.cat(text)
    term = reference_term(image, text, mode)
    assert term.frechet == pytest.approx(published_procedure.script(v, t, mode), rel=1e-5)
    assert term.flags == ()
    assert term.route == mode


def test_the_fast_mode_is_not_the_distance():
    image, text = layer_rows(1, pairs=80, power=0.0)
    exact = layer_term(image, text).frechet
    assert reference_term(image, text, "mir-accurate").frechet == pytest.approx(exact, rel=1e-5)
    assert abs(reference_term(image, text, "mir-fast-defect").frechet / exact - 1) > 0.01


@pytest.mark.parametrize("mode", COMPAT_IN_WORDS)
@pytest.mark.parametrize(
    ("pairs", "width", "power"),
    [(40, 24, 2.0), (12, 24, 0.0), (12, 150, 0.0)],
    ids=["steep", "n < 4d", "n < d"],
)
def test_elsewhere_they_are_flagged(mode: str, pairs: int, width: int, power: float):
    image, text = layer_rows(1, pairs=pairs, width=width, power=power)
    assert "ill_conditioned" in reference_term(image, text, mode).flags


def test_a_sum_that_is_not_positive_has_no_logarithm():
    """Large variances make tr A outweigh everything in the script's default mode."""
    generator = torch.Generator().manual_seed(0)
    image = 30 * torch.randn(200, 2, generator=generator)
    text = torch.randn(200, 2, generator=generator)
    term = reference_term(image, text, "mir-fast-defect")
    assert term.frechet < 0
    result = combine([term, term])
    assert math.isnan(result.value)
    assert "has no logarithm; not positive: layers [1, 2]" in result.reason
    assert combine([layer_term(image, text)]).reason == ""


# --- what is refused ---


def test_bad_rows_are_refused_with_their_layer():
    good = layer_rows(0)
    bad = layer_rows(1)
    bad[1][5][2, 0] = float("nan")
    with pytest.raises(
        RowsError, match=r"text rows of layer 2 must be finite, but sample 5, row 2"
    ) as caught:
        mir([good, bad])
    assert caught.value.sample == 5
    with pytest.raises(RowsError, match=r"image rows of layer 1 of sample 1 are none"):
        mir([([good[0][0], good[0][0][:0]], good[1][:2])])
    with pytest.raises(RowsError, match="image rows of layer 0 are all the same"):
        mir([good], layer_zero=([torch.ones(3, 24)] * 40, good[1]))
    with pytest.raises(RowsError, match=r"text rows set the scale, but all of them are zero|all the same"):
        mir([(good[0], [torch.zeros(3, 24)] * 40)])
    with pytest.raises(RowsError, match="MIR was asked of no layers"):
        mir([])


def test_bad_requests_are_refused():
    image, text = layer_rows(0)
    for wrong in ((image, text[:-1]), (torch.cat(image), text), (image[:1], text[:1])):
        with pytest.raises(RowsError, match="An error bar over pairs needs the rows of each sample"):
            layer_term(*wrong, errors=True)
    for groups in (1, 41):
        with pytest.raises(RowsError, match=f"needs 2 to 40 groups of 40 pairs, not {groups}"):
            layer_term(image, text, groups=groups)
    with pytest.raises(ConfigError, match="'mir-exact' is not known: choose one of mir-accurate, mir-fast"):
        reference_term(image, text, "mir-exact")
    with pytest.raises(
        RowsError, match=r"All layers must see the same pairs, but their numbers are \[20, 40\]"
    ):
        mir([(image, text), (image[:20], text[:20])])
