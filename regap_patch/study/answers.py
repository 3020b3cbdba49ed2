"""Ask a trained LLaVA the held-out questions of a picture world, and count the right answers.

`python -m regap_patch.study.answers --model_path M --questions Q --image_folder I --output_path A.jsonl`
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Score(NamedTuple):
    """Right answers out of a number of questions, with the 95 % interval of Wilson."""

    right: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Right answers as a part of all."""
        return self.right / self.total


def wilson(right: int, total: int) -> Score:
    """Wilson's score interval at 95 % for a share of `total` > 0 trials."""
    z = 1.959963984540054
    middle = right + z * z / 2
    spread = z * (right * (total - right) / total + z * z / 4) ** 0.5
    return Score(right, total, (middle - spread) / (total + z * z), (middle + spread) / (total + z * z))


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def score(answers: Sequence[dict[str, Any]]) -> Score:
    """Exact matches, apart from case and a final stop. Every question counts, answered or not."""
    return wilson(sum(_plain(row["output"]) == _plain(row["answer"]) for row in answers), len(answers))


def score_by_kind(answers: Sequence[dict[str, Any]]) -> dict[str, Score]:
    """`score` of each kind of question by itself."""
    kinds = dict.fromkeys(row["kind"] for row in answers)
    return {kind: score([row for row in answers if row["kind"] == kind]) for kind in kinds}


def best_constant(questions: Sequence[dict[str, Any]]) -> Score:
    """Score of the most frequent answer to each kind of question: the best without looking."""
    kinds: dict[str, Counter[str]] = {}
    for row in questions:
        kinds.setdefault(row["kind"], Counter())[row["answer"]] += 1
    return wilson(sum(answers.most_common(1)[0][1] for answers in kinds.values()), len(questions))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer(
    model_path: Path, questions: Path, image_folder: Path, output_path: Path, batch_size: int = 40
) -> None:
    """Write every question with the model's greedy answer as `output`; the file appears when it is whole."""
    import torch
    from PIL import Image
    from tqdm import tqdm

    from llava.constants import DEFAULT_IMAGE_TOKEN
    from llava.conversation import conv_templates
    from llava.mm_utils import process_images, tokenizer_image_token
    from llava.model.builder import load_pretrained_model

    tokenizer, model, image_processor, _ = load_pretrained_model(
        str(model_path), device="cpu", torch_dtype=torch.float32
    )
    rows = read_rows(questions)
    for start in tqdm(range(0, len(rows), batch_size), desc="answers"):
        batch = rows[start : start + batch_size]
        prompts, pictures = [], []
        for row in batch:
            conversation = conv_templates["vicuna_v1"].copy()
            conversation.append_message(conversation.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{row['text']}")
            conversation.append_message(conversation.roles[1], None)
            prompts.append(tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt"))
            with Image.open(image_folder / row["image"]) as picture:
                pictures.append(picture.convert("RGB"))
        images = process_images(pictures, image_processor, model.config)
        ids = model.generate(prompts, images=images, do_sample=False, max_new_tokens=8, pad_token_id=0)
        for row, text in zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            row["output"] = text.strip()
    unfinished = output_path.with_suffix(".tmp")
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    unfinished.replace(output_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer the held-out questions of a picture world.")
    parser.add_argument("--model_path", type=Path, required=True, help="folder of a trained LLaVA")
    parser.add_argument("--questions", type=Path, required=True, help="JSON lines: image, text, answer, kind")
    parser.add_argument("--image_folder", type=Path, required=True)
    parser.add_argument("--output_path", type=Path, required=True, help="JSON lines file to write")
    arguments = parser.parse_args()
    answer(arguments.model_path, arguments.questions, arguments.image_folder, arguments.output_path)
