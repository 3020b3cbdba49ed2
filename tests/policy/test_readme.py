"""Every command that the README shows is one that works, and every path that it names exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LAUNCHERS = {"python", "python3", "torchrun", "deepspeed"}


def commands(page: Path) -> list[str]:
    """The lines of ```bash blocks, continued lines joined, comments and variable assignments dropped."""
    lines = []
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            bare = re.sub(r"^([A-Z][A-Z_0-9]*=\S+\s+)+", "", line.split("  #")[0].strip().lstrip("$ "))
            if bare and not bare.startswith("#"):
                lines.append(bare)
    return lines


def shown() -> list[tuple[str, str]]:
    return [(page.name, command) for page in PAGES if page.exists() for command in commands(page)]


def check_module(name: str) -> None:
    assert importlib.util.find_spec(name) is not None, f"no module {name}"


def check_launch(words: list[str]) -> None:
    """`-m MODULE` or a script: the first of either must exist; `regap_patch.run` launches another in turn."""
    for index, word in enumerate(words):
        if word in {"-m", "--module"}:
            check_module(words[index + 1])
            if words[index + 1] == "regap_patch.run":
                check_launch(words[index + 2 :])
            return
        if word.endswith(".py"):
            assert (ROOT / word).exists() or word in {"train.py", "your_train.py"}, f"no script {word}"
            return


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("page", "command"), shown())
def test_command_exists(page: str, command: str):
    words = shlex.split(command)
    if words[0] == "make":
        assert all(word in make_targets() for word in words[1:] if "=" not in word)
    elif words[0] in LAUNCHERS:
        check_launch(words[1:])
    elif words[0] == "regap":
        from regap_patch.cli import build_parser

        build_parser().parse_args(words[1:])
    elif words[0] in {"bash", "sh"} or "/" in words[0]:
        script = words[1] if words[0] in {"bash", "sh"} else words[0]
        assert (ROOT / script).is_file(), f"no script {script}"
    else:
        assert words[0] in {"pip", "git", "cd", "export", "source"}, f"an unknown command: {command}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_paths_exist(page: Path):
    text = page.read_text()
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text)
    named = re.findall(
        r"`((?:llava|regap_patch|scripts|docs|tests|playground|deepspeed_configs)/[\w./-]+)`", text
    )
    for name in linked:
        assert (page.parent / name).exists(), f"{page.name} links to {name}"
    for name in named:
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_readme_says_what_was_not_run():
    text = (ROOT / "README.md").read_text()
    assert "2505.24208" in text
    assert "2605.18104" in text, "the namesake must be told apart"
    assert re.search(r"not(?:hing)?\b.{0,40}\b7B", text, re.IGNORECASE), (
        "the README states that nothing was run at 7B"
    )
