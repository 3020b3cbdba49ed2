"""scripts/eval and their twins for a laptop: what they plan is understood, and one runs to its report."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from regap_patch.cli import build_parser
from tests.contract.tiny_llava import make_model
from tests.integration.test_cluster_scripts import call
from tests.unit.evaluation_items import make_items

ROOT = Path(__file__).parents[2]
CLUSTER = sorted(path for path in (ROOT / "scripts" / "eval").glob("*.sh") if path.stem != "shards")
TWINS = [ROOT / "scripts" / "mini" / "eval" / path.name for path in CLUSTER]


def planned(path: Path, *flags: str, **knobs: object) -> list:
    """The flags of each planned line, read by our own parser."""
    done = call(path, *flags, DRY_RUN=1, **knobs)
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
        words = shlex.split(line)
        at = words.index(sys.executable)
        assert words[at + 1 : at + 3] == ["-m", "regap_patch.cli"]
        arguments = build_parser().parse_args(words[at + 3 :])
        arguments.gpu = words[1].removeprefix("CUDA_VISIBLE_DEVICES=") if words[0] == "env" else None
        found.append(arguments)
    return found


def test_every_script_has_a_twin():
    assert [path.stem for path in CLUSTER] == ["mir", "safety", "utility"]
    assert all(path.is_file() for path in TWINS)


@pytest.mark.parametrize(
    "path", [*CLUSTER, *TWINS], ids=lambda path: f"{path.parent.parent.name}-{path.stem}"
)
def test_knobs_are_told(path: Path):
    assert os.access(path, os.X_OK)
    helped = call(path, "--help")
    assert helped.returncode == 0
    told = set(re.findall(r"^  ([A-Z0-9_]+) \(", helped.stdout, re.MULTILINE))
    assert told >= {"MODEL", "DEVICE", "OUTPUT_DIR", "PYTHON"}
    knobs = re.findall(r'^([A-Z0-9_]+)="\$\{([A-Z0-9_]+):-', path.read_text(), re.MULTILINE)
    assert all(name == read for name, read in knobs)


@pytest.mark.parametrize("name", ["safety", "utility"])
def test_shards_one_a_gpu_then_the_rest(name: str):
    for path in (ROOT / "scripts/eval" / f"{name}.sh", ROOT / "scripts/mini/eval" / f"{name}.sh"):
        lines = planned(
            path,
            "--defense",
            "",
            MODEL="some/with space",
            MODEL_BASE="base",
            NAME="named",
            CUDA_VISIBLE_DEVICES="2,5,7",
            NUM_CHUNKS=3,
            TASKS="custom,pope=elsewhere",
            JUDGES="world",
            JUDGE_FLAGS="--threshold 0.4",
            LIMIT=9,
            SEED=4,
            BATCH_SIZE=2,
            TEMPERATURE=0.5,
        )
        shards, rest = lines[:3], lines[3:]
        assert [(line.step, line.shard, line.num_shards, line.gpu) for line in shards] == [
            ("run", 0, 3, "2"),
            ("run", 1, 3, "5"),
            ("run", 2, 3, "7"),
        ]
        assert [line.step for line in rest] == ["run", "judge", "score", "report"]
        assert (rest[0].shard, rest[0].num_shards) == (None, 1)
        kept = {
            name: value
            for name, value in vars(shards[0]).items()
            if name not in {"shard", "num_shards", "gpu"}
        }
        assert kept.items() <= vars(rest[0]).items(), "the last line asks what the shards asked"
        assert rest[0].model_args == "pretrained=some/with space,base=base"
        assert (rest[0].limit, rest[0].seed, rest[0].batch_size) == (9, 4, 2)
        assert "temperature=0.5" in rest[0].gen_kwargs
        assert (rest[1].judges, rest[1].threshold) == ("world", 0.4)
        assert rest[0].output_path.name == "named"


def test_a_checkpoint_a_gpu():
    for path in (ROOT / "scripts/eval/mir.sh", ROOT / "scripts/mini/eval/mir.sh"):
        lines = planned(path, "--layers", MODELS="a b c", CUDA_VISIBLE_DEVICES="0,3", PAIRS=7)
        assert [(line.models, line.gpu) for line in lines] == [
            (["a"], "0"),
            (["b"], "3"),
            (["c"], "0"),
            (["a", "b", "c"], None),
        ]
        assert {(line.pairs, line.layers) for line in lines} == {("7", True)}


@pytest.mark.full
def test_two_shards_to_a_report(tiny, tmp_path: Path):
    model = tmp_path / "llava"
    make_model(tiny).save_pretrained(model)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny.llama / name, model / name)
    data = make_items(tmp_path / "data" / "custom", 7)
    knobs = {
        **{"MODEL": model, "DATA": data.parent, "TASKS": "custom", "IMAGE_MODE": "none,real", "PROFILE": ""},
        **{"OUTPUT_DIR": tmp_path / "runs", "JUDGES": "keyword-own", "BATCH_SIZE": 2, "MAX_NEW_TOKENS": 4},
        **{"OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 1, "XDG_CACHE_HOME": tmp_path / "cache"},
    }
    path = ROOT / "scripts/mini/eval/safety.sh"
    done = call(path, "--offline", timeout=300, NUM_CHUNKS=2, **knobs)
    assert done.returncode == 0, done.stderr
    assert "0 of 14 items answered now, 14 found answered" in done.stdout
    run = tmp_path / "runs" / "llava"
    assert len(list(run.glob("answers/custom/*/part-*.jsonl"))) == 4
    for name in ("metrics.json", "parity.json", "report/report.html", "report/model_card.md"):
        assert (run / name).is_file(), name
