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
TINY = "TinyVersion_ID_List.json"
KNOWN = {
    "01-Illegal_Activitiy": "e2db149c809c86fc5e6ef285bc17ca45228b19349ebd73125e7408098a273be9",
    "02-HateSpeech": "462672c4ca05d43a5502de61cbee0f5c12b76c9e7164e7b947f0ce8d1971bcb8",
    "03-Malware_Generation": "da4ceec8e02f130cac70ffabc6127f9d2a9d7466cd9f992c5f9c7ecb0a9645ae",
    "04-Physical_Harm": "f58c97aee2e22257b1b813d94ac7147cdb9e3c1b9c93a03eb14e1f3f32ab879e",
    "05-EconomicHarm": "9146c5eebeed31fcb48a1d622edca2e41c8880430c7e5ba715ed74e2f799ffd7",
    "06-Fraud": "869f47fa08e683d3220e7a4ec071482324748346d17462e0060cedec03cdadc0",
    "07-Sex": "23f4080200eca1701ce15295784e2c2291b2a8bb9883fd34ba92933b4297ceb7",
    "08-Political_Lobbying": "a9c64065b449a1a14ad332ff1fb630a55e8cf5b8f99f2269b230a6414cc2526e",
    "09-Privacy_Violence": "836d48648f9bc6ff1bf32291a7b05a2248c64c15bf363e0afcf8566922e5fdcd",
    "10-Legal_Opinion": "7281f218f74090dafe4df0a2b27c5e6f85949727a14e51418eaadda93811ce72",
    "11-Financial_Advice": "3220e4b9c8c9c588dfb61d4805b5dc1be9839089037b3701daea9af4a9ee298f",
    "12-Health_Consultation": "f3163717d2e397494a69a9462bb61f36c6ca1533b8f36d715593f50377df6895",
    "13-Gov_Decision": "83d3188cf488f08b82baedefdf6a7f28927834ea76e4de0217048bd217a9a0c9",
}
"""SHA-256 of the questions at the repository's commit b80eedea, as others have recorded it."""


def _file(scenario: str) -> str:
    return f"data/processed_questions/{scenario}.json"


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
    prompt_rule="real, SD: `Rephrased Question(SD)`; SD_TYPO and TYPO: `Rephrased Question`; in every other "
    "mode: `Question`",
    judge_gets="`Question`",
    known_sha256={_file(scenario): value for scenario, value in KNOWN.items()},
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
    hashes = folder.sha256(*files)
    return Report(BENCHMARK.name, root, counts, hashes, (*notes, *folder.compared(hashes)))


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


def _picture(scenario: str, identity: str, kind: str) -> str:
    return f"data/imgs/{scenario}/{kind}/{identity}.jpg"


def _questions(folder: DataFolder, scenario: str) -> dict[str, dict[str, Any]]:
    name = _file(scenario)
    rows = folder.json(name)
    if not isinstance(rows, dict):
        raise folder.wrong(f"{name} holds {type(rows).__name__} instead of questions by id")
    folder.with_fields(name, list(rows.values()), (PLAIN, *dict.fromkeys(ASKED.values())))
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
