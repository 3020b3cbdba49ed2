"""The quickstart: the study's road for one language model, its page, and what it asserts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.errors import StudyError
from regap_patch.study import quickstart
from regap_patch.study.protocol import read_protocol
from regap_patch.study.quickstart import PROTOCOLS, run_quickstart
from regap_patch.study.quickstart_page import write_quickstart_page
from tests.integration.written_quickstart import BOTH, OFF, REGAP, Written
from tests.unit.page_reader import Folder, Reader, loose_digits, sources

ROOT = Path(__file__).parents[2]
NAMES = ("llama", "tower", "world", "benchmark")
CHECKPOINTS = tuple(f"llava-{stage}-{arm}" for stage in ("pretrain", "finetune") for arm in ("off", "on"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Pieces that are written, not trained."""
    runner = Written()
    monkeypatch.setattr(quickstart, "run_study", runner)
    return runner


def with_shown(**changes: object) -> dict[str, object]:
    """`BOTH` with another second arm after fine-tuning."""
    return BOTH | {"regap/measures2": replace(REGAP, **changes)}


def piece_behind(place: Path) -> str:
    """Name of the piece in the store that a folder's links lead to."""
    (piece,) = {entry.resolve().parent for entry in place.iterdir() if entry.name != "gap.json"}
    assert piece.parent.name == "store"
    return piece.name


def test_the_road_is_the_studys_for_one_language_model(written: Written, tmp_path: Path, capsys):
    page = run_quickstart(tmp_path, seed=7)
    assert page == tmp_path / "report.html"
    assert len(written.made) == 16
    assert {name for name in written.made if "measures" in name} == {
        f"main/llm-7/{arm}/measures{stage}" for arm in ("off", "regap") for stage in (1, 2)
    }
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["llm"], found["alignment"]["unsafe"]) == (7, 0.2)
    assert all(check["met"] for check in found["checks"])
    assert len(found["checks"]) == 5
    blank = found["stages"]["stage2"]["arms"]["off"]["conditions"]["blank"]["unsafe_rate"]
    assert (blank["count"], blank["n"]) == (9, 20)
    assert (blank["low"], blank["high"]) == pytest.approx((0.2582, 0.6579), abs=1e-4)  # Wilson, by scipy
    difference = found["stages"]["stage2"]["difference"]
    assert difference["conditions"]["blank"]["value"] == pytest.approx((5 - 9) / 20)
    assert difference["above_text"]["blank"]["value"] == pytest.approx((5 - 4 - 9 + 4) / 20)
    assert difference["centroid_l2"]["value"] == pytest.approx(0.5 - 6.0)
    assert difference["mir"]["value"] == pytest.approx(0.3 - 0.9)
    assert difference["vqa_accuracy"]["value"] == pytest.approx(-1 / 20)
    said = capsys.readouterr().out
    assert "One language model proves nothing" in said
    assert "docs/what-we-found.md" in said
    assert "9/20 = 45.0 (25.8 to 65.8)" in said
    assert said.count("holds") == 5


def test_links_lead_to_the_pieces_and_follow_another_seed(written: Written, tmp_path: Path):
    run_quickstart(tmp_path)
    kinds = {name: piece_behind(tmp_path / name).partition("-")[0] for name in (*NAMES, *CHECKPOINTS)}
    assert [kinds[name] for name in NAMES] == ["aligned", "tower", "pictures", "benchmark"]
    assert [kinds[name] for name in CHECKPOINTS] == ["stage1", "stage1", "stage2", "stage2"]
    gaps = {name: (tmp_path / name / "gap.json").resolve().parent.name for name in CHECKPOINTS}
    assert all(gap.startswith("measures-") for gap in gaps.values())
    assert len(set(gaps.values())) == 4
    first = piece_behind(tmp_path / "llama")
    made = len(written.made)
    run_quickstart(tmp_path)
    assert len(written.made) == made
    run_quickstart(tmp_path, seed=1)
    assert len(written.made) == made + 14  # all but tower and pictures
    assert piece_behind(tmp_path / "llama") != first
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert (moved / "llava-finetune-on" / "node.json").is_file()


def test_what_lies_in_the_way_is_left_alone(written: Written, tmp_path: Path):
    run_quickstart(tmp_path)
    (tmp_path / "llava-pretrain-on" / "mine").touch()
    made = len(written.made)
    with pytest.raises(
        StudyError, match="llava-pretrain-on, but files of something else lie there: move them"
    ):
        run_quickstart(tmp_path, seed=1)
    assert len(written.made) == made


def test_a_seed_that_is_none_stops_before_anything_is_made(written: Written, tmp_path: Path):
    with pytest.raises(StudyError, match="seed -1 was asked for"):
        run_quickstart(tmp_path, seed=-1)
    assert written.made == []


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (with_shown(gap=6.5), "distance of the centroids after fine-tuning"),
        (with_shown(mir=0.95), "MIR after fine-tuning"),
        (with_shown(right=5), "VQA accuracy after fine-tuning: at most 20 points lower"),
        (BOTH | {"regap/measures1": OFF}, "MIR after pretraining"),
    ],
)
def test_what_does_not_hold_is_a_sentence_after_everything_was_written(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str], shown, words: str
):
    written.shown = shown
    assert main(["quickstart", "--output_path", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "FAILS" in said.out
    assert "FAILS" in (tmp_path / "report.html").read_text()
    assert "llava-finetune-on" in said.out


def test_refusals_are_shown_and_never_asserted(written: Written, tmp_path: Path):
    """A regulariser after which every forbidden request is answered."""
    written.shown = with_shown(unsafe=dict.fromkeys(OFF.unsafe, 20))
    run_quickstart(tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["stages"]["stage2"]["difference"]["conditions"]["blank"]["low"] > 0


def test_every_numeral_of_the_page_names_a_source_that_holds_it(written: Written, tmp_path: Path):
    from regap_patch.study.page_numbers import written as as_written

    page = write_quickstart_page(run_quickstart(tmp_path).parent).read_text(encoding="utf-8")
    assert loose_digits(page) == []
    folder = Folder(tmp_path)
    shown = list(sources(page))
    assert len(shown) > 200
    assert all(as_written(folder[one.source], one.style) == one.text for one in shown)
    assert "<script" not in page
    tables = [dict(found)["aria-label"] for tag, found in Reader(page).tags if "aria-label" in dict(found)]
    assert {"Asserted", "Unsafe answers", "Every answer", "Gap and MIR", "Utility", "Time"} <= set(tables)


@pytest.mark.parametrize("size", sorted(PROTOCOLS))
def test_a_quickstart_is_one_language_model_and_reports_nothing_as_primary(size: str):
    protocol = read_protocol(PROTOCOLS[size])
    assert protocol.smoke
    assert protocol.llms.confirmatory == (0,)
    assert protocol.arms.primary == ("off", "regap")
    assert not protocol.arms.exploratory
    assert not protocol.variants
    assert protocol.measures.image_modes == ("none", "words", "blank", "real")
    assert protocol.outcome.level == 0.95  # the level of every paired comparison


@pytest.mark.full
def test_quickstart_from_nothing_and_again(tmp_path: Path):
    command = [sys.executable, "-m", "regap_patch.cli", "quickstart", "--size", "smoke"]
    command += ["--output_path", str(tmp_path)]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert (tmp_path / "results.json").is_file(), first.stdout + first.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    fell = {(check["metric"], check["stage"]): check["met"] for check in results["checks"]}
    assert fell["centroid_l2", "stage1"], first.stdout
    assert first.returncode == (0 if all(fell.values()) else 1)
    for name in CHECKPOINTS:
        assert (tmp_path / name / "regap.json").is_file()
    assert (tmp_path / "llava-finetune-on" / "model.safetensors").is_file()
    assert loose_digits((tmp_path / "report.html").read_text(encoding="utf-8")) == []
    assert "One language model proves nothing" in first.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert "16 of 16 pieces lie in" in again.stdout
    repeated = json.loads((tmp_path / "results.json").read_text())
    assert repeated == results
    check_measurements(tmp_path)


def check_measurements(root: Path) -> None:
    """`regap mir RUN_DIR/*` on what the quickstart left: four checkpoints, the difference, a picture."""
    out, world = root / "mir", root / "world"
    flags = ["--images", world / "images", "--texts", world / "pretrain.json", "--model_base", root / "llama"]
    flags += ["--pairs", "20,100", "--output_path", out]
    regap = [sys.executable, "-m", "regap_patch.cli"]

    def run(*words: object) -> str:
        command = [*regap, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("mir", *(root / name for name in (*CHECKPOINTS, "llama")), *flags)
    assert "llama: passed over, a model without images" in said
    files = {name: out / f"{name}.json" for name in CHECKPOINTS}
    found = {name: json.loads(file.read_text()) for name, file in files.items()}
    for name, result in found.items():
        assert f"{result['mir']['value']:.4f}" in said
        assert (result["data"]["pairs"], result["evaluation"]["mode"]) == (100, "layer_major"), name
    assert len({json.dumps(result["data"], sort_keys=True) for result in found.values()}) == 1
    for stage in ("pretrain", "finetune"):  # what ReGap did to the input lasts
        off, on = (found[f"llava-{stage}-{arm}"]["layer_zero"]["centroid_l2"] for arm in ("off", "on"))
        assert on < off
        pair = (files[f"llava-{stage}-{arm}"] for arm in ("off", "on"))
        assert "95% interval" in run("mir", "compare", *pair)
    picture = root / "mir.png"
    run("plot", *files.values(), "--output_path", picture)
    assert picture.stat().st_size > 10_000
