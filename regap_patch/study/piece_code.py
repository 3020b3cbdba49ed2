"""The code that makes each kind of piece of a study: a change there is another key, and a piece made anew.

Files and folders of the repository, as `store.plan_node` takes them. What a list leaves out can change and
nobody notices, so a kind that loads a LLaVA takes `MODEL` from here and has no list of its own.
"""

from __future__ import annotations


def study(*modules: str) -> tuple[str, ...]:
    """Modules of this package."""
    return tuple(f"regap_patch/study/{name}.py" for name in modules)


def rooms(*names: str) -> tuple[str, ...]:
    """Packages of ours."""
    return tuple(f"regap_patch/{name}" for name in names)


WORDS = study("scenes", "language", "recipes", "requests")
TEXT = (*WORDS, *study("refusal_text", "refusal_corpus"))
TRAINING = study("tokens", "tiny", "pretraining", "refusal_text", "scenes")
ALIGNMENT = (
    *(*TEXT, *TRAINING, *study("measured_alignment", "replies")),
    "regap_patch/judges/response_class.py",
)
MODEL = (
    "llava/model",
    *(f"llava/{name}.py" for name in ("constants", "conversation", "mm_utils")),
    *(f"llava/{name}.py" for name in ("prompt_texts", "tiles", "tokenization")),
)
STAGE = (
    *(*MODEL, "llava/train", "scripts/stages.sh", "regap_patch/run.py"),
    *rooms("gap", "hosts", "patch", "train"),
)
ASKING = (*MODEL, "llava/eval/answering.py")
MEASURES = (
    *(*ASKING, *study("measures"), "regap_patch/records.py"),
    *rooms("gap", "hosts", "measure", "safety", "judges"),
)
_COMMANDS = tuple(
    f"regap_patch/commands/{name}.py" for name in ("defended", "eval_defense", "eval_run", "eval_target")
)
DEFENDED = (
    *(*ASKING, *rooms("defenses", "hosts", "safety", "judges"), *_COMMANDS),
    *("regap_patch/records.py", "regap_patch/fixed_prompt.py"),
)
