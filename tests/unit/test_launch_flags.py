"""The launcher's command line, its speed, and the files beside a checkpoint: without torch in the parser."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from regap_patch import ReGapConfig
from regap_patch.errors import CalibrationError
from regap_patch.train.launch import build_parser, parse
from regap_patch.train.sidecar import read_sidecar, refuse_other_config, write_sidecar


def test_every_setting_is_a_flag():
    words = build_parser().format_help()
    assert all(f"--regap_{setting.name}" in words for setting in fields(ReGapConfig))


@pytest.mark.parametrize(
    ("argv", "config", "target", "is_module", "rest"),
    [
        ("-m a.b --x 1", ReGapConfig(), "a.b", True, ("--x", "1")),
        ("--regap_loss off --module a.b", ReGapConfig(loss="off"), "a.b", True, ()),
        ("--regap_weight=0.5 -m a.b", ReGapConfig(weight=0.5), "a.b", True, ()),
        ("--local_rank=2 --regap_alpha 3 -m a", ReGapConfig(alpha=3.0), "a", True, ("--local_rank=2",)),
        ("--regap_allow_finetune -m a", ReGapConfig(allow_finetune=True), "a", True, ()),
        ("--regap_allow_finetune False -m a", ReGapConfig(), "a", True, ()),
        ("--regap_calibration_steps 9 -m a --help", ReGapConfig(calibration_steps=9), "a", True, ("--help",)),
    ],
)
def test_parsing(argv: str, config: ReGapConfig, target: str, is_module: bool, rest: tuple[str, ...]):
    launch = parse(argv.split())
    assert (launch.config, launch.target, launch.is_module, launch.argv) == (config, target, is_module, rest)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("", "no script was given"),
        ("-m", "no script was given"),
        ("nothing_here.py", "there is no script 'nothing_here.py'"),
        ("--regap_loss mmd -m a", "choose one of centroid_l2"),
        ("--regap_weight many -m a", "weight='many' cannot be read: a number is expected"),
        ("--regap_allow_finetune=maybe -m a", "True or False is expected"),
        ("--regap_temperature 1 -m a", "unrecognized arguments"),
        ("--regap_weight 2 --regap_alpha 1 -m a", "give one of the two"),
    ],
)
def test_wrong_lines_get_one_sentence(argv: str, words: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        parse(argv.split())
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom regap_patch.train.launch import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "--regap_weight" in done.stdout
    assert "pretrain.sh" in done.stdout


def test_sidecar_is_written_whole_and_a_resumed_run_must_match(tmp_path: Path):
    folder = tmp_path / "checkpoint-3"
    assert read_sidecar(folder) is None
    content = {"config": ReGapConfig(weight=0.1).to_dict(), "alpha": 0.1 + 0.2}
    write_sidecar(folder, content)
    assert read_sidecar(folder) == content
    assert [path.name for path in folder.iterdir()] == ["regap.json"]
    with pytest.raises(TypeError):
        write_sidecar(folder, {"alpha": object()})
    assert json.loads((folder / "regap.json").read_text()) == content
    refuse_other_config(content, ReGapConfig(weight=0.1, allow_finetune=True), folder)
    with pytest.raises(CalibrationError, match=r"weight=0\.1 \(now 0\.2\)"):
        refuse_other_config(content, ReGapConfig(weight=0.2), folder)
