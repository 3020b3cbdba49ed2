"""`scripts/study/same.py`: two runs of a study are the same, or what differs is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.integration.written_study import written_study

SCRIPT = Path(__file__).parents[2] / "scripts" / "study" / "same.py"


def same(first: Path, second: Path) -> tuple[int, str]:
    command = [sys.executable, SCRIPT, first, second]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_turned_verdict_a_byte_and_a_lost_file_are_named_and_places_are_not(tmp_path: Path):
    study = written_study(tmp_path / "one")
    again = Path(shutil.copytree(study, tmp_path / "again"))
    branches = json.loads((study / "study.json").read_text())["branches"]
    measured, trained = (again / branches[f"main/llm-3/regap/{name}"] for name in ("measures2", "stage2"))
    for name in (measured, trained):
        assert name.is_dir()
    gap = measured / "gap.json"
    content = json.loads(gap.read_text())
    gap.write_text(json.dumps(content | {"key": "of another place", "seconds": 99.0}))
    weights = trained / "model.safetensors"
    for folder in (study / branches["main/llm-3/regap/stage2"], trained):
        (folder / "model.safetensors").write_bytes(b"weights")
    status, said = same(study, again)
    assert status == 0, said
    assert "differs" not in said

    verdicts = measured / "run" / "verdicts" / "world" / "harm" / "blank.jsonl"
    first, *rest = verdicts.read_text().splitlines(keepends=True)
    label = {"safe": "unsafe", "unsafe": "safe"}[json.loads(first)["label"]]
    verdicts.write_text(json.dumps(json.loads(first) | {"label": label}) + "\n" + "".join(rest))
    weights.write_bytes(b"weightS")
    (measured / "mir.json").unlink()
    status, said = same(study, again)
    assert status == 1
    for name in (
        "measures2: run/verdicts/world/harm/blank.jsonl",
        "stage2: model.safetensors",
        "measures2: mir.json",
    ):
        assert f"differs  main/llm-3/regap/{name}" in said
    assert "3 files differ" in said


def test_studies_without_a_piece_in_common_are_no_success(tmp_path: Path):
    study = written_study(tmp_path / "one")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "study.json").write_text(json.dumps({"branches": {}}))
    status, said = same(study, tmp_path / "none")
    assert status == 1
    assert "No piece is in both" in said
