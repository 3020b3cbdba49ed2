"""The conformance class on the rows of transformers 4.37.2, in upstream's environment.

One process there runs the very tests of tests/contract/test_host_conformance.py; each of its results is a
test here. Upstream's environment has no pytest and gets none: ours, which is pure Python, joins it on the
path.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.contract import test_host_conformance as conformance
from tests.upstream.environment import python_path

ROOT = Path(__file__).parents[2]
TESTS = "tests/contract/test_host_conformance.py"
PYTEST = ("pytest", "pluggy", "iniconfig", "pygments", "packaging", "exceptiongroup", "tomli")
TIMEOUT_SECONDS = 600


def lay_out(folder: Path) -> None:
    """A folder with this repository's tests and patch layer, but not its `llava`, and with pytest."""
    for name in ("tests", "regap_patch"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    full\n    contract\n")
    for name in PYTEST:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # a backport that this Python does not need
            continue
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def results(request, tiny, tmp_path_factory) -> dict[str, str]:
    """Test name -> "passed", or what went wrong. `tiny` is made here, where its makers are."""
    folder = tmp_path_factory.mktemp("conformance")
    lay_out(folder)
    mine = [item for item in request.session.items if item.path == request.path]
    everything = any(item.get_closest_marker("full") for item in mine)
    flags = ["-q", "-p", "no:cacheprovider", "--tb=short", "--junitxml", "results.xml"]
    flags += [] if everything else ["-m", "not full"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(python_path()), "-m", "pytest", TESTS, *flags],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    report = folder / "results.xml"
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return {
        case.get("name"): "\n".join(bad.tag + (bad.text or "") for bad in case) or "passed"
        for case in ElementTree.parse(report).iter("testcase")
    }


def cases() -> list:
    """Row and test, as the table has them, with the mark of those that `make test` leaves out."""
    methods = {name: method for name, method in vars(conformance.TestConformance).items() if "test_" in name}
    return [
        pytest.param(row, name, marks=[mark for mark in marks if mark.name == "full"])
        for row, entry in conformance.TABLE["rows"].items()
        if entry["transformers"] == "4.37.2"
        for name, method in methods.items()
        if name not in entry["not_applicable"]
        for marks in [getattr(method, "pytestmark", [])]
    ]


@pytest.mark.parametrize(("row", "name"), cases())
def test_row(row: str, name: str, results: dict[str, str]):
    found = {case: result for case, result in results.items() if case.startswith(f"{name}[{row}")}
    found = {case: result for case, result in found.items() if case.removeprefix(f"{name}[{row}")[0] in "]-"}
    assert found, f"{name} was not collected for {row}"
    for case, result in found.items():
        assert result == "passed", f"{case}\n{result}"
