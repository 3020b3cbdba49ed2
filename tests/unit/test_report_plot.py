"""`regap plot`: what it reads, what it draws, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.errors import ReportError
from regap_patch.report import draw_runs, plot_runs, read_run, read_runs

KEYS = ("loss_lm", "loss_weighted", "centroid_l2", "image_norm", "text_norm", "cosine")


def state(path: Path, *, start: float = 8.0, steps: int = 5, prefix: str = "regap/") -> Path:
    """What a Trainer leaves: a line for each step, then one of the run. Value k of step s: start/s + k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": step, "epoch": step / steps, "loss": 2.0}
        | {prefix + key: start / step + number for number, key in enumerate(KEYS)}
        for step in range(1, steps + 1)
    ]
    path.write_text(json.dumps({"log_history": [*rows, {"step": steps, "train_runtime": 3.0}]}))
    return path


def test_log_is_read_from_a_file_a_folder_or_the_newest_checkpoint(tmp_path: Path):
    done = state(tmp_path / "done/trainer_state.json")
    for steps in (9, 10):
        state(tmp_path / f"going/checkpoint-{steps}/trainer_state.json", steps=steps)
    (tmp_path / "going/checkpoint-last").mkdir()
    assert read_run(done) == read_run(done.parent)
    assert read_run(done).name == "done"
    assert read_run(done).series["loss_weighted"] == [(step, 8.0 / step + 1) for step in range(1, 6)]
    assert set(read_run(done).series) == set(KEYS)
    going = read_run(tmp_path / "going")
    assert (going.name, len(going.series["cosine"])) == ("going", 10)


def test_every_key_is_drawn_against_its_steps_one_colour_a_run(tmp_path: Path):
    runs = [
        read_run(state(tmp_path / "off/trainer_state.json")),
        read_run(state(tmp_path / "on/trainer_state.json", start=4.0)),
    ]
    axes = draw_runs(runs).axes
    keys = [("loss_lm", "loss_weighted"), ("centroid_l2",), ("image_norm", "text_norm"), ("cosine",)]
    assert len(axes) == len(keys)
    for panel, drawn in zip(axes, keys, strict=True):
        lines = [[tuple(point) for point in line.get_xydata()] for line in panel.get_lines()]
        assert lines == [run.series[key] for run in runs for key in drawn]
        colours = [line.get_color() for line in panel.get_lines()]
        assert colours == ["C0"] * len(drawn) + ["C1"] * len(drawn)
        assert panel.get_xlabel() == "optimizer step"
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["off", "on"]


def test_runs_with_one_name_are_called_by_their_paths(tmp_path: Path):
    paths = [state(tmp_path / side / "run/trainer_state.json").parent for side in "ab"]
    assert [run.name for run in read_runs([*paths, state(tmp_path / "other/trainer_state.json")])] == [
        *map(str, paths),
        "other",
    ]


def test_command_writes_png_and_svg_by_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = str(state(tmp_path / "a <b>/trainer_state.json").parent)
    png, svg = tmp_path / "new/plot.png", tmp_path / "plot.SVG"
    assert main(["plot", run, "--output_path", str(png)]) == 0
    assert capsys.readouterr().out.strip() == str(png)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert main(["plot", run, run, "--output_path", str(svg)]) == 0
    drawn = svg.read_text()
    assert "cosine of the centroids" in drawn
    assert "a &lt;b&gt;" in drawn
    assert sorted(path.name for path in (*tmp_path.iterdir(), *png.parent.iterdir())) == sorted(
        ["a <b>", "new", "plot.SVG", "plot.png"]
    )


def test_what_cannot_be_plotted_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = state(tmp_path / "run/trainer_state.json")
    plain = state(tmp_path / "plain/trainer_state.json", prefix="other/")
    (tmp_path / "empty").mkdir()
    torn = tmp_path / "torn.json"
    torn.write_text('{"log_history": [')
    listed = tmp_path / "listed.json"
    listed.write_text("[1, 2]")
    out = tmp_path / "plot.png"
    cases = [
        ([tmp_path / "empty"], out, "neither it nor a checkpoint-N in it holds a trainer_state.json"),
        ([tmp_path / "nowhere"], out, "name the output folder of a training run, or the file itself"),
        ([torn], out, "cannot be read as the state of a transformers.Trainer"),
        ([listed], out, "cannot be read as the state of a transformers.Trainer"),
        ([run, plain], out, "has no line with regap/...: train with `python -m regap_patch.run`"),
        ([run], tmp_path / "plot.jpeg", "end the name in .png or .svg"),
        ([run], tmp_path / "plot", "no suffix is no format"),
    ]
    for runs, path, sentence in cases:
        assert main(["plot", *map(str, runs), "--output_path", str(path)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("regap plot: ")
        assert sentence in said
        assert said.count("\n") == 1
        assert not path.exists()


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = read_run(state(tmp_path / "run/trainer_state.json"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ReportError, match="pip install matplotlib"):
        plot_runs([run], tmp_path / "plot.png")


def test_a_plot_needs_no_torch(tmp_path: Path):
    run = state(tmp_path / "run/trainer_state.json")
    code = (
        "import sys, regap_patch.report\n"
        "from regap_patch.cli import main\n"
        f"assert main(['plot', {str(run)!r}, '--output_path', {str(tmp_path / 'plot.svg')!r}]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
