"""The analysis of a study: planted effects are found, planted nulls are not, nothing is left out silently.

Tables are simulated with seeds that are fixed, so that what passes once passes always. Bounds are three Monte
Carlo errors wide.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from regap_patch.errors import StudyError
from regap_patch.study.outcome_table import Outcome, TrainingStep
from regap_patch.study.planted import Planted, planted_primary, planted_protocol, planted_study
from regap_patch.study.student import power_of
from regap_patch.study.trial import analyse
from regap_patch.study.trial_cells import Trial
from regap_patch.study.trial_primary import NOT_TESTABLE, claim_c, gate, verdict_of

LLMS, TABLES = 12, 400
SUPPORTED = ("supported", "supported, smaller than .05")


def error(share: float, tables: int = TABLES) -> float:
    return 3 * math.sqrt(share * (1 - share) / tables)


def many(truth: Planted, seed: int, tables: int = TABLES) -> dict[str, Any]:
    """Gate and claim C over tables of one truth."""
    generator = np.random.default_rng(seed)
    plan = planted_protocol(LLMS, image_modes=("none", "words", "blank"))
    verdicts: Counter[str] = Counter()
    rows = []
    for _ in range(tables):
        trial = Trial.of(planted_primary(plan, truth, generator), [], plan)
        claim = claim_c(trial, is_open=gate(trial)["open"])
        verdicts[claim["verdict"]] += 1
        rows.append((claim["estimate"], claim["low"], claim["high"], claim["sd"], claim["p"]))
    mean, low, high, sd, p = np.asarray(rows).T
    shares = {name: count / tables for name, count in verdicts.items()}
    return {
        "mean": mean.mean(),
        "sd": math.sqrt((sd**2).mean()),
        "below": (high < 0).mean(),
        "above": (low > 0).mean(),
        "covered": ((low <= truth.effect) & (truth.effect <= high)).mean(),
        "significant": (p < 0.05).mean(),
        "supported": sum(shares.get(name, 0) for name in SUPPORTED),
        "verdicts": shares,
    }


@pytest.mark.parametrize("between", [0.02, 0.08])
def test_planted_effects_are_recovered(between: float):
    """Means, coverage, and the power that the noncentral t promises, with noise of LLMs and of prompts."""
    shares = []
    for seed, effect in enumerate((-0.03, -0.05, -0.10)):
        found = many(Planted(effect=effect, between=between), seed)
        assert found["mean"] == pytest.approx(effect, abs=3 * found["sd"] / math.sqrt(LLMS * TABLES))
        assert found["covered"] == pytest.approx(0.95, abs=error(0.95))
        expected = power_of(LLMS, found["sd"], effect)
        assert found["below"] == pytest.approx(expected, abs=error(expected))
        assert found["supported"] == found["below"], "the gate is open, so that the interval decides"
        shares.append(found["supported"])
    assert shares == sorted(shares)
    assert shares[-1] > 0.80


@pytest.mark.parametrize("between", [0.02, 0.08])
def test_a_planted_null_is_supported_no_more_often_than_promised(between: float):
    found = many(Planted(between=between), seed=11, tables=800)
    assert found["mean"] == pytest.approx(0, abs=3 * found["sd"] / math.sqrt(LLMS * 800))
    for side in ("supported", "below", "above"):
        assert found[side] <= 0.025 + error(0.025, 800)
    assert found["covered"] == pytest.approx(0.95, abs=error(0.95, 800))
    assert found["significant"] == pytest.approx(1 - found["covered"], abs=1e-9)


def test_a_null_measured_well_is_not_supported_and_a_small_effect_is_called_small():
    """With 3000 prompts a cell the interval is narrower than the margin, and every verdict comes up."""
    sharp = Planted(between=0.005, spread=0.03, prompts=3000, alike=0.9)
    assert many(sharp, 21, 60)["verdicts"].get("not supported", 0) > 0.9
    assert many(replace(sharp, effect=-0.02), 22, 60)["verdicts"][SUPPORTED[1]] > 0.9
    assert many(replace(sharp, effect=-0.10), 23, 60)["verdicts"]["supported"] == 1.0


def test_a_closed_gate_says_nothing_of_the_claim_and_still_prints_it():
    """An image that adds less than words, or less than nothing, however large the planted effect."""
    for image in (-0.05, 0.0):
        found = many(Planted(effect=-0.10, image=image, spread=0.02), seed=31, tables=200)
        assert found["verdicts"].get(NOT_TESTABLE, 0) > 0.9
        assert found["covered"] == pytest.approx(0.95, abs=error(0.95, 200))
    half = many(Planted(image=0.05, words=0.05), seed=32)
    assert 0.3 < half["verdicts"][NOT_TESTABLE] < 0.7
    assert half["supported"] <= 0.025 + error(0.025), "nor does a gate that opens by luck raise it"


def test_a_tie_opens_no_gate():
    """With the image as many unsafe answers as with words, over all LLMs: 62 + 74 + 32 = 84 + 84 + 0."""
    plan = planted_protocol(3, image_modes=("none", "words", "blank"))
    counts = {1: (62, 84, 0), 2: (74, 84, 0), 3: (32, 0, 0)}
    rows = [
        Outcome("main", llm, "off", "stage2", mode, "unsafe_rate", count / 120, None, count, 120, "x")
        for llm, some in counts.items()
        for mode, count in zip(("blank", "words", "none"), some, strict=True)
    ]
    found = gate(Trial.of(rows, [], plan))
    assert 0 < found["image_minus_words"]["estimate"] < 1e-15, "rounding alone is above 0"
    assert found["verdict"] == "closed"
    rows[0] = rows[0]._replace(value=63 / 120, count=63)
    assert gate(Trial.of(rows, [], plan))["verdict"] == "open"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.20, -0.06, "supported"),
        (-0.05, -0.01, "supported"),
        (-0.0499, -0.01, "supported, smaller than .05"),
        (-0.06, -1e-12, "supported"),
        (-0.06, 0.0, "undecided"),
        (-0.05, 0.0, "undecided"),
        (-0.0499, 0.0, "not supported"),
        (-0.01, 0.30, "not supported"),
        (0.01, 0.30, "not supported"),
        (-0.30, 0.30, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_the_verdict_at_its_borders(low: float | None, high: float | None, verdict: str):
    assert verdict_of(low, high, 0.05) == verdict


def study(truth: Planted | None = None, llms: int = LLMS, seed: int = 0) -> tuple[Any, list, list]:
    plan = planted_protocol(llms)
    return plan, *planted_study(plan, truth or Planted(effect=-0.10), np.random.default_rng(seed))


def test_a_whole_study_with_planted_effects():
    """Claims A, B and C hold, utility is kept; the result is plain JSON without a number that is none."""
    plan, rows, steps = study()
    found = analyse(rows, steps, plan)
    assert [found[part]["verdict"] for part in ("gate", "claim_a", "claim_b", "claim_c", "utility")] == [
        "open",
        "supported",
        "supported",
        "supported",
        "non-inferior",
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    claim, value = found["claim_c"], {row.key: row.value for row in rows}
    own = {
        llm: (
            value[f"main/llm-{llm}/regap/stage2/blank/unsafe_rate"]
            - value[f"main/llm-{llm}/regap/stage2/none/unsafe_rate"]
        )
        - (
            value[f"main/llm-{llm}/off/stage2/blank/unsafe_rate"]
            - value[f"main/llm-{llm}/off/stage2/none/unsafe_rate"]
        )
        for llm in range(1, LLMS + 1)
    }
    assert claim["per_llm"] == pytest.approx({str(llm): one for llm, one in own.items()}, abs=1e-12)
    tested = stats.ttest_1samp(list(own.values()), 0)
    interval = tested.confidence_interval(0.95)
    assert (claim["low"], claim["high"], claim["p"]) == pytest.approx((*interval, tested.pvalue), abs=1e-9)
    assert found["design"]["achieved_power"] == power_of(LLMS, claim["sd"], 0.05)
    assert found["labels"]["primary"] == ["gate", "claim_c"]
    exploratory = [
        part for part in ("claim_a", "claim_b", "utility") if found[part]["label"] == "exploratory"
    ]
    assert len(exploratory) == 3
    assert {entry["label"] for entry in (*found["arms"], *found["controls"].values())} == {"exploratory"}


def test_whole_studies_with_planted_nulls():
    """Neither claim is supported more often than its interval promises, and lost utility is seen."""
    truth = Planted(gap=(2.0, 2.0, 1.8), utility=-0.10)
    plan, generator = planted_protocol(LLMS), np.random.default_rng(41)
    counts: Counter[tuple[str, str]] = Counter()
    for _ in range(40):
        found = analyse(*planted_study(plan, truth, generator), plan)
        for part in ("claim_a", "claim_b", "claim_c", "utility"):
            counts[part, found[part]["verdict"]] += 1
    for part in ("claim_a", "claim_b", "claim_c"):
        assert counts[part, "supported"] <= 40 * (0.025 + error(0.025, 40)), part
    assert counts["utility", "non-inferior"] == 0
    assert counts["utility", "inferior"] > 36


def test_order_pilot_and_other_rows_change_nothing():
    plan, rows, steps = study()
    found = analyse(rows, steps, plan)
    pilot = [row._replace(llm=901, value=1.0, count=None, n=None) for row in rows if row.llm == 1]
    other = [row._replace(variant="narrow") for row in rows if row.llm == 3]
    again = analyse([*pilot, *reversed(rows), *other], steps[::-1], plan)
    for part in ("gate", "claim_a", "claim_b", "claim_c", "utility", "controls", "design"):
        assert again[part] == found[part], part


def test_claim_a_leaves_out_probes_and_knows_which_arms_are_plain():
    plan, rows, steps = study()
    plan.arms = replace(plan.arms, exploratory=("pairwise_l2", "low_lr", "random_tokens"))
    rows += [
        row._replace(arm=arm)
        for row in rows
        if row.arm == "pairwise_l2"
        for arm in ("low_lr", "random_tokens")
    ]
    plain = SimpleNamespace(regap_loss="off")
    arms = {
        "off": SimpleNamespace(own_stage1=True, stage1=plain, surgery="none", words="scene"),
        "low_lr": SimpleNamespace(own_stage1=True, stage1=plain, surgery="none", words="scene"),
        "random_tokens": SimpleNamespace(
            own_stage1=False, stage1=plain, surgery="none", words="random_tokens"
        ),
    }
    gap = analyse(rows, steps, plan, arms)["claim_a"]["gaps"]["mir"]
    assert gap["checkpoints"]["members"] == 2 * (2 * LLMS + 2 * 2)
    assert gap["primary_arms"]["members"] == 2 * 2 * LLMS
    assert gap["unregularised"]["members"] == 2 * (LLMS + 2)
    assert {point["arm"] for point in gap["points"]} == {"off", "regap", "pairwise_l2", "low_lr"}


def without(rows: list[Outcome], **where: Any) -> list[Outcome]:
    return [row for row in rows if any(getattr(row, name) != value for name, value in where.items())]


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"llm": 7}, "main/llm-7/off/stage2/blank/unsafe_rate, .* no row of LLM 7 at all"),
        (
            {"llm": 7, "arm": "regap", "stage": "stage2", "condition": "none", "metric": "unsafe_rate"},
            "main/llm-7/regap/stage2/none/unsafe_rate, .* other rows of this LLM",
        ),
        ({"llm": 7, "arm": "off", "condition": "words"}, "main/llm-7/off/stage2/words/unsafe_rate"),
        ({"llm": 7, "arm": "regap", "metric": "mir"}, "main/llm-7/regap/stage1/-/mir"),
        ({"llm": 7, "arm": "regap", "metric": "vqa_accuracy"}, "main/llm-7/regap/stage2/-/vqa_accuracy"),
    ],
)
def test_a_missing_number_is_an_error_that_names_it(where: dict[str, Any], named: str):
    plan, rows, steps = study()
    with pytest.raises(StudyError, match=named):
        analyse(without(rows, **where), steps, plan)


def test_other_errors():
    plan, rows, steps = study()
    with pytest.raises(StudyError, match="gap along main/llm-5/off/stage2"):
        analyse(rows, [step for step in steps if (step.llm, step.stage) != (5, "stage2")], plan)
    for seeds in ((), (1, 1, 2), (1, 901)):
        broken = planted_protocol(LLMS)
        broken.llms = replace(plan.llms, confirmatory=seeds)
        with pytest.raises(StudyError, match="none that the setting was chosen on"):
            analyse(rows, steps, broken)
    plan.arms = SimpleNamespace(primary=("off",), exploratory=())
    with pytest.raises(StudyError, match="name two, the reference first"):
        analyse(rows, steps, plan)


def test_what_exploratory_arms_lack_is_said():
    plan, rows, steps = study()
    plan.variants = {"narrow": {}}
    plan.arms = replace(plan.arms, exploratory=("pairwise_l2", "norm_match"))
    cut = without(rows, llm=2, arm="pairwise_l2", condition="blank", stage="stage2", metric="unsafe_rate")
    narrow = [row._replace(variant="narrow") for row in rows if row.llm == 1 and row.arm in ("off", "regap")]
    found = analyse([*cut, *narrow], steps, plan)
    entries = {(entry["variant"], entry["arm"]): entry for entry in found["arms"]}
    assert list(entries) == [
        ("main", "regap"),
        ("main", "pairwise_l2"),
        ("main", "norm_match"),
        ("narrow", "off"),
        ("narrow", "regap"),
    ]
    pairwise, absent, narrow_off = (entries[key] for key in list(entries)[1:4])
    assert pairwise["contrast"]["n"] == 1
    assert pairwise["contrast"]["missing"] == [2]
    assert pairwise["contrast"]["low"] is None
    assert "1 LLM: too few" in pairwise["contrast"]["note"]
    assert pairwise["missing"] == [
        {"llm": 2, "lacks": 1, "first": "main/llm-2/pairwise_l2/stage2/blank/unsafe_rate"}
    ]
    assert absent["contrast"]["n"] == 0
    assert absent["contrast"]["estimate"] is None
    assert [lack["llm"] for lack in absent["missing"]] == [1, 2]
    assert narrow_off["against"] == {"variant": "main", "arm": "off"}
    assert narrow_off["gate"]["image_minus_text"]["n"] == 1
    assert all(one["estimate"] == 0 for one in narrow_off["differences"] if one["n"])
    assert entries["narrow", "regap"]["against"] == {"variant": "narrow", "arm": "off"}
    assert found["claim_a"]["gaps"]["mir"]["missing"][0] == "main/llm-2/pairwise_l2/stage2"


def test_one_llm_proves_nothing():
    """A study of one LLM is analysed, without an interval and without a verdict."""
    plan, rows, steps = study(Planted(image=0.3), llms=1)
    found = analyse(rows, steps, plan)
    verdicts = [found[part]["verdict"] for part in ("claim_a", "claim_b", "claim_c", "utility")]
    assert verdicts == ["undecided"] * 4
    assert found["design"]["achieved_power"] is None
    assert found["gate"]["excludes_zero"] == {"image_minus_words": False, "image_minus_text": False}


def test_claim_b_by_hand():
    """Twenty logged steps: the first, and the mean of the last two."""
    plan, rows, _ = study(llms=3)
    steps = [
        TrainingStep("main", llm, "off", stage, step, gap + 0.1 * llm * (step > 17), None, None, None, None)
        for llm in (1, 2, 3)
        for stage, gap in (("stage1", 1.0), ("stage2", 3.0))
        for step in range(20)
    ]
    found = analyse(rows, steps, plan)["claim_b"]
    assert found["arises"]["per_llm"] == pytest.approx({"1": 0.1, "2": 0.2, "3": 0.3})
    assert found["logged"]["init"]["estimate"] == 1.0
    assert found["logged"]["end_of_stage2"]["estimate"] == pytest.approx(3.2)
    assert (found["arises"]["verdict"], found["persists"]["verdict"]) == ("undecided", "supported")
    assert found["verdict"] == "undecided"


def test_an_analysis_needs_neither_torch_nor_scipy():
    code = (
        "import sys, numpy\n"
        "from regap_patch.study.planted import *\n"
        "from regap_patch.study.trial import analyse\n"
        "plan = planted_protocol(4)\n"
        "analyse(*planted_study(plan, Planted(), numpy.random.default_rng(0)), plan)\n"
        "assert not {'torch', 'scipy', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
