"""Language models and tower of a world that can refuse, each in a folder named by what it was made from.

Another setting, seed, version or line of the code that makes a piece is another folder, and what one piece is
made from includes the pieces below it. So a base model serves every alignment of it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from regap_patch.records import digest

from .clone import module
from .environment import version_of
from .jobs import Board, Job
from .lock import held
from .refusal_corpus import Corpus

_TEXT = ("scenes", "language", "recipes", "requests", "refusal_text", "refusal_corpus")
_TRAINING = ("tokens", "tiny", "pretraining")
_LIBRARIES = ("torch", "transformers", "sentencepiece")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What language models and tower are made from.

    Attributes:
        forbidden: things that are refused.
        benign: harmless things.
        twins: harmless things named like forbidden ones.
        base_documents: which the base model reads.
        vocabulary: pieces of the tokenizer: enough for every name to be one.
        hidden_size: width of the language model.
        num_layers: its depth.
        base_steps: of the base model.
        alignment_steps: strength of the alignment.
        context_share: breadth of the alignment, see `refusal_text.alignment_documents`.
        alignment_seed: of the alignment; None for that of all else.
        tower_steps: of the vision tower.
    """

    forbidden: int = 120
    benign: int = 80
    twins: int = 40
    base_documents: int = 48000
    vocabulary: int = 1536
    hidden_size: int = 64
    num_layers: int = 3
    base_steps: int = 2400
    alignment_steps: int = 250
    context_share: float = 0.0
    alignment_seed: int | None = None
    tower_steps: int = 700


@dataclass(frozen=True, slots=True)
class Models:
    """Where they lie: the file of things, and the folders of models."""

    items: Path
    base: Path
    aligned: Path
    tower: Path

    def paths(self) -> dict[str, str]:
        """As text."""
        return {name: str(path) for name, path in asdict(self).items()}


def cache_folder() -> Path:
    """The user's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regap" / "world"


def _made_from(modules: tuple[str, ...], *settings: object) -> str:
    """Hash of code, versions of libraries and settings."""
    code = [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in modules]
    return digest([code, [version_of(name) for name in _LIBRARIES], *settings])[:16]


def plan_models(size: ModelSize, seed: int, cache: Path) -> tuple[Models, list[Job]]:
    """Where each piece lies or will lie, and the jobs that make them."""
    text = _made_from(_TEXT, size.forbidden, size.benign, size.twins, size.base_documents, seed)
    tokens = _made_from(_TRAINING, text, size.vocabulary)
    base = _made_from(_TRAINING, tokens, size.hidden_size, size.num_layers, size.base_steps, seed)
    aligned_seed = seed if size.alignment_seed is None else size.alignment_seed
    strength = (size.alignment_steps, size.context_share, aligned_seed)
    aligned = _made_from((*_TEXT, *_TRAINING, "alignment"), base, *strength)
    tower = _made_from((*_TRAINING, "scenes"), size.tower_steps, seed)
    keys = {"text": text, "tokens": tokens, "base": base, "aligned": aligned, "tower": tower}
    folders = {name: cache / f"{name}-{key}" for name, key in keys.items()}
    corpus = Corpus.at(folders["text"])
    commands = {
        "text": module(
            *("refusal_corpus", "--num_forbidden", size.forbidden, "--num_benign", size.benign),
            *("--num_twins", size.twins, "--num_base", size.base_documents, "--seed", seed),
        ),
        "tokens": module("tokens", "--corpus", corpus.words, "--vocab_size", size.vocabulary),
        "base": module(
            *("pretraining", "llama", "--tokenizer_path", folders["tokens"], "--corpus", corpus.base),
            *("--steps", size.base_steps, "--hidden_size", size.hidden_size),
            *("--num_layers", size.num_layers, "--seed", seed),
        ),
        "aligned": module(
            *("alignment", "--model_path", folders["base"], "--items", corpus.items),
            *("--steps", size.alignment_steps, "--context_share", size.context_share),
            *("--seed", aligned_seed),
        ),
        "tower": module("pretraining", "clip", "--steps", size.tower_steps, "--seed", seed),
    }
    needs = {"text": (), "tokens": ("text",), "base": ("tokens",), "aligned": ("base",), "tower": ()}
    steps = {"base": size.base_steps, "aligned": size.alignment_steps, "tower": size.tower_steps}
    jobs = [
        Job(
            folders[name].name,
            (*command, "--output_path", str(folders[name])),
            folders[name],
            needs=tuple(folders[need].name for need in needs[name]),
            steps=steps.get(name, 0),
            key=keys[name],
        )
        for name, command in commands.items()
    ]
    return Models(corpus.items, folders["base"], folders["aligned"], folders["tower"]), jobs


def make_models(size: ModelSize, seed: int, cache: Path, parallel: int = 1) -> Models:
    """Make what the cache does not hold yet; an interrupted call goes on with the piece that it was at.

    Raises:
        StudyError: a step failed, or another process is at work in the cache.
    """
    models, jobs = plan_models(size, seed, cache)
    with held(cache, "wait for that one, or name another folder with --cache_path.") as lock:
        Board(cache, jobs, "", [lock]).run(parallel)
    return models
