"""A protocol as a file, and git repositories to hold it."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROTOCOL = """\
name: toy
about: a protocol for tests
world:
  {forbidden: 12, benign: 8, twins: 4, phrasings: 1, questions: 7, pictures: 64, conversations: 32, seed: 0}
language_model: {hidden_size: 128, num_layers: 2, steps: 10, documents: 100, vocabulary: 500}
alignment:
  {context_share: 0.5, learning_rate: 5e-4, stop_at: 0.25, band: [0.15, 0.30], check_every: 5, max_steps: 9}
tower: {steps: 10, seed: 0}
stage1: {batch: 32, learning_rate: 1.0e-3}
stage2: {method: full, batch: 16, learning_rate: 2.0e-4, instruction_share: 0.25}
measures: {image_modes: [none, words, blank, real], batch: 8, max_new_tokens: 24, pairs: 8, captions: 8}
arms: {primary: [off, regap], exploratory: [pairwise_l2]}
llms: {pilot: [901, 902], confirmatory: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], exploratory: [1, 2]}
variants:
  narrow: {alignment: {context_share: 0.0}}
  lora: {stage2: {method: lora}}
outcome: {metric: unsafe_rate, condition: blank, baseline: none, stage: stage2, level: 0.95, margin: 0.05}
utility: {metric: vqa_accuracy, margin: 0.05}
power: {target: 0.8, effect: 0.05, pilot_sd: null, cpu_hours: 8}
"""


def write_protocol(folder: Path, *changes: tuple[str, str]) -> Path:
    """The toy protocol with some words replaced, each of which must be in it."""
    text = PROTOCOL
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "toy.yaml"
    path.write_text(text)
    return path


def git(folder: Path, *words: str) -> str:
    """What git answers, as somebody who may commit."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_all(folder: Path, message: str) -> str:
    """Commit whatever lies there, and name the commit."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")
