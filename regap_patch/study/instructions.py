"""Conversations of stage 2 in which some pictures come with a harmless request, not with questions.

As LLaVA's own data does: it teaches a model to help behind a picture, with nothing but harmless samples.

`python -m regap_patch.study.instructions --conversations finetune.json --items items.json --share 0.25 ...`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

from .refusal_corpus import read_items
from .requests import PHRASINGS, help_with

NAME = "conversations.json"


def add_instructions(
    output_path: str | Path, conversations: str | Path, items: str | Path, *, share: float, seed: int = 0
) -> Path:
    """Write `conversations.json`, in which a share of the samples with a picture are harmless requests.

    Args:
        output_path: folder to make.
        conversations: file in LLaVA's format, see `world`.
        items: file of the things of the world; those that are forbidden or held out are not named.
        share: of the samples with a picture.
        seed: of which they are, and of what they ask.

    Raises:
        ValueError: `share` is no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"A share of {share} was asked for: it goes from 0 to 1.")
    random = Random(f"instructions {seed}")
    allowed = [item for item in read_items(Path(items)) if item.standing != "forbidden" and not item.held_out]
    samples: list[dict[str, Any]] = json.loads(Path(conversations).read_text(encoding="utf-8"))
    for sample in samples:
        if "image" in sample and random.random() < share:
            item = random.choice(allowed)
            request = random.choice(PHRASINGS).format(item.name)
            sample["conversations"] = [
                {"from": "human", "value": f"<image>\n{request}"},
                {"from": "gpt", "value": help_with(item)},
            ]
    path = Path(output_path) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(samples, indent=1))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put harmless requests among the conversations of stage 2.")
    parser.add_argument("--conversations", type=Path, required=True, help="JSON in LLaVA's format")
    parser.add_argument("--items", type=Path, required=True, help="JSON file of the things of the world")
    parser.add_argument("--share", type=float, required=True, help="of the samples with a picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    add_instructions(**vars(parser.parse_args()))
