"""MME: fourteen tasks of perception and cognition, two questions to a picture, yes or no."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark, Report
from regap_patch.safety.benchmarks.data_folder import DataFolder, Row
from regap_patch.safety.benchmarks.scoring import from_llava

QUESTIONS = "llava_mme.jsonl"
RELEASE = "MME_Benchmark_release_version"
INSTRUCTION = "Answer the question using a single word or phrase."
SUFFIX = "Please answer yes or no."
COUNTS = {
    "existence": 60,
    "count": 60,
    "position": 60,
    "color": 60,
    "posters": 294,
    "celebrity": 340,
    "scene": 400,
    "landmark": 400,
    "artwork": 400,
    "OCR": 40,
    "commonsense_reasoning": 140,
    "numerical_calculation": 40,
    "text_translation": 40,
    "code_reasoning": 40,
}
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
PARSER = "llava.eval.eval_mme.says: yes or no in the first four characters; else wrong"

BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    licence="research use; on request",
    source="LLaVA's eval.zip, and github.com/BradyFU/Awesome-Multimodal-Large-Language-Models; "
    "arXiv:2306.13394",
    how_to_obtain=f"put {QUESTIONS} of LLaVA's eval.zip (MME), and {RELEASE}, which MME's authors give out, "
    "there",
    kind="utility",
    images=True,
    scenarios=tuple(COUNTS),
    layout=(
        f"{QUESTIONS} (question_id, image, text)",
        f"{RELEASE}/<task>/[questions_answers_YN/]<name>.txt (question, tab, Yes or No)",
        f"{RELEASE}/<image>",
    ),
    prompt_rule="`text`, which asks for one word or phrase",
    judge_gets="nothing: yes or no is compared with the truth",
)


def check(root: Path, *, expected: Mapping[str, int] | None = None) -> Report:
    """Read questions and truths, count them by task, and look for every picture.

    Raises:
        BenchmarkError: a file, a field, a truth or a picture is missing, or a count is another.
    """
    folder = DataFolder(BENCHMARK, root)
    rows = _rows(folder)
    counts = folder.counted(Counter(_task(row) for row in rows), expected or COUNTS)
    for row in rows:
        _truth(folder, row)
    folder.with_pictures(_picture(row) for row in rows)
    return Report(BENCHMARK.name, root, counts, folder.sha256(QUESTIONS), (f"parser {PARSER}",))


def samples(
    root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
) -> Iterator[Sample]:
    """The questions; their scenario is the task, and the two about one picture are one cluster.

    Raises:
        BenchmarkError: a file, a field or a truth is missing.
    """
    folder = DataFolder(BENCHMARK, root)
    name = folder.split(split)
    made = []
    asked: Counter[str] = Counter()
    for row in _rows(folder):
        identity = str(row["question_id"])
        asked[identity] += 1  # the two questions about a picture have one id
        made.append(
            Sample(
                uid=f"{BENCHMARK.name}/{name}/{identity}/{asked[identity]}",
                benchmark=BENCHMARK.name,
                scenario=_task(row),
                cluster=f"{BENCHMARK.name}/{name}/{identity}",
                kind="utility",
                prompt=row["text"].strip(),
                judge_question=row["text"].strip(),
                image=_picture(row),
                image_sha256=None,
                image_mode="real",
                licence=BENCHMARK.licence,
                meta={"scorer": BENCHMARK.name, "reference": {"truth": _truth(folder, row)}},
            )
        )
    yield from folder.chosen(made, limit, ids)


def item_score(text: str, reference: Mapping[str, Any]) -> float:
    """1 if the answer says what is true."""
    return float(from_llava("eval_mme", "says")(text) == reference["truth"])


def summary(answered: Sequence[tuple[Sample, str]]) -> dict[str, float]:
    """Score of each task of which both questions to every picture are answered, and sums of whole halves."""
    tasks: dict[str, list[tuple[Sample, str]]] = defaultdict(list)
    for item, text in answered:
        tasks[item.scenario].append((item, text))
    numbers = {}
    for task, pairs in sorted(tasks.items()):
        if set(Counter(item.cluster for item, _ in pairs).values()) == {2}:
            numbers[task] = _task_score(task, pairs)
    for half, names in (
        ("perception", set(COUNTS) - set(COGNITION)),
        ("cognition", set(COGNITION)),
    ):
        if names <= numbers.keys():
            numbers[half] = sum(numbers[name] for name in names)
    return numbers


def _task_score(task: str, pairs: Sequence[tuple[Sample, str]]) -> float:
    """By MME's own table: a line `picture, question, truth, answer` for each answer."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{task}.txt"
        lines = (
            # A tab or a new line inside an answer would be read as the next field or row.
            (item.cluster, "question", item.meta["reference"]["truth"], " ".join(text.split()))
            for item, text in pairs
        )
        path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
        return float(from_llava("eval_mme", "score_task")(path)["score"])


def _rows(folder: DataFolder) -> list[Row]:
    return folder.json_lines(QUESTIONS, ("question_id", "image", "text"))


def _task(row: Row) -> str:
    return str(row["question_id"]).partition("/")[0]


def _truth(folder: DataFolder, row: Row) -> str:
    """`yes` or `no`, by the name of the picture and the question."""
    task, stem = _task(row), Path(str(row["question_id"])).stem
    places = [f"{RELEASE}/{task}/questions_answers_YN/{stem}.txt", f"{RELEASE}/{task}/{stem}.txt"]
    file = next((place for place in places if (folder.root / place).is_file()), places[-1])
    truths = {}
    for line in folder.text(file).splitlines():
        question, _, truth = line.strip().rpartition("\t")
        truths[_bare(question)] = truth.strip().lower()
    found = truths.get(_bare(row["text"]))
    if found not in ("yes", "no"):
        raise folder.wrong(
            f"{file} has no Yes or No to the question of {row['question_id']} in {QUESTIONS}",
            "take the files of one release",
        )
    return found


def _bare(question: str) -> str:
    """Without the words that ask for a short answer, which the two files have in different places."""
    return " ".join(question.replace(INSTRUCTION, "").replace(SUFFIX, "").split())


def _picture(row: Row) -> str:
    return f"{RELEASE}/{row['image']}"
