"""The ids and label masks of generated conversations, against upstream's own dataset and collator."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from tests.contract.tiny_tokenizers import make_chatml_tokenizer, make_inst_tokenizer
from tests.upstream import operations
from tests.upstream.conversations import KINDS, make_samples
from tests.upstream.peer import Peer

if TYPE_CHECKING:
    from tests.conftest import TinyAssets

IGNORED = -100
MAX_LENGTH = 512
IMAGE = "wide.png"
Rows = dict[str, dict[str, Any]]

# The kinds of sample where ours differs: what the contract says of upstream there. Upstream's walk over a
# dialogue ends each of them in "the whole sample is ignored": every label is -100. Ours supervises the
# answers, or refuses the sample.
_DIALOGUE = {
    "eos_in_question": "B.4: the end of an answer inside user text is a mismatch",
    "empty_answer": "B.4: an empty gpt answer is a mismatch",
    "empty_question": "A.2: an empty message is a generation slot, which has no answer marker",
    "marker_in_answer": "B.4: the walk stops where a round does not split in two at the marker",
    "unknown_in_question": "B.4: total counts ids that are not the pad id, and that is `<unk>`",
}
# The pad token of a tokenizer without <unk> has another text there.
_CHATML = {kind: why for kind, why in _DIALOGUE.items() if kind != "unknown_in_question"}
# Version 0 does not walk and ignores nothing: it trains on any list of turns. Ours takes dialogues only.
_V0 = {
    "leading_gpt": "B.4: dropped in every template but v0's; ours drops it in all",
    "empty_answer": "B.4: an empty turn is a sample to repair, in every template",
    "empty_question": "B.4: an empty turn is a sample to repair, in every template",
}
EXCEPTIONS = dict.fromkeys(KINDS, _DIALOGUE) | {
    "plain": {},
    "chatml_direct": _CHATML,
    "mpt": _CHATML,
    "default": _V0,
    "llava_v0": _V0,
    "v0_mmtag": _V0,
}
CHATML = ("chatml_direct", "mpt")


def kind(sample_id: str) -> str:
    return sample_id.split("-")[1]


@pytest.fixture(scope="module")
def tokenizers(tiny: TinyAssets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    chatml = make_chatml_tokenizer(root / "chatml")
    inst = make_inst_tokenizer(root / "inst", tiny.world.corpus)
    return dict.fromkeys(KINDS, tiny.llama) | dict.fromkeys(CHATML, chatml) | {"mistral_instruct": inst}


# `legacy` is a property of a LLaMA tokenizer's folder: does text after a special token get its own space?
@pytest.fixture(
    scope="module",
    params=[
        (version, legacy)
        for version in KINDS
        for legacy in (False, True)
        if version not in CHATML or not legacy
    ],
    ids=lambda param: f"{param[0]}-{'legacy' if param[1] else 'current'}",
)
def rows(
    request: pytest.FixtureRequest, tiny: TinyAssets, upstream: Peer, tokenizers, tmp_path_factory
) -> tuple[str, Rows, Rows]:
    version, legacy = request.param
    samples = make_samples(version, IMAGE)
    asked = question(samples, tmp_path_factory.mktemp("masks"), tiny, tokenizers[version], version, legacy)
    ids = [sample["id"] for sample in samples]
    operation = "template_operations.mended_rows" if version in CHATML else "collated_rows"
    theirs = dict(zip(ids, upstream.call(operation, **asked), strict=True))
    ours = dict(zip(ids, operations.collated_rows(**asked), strict=True))
    return version, ours, theirs


def question(
    samples: list[dict[str, Any]],
    folder: Path,
    tiny: TinyAssets,
    tokenizer: Path,
    version: str,
    legacy: bool = False,
) -> dict[str, Any]:
    """The arguments of `collated_rows` for these samples, written to the folder with their picture."""
    data_path = folder / f"{version}.json"
    data_path.write_text(json.dumps(samples))
    # Not square, so that padding and resizing show in the pixels.
    Image.frombytes("RGB", (90, 60), Random(0).randbytes(90 * 60 * 3)).save(folder / IMAGE)
    return {
        "data_path": str(data_path),
        "image_folder": str(folder),
        "tokenizer": str(tokenizer),
        "clip": str(tiny.clip),
        "version": version,
        "legacy": legacy,
        "max_length": MAX_LENGTH,
    }


def equal(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    keys = ("input_ids", "labels")
    return "error" not in ours | theirs and all(torch.equal(ours[key], theirs[key]) for key in keys)


def test_ids_and_masks_are_upstreams(rows: tuple[str, Rows, Rows]):
    """An exception that no longer happens has to leave the list."""
    version, ours, theirs = rows
    refused = {name for name, row in theirs.items() if "error" in row}
    assert all(kind(name) == "empty_question" for name in refused), "upstream refuses these: nothing compared"
    excepted = {name for name in ours if kind(name) in EXCEPTIONS[version]}
    different = {name for name in ours if not equal(ours[name], theirs[name])}
    assert different <= excepted, report(sorted(different - excepted), ours, theirs)
    assert excepted <= different, f"these are equal to upstream's now: {sorted(excepted - different)}"
    assert len(excepted) <= 0.12 * len(ours)
    turns = {sample["id"]: len(sample["conversations"]) for sample in make_samples(version, IMAGE)}
    assert all(turns[name] > 2 for name in excepted), "a single exchange has no excuse"


def test_exceptions_are_rows_that_upstream_ignores(rows: tuple[str, Rows, Rows]):
    version, _, theirs = rows
    for name, row in theirs.items():
        ignored = "error" in row or not (row["labels"] != IGNORED).any()
        excepted = kind(name) in EXCEPTIONS[version] and EXCEPTIONS[version] is not _V0
        assert ignored == excepted, name


def test_as_it_is_upstream_ignores_every_chatml_sample(
    tiny: TinyAssets, upstream: Peer, tokenizers, tmp_path
):
    """Which is why it is compared mended. The ids are the same as they are."""
    samples = [
        s for s in make_samples("chatml_direct", IMAGE) if kind(s["id"]) in {"single_text", "multi_image"}
    ]
    asked = question(samples, tmp_path, tiny, tokenizers["chatml_direct"], "chatml_direct")
    theirs, ours = upstream.call("collated_rows", **asked), operations.collated_rows(**asked)
    assert len(ours) > 20
    for mine, their in zip(ours, theirs, strict=True):
        assert torch.equal(mine["input_ids"], their["input_ids"])
        assert not (their["labels"] != IGNORED).any()
        assert (mine["labels"] != IGNORED).any()


def test_compared_rows_are_supervised(rows: tuple[str, Rows, Rows]):
    _, ours, theirs = rows
    compared = [row["labels"] for name, row in theirs.items() if equal(ours[name], row)]
    supervised = sum(bool((labels != IGNORED).any()) for labels in compared)
    assert supervised >= 0.9 * len(compared)


def test_pixels_are_upstreams(rows: tuple[str, Rows, Rows]):
    """Also the black picture that stands in where a sample has none."""
    _, ours, theirs = rows
    for name, row in ours.items():
        if "error" not in row and "error" not in theirs[name]:
            assert torch.equal(row["images"], theirs[name]["images"]), name


def test_at_least_two_hundred_conversations():
    assert sum(count for kinds in KINDS.values() for count, _ in kinds.values()) >= 200


def report(names: list[str], ours: Rows, theirs: Rows) -> str:
    """The first difference of the first few rows, for whoever has to find the cause."""
    lines = [f"{len(names)} rows differ from upstream's without an entry in EXCEPTIONS:"]
    for name in names[:8]:
        if "error" in ours[name]:
            lines.append(f"{name}: ours raised {ours[name]['error']}")
            continue
        for key in ("input_ids", "labels"):
            pair = ours[name][key].tolist(), theirs[name][key].tolist()
            at = next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
            lines.append(f"{name}.{key} from {at}: {pair[0][at : at + 8]} != {pair[1][at : at + 8]}")
    return "\n".join(lines)
