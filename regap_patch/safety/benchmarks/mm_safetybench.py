"""MM-SafetyBench: 13 scenarios, each question with three pictures that show what its text leaves out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder

COUNTS = {
    "01-Illegal_Activitiy": 97,  # misspelt in the data, and so kept
    "02-HateSpeech": 163,
    "03-Malware_Generation": 44,
    "04-Physical_Harm": 144,
    "05-EconomicHarm": 122,
    "06-Fraud": 154,
    "07-Sex": 109,
    "08-Political_Lobbying": 153,
    "09-Privacy_Violence": 139,
    "10-Legal_Opinion": 130,
    "11-Financial_Advice": 167,
    "12-Health_Consultation": 109,
    "13-Gov_Decision": 149,
}
"""Questions of each scenario: 1,680, each with a picture of every kind."""

HARMFUL = ("01", "02", "03", "04", "05", "06", "07", "09")
"""Scenarios whose requests are harmful; the others mostly measure whether a disclaimer is given."""

ASKED = {"SD": "Rephrased Question(SD)", "SD_TYPO": "Rephrased Question", "TYPO": "Rephrased Question"}
"""Field that is asked beside each kind of picture: generated, generated above typeset words, typeset."""

PLAIN = "Question"
FIELDS = (
    PLAIN,
    "Changed Question",
    "Key Phrase",
    "Phrase Type",
    "Rephrased Question",
    "Rephrased Question(SD)",
)
TINY = "TinyVersion_ID_List.json"

BENCHMARK = Benchmark(
    name="mm_safetybench",
    title="MM-SafetyBench",
    licence="research use",
    source="github.com/isXinLiu/MM-SafetyBench; arXiv:2311.17600",
    how_to_obtain="clone github.com/isXinLiu/MM-SafetyBench there and unpack its pictures into data/imgs",
    kind="harm",
    images=True,
    scenarios=tuple(COUNTS),
    splits=("test", "harmful", "tiny", *ASKED),
    layout=(
        "data/processed_questions/<NN-Scenario>.json (id -> fields)",
        "data/imgs/<NN-Scenario>/{SD,SD_TYPO,TYPO}/<id>.jpg",
        f"{TINY}, for split tiny",
    ),
    prompt_rule="SD: `Rephrased Question(SD)`; SD_TYPO and TYPO: `Rephrased Question`; without a picture: "
    "`Question`",
    judge_gets="`Question`",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read all questions, count them by scenario, and look for every picture.

    Raises:
        BenchmarkError: a file, a field or a picture is missing, or a count of questions is another.
    """
    folder = DataFolder(BENCHMARK, root)
    questions = {scenario: _questions(folder, scenario) for scenario in expected or COUNTS}
    counts = folder.counted({name: len(rows) for name, rows in questions.items()}, expected or COUNTS)
    folder.with_pictures(
        _picture(scenario, identity, kind)
        for scenario, rows in questions.items()
        for identity in rows
        for kind in ASKED
    )
    notes = ["scenarios 08 and 10 to 13 mostly measure disclaimers: they are counted apart"]
    files = [_file(scenario) for scenario in questions]
    if (folder.root / TINY).is_file():
        files.append(TINY)
        notes.append(f"split tiny: {sum(map(len, _tiny(folder).values()))} questions")
    return Report(BENCHMARK.name, root, counts, folder.sha256(*files), tuple(notes))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """Three items a question, one for each picture; all three are one cluster.

    Splits `harmful` (scenarios 1 to 7 and 9), `tiny`, `SD`, `SD_TYPO` and `TYPO` are parts of `test`: their
    items keep its uids.

    Raises:
        BenchmarkError: a file or a field is missing, or a split has an id that there is not.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    questions = {scenario: _questions(folder, scenario) for scenario in COUNTS}
    if name == "harmful":
        questions = {scenario: rows for scenario, rows in questions.items() if scenario[:2] in HARMFUL}
    if name == "tiny":
        questions = _only_tiny(folder, questions)
    kinds = (name,) if name in ASKED else tuple(ASKED)
    made = (
        _sample(scenario, identity, row, kind)
        for scenario, rows in questions.items()
        for identity, row in rows.items()
        for kind in kinds
    )
    yield from folder.chosen(made, limit, ids)


def _sample(scenario: str, identity: str, row: Mapping[str, Any], kind: str) -> Sample:
    cluster = f"{BENCHMARK.name}/test/{scenario}/{identity}"
    meta = {"text_prompt": row[PLAIN], "picture": kind}
    if scenario[:2] not in HARMFUL:
        meta["block"] = "disclaimers"
    return Sample(
        uid=f"{cluster}/{kind}",
        benchmark=BENCHMARK.name,
        scenario=scenario,
        cluster=cluster,
        kind="harm",
        prompt=row[ASKED[kind]],
        judge_question=row[PLAIN],
        image=_picture(scenario, identity, kind),
        image_sha256=None,
        image_mode="real",
        licence=BENCHMARK.licence,
        meta=meta,
    )


def _file(scenario: str) -> str:
    return f"data/processed_questions/{scenario}.json"


def _picture(scenario: str, identity: str, kind: str) -> str:
    return f"data/imgs/{scenario}/{kind}/{identity}.jpg"


def _questions(folder: DataFolder, scenario: str) -> dict[str, dict[str, Any]]:
    name = _file(scenario)
    rows = folder.json(name)
    if not isinstance(rows, dict):
        raise folder.wrong(f"{name} holds {type(rows).__name__} instead of questions by id")
    folder.with_fields(name, list(rows.values()), FIELDS, (PLAIN, *ASKED.values()))
    return rows


def _tiny(folder: DataFolder) -> dict[str, list[str]]:
    rows = folder.json_rows(TINY, ("Scenario", "Sampled_ID_List"))
    return {row["Scenario"]: [str(identity) for identity in row["Sampled_ID_List"]] for row in rows}


def _only_tiny(
    folder: DataFolder, questions: Mapping[str, Mapping[str, dict[str, Any]]]
) -> dict[str, dict[str, dict[str, Any]]]:
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    for scenario, wanted in _tiny(folder).items():
        there = questions.get(scenario, {})
        absent = [identity for identity in wanted if identity not in there]
        if absent:
            raise folder.wrong(f"{TINY} names question {absent[0]} of {scenario}, which is not there")
        kept[scenario] = {identity: there[identity] for identity in wanted}
    return kept
