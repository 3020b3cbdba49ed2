"""Folders of evaluations, made of records by code. All texts are inert."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regap_patch.records import Answer, Sample, Verdict, append_lines, digest, to_line

MANIFEST = {
    "schema": "regap.run/1",
    "started": {"at": "2026-11-22T05:00:00Z", "device": "cpu"},
    "target": {
        "kind": "llava",
        "files": {"model.safetensors": "0123"},
        "template": "v1",
        "dtype": "float32",
    },
    "decoding": {"temperature": 0.0, "max_new_tokens": 64},
    "seed": 0,
    "defense": "",
    "versions": {"torch": "2.13"},
}


@dataclass
class Folder:
    """A run folder in the making.

    Attributes:
        path: of the folder.
        manifest: written on `save`.
        samples: all that is asked.
        about: what `judge.json` says of judges; without an entry there is no such file.
    """

    path: Path
    manifest: dict[str, Any] = field(default_factory=lambda: deepcopy(MANIFEST))
    samples: list[Sample] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(
        self,
        benchmark: str,
        count: int,
        *,
        modes: Sequence[str] = ("none", "real"),
        kind: str = "harm",
        scenarios: Sequence[str] = ("",),
        cluster: Callable[[int], str] = lambda number: "",
        prompt: str = "How do I fold a {number}-cornered forbidden napkin?",
    ) -> Folder:
        for mode in modes:
            for number in range(count):
                uid = f"{benchmark}/test/{number:04d}"
                text = prompt.format(number=number)
                scenario = scenarios[number % len(scenarios)]
                image = None if mode in ("none", "words") else f"{mode}/{number}.png"
                self.samples.append(
                    Sample(
                        uid, benchmark, scenario, cluster(number) or uid, kind, text, text, image,
                        image and digest(image), mode, "CC0-1.0",
                    )
                )  # fmt: skip
        return self

    def answer(self, say: Callable[[Sample], str | None], **changes: Any) -> Folder:
        for sample in self.samples:
            text = say(sample)
            if text is not None:
                key = digest([sample.uid, sample.image_mode, text, self.manifest["target"], changes])
                self.answers.append(
                    Answer(
                        key, sample.uid, sample.image_mode, self.manifest["defense"], text, len(text.split()),
                        changes.get("finish_reason", "stop"), 0,
                    )
                )  # fmt: skip
        return self

    def judge(self, name: str, decide: Callable[[Sample, Answer], dict[str, Any] | None]) -> Folder:
        """`decide` gives fields of the verdict; a bare label's class follows; None leaves it out."""
        by_key = {(sample.uid, sample.image_mode): sample for sample in self.samples}
        classes = {"safe": "refusal", "unsafe": "unsafe", "unscored": "judge-error"}
        for answer in self.answers:
            found = decide(by_key[answer.uid, answer.image_mode], answer)
            if found is not None:
                found = {"response_class": classes[found["label"]], "revision": "r1"} | found
                self.verdicts.append(
                    Verdict(
                        digest([answer.key, name]), answer.key, answer.uid, answer.image_mode, name, **found
                    )
                )
        return self

    def save(self) -> Path:
        self.path.mkdir(parents=True)
        (self.path / "manifest.json").write_text(json.dumps(self.manifest))
        benchmark = {(sample.uid, sample.image_mode): sample.benchmark for sample in self.samples}
        lines: dict[Path, list[str]] = defaultdict(list)
        for sample in self.samples:
            lines[self.path / "samples" / f"{sample.benchmark}.jsonl"].append(to_line(sample))
        for answer in self.answers:
            name = benchmark[answer.uid, answer.image_mode]
            path = self.path / "answers" / name / answer.image_mode / "part-0.jsonl"
            lines[path].append(to_line(answer))
        for judge, about in self.about.items():
            home = self.path / "verdicts" / judge
            home.mkdir(parents=True)
            (home / "judge.json").write_text(json.dumps({"name": judge, **about}))
        for verdict in self.verdicts:
            name = benchmark[verdict.uid, verdict.image_mode]
            path = self.path / "verdicts" / verdict.judge / name / f"{verdict.image_mode}.jsonl"
            lines[path].append(to_line(verdict))
        for path, texts in lines.items():  # at once: `append_lines` syncs the disk at every call
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(texts), encoding="utf-8")
        return self.path


def append_quickly(path: Path, record: Any) -> None:
    """As `append_lines`, which syncs the disk at every call."""
    if not path.exists():
        append_lines(path, [record])
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(to_line(record))


def number_of(record: Sample | Answer | Verdict) -> int:
    return int(record.uid.rpartition("/")[2])


def unsafe_below(limits: dict[str, int]) -> Callable[[Sample, Answer], dict[str, Any]]:
    """A judge that finds the first `limits[mode]` items of a mode unsafe."""
    return lambda sample, answer: {
        "label": "unsafe" if number_of(sample) < limits[sample.image_mode] else "safe"
    }
