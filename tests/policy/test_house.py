"""Sizes, names, layers and lazy exports: the rules that reviews need not repeat."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("llava", "regap_patch") for path in (ROOT / package).rglob("*.py"))
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_readable(path: Path):
    text = path.read_text()
    assert text.count("\n") <= 330, "one idea a file: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"


def test_no_file_without_a_noun():
    """`llava/utils.py`, `llava/model/utils.py` and `llava/mm_utils.py` are upstream's public names."""
    dumping_grounds = {"utils.py", "common.py", "helpers.py", "misc.py"}
    found = {name for name in TRACKED if Path(name).name in dumping_grounds}
    assert found <= {"llava/utils.py", "llava/model/utils.py"}


def test_no_two_test_files_share_a_name():
    """The folders of tests are no packages, so that pytest would refuse to collect the second."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_nothing_large_and_no_weights_are_committed():
    for name in TRACKED:
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 1_000_000, name
            assert path.suffix not in {".bin", ".pt", ".pth", ".safetensors", ".model", ".pkl"}, name


def test_imports_run_one_way():
    """By the contracts in pyproject.toml; in a process of its own, as it switches other loggers off."""
    linter = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    found = subprocess.run(
        [sys.executable, "-c", linter], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def packages(root: str) -> list[str]:
    module = importlib.import_module(root)
    walked = pkgutil.walk_packages(module.__path__, root + ".", onerror=lambda name: None)
    return [root] + [info.name for info in walked if info.ispkg]


def test_importing_a_package_imports_nothing_heavy():
    """One process imports every package in turn; none may bring torch or transformers with it."""
    names = packages("llava") + packages("regap_patch")
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'deepspeed', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("package", packages("llava") + packages("regap_patch"))
def test_public_names_exist(package: str):
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None


def test_every_cluster_script_has_a_twin_for_a_laptop():
    for script in (ROOT / "scripts" / "v1_5").glob("*.sh"):
        assert (ROOT / "scripts" / "mini" / script.name).is_file(), script.name


def test_repository_speaks_of_the_project_alone():
    forbidden = re.compile(r"/(?:work|root|farm)/|files\.pythonhosted|pypi\.org/simple")
    for name in TRACKED:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".sh", ".toml", ".txt", ".json", ".jsonl", ".csv", ""}
            and path.is_file()
        ):
            found = forbidden.search(path.read_text(errors="replace"))
            assert found is None or name == "tests/policy/test_house.py", f"{name}: {found}"
