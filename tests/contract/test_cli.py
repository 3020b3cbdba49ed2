"""`regap`: quick to say what it can do, and plain about what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from regap_patch.cli import build_parser, main
from regap_patch.errors import StudyError
from regap_patch.study import clone, environment, quickstart


def test_help_answers_in_a_second_and_without_torch():
    code = (
        "import sys\n"
        "from regap_patch.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "sys.exit(sorted({'torch', 'transformers', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)) or 0)\n"
    )
    seconds = []
    for _ in range(3):  # the machine may be busy with other things
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 1.0
    assert "quickstart" in done.stdout
    assert "doctor" in done.stdout


@pytest.mark.parametrize("command", ["quickstart", "doctor"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: regap {command}" in capsys.readouterr().out


def test_doctor_names_what_is_missing_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    here = environment.version_of
    monkeypatch.setattr(
        environment, "version_of", lambda name: None if name in {"peft", "accelerate"} else here(name)
    )
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert re.search(r"^torch +2\.", said.out, re.MULTILINE)
    assert "not here: peft (LoRA): pip install 'regap[train]'" in said.out
    assert "accelerate: pip install ." in said.err


def test_a_refusal_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*_: object, **__: object) -> None:
        raise StudyError("This was asked for, that was found: do so.")

    monkeypatch.setattr(quickstart, "run_quickstart", refuse)
    assert main(["quickstart"]) == 1
    assert capsys.readouterr().err == "regap quickstart: This was asked for, that was found: do so.\n"


def test_quickstart_needs_a_clone(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(clone, "SCRIPTS", tmp_path / "scripts")
    with pytest.raises(StudyError, match="clone the repository and run `make setup`"):
        quickstart.run_quickstart(tmp_path)


def test_parser_knows_its_defaults():
    arguments = build_parser().parse_args(["quickstart"])
    assert (str(arguments.output_path), arguments.size, arguments.seed) == (
        "playground/runs/quickstart",
        "default",
        0,
    )
