"""The flags of every command line are frozen in flags.json: people's scripts depend on them.

A flag that comes or goes changes that file in the same commit, so that a review sees it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
FROZEN = Path(__file__).with_name("flags.json")
CHECKPOINT_TOOLS = (
    "llava.model.apply_delta",
    "llava.model.consolidate",
    "llava.model.make_delta",
    "scripts/extract_mm_projector.py",
    "scripts/merge_lora_weights.py",
)
EVALUATION = (
    *(f"llava.eval.model_{name}" for name in ("qa", "vqa", "vqa_loader", "vqa_mmbench", "vqa_science")),
    *(f"llava.eval.eval_{name}" for name in ("mme", "pope", "science_qa", "textvqa")),
    "llava.eval.merge_answers",
    *(f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("convert_*.py"))),
)


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    return sorted(
        option
        for action in parser._actions
        for option in action.option_strings
        if option not in {"-h", "--help"}
    )


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Commands by name, and below those that only hold others (`eval run`) the others in their place."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    found = {}
    for name, command in (pair for group in groups for pair in group.choices.items()):
        below = {f"{name} {step}": inner for step, inner in subcommands(command).items()}
        found |= below or {name: command}
    return found


def training_flags() -> list[str]:
    """Fields that our three dataclasses declare with `_flag`; transformers' own come beside them."""
    tree = ast.parse((ROOT / "llava/train/arguments.py").read_text())
    return sorted(
        f"--{ast.unparse(field.target)}"
        for kind in tree.body
        if isinstance(kind, ast.ClassDef)
        for field in kind.body
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.value or field.target).startswith("_flag(")
    )


def tool(name: str) -> argparse.ArgumentParser:
    """The parser of a module, or of a script by its path."""
    if not name.endswith(".py"):
        return importlib.import_module(name).parser()
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.parser()


def current() -> dict[str, list[str]]:
    from llava.eval import run_llava
    from llava.serve import cli as chat
    from regap_patch import cli
    from regap_patch.train import launch

    commands = subcommands(cli.build_parser())
    return {
        "llava.train.train": training_flags(),
        "llava.eval.run_llava": flags_of(run_llava.parser()),
        "llava.serve.cli": flags_of(chat.parser()),
        **{name: flags_of(tool(name)) for name in (*CHECKPOINT_TOOLS, *EVALUATION)},
        "regap_patch.run": flags_of(launch.build_parser()),
        "regap": flags_of(cli.build_parser()),
        **{f"regap {name}": flags_of(command) for name, command in commands.items()},
    }


def test_flags_are_the_frozen_ones():
    frozen, found = json.loads(FROZEN.read_text()), current()
    for program in sorted(set(frozen) | set(found)):
        was, now = set(frozen.get(program, [])), set(found.get(program, []))
        assert was == now, (
            f"{program}: new {sorted(now - was)}, gone {sorted(was - now)}: edit {FROZEN.name} too"
        )


def test_commands_that_write_say_where():
    from regap_patch import cli

    into_the_run = {"eval judge"}  # verdicts lie beside the answers that they are of
    silent = {"defense list", "demo", "doctor", "eval list", "eval check", "eval plan"}
    writers = subcommands(cli.build_parser()).keys() - silent - into_the_run
    for name in writers:
        assert "--output_path" in current()[f"regap {name}"], name
