"""Scorers of yes, no and letters against the published rules, transcribed again, on generated answers."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from llava.eval import eval_mme, eval_pope, eval_science_qa
from llava.eval.command_line import InputError
from tests.unit import generated_answers, published_scores

COUNT = 400
TABLE = ("true", "positive", "false", "positive", "true", "negative", "false", "negative")


def pope_files(
    folder: Path, count: int, seed: int
) -> tuple[list[str], dict[str, tuple[list[str], list[str]]]]:
    """Flags of the program, and texts and labels by category; ids run on over the categories."""
    random = Random(f"pope {seed}")
    categories = {}
    questions, results = [], []
    (folder / "labels").mkdir()
    for at, category in enumerate(("adversarial", "popular", "random")):
        texts = generated_answers.answers(count, seed + at)
        texts = [
            text
            if random.random() < 0.3
            else random.choice(
                ("Yes", "No", "yes, no doubt", "no, none", "none, not, a one", "No.", "not sure.", "nothing")
            )
            for text in texts
        ]
        labels = [random.choice(("yes", "no")) for _ in range(count)]
        rows = []
        for index, (text, label) in enumerate(zip(texts, labels, strict=True)):
            seen = {"image": f"{index // 6}.jpg", "text": f"Is there a thing{index} in the image?"}
            identity = at * count + index + 1
            rows.append({"question_id": index + 1, **seen, "label": label})
            asked = f"{seen['text']}\nAnswer the question using a single word or phrase."
            questions.append(
                {"question_id": identity, "image": seen["image"], "text": asked, "category": category}
            )
            results.append({"question_id": identity, "prompt": asked, "text": text})
        generated_answers.write_lines(folder / "labels" / f"coco_pope_{category}.json", rows)
        categories[category] = (texts, labels)
    flags = ["--annotation-dir", str(folder / "labels")]
    flags += ["--question-file", generated_answers.write_lines(folder / "questions.jsonl", questions)]
    flags += ["--result-file", generated_answers.write_lines(folder / "answers.jsonl", results)]
    return flags, categories


def shuffle_lines(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    Random(0).shuffle(lines)
    path.write_text("".join(lines))


@pytest.mark.parametrize("shuffled", [False, True])
def test_pope(tmp_path: Path, capsys: pytest.CaptureFixture[str], shuffled: bool):
    flags, categories = pope_files(tmp_path, 240, 0)
    if shuffled:
        for name in ("answers.jsonl", "questions.jsonl", "labels/coco_pope_random.json"):
            shuffle_lines(tmp_path / name)
    eval_pope.main([*flags, "--output-path", str(tmp_path / "report.json")])
    written = json.loads((tmp_path / "report.json").read_text())["categories"]
    printed = capsys.readouterr().out
    for category, (texts, labels) in categories.items():
        wanted = published_scores.pope(texts, labels)
        assert {name: written[category][name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
        assert 20 < wanted["true_negative"] < 220
        counts = (wanted[f"{truth}_{way}"] for truth, way in zip(*[iter(TABLE)] * 2, strict=True))
        assert (
            f"Category: {category}, # samples: 240\nTP\tFP\tTN\tFN\t\n" + "\t".join(map(str, counts))
            in printed
        )
    assert printed.count("====================================\n") == 3


def test_pope_by_order_where_labels_name_nothing(tmp_path: Path):
    flags, categories = pope_files(tmp_path, 30, 1)
    labels = tmp_path / "labels" / "coco_pope_random.json"
    bare = [{"label": label} for label in categories["random"][1]]
    generated_answers.write_lines(labels, bare)
    eval_pope.main([*flags, "--output-path", str(tmp_path / "report.json")])
    written = json.loads((tmp_path / "report.json").read_text())["categories"]["random"]
    assert written["accuracy"] == pytest.approx(published_scores.pope(*categories["random"])["accuracy"])
    generated_answers.write_lines(labels, bare[1:])
    with pytest.raises(InputError, match=r"The 29 labels of .* are not those of the 30 questions"):
        eval_pope.main(flags)


def test_pope_without_answers_divides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags, _ = pope_files(tmp_path, 12, 2)
    (tmp_path / "answers.jsonl").write_text("")
    eval_pope.main([*flags, "--output-path", str(tmp_path / "report.json")])
    assert "0.000, 0.000, 0.000, 0.000, 0.000" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["categories"]["random"]["unanswered"] == 12


@pytest.mark.parametrize(("identity", "sentence"), [(1, "1 twice"), (999, "999 which nobody asked")])
def test_pope_refuses_answers_to_something_else(tmp_path: Path, identity: int, sentence: str):
    flags, _ = pope_files(tmp_path, 12, 3)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write(json.dumps({"question_id": identity, "text": "yes"}) + "\n")
    with pytest.raises(InputError, match=sentence):
        eval_pope.main(flags)


def science_answers(count: int, seed: int) -> list[str]:
    random = Random(f"science {seed}")
    forms = (
        *(
            "{0}",
            "{0}.",
            "{0}. because",
            "{0}.x",
            "{0}. ",
            "({0})",
            "The answer is {0}.",
            "The answer is {0}",
        ),
        *(
            "So: The answer is {0}.\nThe answer is {1}.",
            "The answer is {0}\n",
            "The answer is {0}\nx. The answer is {1}!",
        ),
        *(" {0}", "{0}\n", "", "the answer is {0}.", "The answer is {0} or so", "{0}. \n{1}"),
    )
    made = [random.choice(forms).format(random.choice("ABCDEFZ"), random.choice("ABC")) for _ in range(count)]
    return made + generated_answers.answers(count // 4, seed)


def test_science_letters():
    texts = science_answers(COUNT, 0)
    seen = [eval_science_qa.parse_letter(text, "ABCDE") for text in texts]
    assert seen == [published_scores.science_letter(text) or "FAILED" for text in texts]
    assert {"A", "E", "FAILED", "Z"} <= set(seen)


def science_files(folder: Path, pictures: bool = True) -> tuple[list[str], int, int, int, int]:
    """Flags of the program; how many questions there are and are right: of all, of those with a picture."""
    random = Random("science files")
    texts = science_answers(320, 1)
    problems, answers = {}, []
    right = seen = seen_right = 0
    for index, text in enumerate(texts):
        choices = [f"choice {n}" for n in range(random.randint(2, 5))]
        picture = pictures and index % 3 == 0
        problem = {
            "choices": choices,
            "answer": random.randrange(len(choices)),
            "image": "image.png" if picture else None,
        }
        problems[str(index)] = problem
        seen += picture
        if index % 10 == 9:
            continue  # unanswered: wrong
        prompt = "<image>\nWhat?" if picture else "What?"
        answers.append({"question_id": str(index), "prompt": prompt, "text": text})
        letter = published_scores.science_letter(text)
        correct = letter is not None and "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(letter) == problem["answer"]
        right += correct
        seen_right += correct and picture
    problems["not in the split"] = problems["0"]
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": [str(index) for index in range(len(texts))]}))
    flags = [
        "--base-dir",
        str(folder),
        "--result-file",
        generated_answers.write_lines(folder / "answers.jsonl", answers),
    ]
    flags += ["--output-file", str(folder / "output.json"), "--output-result", str(folder / "result.json")]
    return flags, len(texts), right, seen, seen_right


def test_science_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags, count, right, seen, seen_right = science_files(tmp_path)
    eval_science_qa.main([*flags, "--output-path", str(tmp_path / "report.json")])
    assert capsys.readouterr().out == (
        f"Total: {count}, Correct: {right}, Accuracy: {right / count * 100:.2f}%, "
        f"IMG-Accuracy: {seen_right / seen * 100:.2f}%\n"
    )
    assert right > 20
    assert seen_right > 5
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result) == ["acc", "correct", "count", "results", "outputs"]
    assert (result["correct"], result["count"], len(result["results"])) == (right, count, count)
    sides = json.loads((tmp_path / "output.json").read_text())
    assert (len(sides["correct"]), len(sides["incorrect"])) == (right, count - right)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["unanswered"], report["image_count"]) == (count // 10, seen)


def test_science_without_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags, *_ = science_files(tmp_path, pictures=False)
    eval_science_qa.main(flags)
    assert capsys.readouterr().out.endswith("IMG-Accuracy: none (no question has a picture)\n")
    with pytest.raises(InputError, match="--split is 'val'"):
        eval_science_qa.main([*flags, "--split", "val"])


def mme_rows(random: Random) -> list[tuple[str, str, str]]:
    texts = (
        "Yes",
        "No",
        "yes.",
        "no, it is not",
        "nope",
        " Yes",
        "eyes",
        "is no",
        "it is",
        "",
        "The answer is no",
        "Not",
        "n o",
        "Yno",
    )
    return [
        (f"{index // 2:04d}.jpg", random.choice(("Yes", "No")), random.choice(texts)) for index in range(240)
    ]


def test_mme(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    random = Random("mme")
    wanted: dict[str, dict[str, float]] = {}
    for half, tasks in eval_mme.TASKS.items():
        for task in tasks:
            rows = mme_rows(random)
            wanted.setdefault(half, {})[task] = published_scores.mme_task(rows)
            if task == "count":
                random.shuffle(rows)  # pairs are found by their picture
            lines = [f"{picture}\tIs it?\t{truth}\t{answer}\n" for picture, truth, answer in rows]
            (tmp_path / f"{task}.txt").write_text("".join(lines))
    eval_mme.main(["--results_dir", str(tmp_path), "--output-path", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    printed = capsys.readouterr().out
    assert sum(len(tasks) for tasks in wanted.values()) == 14
    for half, tasks in wanted.items():
        assert report[half]["total"] == pytest.approx(sum(tasks.values()), abs=1e-9)
        assert f"=========== {half} ===========\ntotal score: {report[half]['total']} \n" in printed
        for task, score in tasks.items():
            assert report[half]["tasks"][task]["score"] == pytest.approx(score, abs=1e-9)
            assert report[half]["tasks"][task]["questions"] == 240
            assert 20 < score < 160
    (tmp_path / "OCR.txt").write_text("0.jpg\tIs it?\tYes\tYes\n")
    with pytest.raises(InputError, match=r"1 questions about 0\.jpg"):
        eval_mme.score(tmp_path)
    (tmp_path / "OCR.txt").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of MME's 14 tasks \(OCR\)"):
        eval_mme.score(tmp_path)
