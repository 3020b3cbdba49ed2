"""A whole study of which every file is written by code: nothing is trained, all is there to be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from regap_patch.records import Answer, Sample
from regap_patch.study.branches import branches
from regap_patch.study.protocol import read_protocol
from regap_patch.study.store import Node, write_record
from regap_patch.study.study_report import report_study
from regap_patch.study.study_run import Choice, write_study
from tests.unit.evaluations import Folder
from tests.unit.study_protocols import commit_all, write_protocol

HARM, BENIGN, QUESTIONS = 16, 6, 5
CHANGES = (
    ("[901, 902]", "[901]"),
    ("  lora: {stage2: {method: lora}}\n", ""),
    ("[pairwise_l2]", "[pairwise_l2, random_tokens]"),
)
REFUSING = ("refusal", "refusal", "refusal", "incoherent", "empty", "inability")


def written_study(root: Path) -> Path:
    """A study by the toy protocol, committed before; its folder, as `regap study report` leaves it."""
    home, folder = root / "protocol", root / "study"
    home.mkdir(parents=True)
    path = write_protocol(home, *CHANGES)
    commit = commit_all(home, "a protocol")
    protocol, random = read_protocol(path), Random(0)
    nodes = branches(protocol, folder / "store")
    for node in {node.key: node for node in nodes}.values():
        _fill(node, random)
        write_record(node, random.uniform(1, 100), commit)
    write_study(protocol, nodes, folder, Choice())
    report_study(protocol, nodes, folder)
    return folder


def _fill(node: Node, random: Random) -> None:
    node.output.mkdir(parents=True)
    treated = "/off/" not in node.name
    gap = random.uniform(0.3, 0.6) if treated else random.uniform(2.0, 4.0)
    if node.kind in ("stage1", "stage2"):
        _log(node.output, gap, random)
    if node.kind == "measures":
        _run(node.output / "run", list(node.recipe["image_modes"]), gap, random)
        _rows(node.output, gap, random)


def _log(folder: Path, gap: float, random: Random) -> None:
    history: list[dict[str, Any]] = []
    for step in range(1, 24):
        seen = 1.5 + (gap - 1.5) * step / 23 + random.gauss(0, 0.05)
        facts = {"centroid_l2": seen, "pairwise_sq": seen**2 + 2, "image_norm": seen + 1, "text_norm": 1.0}
        history.append({"step": step, **{f"regap/{name}": value for name, value in facts.items()}})
        history[-1] |= {"regap/loss_lm": 3 - step / 20, "loss": 3.0}
    history.append({"step": 23, "train_runtime": 1.0})
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))


def _run(path: Path, modes: list[str], gap: float, random: Random) -> None:
    """Judged answers: those with an image are unsafe more often where the gap is wide."""
    folder = Folder(path).ask("harm", HARM, modes=modes)
    folder.ask("benign", BENIGN, kind="benign", modes=modes)
    folder.ask("questions", QUESTIONS, kind="utility", modes=modes)
    folder.answer(lambda sample: f"answer {random.random()}")
    folder.answers = [replace(answer, first_token_refusal_prob=random.random()) for answer in folder.answers]
    rates = {mode: random.uniform(0.15, 0.3) + 0.06 * gap * (mode not in ("none", "words")) for mode in modes}

    def judge(sample: Sample, answer: Answer) -> dict[str, Any] | None:
        if sample.kind == "utility":
            return None
        if sample.kind == "harm" and random.random() < rates[sample.image_mode]:
            return {"label": "unsafe"}
        helps = sample.kind == "benign" and random.random() < 0.8
        return {"label": "safe", "response_class": "safe-help" if helps else random.choice(REFUSING)}

    folder.judge("world", judge)
    folder.judge("scorer", lambda sample, answer: _score(sample, random))
    folder.save()


def _score(sample: Sample, random: Random) -> dict[str, Any] | None:
    if sample.kind != "utility":
        return None
    return {"label": "safe", "response_class": "safe-help", "score": float(random.random() < 0.7)}


def _rows(folder: Path, gap: float, random: Random) -> None:
    """gap.json, mir.json and captions.json, in which means stand beside the rows that they are of."""
    samples = []
    for number in range(8):
        image, text = random.randint(8, 16), random.randint(10, 30)
        distance = gap + random.gauss(0, 0.1)
        sample = {"name": str(number), "image_rows": image, "text_rows": text, "centroid_l2": distance}
        sample |= {
            "pairwise_sq": distance**2 + 2,
            "image_norm": distance + 1,
            "text_norm": 1 + random.random() / 10,
        }
        samples.append(sample)
    metrics = ("centroid_l2", "pairwise_sq", "image_norm", "text_norm")
    mean = {name: sum(sample[name] for sample in samples) / len(samples) for name in metrics}
    image, text = (
        sum(sample[f"{side}_norm"] * sample[f"{side}_rows"] for sample in samples)
        / sum(sample[f"{side}_rows"] for sample in samples)
        for side in ("image", "text")
    )
    found = {"mean": mean, "stderr": dict.fromkeys(metrics, 0.02), "corpus": {"norm_ratio": image / text}}
    (folder / "gap.json").write_text(json.dumps({**found, "samples": samples}))
    _write_mir(folder, [random.uniform(0.5, 1.5) * gap for _ in range(3)])
    pairs = [
        {"pair": str(n), "tokens": random.randint(5, 40), "loss": random.uniform(0.5, 2)} for n in range(8)
    ]
    tokens = sum(pair["tokens"] for pair in pairs)
    loss = sum(pair["tokens"] * pair["loss"] for pair in pairs) / tokens
    (folder / "captions.json").write_text(json.dumps({"loss": loss, "tokens": tokens, "pairs": pairs}))


def _write_mir(folder: Path, terms: list[float]) -> None:
    from math import log10

    layers = [{"layer": number, "frechet": term} for number, term in enumerate(terms, 1)]
    mir = {"value": log10(sum(terms)), "stderr": 0.01}
    (folder / "mir.json").write_text(json.dumps({"mir": mir, "layers": layers}))
