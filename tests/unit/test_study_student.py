"""Student's t and correlations within clusters, against scipy, published numbers and simulation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from regap_patch.errors import StudyError
from regap_patch.study.clustered import correlation_between, correlation_within
from regap_patch.study.student import (
    mean_of,
    noncentral_t_cdf,
    power_of,
    smallest_mean,
    t_quantile,
    t_tail,
    units_needed,
)

DEGREES = st.one_of(st.integers(1, 200), st.sampled_from([1000, 10_000]))


@settings(max_examples=80, deadline=None)
@given(DEGREES, st.floats(0.001, 0.999))
def test_quantiles_are_scipys(df: int, share: float):
    assert t_quantile(share, df) == pytest.approx(stats.t.ppf(share, df), rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(DEGREES, st.floats(-60, 60))
def test_tails_are_scipys(df: int, t: float):
    assert t_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-9, abs=1e-300)


def by_quadrature(t: float, df: int, shift: float) -> float:
    """By the definition, as scipy's own function has no number in far tails."""
    root = stats.chi(df, scale=df**-0.5)
    turn = min(max(shift / t, 0.0), 60.0) if t else 0.0
    edges = sorted(
        {0.0, *(min(max(turn + part / max(abs(t), 1), 0.0), 60.0) for part in (-8, 0, 8)), 0.5, 1, 2, 5, 60}
    )
    found = [
        integrate.quad(lambda w: stats.norm.cdf(t * w - shift) * root.pdf(w), *ends, epsabs=1e-12, limit=200)[
            0
        ]
        for ends in pairwise(edges)
    ]
    return sum(found)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(-12, 12), st.floats(-40, 40))
def test_the_noncentral_distribution_is_scipys(df: int, shift: float, t: float):
    found, expected = noncentral_t_cdf(t, df, shift), stats.nct.cdf(t, df, shift)
    assert found == pytest.approx(by_quadrature(t, df, shift) if np.isnan(expected) else expected, abs=1e-9)


@pytest.mark.parametrize("df", [1, 2, 9, 60])
def test_the_noncentral_distribution_is_its_definition(df: int):
    for shift in (-45.0, -9.0, -0.3, 1e-200, 2.8, 8.0, 30.0):
        for t in (-20.0, -2.0, 0.0, 0.5, 2.26, 12.7):
            assert noncentral_t_cdf(t, df, shift) == pytest.approx(by_quadrature(t, df, shift), abs=1e-9)


def test_a_shift_beyond_what_doubles_can_exponentiate():
    """exp(-shift**2 / 2) is 0 from 39 on; scipy's limit is the normal one here."""
    assert noncentral_t_cdf(60.0, 5000, 60.0) == pytest.approx(0.5, abs=0.01)
    assert noncentral_t_cdf(2.0, 9, 60.0) == pytest.approx(0.0, abs=1e-12)
    assert power_of(10, 0.001, 0.05) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.sampled_from([0.8, 0.95, 0.99]))
def test_means_are_scipys(values: list[float], level: float):
    found = mean_of(values, level)
    if np.std(values) < 1e-6:
        assert found.low == pytest.approx(found.high, abs=1e-4)
        return
    tested = stats.ttest_1samp(values, 0.0)
    assert (found.low, found.high) == pytest.approx(tuple(tested.confidence_interval(level)), abs=1e-9)
    assert found.p == pytest.approx(tested.pvalue, abs=1e-9)


def test_means_at_the_border():
    one = mean_of([0.3])
    assert (one.n, one.mean, one.sd, one.low, one.high, one.p) == (1, 0.3, None, None, None, None)
    same = mean_of([0.25, 0.25, 0.25])
    assert (same.low, same.high, same.p) == (0.25, 0.25, 0.0)
    assert mean_of([0.0, 0.0]).p == 1.0
    for values in ([], [0.1, float("nan")]):
        with pytest.raises(StudyError, match="give at least one"):
            mean_of(values)


def by_scipy(n: int, sd: float, effect: float, level: float = 0.95) -> float:
    edge, shift = stats.t.ppf(0.5 + level / 2, n - 1), abs(effect) / sd * np.sqrt(n)
    return 1 - by_quadrature(edge, n - 1, shift) + by_quadrature(-edge, n - 1, shift)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.floats(0.02, 0.4), st.floats(-0.3, 0.3))
def test_power_is_that_of_the_noncentral_t(n: int, sd: float, effect: float):
    assert power_of(n, sd, effect) == pytest.approx(by_scipy(n, sd, effect), abs=1e-9)


def test_units_are_the_fewest_that_do():
    """34 for d = 0.5, 199 for d = 0.2 and 15 for d = 0.8: Cohen's sizes, as G*Power gives them."""
    for effect, published in ((0.5, 34), (0.2, 199), (0.8, 15)):
        assert units_needed(1.0, effect) == units_needed(1.0, -effect) == published
        assert by_scipy(published, 1.0, effect) >= 0.8 > by_scipy(published - 1, 1.0, effect)
    assert units_needed(1e-6, 0.05) == 2
    assert power_of(12, 0.1, smallest_mean(12, 0.1)) == pytest.approx(0.8, abs=1e-9)
    for sd, effect, power in ((0.1, 0.0, 0.8), (0.1, 0.05, 1.0), (10.0, 0.001, 0.8)):
        with pytest.raises(StudyError):
            units_needed(sd, effect, power=power)
    with pytest.raises(StudyError, match="n > 1"):
        power_of(1, 0.1, 0.05)


def test_a_correlation_within_is_that_of_what_is_left_without_the_clusters_means():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(9, 5)) + 100 * generator.normal(size=(9, 1))
    y = 0.4 * x + generator.normal(size=(9, 5)) - 80 * generator.normal(size=(9, 1))
    found = correlation_within({row: list(zip(x[row], y[row], strict=True)) for row in range(9)})
    left = [values - values.mean(axis=1, keepdims=True) for values in (x, y)]
    assert found.r == pytest.approx(stats.pearsonr(left[0].ravel(), left[1].ravel()).statistic, abs=1e-9)
    assert (found.clusters, found.members) == (9, 45)
    assert found.low < found.r < found.high
    assert found.p < 0.05
    # a member more often counts no more: each cluster weighs the same
    pairs = {row: list(zip(x[row], y[row], strict=True)) for row in range(9)}
    assert correlation_within(pairs | {0: pairs[0] * 7}).r == pytest.approx(found.r, abs=1e-12)


def test_correlations_that_cannot_be_said():
    line = [(0.0, 0.0), (1.0, 1.0)]
    assert correlation_within({}).r is None
    assert correlation_within({1: [(0.0, 1.0), (0.0, 2.0)], 2: [(3.0, 1.0)]}).r is None
    assert correlation_within({1: [(0.0, 0.1 + 0.2), (1.0, 0.3)]}).r is None, "rounding is no variation"
    few = correlation_within({1: line, 2: line})
    assert (few.r, few.low, few.p) == (1.0, None, None)
    perfect = correlation_within({1: line, 2: line, 3: line})
    assert perfect.low == pytest.approx(1.0)
    assert correlation_between([]).r is None
    assert correlation_between(line).low is None


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(0, 1000))
def test_a_correlation_between_is_scipys(n: int, seed: int):
    x, y = np.random.default_rng(seed).normal(size=(2, n))
    tested = stats.pearsonr(x, y)
    found = correlation_between(list(zip(x, y, strict=True)))
    assert found.r == pytest.approx(tested.statistic, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(tested.confidence_interval()), abs=1e-9)


@pytest.mark.parametrize("sizes", [[4] * 10, [30, 30] + [4] * 8])
def test_the_interval_holds_the_truth_though_checkpoints_of_an_llm_are_alike(sizes: list[int]):
    """No correlation on average, but a slope of its own in every LLM: textbook intervals hold it in 80 %."""
    generator = np.random.default_rng(5)

    def study() -> dict[int, list[tuple[float, float]]]:
        groups = {}
        for llm, size in enumerate(sizes):
            x = np.where(np.arange(size) % 2 == 0, 2.0, 0.3) + generator.normal(0, 0.15, size)
            y = 0.05 * generator.normal() * x + generator.normal(0, 0.05, size)
            groups[llm] = list(zip(x, y, strict=True))
        return groups

    found = [correlation_within(study()) for _ in range(400)]
    below, above = (
        np.mean([test(one) for one in found]) for test in (lambda c: c.high < 0, lambda c: c.low > 0)
    )
    assert below <= 0.05
    assert above <= 0.05
    assert 0.91 <= 1 - below - above <= 0.98
