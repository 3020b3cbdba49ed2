"""Answers in the forms that evaluation servers and kits take, and ScienceQA in LLaVA's."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from llava.eval import eval_mme
from llava.eval.command_line import InputError
from tests.unit import generated_answers, published_scores

SCRIPTS = Path(__file__).parents[2] / "scripts"
COUNT = 200


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def answers() -> list[dict]:
    """In an order of their own."""
    texts = generated_answers.answers(COUNT, 7)
    rows = [{"question_id": index, "prompt": "?", "text": text} for index, text in enumerate(texts)]
    Random(0).shuffle(rows)
    return rows


def test_vqav2(tmp_path: Path, answers: list[dict], capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "answers" / "test" / "llava"
    folder.mkdir(parents=True)
    generated_answers.write_lines(folder / "merge.jsonl", answers[:-5])
    asked = [{"question_id": index} for index in range(COUNT)]
    generated_answers.write_lines(tmp_path / "llava_vqav2_mscoco_test2015.jsonl", asked)
    script("convert_vqav2_for_submission").main(
        ["--dir", str(tmp_path), "--ckpt", "llava", "--split", "test"]
    )
    written = json.loads((tmp_path / "answers_upload" / "test" / "llava.json").read_text())
    said = {row["question_id"]: published_scores.normalised(row["text"]) for row in answers[:-5]}
    assert written == [{"question_id": index, "answer": said.get(index, "")} for index in range(COUNT)]
    assert capsys.readouterr().out == f"total results: {COUNT - 5}, total split: {COUNT}, unanswered: 5\n"


def test_vizwiz(tmp_path: Path, answers: list[dict]):
    asked = [{"question_id": index, "image": f"{index}.jpg"} for index in range(COUNT)]
    flags = ["--annotation-file", generated_answers.write_lines(tmp_path / "asked.jsonl", asked)]
    flags += ["--result-file", generated_answers.write_lines(tmp_path / "said.jsonl", answers)]
    upload = tmp_path / "new" / "upload.json"
    script("convert_vizwiz_for_submission").main([*flags, "--result-upload-file", str(upload)])
    said = {row["question_id"]: published_scores.normalised(row["text"]) for row in answers}
    wanted = [{"image": f"{index}.jpg", "answer": said[index]} for index in range(COUNT)]
    assert json.loads(upload.read_text()) == wanted
    generated_answers.write_lines(tmp_path / "said.jsonl", answers[1:])
    with pytest.raises(InputError, match="lacks 1 of 200 answers"):
        script("convert_vizwiz_for_submission").main([*flags, "--result-upload-file", str(upload)])


def test_gqa_and_mmvet(tmp_path: Path, answers: list[dict]):
    source = generated_answers.write_lines(tmp_path / "merge.jsonl", answers)
    for name in ("gqa", "mmvet"):
        out = ["--src", source, "--dst", str(tmp_path / f"{name}.json")]
        script(f"convert_{name}_for_eval").main(out)
    gqa = json.loads((tmp_path / "gqa.json").read_text())
    assert [row["questionId"] for row in gqa] == [row["question_id"] for row in answers]
    for row, said in zip(gqa, answers, strict=True):
        stops = len(said["text"]) - len(said["text"].rstrip("."))
        assert row["prediction"] == said["text"][: len(said["text"]) - stops].lower()
    mmvet = json.loads((tmp_path / "mmvet.json").read_text())
    assert mmvet == {f"v1_{row['question_id']}": row["text"] for row in answers}


def seed_files(folder: Path) -> tuple[list[str], list[dict], list[dict]]:
    random = Random("seed")
    questions = [
        {
            "question_id": str(index) if index % 2 else f"v{index}",
            "question_type_id": index % 3 + 1,
            "data_type": "video" if index % 3 == 2 else "image",
            "answer": random.choice("ABCD"),
        }
        for index in range(COUNT)
    ]
    said = [
        {
            "question_id": int(row["question_id"]) if index % 2 else row["question_id"],
            "text": random.choice((*"ABCD", "A.", "a", "", "B\n")),
        }
        for index, row in enumerate(questions)
    ]
    kinds = {"Scene": 1, "Count": 2, "Action": 3}
    (folder / "SEED-Bench.json").write_text(json.dumps({"questions": questions, "question_type": kinds}))
    flags = ["--annotation-file", str(folder / "SEED-Bench.json")]
    flags += ["--result-file", generated_answers.write_lines(folder / "said.jsonl", said)]
    flags += ["--result-upload-file", str(folder / "upload.jsonl")]
    return [*flags, "--output-path", str(folder / "report.json")], questions, said


def test_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags, questions, said = seed_files(tmp_path)
    script("convert_seed_for_submission").main(flags)
    hits = [row["text"] == question["answer"] for question, row in zip(questions, said, strict=True)]
    lines = capsys.readouterr().out.splitlines()
    for at, name in enumerate(("Scene", "Count", "Action")):
        part = hits[at::3]
        assert lines[at] == f"{name}: {sum(part) / len(part) * 100:.2f}%"
    assert lines[3] == f"Total accuracy: {sum(hits) / len(hits) * 100:.2f}%"
    assert [line.split()[0] for line in lines[4:]] == ["image", "video"]
    assert 10 < sum(hits) < 60
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["total"] == {"right": sum(hits), "questions": COUNT, "accuracy": sum(hits) / COUNT}
    upload = [json.loads(line) for line in (tmp_path / "upload.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in upload] == [question["question_id"] for question in questions]
    assert [row["prediction"] for row in upload] == [row["text"] for row in said]


def test_seed_with_answers_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Upstream dies of a KeyError where a kind has no right answer, or a question none at all."""
    flags, _, said = seed_files(tmp_path)
    wrong = [{**row, "text": "E"} for row in said]
    generated_answers.write_lines(tmp_path / "said.jsonl", wrong)
    script("convert_seed_for_submission").main(flags)
    assert capsys.readouterr().out.startswith("Scene: 0.00%\n")
    generated_answers.write_lines(tmp_path / "said.jsonl", said[1:])
    (tmp_path / "upload.jsonl").unlink()
    with pytest.raises(InputError, match="lacks 1 of 200 answers, the first to 'v0'"):
        script("convert_seed_for_submission").main(flags)
    assert not (tmp_path / "upload.jsonl").exists()
    assert json.loads((tmp_path / "report.json").read_text())["unanswered"] == 1


def test_mmbench(tmp_path: Path):
    openpyxl = pytest.importorskip("openpyxl")
    columns = "index question hint A B C D category image source l2-category comment"
    # The first as large as real ones.
    pictures = [base64.b64encode(bytes(200_000)).decode(), *["AAAA"] * (COUNT - 1)]
    table = [
        (str(n), f"Which {n}?", *("nan", "one", "two", "", "", "x"), pictures[n], *("y", "z", ""))
        for n in range(COUNT)
    ]
    tsv = tmp_path / "mmbench.tsv"
    tsv.write_text("".join("\t".join(row) + "\n" for row in (columns.split(), *table)))
    rows = [
        {"question_id": n, "round_id": turn, "text": f"{n} {turn}"}
        for n in range(COUNT - 1)
        for turn in (0, 1)
    ]
    rows[0]["text"], rows[2]["text"] = (
        "=1+1",
        "a\x0bb",
    )  # no formula, and no character that a cell cannot hold
    generated_answers.write_lines(tmp_path / "llava.jsonl", rows)
    flags = ["--annotation-file", str(tsv), "--result-dir", str(tmp_path)]
    script("convert_mmbench_for_submission").main(
        [*flags, "--upload-dir", str(tmp_path / "upload"), "--experiment", "llava"]
    )
    sheet = openpyxl.load_workbook(tmp_path / "upload" / "llava.xlsx", data_only=True).active
    written = list(sheet.iter_rows(values_only=True))
    assert written[0] == ("index", "question", "A", "B", "C", "D", "prediction")
    said = ["=1+1", "ab", *(f"{n} 0" for n in range(2, COUNT - 1))]
    assert written[1:-1] == [
        (n, f"Which {n}?", "one", "two", None, None, text) for n, text in enumerate(said)
    ]
    assert written[-1][6] is None


def test_mmbench_without_openpyxl(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"needs openpyxl; run pip install 'regap\[eval\]'"):
        script("convert_mmbench_for_submission").main([])


def test_mme(tmp_path: Path):
    """From answers to the kit's tables and on to the scores; one task lies in MME's deeper folder."""
    random = Random("mme")
    truths, answers = {}, []
    for task in (task for tasks in eval_mme.TASKS.values() for task in tasks):
        inner = tmp_path / "MME_Benchmark_release_version" / task
        inner = inner / "questions_answers_YN" if task == "posters" else inner
        inner.mkdir(parents=True)
        for picture in range(8):
            lines = []
            for which in (1, 2):
                spaces = "  " if picture % 2 else " "
                question = f"Is it {which}?{spaces}Please answer yes or no."
                truth = random.choice(("Yes", "No"))
                lines.append(f"{question}\t{truth}\n")
                prompt = f"Is it {which}?\nAnswer the question using a single word or phrase."
                if picture == 3:  # a prompt that keeps MME's own words
                    prompt = f"{question}\nAnswer the question using a single word or phrase."
                said = random.choice(("Yes", "No.", "yes\nand\tmore", ""))
                truths[task, f"{picture}.txt", which] = (truth, said)
                answers.append(
                    {"question_id": f"{task}/images/{picture}.png", "prompt": prompt, "text": said}
                )
            (inner / f"{picture}.txt").write_text("".join(lines))
    (tmp_path / "answers").mkdir()
    generated_answers.write_lines(tmp_path / "answers" / "llava.jsonl", answers)
    convert = script("convert_answer_to_mme")
    convert.main(["--experiment", "llava", "--base-dir", str(tmp_path)])
    folder = tmp_path / "eval_tool" / "answers" / "llava"
    halves = eval_mme.score(folder)
    for half, tasks in eval_mme.TASKS.items():
        for task in tasks:
            rows = [(file, *pair) for (of, file, _), pair in truths.items() if of == task]
            assert halves[half]["tasks"][task]["score"] == pytest.approx(published_scores.mme_task(rows))
    generated_answers.write_lines(
        tmp_path / "answers" / "llava.jsonl", [{"question_id": "OCR/1.png", "prompt": "Who?", "text": ""}]
    )
    with pytest.raises(InputError, match="a question that MME does not ask"):
        convert.main(["--experiment", "llava", "--base-dir", str(tmp_path)])


# What ScienceQA's own code writes for each letter code, before double spaces and ends are cleaned.
QUESTIONS = {
    "CQM": "Context: {c}\nQuestion: {q}\nOptions: {m}\n",
    "QCM": "Question: {q}\nContext: {c}\nOptions: {m}\n",
    "QCML": "Question: {q}\nContext: {c}\nOptions: {m}\nBECAUSE: {l}\n",
    "QCME": "Question: {q}\nContext: {c}\nOptions: {m}\nBECAUSE: {e}\n",
    "QCMLE": "Question: {q}\nContext: {c}\nOptions: {m}\nBECAUSE: {l} {e}\n",
    "QCLM": "Question: {q}\nContext: {c}\nBECAUSE: {l}\nOptions: {m}\n",
    "QCEM": "Question: {q}\nContext: {c}\nBECAUSE: {e}\nOptions: {m}\n",
    "QCLEM": "Question: {q}\nContext: {c}\nBECAUSE: {l} {e}\nOptions: {m}\n",
}
ANSWERS = {
    "A": "Answer: The answer is {a}.",
    "AL": "Answer: The answer is {a}. BECAUSE: {e}",
    "AE": "Answer: The answer is {a}. BECAUSE: {l}",
    "ALE": "Answer: The answer is {a}. BECAUSE: {l} {e}",
    "AEL": "Answer: The answer is {a}. BECAUSE: {e} {l}",
    "LA": "Answer: {l} The answer is {a}.",
    "EA": "Answer: {e} The answer is {a}.",
    "LEA": "Answer: {l} {e} The answer is {a}.",
    "ELA": "Answer: {e} {l} The answer is {a}.",
}
PROBLEMS = {
    "1": {"hint": "Look.", "lecture": "One\\ntwo.", "solution": "Answer: so  it is."},
    "2": {"hint": "", "lecture": "", "solution": "Seen."},
    "3": {"hint": "  ", "lecture": "Taught.", "solution": ""},
    "4": {"hint": "x", "lecture": "", "solution": ""},
}


def cleaned(text: str) -> str:
    text = text.replace("  ", " ").strip()
    return text[: -len("BECAUSE:")].strip() if text.endswith("BECAUSE:") else text


def science_folder(folder: Path) -> Path:
    problems = {
        identity: {
            **problem,
            "question": f"Which is number {identity}?",
            "choices": ["red", "blue", "green"][: int(identity) + 1],
            "answer": int(identity) % 2,
            "image": "image.png" if identity in "13" else None,
        }
        for identity, problem in PROBLEMS.items()
    }
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"train": list(PROBLEMS), "test": ["2"]}))
    return folder


@pytest.mark.parametrize("asked", QUESTIONS)
@pytest.mark.parametrize("answered", ANSWERS)
def test_science_qa_as_conversations(tmp_path: Path, asked: str, answered: str):
    convert = script("convert_sqa_to_llava")
    form = f"{asked}-{answered}"
    convert.main(
        [
            "convert_to_llava",
            "--base-dir",
            str(science_folder(tmp_path)),
            "--split",
            "train",
            "--prompt-format",
            form,
        ]
    )
    rows = json.loads((tmp_path / f"llava_train_{form}.json").read_text())
    assert [row["id"] for row in rows] == list(PROBLEMS)
    for row in rows:
        problem = PROBLEMS[row["id"]]
        words = {
            "q": f"Which is number {row['id']}?",
            "c": problem["hint"].strip() or "N/A",
            "m": " ".join(["(A) red", "(B) blue", "(C) green"][: int(row["id"]) + 1]),
            "l": problem["lecture"].replace("\\n", "\n"),
            "e": problem["solution"],
            "a": "AB"[int(row["id"]) % 2],
        }
        question = cleaned(QUESTIONS[asked].format(**words)).removeprefix("Question: ")
        pictured = row["id"] in "13"
        assert row.get("image") == (f"{row['id']}/image.png" if pictured else None)
        human, gpt = row["conversations"]
        assert human == {"from": "human", "value": question + ("\n<image>" if pictured else "")}
        assert gpt == {
            "from": "gpt",
            "value": cleaned(ANSWERS[answered].format(**words)).replace("Answer: ", ""),
        }


def test_science_qa_as_instructions(tmp_path: Path):
    convert = script("convert_sqa_to_llava")
    convert.main(["convert_to_jsonl", "--base-dir", str(science_folder(tmp_path)), "--split", "train"])
    lines = (tmp_path / "scienceqa_train_QCM-LEPA.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0] == {
        "id": "1",
        "image": "1/image.png",
        "instruction": "Which is number 1?\nContext: Look.\nOptions: (A) red (B) blue\n<image>",
        "output": "LECTURE: One\ntwo.\nSOLUTION: Answer: so it is.\n###\nANSWER: B.",
    }
    assert rows[3]["output"] == "###\nANSWER: A."
    for bad in (["--prompt-format", "QCM"], ["--prompt-format", "XYZ-A"]):
        with pytest.raises(InputError, match="pass one of CQM, QCM"):
            convert.main(["convert_to_jsonl", "--base-dir", str(tmp_path), "--split", "train", *bad])
