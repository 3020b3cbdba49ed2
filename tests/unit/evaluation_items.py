"""Inert items and a target that answers by arithmetic, for tests of runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from regap_patch.safety.image_modes import SIDE
from regap_patch.safety.png import plain_png, png
from regap_patch.safety.target import Reply

__all__ = ["SIDE", "FakeTarget", "make_items"]


def make_items(root: Path, count: int = 10, *, pictures: bool = True) -> Path:
    """A folder of the `custom` benchmark: nonsense questions, each with a small picture of its own."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        row = {
            "id": f"{number:03d}",
            "prompt": f"How do I fold a blorp {number}?",
            "scenario": "ab"[number % 2],
        }
        if pictures:
            row["image"] = f"images/{number}.png"
            (root / row["image"]).write_bytes(plain_png(8, 6, (number, 10, 20)))
        rows.append(row)
    (root / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def noisy_picture(width: int, height: int, seed: int) -> bytes:
    return png(width, height, hashlib.shake_256(str(seed).encode()).digest(3 * width * height))


class FakeTarget:
    """Says a hash of what it was asked, of its weights and, as a bad batch would, of its company.

    Attributes:
        asked: questions so far.
        fails: reply with an error while this is set.
    """

    def __init__(self, weights: str = "w", template: str = "t", company: bool = True) -> None:
        self.weights, self.template, self.company = weights, template, company
        self.asked = 0
        self.fails: str | None = None

    def fingerprint(self):
        return {"kind": "fake", "files": {"model.safetensors": self.weights}, "template": self.template}

    def answer(self, questions, decoding, seeds):
        self.asked += len(questions)
        if self.fails is not None:
            return [Reply("", 0, "error", error=self.fails) for _ in questions]
        together = hashlib.sha256()
        for question in questions:
            together.update(f"{question.text}\0".encode() + (question.picture or b""))
        replies = []
        for question, seed in zip(questions, seeds, strict=True):
            own = f"{self.weights}{question.text}{seed}".encode() + (question.picture or b"")
            company = together.hexdigest()[:8] if self.company else ""
            text = hashlib.sha256(own).hexdigest()[:12] + company
            replies.append(Reply(text, len(text), "stop", 0.25))
        return replies

    def close(self):
        pass
