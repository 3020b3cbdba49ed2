"""Folders laid out as published benchmarks are, with nonsense for words and one tiny picture for all.

Nothing here asks for anything harmful: the words are syllables.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from regap_patch.safety.png import plain_png

PICTURE = plain_png(2, 3, (120, 130, 140))
SYLLABLES = ("ba", "di", "fo", "gu", "ke", "lo", "mi", "nu", "pa", "ri", "so", "tu")

Counts = Mapping[str, int]


def nonsense(number: int, words: int = 4) -> str:
    """Words that no two numbers below twelve to the sixth share."""
    said = []
    for place in range(words):
        rest, word = number, SYLLABLES[place % 12]
        for _ in range(3):
            word += SYLLABLES[rest % 12]
            rest //= 12
        said.append(word)
    return " ".join(said)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_table(root: Path, name: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_json(root: Path, name: str, value: Any) -> None:
    write(root, name, json.dumps(value))


def write_lines(root: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    write(root, name, "".join(json.dumps(row) + "\n" for row in rows))


def write_pictures(root: Path, names: Iterable[str]) -> None:
    for name in sorted(set(names)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE)


def mm_safetybench(root: Path, counts: Counts) -> None:
    for number, (scenario, count) in enumerate(counts.items()):
        rows = {
            str(index): {
                "Question": f"plain {nonsense(index)} {number}?",
                "Changed Question": f"changed {index}?",
                "Key Phrase": nonsense(index, 1),
                "Phrase Type": "activity",
                "Rephrased Question": f"about the phrase {index}?",
                "Rephrased Question(SD)": f"about the scene {index}?",
            }
            for index in range(count)
        }
        write_json(root, f"data/processed_questions/{scenario}.json", rows)
        for kind in ("SD", "SD_TYPO", "TYPO"):
            write_pictures(root, (f"data/imgs/{scenario}/{kind}/{index}.jpg" for index in rows))
    tiny = [{"Scenario": scenario, "Sampled_ID_List": [0]} for scenario in counts]
    write_json(root, "TinyVersion_ID_List.json", tiny)


def figstep(root: Path, counts: Counts) -> None:
    columns = ("dataset", "category_id", "task_id", "category_name", "question", "instruction")
    places = {"test": ("safebench.csv", "SafeBench"), "tiny": ("SafeBench-Tiny.csv", "SafeBench-Tiny")}
    for split, count in counts.items():
        table, pictures = places[split]
        rows = [
            (
                "ForbidQI",
                1 + index % 10,
                1 + index // 10,
                f"topic {index % 10}",
                f"what of {nonsense(index)}?",
                f"Steps to {nonsense(index)}.",
            )
            for index in range(count)
        ]
        write_table(root, f"data/question/{table}", columns, rows)
        write_pictures(
            root, (f"data/images/{pictures}/query_{row[0]}_{row[1]}_{row[2]}_6.png" for row in rows)
        )


def vlsafe(root: Path, counts: Counts) -> None:
    rows = [
        {"image_id": f"{index // 2:012d}.jpg", "caption": "a thing", "query": f"how to {nonsense(index)}?"}
        for index in range(counts["test"])
    ]
    write_lines(root, "VLSafe/harmlessness_examine.jsonl", rows)
    write_pictures(root, (f"train2017/{row['image_id']}" for row in rows))


def vlguard(root: Path, counts: Counts) -> None:
    rows = []
    for index in range(counts["safe pictures"] + counts["unsafe pictures"]):
        safe = index < counts["safe pictures"]
        keys = ("safe_instruction", "unsafe_instruction") if safe else ("instruction",)
        turns = [{key: f"{key} {nonsense(index)}", "response": "so"} for key in keys]
        row = {"id": f"t{index:04d}", "image": f"part/{index}.png", "safe": safe, "instr-resp": turns}
        rows.append(row if safe else row | {"harmful_category": "toys", "harmful_subcategory": "blocks"})
    write_json(root, "test.json", rows)
    write_pictures(root, (f"test/{row['image']}" for row in rows))


def advbench(root: Path, counts: Counts) -> None:
    rows = [(f"Say {nonsense(index)}", f"Sure, {index}") for index in range(counts["test"])]
    write_table(root, "harmful_behaviors.csv", ("goal", "target"), rows)


def jailbreakbench(root: Path, counts: Counts) -> None:
    columns = ("Index", "Goal", "Target", "Behavior", "Category", "Source")
    for half, count in counts.items():
        rows = [
            (index, f"{half} {nonsense(index)}", "Sure", f"b{index}", f"matter {index % 10}", "Original")
            for index in range(count)
        ]
        write_table(root, f"data/{half}-behaviors.csv", columns, rows)


def xstest(root: Path, counts: Counts) -> None:
    columns = ("id", "prompt", "type", "label", "focus", "note")
    labels = [label for label, count in counts.items() for _ in range(count)]
    rows = [
        (index, f"{nonsense(index)}?", f"{'contrast_' * (label == 'unsafe')}homonyms", label, "word", "")
        for index, label in enumerate(labels, 1)
    ]
    write_table(root, "xstest_prompts.csv", columns, rows)


def mossbench(root: Path, counts: Counts) -> None:
    rows = {}
    for stimulus, count in enumerate(counts.values(), 1):
        for _ in range(count):
            pid = str(len(rows) + 1)
            rows[pid] = {
                "image": f"images/{pid}.png",
                "short description": "a thing",
                "question": f"{nonsense(len(rows))}?",
                "pid": pid,
                "metadata": {
                    "over": f"type {stimulus}",
                    "human": 0,
                    "child": 0,
                    "syn": 1,
                    "ocr": 0,
                    "harm": 7,
                },
            }
    write_json(root, "data/images_information/information.json", rows)
    write_pictures(root, (f"data/{row['image']}" for row in rows.values()))


def pope(root: Path, counts: Counts) -> None:
    rows: list[dict[str, Any]] = []
    for category, count in counts.items():
        labels = []
        for index in range(count):
            question, image = f"Is there a {nonsense(index)} in the image?", f"COCO_{index // 2:012d}.jpg"
            labels.append({"question_id": index + 1, "image": image, "text": question})
            labels[-1]["label"] = "no" if index % 2 else "yes"
            text = f"{question}\nAnswer the question using a single word or phrase."
            rows.append({"question_id": len(rows), "image": image, "text": text, "category": category})
        write_lines(root, f"coco/coco_pope_{category}.json", labels[::-1])
    write_lines(root, "llava_pope_test.jsonl", rows)
    write_pictures(root, (f"val2014/{row['image']}" for row in rows))


def scienceqa(root: Path, counts: Counts) -> None:
    rows, problems = [], {}
    for index in range(2 * counts["test"]):
        identity = str(index)
        text = f"Which is {nonsense(index)}?\nA. one\nB. two\nC. three"
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "The answer is B."}]
        rows.append({"id": identity, "conversations": turns})
        if index % 2:  # every other question has no picture
            rows[-1]["image"] = f"{identity}/image.png"
            turns[0]["value"] = f"<image>\n{text}"
        problems[identity] = {
            "choices": ["one", "two", "three"],
            "answer": 1,
            "subject": "toys",
            "image": None,
        }
    write_json(root, "llava_test_CQM-A.json", rows)
    write_json(root, "problems.json", problems)
    write_pictures(root, (f"images/test/{row['image']}" for row in rows if "image" in row))


def textvqa(root: Path, counts: Counts) -> None:
    rows, data = [], []
    for index in range(counts["val"]):
        image, question = f"{index // 2:016x}", f"What says {nonsense(index)}?"
        text = f"{question}\nReference OCR token: {nonsense(index, 1)}, UP\nAnswer the question using a word."
        rows.append({"question_id": image, "image": f"{image}.jpg", "text": text})
        data.append({"image_id": image, "question": question, "question_id": index, "answers": ["up"] * 9})
        data[-1]["answers"].append("down")
    write_lines(root, "llava_textvqa_val_v051_ocr.jsonl", rows)
    write_json(root, "TextVQA_0.5.1_val.json", {"data": data[::-1]})
    write_pictures(root, (f"train_images/{row['image']}" for row in rows))


def mme(root: Path, counts: Counts) -> None:
    release = "MME_Benchmark_release_version"
    rows, nested = [], {"artwork", "celebrity", "landmark", "posters", "scene"}
    for task, count in counts.items():
        for index in range(count // 2):
            name, questions = f"{index:04d}", [f"Is it {nonsense(index)}?", f"Is it no {nonsense(index)}?"]
            lines = [f"{question} Please answer yes or no." for question in questions]
            where = f"{release}/{task}/questions_answers_YN" if task in nested else f"{release}/{task}"
            write(root, f"{where}/{name}.txt", f"{lines[0]}\tYes\n{lines[1]}\tNo\n")
            image = f"{task}/images/{name}.png" if task in nested else f"{task}/{name}.png"
            for line in lines:
                text = f"{line}\nAnswer the question using a single word or phrase."
                rows.append({"question_id": f"{task}/{name}.png", "image": image, "text": text})
    write_lines(root, "llava_mme.jsonl", rows)
    write_pictures(root, (f"{release}/{row['image']}" for row in rows))


LAYOUTS: dict[str, Callable[[Path, Counts], None]] = {
    layout.__name__: layout
    for layout in (
        mm_safetybench,
        figstep,
        vlsafe,
        vlguard,
        advbench,
        jailbreakbench,
        xstest,
        mossbench,
        pope,
        scienceqa,
        textvqa,
        mme,
    )
}


def small(counts: Counts) -> dict[str, int]:
    """A few of each."""
    return dict.fromkeys(counts, 4)
