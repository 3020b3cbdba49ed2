"""`regap plot` of mir.json files: what is read, what is drawn, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.errors import ReportError
from regap_patch.report import draw_mir, is_mir_file, read_mir_file, read_mir_files

KEYS = ("frechet", "mean_part", "image_norm", "text_norm", "cosine")


def result(path: Path, *, scale: float = 1.0, layers: int = 3, pictures: int = 2, **changed) -> Path:
    """A result whose value k of layer l is scale (l + 1) + k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"layer": layer, **{key: scale * (layer + 1) + k for k, key in enumerate(KEYS)}}
        for layer in range(layers + 1)
    ]
    flat = [
        {"layer": n, "image": [[0, 1], [n, 2]], "text": [[3, 4], [5, 6], [7, 8]], "explained": [0.5, 0.25]}
        for n in range(pictures)
    ]
    curve = [{"pairs": pairs, "value": scale + 1 / pairs, "stderr": 0.1} for pairs in (10, 20)]
    content = {"schema": "regap.mir/1", "layer_zero": rows[0], "layers": rows[1:], "curve": curve}
    path.write_text(json.dumps({**content, "projections": flat, **changed}))
    return path


def points(line) -> list[tuple[float, float]]:
    return [tuple(point) for point in line.get_xydata()]


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    found = read_mir_file(result(tmp_path / "on.json"))
    assert found.name == "on"
    assert found.series["mean_part"] == [(layer, layer + 2.0) for layer in range(4)]
    assert found.curve == [(10, 1.1, 0.1), (20, 1.05, 0.1)]
    assert [picture.layer for picture in found.pictures] == [0, 1]
    assert found.pictures[1].image == [(0, 1), (1, 2)]
    nothing = result(tmp_path / "nan.json", curve=[{"pairs": 10, "value": None, "stderr": None}])
    assert read_mir_file(nothing).curve == []


def test_layers_are_drawn_one_colour_a_checkpoint_and_layer_0_apart(tmp_path: Path):
    files = [read_mir_file(result(tmp_path / f"{n}.json", scale=n, pictures=0)) for n in (1, 2)]
    terms, norms, cosine, curve = draw_mir(files).axes
    for number, file in enumerate(files):
        colour = f"C{number}"
        mine = [line for line in terms.get_lines() if line.get_color() == colour]
        assert [points(line) for line in mine] == [
            file.series["frechet"][1:],
            file.series["mean_part"][1:],
            file.series["frechet"][:1],
        ]
        mine = [points(line) for line in norms.get_lines() if line.get_color() == colour]
        assert mine == [file.series["image_norm"], file.series["text_norm"]]
    assert [points(line) for line in cosine.get_lines()] == [file.series["cosine"] for file in files]
    bars = [container.lines[0] for container in curve.containers]
    assert [points(line) for line in bars] == [[(n, value) for n, value, _ in file.curve] for file in files]
    low, high = curve.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((1.1 - 0.196, 1.1 + 0.196))
    assert [text.get_text() for text in terms.get_legend().get_texts()] == ["1", "2"]


def test_flat_pictures_stand_in_a_row_for_each_checkpoint(tmp_path: Path):
    files = [read_mir_file(result(tmp_path / f"{n}.json", pictures=n)) for n in (0, 1, 2)]
    axes = draw_mir(files).axes[4:]
    assert [one.get_visible() for one in axes] == [True, False, True, True]
    shown = [one for one in axes if one.get_visible()]
    assert [one.get_title().split(":")[0] for one in shown] == ["layer 0", "layer 0", "layer 1"]
    assert [one.get_ylabel() for one in shown] == ["1", "2", ""]
    image, text = shown[2].collections
    assert image.get_offsets().tolist() == [[0, 1], [1, 2]]
    assert len(text.get_offsets()) == 3
    assert "(50%, 25% of the variance)" in shown[2].get_title()


def test_results_with_one_name_are_called_by_their_paths(tmp_path: Path):
    paths = [result(tmp_path / side / "mir.json") for side in "ab"]
    assert [found.name for found in read_mir_files(paths)] == [*map(str, paths)]


def test_the_command_tells_results_from_training_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = (result(tmp_path / f"{name}.json") for name in ("off", "on"))
    target = tmp_path / "plot.png"
    assert main(["plot", str(first), str(second), "--output_path", str(target)]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    (tmp_path / "run").mkdir()
    assert main(["plot", str(first), str(tmp_path / "run"), "--output_path", str(tmp_path / "no.png")]) == 1
    assert "1 of the 2 paths are results of `regap mir`" in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()
    assert is_mir_file(first)
    other = tmp_path / "gap.json"
    other.write_text('{"schema": "regap.gap/1"}')
    torn = tmp_path / "torn.json"
    torn.write_text('{"schema": ')
    assert not any(map(is_mir_file, (other, torn, tmp_path, tmp_path / "nowhere.json")))
    with pytest.raises(ReportError, match="cannot be read as a result of `regap mir`"):
        read_mir_file(other)


def test_a_plot_of_results_needs_no_torch(tmp_path: Path):
    measured = result(tmp_path / "on.json")
    code = (
        "import sys\n"
        "from regap_patch.cli import main\n"
        f"main(['plot', {str(measured)!r}, '--output_path', {str(tmp_path / 'p.svg')!r}])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
