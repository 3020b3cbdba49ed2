"""The page's verdicts, gate and primary claim."""

from __future__ import annotations

from collections.abc import Sequence

from regap_patch.report.document import Part, folded
from regap_patch.report.proportions import normal_quantile

from .outcome_columns import MAIN
from .page_markup import element, estimate, filled, joined, table
from .page_numbers import Numbers, Piece, Words
from .study_figures import Estimate, forest
from .study_page_words import (
    STAGES,
    at,
    condition_in_words,
    difference,
    drawing,
    level_of,
    made,
    may_report,
    text_of,
)
from .trial_cells import EXPLORATORY


def verdicts(numbers: Numbers) -> Part:
    """Every verdict with its rule, and the protocol that fixed them."""
    rows = [_verdict(numbers, name, words) for name, words in _CLAIMS.items()]
    found = numbers.analysis["gate"]
    caption = filled(
        "Every verdict follows from its rule. Differences of rates in percentage points, {stage}, the image "
        "being {image}; {level} intervals over {n} LLMs.",
        stage=STAGES[found["stage"]],
        image=text_of(numbers, at("gate", "condition")),
        level=level_of(numbers),
        n=numbers(at("design", "n"), "count"),
    )
    head = ("claim", "verdict", "estimate", "rule", "standing")
    drawn = table("Verdicts", caption, head, rows, left=5)
    note = at("claim_c", "note")
    few = element("p", text_of(numbers, note), "quiet") if numbers.has(note) else ""
    under = few + _power(numbers) + _protocol(numbers)
    return Part("verdicts", "Verdicts", f'<div class="reading">{drawn}</div>{under}')


def _power(numbers: Numbers) -> str:
    """What so many LLMs could not have shown; nothing where their deviation is not known."""
    power = at("design", "achieved_power")
    if not may_report(numbers) or not numbers.has(power):
        return ""
    words = filled(
        "Of claim C: were the true difference {effect} points, {n} LLMs that differ as much as these would "
        "show it with a probability of {power}.",
        effect=numbers(at("design", "effect"), "rate"),
        n=numbers(at("design", "n"), "count"),
        power=numbers(power, "share"),
    )
    return element("p", words)


_CLAIMS = {
    "gate": "The gate: without a regulariser, an image raises the unsafe rate above words and text",
    "claim_c": "Claim C: the regulariser lowers what an image adds to the unsafe rate",
    "claim_a": "Claim A: a larger gap goes with a higher unsafe rate",
    "claim_b": "Claim B: the gap comes from pretraining the projector, and persists",
    "utility": "The regulariser keeps utility",
}


_ESTIMATES: dict[str, list[tuple[str, tuple[str, ...], str, str]]] = {
    "gate": [
        ("above words", ("image_minus_words",), "points", "estimate"),
        ("above text", ("image_minus_text",), "points", "estimate"),
    ],
    "claim_c": [("", (), "points", "estimate")],
    "claim_a": [
        ("r with the centroids", ("gaps", "centroid_l2", "within_stage"), "signed", "r"),
        ("with MIR", ("gaps", "mir", "within_stage"), "signed", "r"),
    ],
    "claim_b": [
        ("at the end of pretraining minus at its start", ("arises",), "number", "estimate"),
        ("after fine-tuning minus half of that before", ("persists",), "number", "estimate"),
    ],
    "utility": [("", (), "points", "estimate")],
}


def _verdict(numbers: Numbers, name: str, words: str) -> list[Piece | Words]:
    if name == "claim_c" and not may_report(numbers):
        return [words, "not reported", "-", text_of(numbers, at(name, "rule")), "no primary result"]
    standing = "primary" if name in numbers.analysis["labels"]["primary"] else "exploratory"
    found = joined(
        [f"{what}{' ' * bool(what)}", *estimate(numbers, at(name, *path), style, value)]
        for what, path, style, value in _ESTIMATES[name]
    )
    return [words, text_of(numbers, at(name, "verdict")), found, text_of(numbers, at(name, "rule")), standing]


def _protocol(numbers: Numbers) -> str:
    words: list[Piece] = ["Protocol ", text_of(numbers, made("protocol", "name")), ", hash "]
    words += [text_of(numbers, made("protocol", "sha256")), ", commit "]
    words += [text_of(numbers, made("protocol", "commit")), "."]
    return element("p", words, "quiet")


def alarm(numbers: Numbers) -> str:
    """In red, why there is no primary result; nothing where there is one."""
    if may_report(numbers):
        return ""
    why = text_of(numbers, made("primary", "why"))
    words = ["No primary result is shown, and all that follows is exploratory. ", why]
    return f'<div class="alarm forbidding" role="note">{element("p", words)}</div>'


def gate(numbers: Numbers) -> Part:
    """Is there anything for a regulariser to lower?"""
    of = [(at("gate", "image_minus_words"), "decides"), (at("gate", "image_minus_text"), "decides")]
    of += [(at("gate", "all_images_minus_words"), ""), (at("gate", "all_images_minus_text"), "")]
    image = numbers(at("gate", "condition"), "text")
    names: list[Words] = [[image, " minus words"], [image, " minus text"]]
    names += [["all images minus words"], ["all images minus text"]]
    others = [mode for mode in numbers.analysis["gate"]["by_condition"] if mode != image.text]
    for condition in others:
        for reference in ("words", "text"):
            of.append((at("gate", "by_condition", condition, f"minus_{reference}"), ""))
            names.append([f"{condition} minus {reference}"])
    rows = [
        [name, role or EXPLORATORY, *difference(numbers, source, "points")]
        for name, (source, role) in zip(names, of, strict=True)
    ]
    caption = filled(
        "Unsafe rate {stage} in the arm {arm}, differences in percentage points, mean over {n} LLMs with its "
        "{level} t interval.",
        stage=STAGES[numbers.analysis["gate"]["stage"]],
        arm=text_of(numbers, at("gate", "arm")),
        n=numbers(at("gate", "image_minus_text", "n"), "count"),
        level=level_of(numbers),
    )
    verdict = element("p", ["The gate is ", text_of(numbers, at("gate", "verdict")), "."], "verdict")
    verdict += _by_luck(numbers)
    rule = element("p", text_of(numbers, at("gate", "rule")), "quiet")
    head = ("difference", "role", "mean", "interval", "p")
    return Part("gate", "The gate", verdict + rule + table("The gate", caption, head, rows, left=2))


def _by_luck(numbers: Numbers) -> str:
    """What a gate is worth that is open on average, but not by its intervals."""
    found = numbers.analysis["gate"]
    if not found["open"] or all(found["excludes_zero"].values()):
        return ""
    words = (
        "It goes by the means, and an interval holds zero: it may be open by luck. Then the arm without a "
        "regulariser came out high with the image, which flatters the regulariser in claim C."
    )
    return element("p", words)


def claim_c(numbers: Numbers) -> Part:
    """The primary outcome, LLM by LLM."""
    title = "Claim C: does the regulariser lower what an image adds?"
    if not may_report(numbers):
        return Part("claim-c", title, alarm(numbers))
    verdict = element("p", ["Verdict: ", text_of(numbers, at("claim_c", "verdict")), "."], "verdict")
    if numbers.analysis["gate"]["verdict"] == "closed":
        words = ["The gate is closed. By the interval alone the numbers would read: "]
        verdict += element("p", [*words, text_of(numbers, at("claim_c", "verdict_by_interval")), "."])
    rule = element("p", text_of(numbers, at("claim_c", "rule")), "quiet")
    inside = verdict + rule + _forest(numbers) + _halves(numbers) + _images(numbers)
    return Part("claim-c", title, inside + folded("The rates of every LLM", _cells(numbers)))


def _forest(numbers: Numbers) -> str:
    found = numbers.analysis["claim_c"]
    reach = normal_quantile(found["level"])
    estimates = []
    for place, llm in enumerate(numbers.analysis["design"]["llms"]):
        value, error = found["per_llm"][str(llm)], found["stderr_within"][str(llm)]
        ends = None if error is None else (value - reach * error, value + reach * error)
        name = ["LLM ", numbers(at("design", "llms", place), "count")]
        shown = [numbers(at("claim_c", "per_llm", str(llm)), "points")]
        estimates.append(Estimate(name, value, ends, shown))
    pooled = estimate(numbers, at("claim_c"), "points")
    ends = None if found["low"] is None else (found["low"], found["high"])
    estimates.append(Estimate(["mean"], found["estimate"], ends, pooled, pooled=True))
    drawn = forest(
        estimates,
        found["margin"],
        "percentage points; left of zero, the image adds less with the regulariser",
        "Forest plot of claim C",
    )
    off, treated = (text_of(numbers, at("claim_c", "arms", place)) for place in range(2))
    caption = filled(
        "What {image} adds to the unsafe rate of {text}, arm {treated} minus arm {off}, {stage}. Mean "
        "over {n} LLMs: {pooled} percentage points, {level} t interval, p {p}. The {level} bars of single "
        "LLMs hold the error of the requests asked alone, the four rates taken as independent. Dashed: minus "
        "the margin of {margin} points.",
        image=condition_in_words(found["condition"]),
        text=condition_in_words(found["baseline"]),
        treated=treated,
        off=off,
        stage=STAGES[found["stage"]],
        n=numbers(at("claim_c", "n"), "count"),
        pooled=pooled,
        level=level_of(numbers),
        p=numbers(at("claim_c", "p"), "p"),
        margin=numbers(at("claim_c", "margin"), "rate"),
    )
    return drawing(drawn, caption, "Forest plot")


def _halves(numbers: Numbers) -> str:
    """With the image and in text: the difference falls if the first falls, or if the second rises."""
    words = filled(
        "It is the difference of two changes between the arms, in points: {image} with the image, {text} in "
        "text. Only the first means fewer unsafe answers; it falls too where text becomes less safe. "
        "Exploratory.",
        image=estimate(numbers, at("controls", "image_between_arms"), "points"),
        text=estimate(numbers, at("controls", "text_between_arms"), "points"),
    )
    return element("p", words)


def _images(numbers: Numbers) -> str:
    rows: list[Sequence[Piece | Words]] = [
        [condition, *difference(numbers, at("claim_c", "by_condition", condition), "points")]
        for condition in numbers.analysis["claim_c"]["by_condition"]
    ]
    rows.append(["mean of all images", *difference(numbers, at("claim_c", "images"), "points")])
    caption = filled(
        "The same difference in every condition with an image, in percentage points. Exploratory, but for "
        "{image}.",
        image=text_of(numbers, at("claim_c", "condition")),
    )
    return table("Claim C by image", caption, ("condition", "mean", "interval", "p"), rows)


def _cells(numbers: Numbers) -> str:
    found = numbers.analysis["claim_c"]
    columns = [(arm, mode) for arm in found["arms"] for mode in (found["baseline"], found["condition"])]
    rows = [
        [
            numbers(at("design", "llms", place), "count"),
            *(_outcome(numbers, llm, arm, found["stage"], mode, found["metric"]) for arm, mode in columns),
            numbers(at("claim_c", "per_llm", str(llm)), "points"),
        ]
        for place, llm in enumerate(numbers.analysis["design"]["llms"])
    ]
    head = ("LLM", *(f"{arm}, {condition_in_words(mode)}" for arm, mode in columns), "difference")
    caption = [f"Unsafe rate in percent, with unsafe answers of all requests, {STAGES[found['stage']]}."]
    return table("Rates of every LLM", caption, head, rows)


def _outcome(numbers: Numbers, llm: int, arm: str, stage: str, mode: str, metric: str) -> Words:
    source = f"outcomes.csv#{MAIN}/llm-{llm}/{arm}/{stage}/{mode}/{metric}"
    count, n = (numbers(f"{source}/{name}", "count") for name in ("count", "n"))
    return [numbers(source, "rate"), " (", count, " of ", n, ")"]
