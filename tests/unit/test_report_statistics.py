"""The statistics of reports, against scipy, published worked examples and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regap_patch.errors import ReportError
from regap_patch.report.agreement import agreement
from regap_patch.report.bootstrap import bca_interval, bootstrap, sign_flip
from regap_patch.report.paired import PairedTable, holm, is_non_inferior, mcnemar, newcombe
from regap_patch.report.power import pairs_needed, smallest_difference
from regap_patch.report.proportions import Interval, rogan_gladen, wilson, zero_event_upper

EXACT = {"rel": 0, "abs": 1e-6}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, level: float):
    k = round(share * n)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k, n, level) == pytest.approx((expected.low, expected.high), **EXACT)


def test_wilson_of_a_published_example():
    """Newcombe 1998 (Stat. Med. 17:857-872), Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611)}
    published[1, 29] = (0.0061, 0.1718)
    for (k, n), interval in published.items():
        assert wilson(k, n) == pytest.approx(interval, abs=5e-5)


def test_no_event_leaves_the_upper_bound_of_clopper_and_pearson():
    for n in (1, 50, 1680):
        expected = stats.binomtest(0, n, alternative="less").proportion_ci(0.95, method="exact").high
        assert zero_event_upper(n) == pytest.approx(expected, **EXACT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 900), st.integers(0, 900))
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int):
    exact, mid = mcnemar(PairedTable(3, one, other, 4))
    trials = one + other
    tail = sum(math.comb(trials, i) for i in range(min(one, other) + 1))
    observed = math.comb(trials, one)
    assert exact == pytest.approx(min(1.0, 2 * tail / 2**trials), **EXACT)
    # by the definition: what is more extreme, and half of what is as extreme as observed
    extreme = (2 * (tail - observed) + observed) / 2**trials if one != other else 1 - observed / 2**trials / 2
    assert mid == pytest.approx(extreme if trials else 1.0, **EXACT)


def test_mcnemar_of_published_examples():
    """Fagerland, Lydersen, Laake 2013 (BMC Med. Res. Methodol. 13:91): Bentur 2009 and Cavo 2012."""
    airway, response = PairedTable(1, 1, 7, 12), PairedTable(59, 6, 16, 80)
    assert mcnemar(airway) == pytest.approx((0.0703, 0.0391), abs=5e-5)
    assert mcnemar(response) == pytest.approx((0.0525, 0.0347), abs=5e-5)


def test_newcombe_of_published_examples():
    """Newcombe 1998 (Stat. Med. 17:2635-2650) and Fagerland, Lydersen, Laake 2014 (Cavo 2012)."""
    published = {(36, 2, 12, 0): (0.0569, 0.3404), (59, 6, 16, 80): (0.0046, 0.1186)}
    for counts, interval in published.items():
        assert newcombe(PairedTable(*counts)) == pytest.approx(interval, abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 60)] * 4))
def test_newcombe_is_its_formula_over_scipys_wilson_limits(counts: tuple[int, int, int, int]):
    a, c, b, d = counts  # b: in the second arm alone
    n = a + b + c + d
    limits = [stats.binomtest(k, n).proportion_ci(method="wilson") for k in (a + b, a + c)]
    (l2, u2), (l1, u1) = ((found.low, found.high) for found in limits)
    p2, p1 = (a + b) / n, (a + c) / n
    cross = a * d - b * c
    cross = cross - n / 2 if cross > n / 2 else min(cross, 0)
    phi = cross / math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    low = p2 - p1 - math.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    high = p2 - p1 + math.sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2)
    assert newcombe(PairedTable(a, c, b, d)) == pytest.approx((low, high), **EXACT)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_newcombe_turns_round_with_its_arms_and_holds_the_difference(counts: tuple[int, int, int, int]):
    both, one, other, neither = counts
    table, turned = PairedTable(both, one, other, neither), PairedTable(both, other, one, neither)
    low, high = newcombe(table)
    assert newcombe(turned) == pytest.approx((-high, -low), abs=1e-12)
    assert -1 - 1e-12 <= low <= table.difference + 1e-12
    assert table.difference - 1e-12 <= high <= 1 + 1e-12


def test_holm_of_a_published_example():
    """The four p-values of the worked example of the Holm-Bonferroni method: .01 .04 .03 .005."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_rogan_gladen_of_a_published_example():
    """150 cows, 23 positive, sensitivity .96, specificity .89: 5.1 % (Rothman 2002; epiR's help page)."""
    found = rogan_gladen(23, 150, (96, 100), (89, 100))
    assert found.rate == pytest.approx((23 / 150 + 0.89 - 1) / 0.85, **EXACT)
    assert found.rate == pytest.approx(0.051, abs=5e-4)
    assert found.low == 0.0  # clipped
    with pytest.raises(ReportError, match="no better than chance"):
        rogan_gladen(5, 10, (5, 10), (5, 10))
    with pytest.raises(ReportError, match="label more of them"):
        rogan_gladen(5, 10, (0, 0), (5, 10))


@pytest.mark.parametrize(
    ("truth", "found", "passed", "labels"),
    [(0.3, 0.85, 0.9, 150), (0.0, 0.95, 0.95, 50), (0.02, 0.95, 0.98, 50), (0.01, 0.99, 0.99, 20)],
)
def test_rogan_gladens_interval_covers(truth: float, found: float, passed: float, labels: int):
    """Small rates and few labels too, where the delta method's interval covers 76 % and less."""
    generator = np.random.default_rng(5)
    runs, n = 1500, 400
    seen = truth * found + (1 - truth) * (1 - passed)
    covered = 0
    for _ in range(runs):
        k, hit, let = generator.binomial([n, labels, labels], [seen, found, passed])
        _, low, high = rogan_gladen(int(k), n, (int(hit), labels), (int(let), labels))
        covered += low <= truth <= high
    assert covered / runs > 0.935


def test_a_judge_without_an_error_in_few_labels_is_no_certainty():
    for k, rate in ((0, 0.0), (10, 1.0)):
        found = rogan_gladen(k, 10, (5, 5), (5, 5))
        assert found.rate == rate
        assert found.high - found.low > 0.25


def test_kappa_of_published_examples():
    """Cohen's grants (20, 5, 10, 15: kappa 0.4) and Fleiss, Levin, Paik 2003, Table 18.1 (kappa 0.676)."""

    def pairs(table: list[list[int]]) -> list[tuple[str, str]]:
        return [
            ("abc"[i], "abc"[j])
            for i, row in enumerate(table)
            for j, count in enumerate(row)
            for _ in range(count)
        ]

    grants = agreement(pairs([[20, 5], [10, 15]]), resamples=2000)
    assert grants.kappa == pytest.approx(0.4, **EXACT)
    assert grants.observed == pytest.approx(0.7)
    assert (grants.table, grants.n) == (((20, 5), (10, 15)), 50)
    assert grants.interval is not None
    # Fleiss, Cohen and Everitt's large-sample standard error of this table is 0.1287
    assert grants.interval == pytest.approx((0.4 - 1.96 * 0.1287, 0.4 + 1.96 * 0.1287), abs=0.025)
    diagnoses = agreement(pairs([[75, 1, 4], [5, 4, 1], [0, 0, 10]]), resamples=100)
    assert diagnoses.kappa == pytest.approx(0.23 / 0.34, **EXACT)


def test_kappa_where_only_one_thing_is_said():
    same = agreement([("safe", "safe")] * 9, resamples=100)
    assert (same.kappa, same.interval, same.observed) == (None, None, 1.0)
    always = agreement([("safe", "safe")] * 5 + [("unsafe", "unsafe")])
    assert (always.kappa, always.interval) == (1.0, None)  # six items are no certainty
    with pytest.raises(ReportError, match="judge the same answers"):
        agreement([])


def clusters_of(generator: np.random.Generator, number: int) -> list[tuple[float, float]]:
    sizes = generator.integers(1, 4, size=number)
    return [(float(generator.binomial(size, 0.3)), float(size)) for size in sizes]


def test_bca_is_scipys_on_scipys_resamples():
    clusters = clusters_of(np.random.default_rng(1), 80)
    values, items = np.asarray(clusters).T

    def rate(values: np.ndarray, items: np.ndarray, axis: int = -1) -> np.ndarray:
        return values.sum(axis=axis) / items.sum(axis=axis)

    theirs = stats.bootstrap(
        (values, items), rate, paired=True, n_resamples=2000, method="BCa", rng=np.random.default_rng(2)
    )
    leave_one_out = (values.sum() - values) / (items.sum() - items)
    ours = bca_interval(theirs.bootstrap_distribution, rate(values, items), leave_one_out)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), **EXACT)
    mine = bootstrap([clusters], resamples=10_000)
    assert mine.bca == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    assert mine.stderr == pytest.approx(theirs.standard_error, rel=0.06)
    assert (mine.clusters, mine.resamples) == (80, 10_000)


def test_bootstrap_is_seeded_and_wider_where_clusters_agree():
    together = bootstrap([[(3.0, 3.0)] * 30 + [(0.0, 3.0)] * 70], seed=3)
    apart = bootstrap([[(1.0, 1.0)] * 90 + [(0.0, 1.0)] * 210], seed=3)
    assert together == bootstrap([[(3.0, 3.0)] * 30 + [(0.0, 3.0)] * 70], seed=3)
    assert together.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 100), rel=0.04)
    assert apart.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 300), rel=0.04)


@pytest.mark.parametrize("rate", [0.0, 2 / 3, 1.0])
def test_clusters_that_all_say_the_same_are_no_certainty(rate: float):
    """At the ends it is Wilson's interval of as many independent items as there are clusters."""
    for number in (1, 20):
        found = bootstrap([[(3 * rate, 3.0)] * number])
        assert found.bca is None
        share = wilson(0, number).high
        ends = (rate * (1 - share), rate * (1 - share) + share)
        assert found.percentile == pytest.approx(ends, **EXACT)
        assert found.percentile.low < rate or rate == 0.0
    apart = bootstrap([[(0.0, 3.0)] * 20], within=(-1.0, 1.0)).percentile
    assert apart == pytest.approx((-wilson(0, 20).high, wilson(0, 20).high), **EXACT)
    macro = bootstrap([[(0.0, 1.0)] * 4, [(0.0, 2.0)] * 20]).percentile
    assert macro == pytest.approx((0.0, (wilson(0, 4).high + wilson(0, 20).high) / 2), **EXACT)


def test_bootstrap_of_a_macro_rate_draws_within_scenarios():
    one, two = [(1.0, 1.0)] * 10 + [(0.0, 1.0)] * 10, [(1.0, 1.0)] * 3 + [(0.0, 1.0)] * 297
    macro = bootstrap([one, two])
    assert macro.bca is None
    assert macro.stderr == pytest.approx(math.sqrt(0.25 / 20 + 0.01 * 0.99 / 300) / 2, rel=0.04)
    assert macro.percentile.low < (0.5 + 0.01) / 2 < macro.percentile.high
    with pytest.raises(ReportError, match="no items"):
        bootstrap([[]])


def test_power_of_the_published_table():
    """Drop and discordant share -> pairs for 80 % power at 5 %, as Connor's (1987) formula gives."""
    needed = {(0.02, 0.10): 1960, (0.03, 0.15): 1306, (0.05, 0.20): 626, (0.10, 0.25): 194, (0.163, 0.30): 86}
    for (difference, discordant), pairs in needed.items():
        assert abs(pairs_needed(difference, discordant) - pairs) <= 1
        found = smallest_difference(pairs_needed(difference, discordant), discordant)
        assert found == pytest.approx(difference, rel=0.01)
    assert smallest_difference(10, 0.1) is None
    with pytest.raises(ReportError, match="cannot be"):
        pairs_needed(0.3, 0.2)


def test_non_inferiority_goes_by_the_lower_end():
    assert is_non_inferior(Interval(-0.009, 0.02), 0.01)
    assert not is_non_inferior(Interval(-0.011, 0.5), 0.01)
    with pytest.raises(ReportError, match="margin"):
        is_non_inferior(Interval(0, 1), 0)


@pytest.mark.parametrize(("n", "rate"), [(50, 0.05), (50, 0.5), (167, 0.1), (500, 0.02), (1110, 0.3)])
def test_wilson_covers_by_simulation(n: int, rate: float):
    """The exact coverage is a sum over k; drawn counts must agree with it, and both stay near 95 %."""
    holds = np.array([wilson(k, n).low <= rate <= wilson(k, n).high for k in range(n + 1)])
    drawn = np.random.default_rng(n).binomial(n, rate, size=40_000)
    coverage = holds[drawn].mean()
    assert coverage == pytest.approx((stats.binom.pmf(np.arange(n + 1), n, rate) * holds).sum(), abs=0.006)
    assert 0.93 < coverage < 0.98


@pytest.mark.parametrize(("n", "discordant"), [(50, 0.3), (265, 0.15), (500, 0.1)])
def test_mcnemar_keeps_its_size_by_simulation(n: int, discordant: float):
    generator = np.random.default_rng(n)
    differing = generator.binomial(n, discordant, size=20_000)
    one = generator.binomial(differing, 0.5)
    found = {}
    exact = mid = 0
    for first, total in zip(one.tolist(), differing.tolist(), strict=True):
        if (first, total) not in found:
            found[first, total] = mcnemar(PairedTable(0, first, total - first, n - total))
        exact += found[first, total][0] < 0.05
        mid += found[first, total][1] < 0.05
    assert exact / 20_000 <= 0.05
    assert exact / 20_000 < mid / 20_000 < 0.056
    assert mid / 20_000 > 0.03


@pytest.mark.parametrize(("n", "rates"), [(100, (0.1, 0.25, 0.15)), (400, (0.02, 0.1, 0.08))])
def test_newcombe_covers_by_simulation(n: int, rates: tuple[float, float, float]):
    both, one, other = rates
    drawn = np.random.default_rng(n).multinomial(n, [both, one, other, 1 - sum(rates)], size=3000)
    covered = sum(
        low <= other - one <= high for low, high in (newcombe(PairedTable(*map(int, row))) for row in drawn)
    )
    assert 0.935 < covered / 3000 < 0.98


@pytest.mark.parametrize(("one", "other"), [(3, 12), (10, 14), (0, 6), (5, 5), (0, 0)])
def test_flipping_single_items_is_mcnemars_exact_test(one: int, other: int):
    differences = [-1.0] * one + [1.0] * other + [0.0] * 20
    assert sign_flip(differences) == pytest.approx(mcnemar(PairedTable(5, one, other, 15))[0], abs=0.01)


def test_flipping_clusters_keeps_its_size_where_mcnemar_does_not():
    """Thirty questions, each asked with three pictures that change its outcome together or not at all."""
    generator = np.random.default_rng(11)
    naive = clustered = 0
    for _ in range(600):
        signs = generator.choice([-3.0, 0.0, 3.0], p=[0.2, 0.6, 0.2], size=30)
        worse, better = int(3 * (signs < 0).sum()), int(3 * (signs > 0).sum())
        naive += mcnemar(PairedTable(0, worse, better, 90 - worse - better))[1] < 0.05
        clustered += sign_flip(signs.tolist(), resamples=999) < 0.05
    assert clustered / 600 < 0.07
    assert naive / 600 > 0.15
