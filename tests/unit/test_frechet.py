"""The Frechet distance against scipy and the singular values, regime by regime."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regap_patch.errors import ReGapError, RowsError
from regap_patch.gap.clouds import Cloud
from regap_patch.gap.frechet import frechet_distance, parts_of_clouds
from regap_patch.gap.pairwise import mean_pairwise_l2
from tests.unit import published_procedure

WIDTH = 64


def gaussian(count: int, seed: int, spectrum: Tensor | None = None, width: int = WIDTH) -> Tensor:
    """Rows (count, width) float64 with a turned spectrum of variances and a mean of its own."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    if spectrum is not None:
        rows = rows * spectrum.sqrt()
    return rows @ turn + 0.3 * torch.randn(width, generator=generator, dtype=torch.float64)


def falling(power: float) -> Tensor:
    return torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -power


def dominated(count: int, seed: int) -> Tensor:
    rows = gaussian(count, seed)
    rows[:, 5] *= 300
    return rows


def with_outliers(count: int, seed: int) -> Tensor:
    rows = gaussian(count, seed)
    rows[::97] *= 1000
    return rows


def low_rank(count: int, seed: int) -> Tensor:
    return gaussian(count, seed, (torch.arange(WIDTH) < WIDTH // 2).double())


REGIMES = {
    "full rank": (gaussian(500, 1), 1.5 * gaussian(400, 2)),
    "more rows than one block": (gaussian(4500, 1), gaussian(2100, 2)),
    "fewer rows than columns, first": (gaussian(40, 1), gaussian(400, 2)),
    "fewer rows than columns, second": (gaussian(400, 1), gaussian(30, 2)),
    "fewer rows than columns, both": (gaussian(40, 1), gaussian(30, 2)),
    "as many rows as columns": (gaussian(WIDTH, 1), gaussian(400, 2)),
    "one row more than columns": (gaussian(WIDTH + 1, 1), gaussian(WIDTH + 1, 2)),
    "one dominant coordinate": (dominated(500, 1), gaussian(400, 2)),
    "one dominant coordinate, both": (dominated(500, 1), dominated(400, 2)),
    "spectrum i^-2": (gaussian(500, 1, falling(2)), gaussian(400, 2, falling(2))),
    "spectrum i^-4": (gaussian(500, 1, falling(4)), gaussian(400, 2, falling(4))),
    "heavy outliers": (with_outliers(500, 1), with_outliers(400, 2)),
    "singular, first": (low_rank(500, 1), gaussian(400, 2)),
    "singular, second": (gaussian(500, 1), low_rank(400, 2)),
    "singular, both": (low_rank(500, 1), low_rank(400, 2)),
    "far from the origin": (gaussian(500, 1) + 1000, 2 * gaussian(400, 2) + 1001),
    "nearly the same": (gaussian(500, 1), gaussian(500, 1) + 1e-3 * gaussian(500, 2)),
    "two rows": (gaussian(2, 1), gaussian(400, 2)),
    "width 1": (gaussian(500, 1, width=1), 2 * gaussian(400, 2, width=1)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("regime", REGIMES)
def test_equals_scipy_or_the_singular_values(regime: str, dtype: torch.dtype):
    """To 1e-6, in whatever precision the rows come: the reference reads the same rounded rows."""
    x, y = (rows.to(dtype) for rows in REGIMES[regime])
    expected = published_procedure.frechet(x.double().numpy(), y.double().numpy())
    got = frechet_distance(x, y)
    assert got.dtype == torch.float64
    assert got.dim() == 0
    assert got.item() == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(y, x).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("regime", REGIMES)
def test_identical_sets(regime: str, dtype: torch.dtype):
    """Nothing is cut off at zero here: the spread part itself is that small."""
    rows = REGIMES[regime][0].to(dtype)
    parts, _ = parts_of_clouds(Cloud.of(rows), Cloud.of(rows.clone()))
    full_rank = len(rows) > 2 * rows.shape[1] and "singular" not in regime and "i^-4" not in regime
    assert parts.mean == 0
    assert abs(parts.spread) <= (1e-9 if full_rank else 1e-6) * parts.first_trace
    assert frechet_distance(rows, rows) >= 0


def test_routes_are_taken_where_they_are_said_to_be():
    expected = {
        "full rank": "cholesky",
        "fewer rows than columns, first": "rows",
        "fewer rows than columns, second": "rows",
        "fewer rows than columns, both": "rows x rows",
        "singular, both": "spectral",
        "singular, second": "cholesky",
    }
    for regime, route in expected.items():
        x, y = (Cloud.of(rows.float()) for rows in REGIMES[regime])
        assert parts_of_clouds(x, y)[0].coupling.route == route, regime


def test_float64_products_only_where_float32_do_not_resolve_the_answer():
    taken = {}
    for regime, (x, y) in REGIMES.items():
        parts, _ = parts_of_clouds(Cloud.of(x.float()), Cloud.of(y.float()))
        taken[regime] = parts.products
    assert taken["full rank"] == taken["one dominant coordinate"] == torch.float32
    assert taken["nearly the same"] == taken["spectrum i^-4"] == taken["singular, both"] == torch.float64


def test_where_samples_begin_changes_no_bit():
    x, y = (rows.float() for rows in REGIMES["more rows than one block"])
    split = list(x.split([1, 700, 3, 2000, 1796]))
    assert frechet_distance(split, y) == frechet_distance(x, y)
    assert frechet_distance(Cloud.split(x, [4499, 1]), y.split(50)) == frechet_distance(x, y)


def test_golden_numbers():
    """V[i, k] = 2 sin(1 + 3i + 7k) + k, T[j, k] = 0.5 cos(2 + 5j + 11k); worked out away from this code."""
    v = torch.tensor([[2 * math.sin(1 + 3 * i + 7 * k) + k for k in range(3)] for i in range(6)])
    t = torch.tensor([[0.5 * math.cos(2 + 5 * j + 11 * k) for k in range(3)] for j in range(5)])
    assert frechet_distance(v.double(), t.double()).item() == pytest.approx(12.657827, abs=6e-6)
    assert mean_pairwise_l2(v, t).item() == pytest.approx(3.185400, abs=6e-6)


def test_all_pairs_in_blocks():
    x, y = gaussian(2100, 1, width=3) + 100, gaussian(50, 2, width=3) + 100
    expected = sum(float((row - y).norm(dim=1).sum()) for row in x) / (2100 * 50)
    assert mean_pairwise_l2(x, y).item() == pytest.approx(expected, rel=1e-12)
    assert mean_pairwise_l2(x.float(), list(y.float().split(7))).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(RowsError, match="one width, but they are 3 and 2"):
        mean_pairwise_l2(x, y[:, :2])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    counts=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    width=st.integers(1, 12),
    scale=st.floats(0.01, 100),
)
def test_invariances(seed: int, counts: tuple[int, int], width: int, scale: float):
    """Turning and moving both clouds changes nothing; scaling both multiplies by the square."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(count, width, generator=generator, dtype=torch.float64) for count in counts)
    y = 2 * y + 0.5
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    distance = frechet_distance(x, y).item()
    assert distance >= 0
    close = {"rel": 1e-7, "abs": 1e-9}
    assert frechet_distance(y, x).item() == pytest.approx(distance, **close)
    assert frechet_distance(x @ turn + 3, y @ turn + 3).item() == pytest.approx(distance, **close)
    assert frechet_distance(x * scale, y * scale).item() == pytest.approx(distance * scale**2, **close)
    order = torch.randperm(counts[0], generator=generator)
    assert frechet_distance(x[order], y).item() == pytest.approx(distance, **close)
    moved = frechet_distance(x, x + 2.0).item()
    assert moved == pytest.approx(4.0 * width, rel=1e-7), "a shift alone is its squared length"


def test_no_setting_of_the_process_reaches_the_products():
    """Reduced float32 precision and autocast around the call, and neither left changed by it."""
    x, y = (rows.float() for rows in REGIMES["full rank"])
    expected = frechet_distance(x, y)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert frechet_distance(x, y) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_graph_and_no_change_of_the_rows():
    x, y = (rows.clone().requires_grad_() for rows in REGIMES["heavy outliers"])
    kept = x.detach().clone()
    assert not frechet_distance(x, y).requires_grad
    assert torch.equal(x, kept)


BAD = {
    "one row": (torch.ones(1, 3), r"two rows of x or more, but there is 1"),
    "no rows": (torch.ones(0, 3), r"two rows of x or more, but there is 0"),
    "no samples": ([], r"rows of x, but there are none"),
    "one axis": (torch.ones(3), r"floating \(n, D\) of one width, but are \(3,\)"),
    "integers": (torch.ones(3, 3, dtype=torch.int64), r"int64"),
    "an empty sample": ([torch.rand(3, 3), torch.ones(0, 3)], r"of sample 1 are none"),
    "two widths in a cloud": ([torch.rand(3, 3), torch.rand(3, 2)], r"of sample 1 must be .* \(3, 2\)"),
    "two widths": (torch.rand(3, 2), r"rows of x are 2 wide and the rows of y 3"),
    "all the same": (torch.full((5, 3), 0.1), r"rows of x are all the same \(5 rows, zero covariance\)"),
    "all the same, few": (torch.full((2, 3), 0.1), r"all the same"),
    "all zero": (torch.zeros(5, 3), r"all the same"),
    "NaN": (torch.tensor([[1.0, 2, 3], [1, float("nan"), 1]]), r"row 1 holds NaN or infinity \(1 rows"),
    "infinity": ([torch.rand(3, 3), torch.full((2, 3), float("inf"))], r"sample 1, row 0 holds NaN or inf"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_in_one_sentence(case: str):
    rows, message = BAD[case]
    good = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RowsError, match=message) as caught:
        frechet_distance(rows, good)
    assert isinstance(caught.value, ReGapError)
    assert caught.value.sample == (1 if "sample 1" in str(caught.value) else None)
    with pytest.raises(RowsError, match=r"The lengths add up to 5, but there are 6 rows"):
        Cloud.split(good, [2, 3])


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_squares_beyond_the_range_of_float32(size: float):
    """Neither infinite nor all the same: they are multiplied in float64."""
    x, y = ((rows * size).to(torch.bfloat16) for rows in REGIMES["full rank"])
    expected = published_procedure.frechet(x.double().numpy() / size, y.double().numpy() / size)
    assert frechet_distance(x, y).item() == pytest.approx(expected * size**2, rel=1e-6)


def test_a_coordinate_without_spread():
    """A dead dimension in one cloud or in both is no reason for NaN."""
    x, y = (rows.float().clone() for rows in REGIMES["full rank"])
    for dead in ((x,), (x, y)):
        for rows in dead:
            rows[:, 7] = 0.25
        expected = published_procedure.frechet(x.double().numpy(), y.double().numpy())
        assert frechet_distance(x, y).item() == pytest.approx(expected, rel=1e-6)
