"""Run somebody's training script, unchanged, with the patch on the model that it trains.

`transformers.Trainer.__init__` is replaced in this process while the script runs, and restored at its end, on
error too. No other thing is touched, and no random number is drawn.
"""

from __future__ import annotations

import argparse
import functools
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from regap_patch.errors import ConfigError, LaunchError
from regap_patch.patch.config import ReGapConfig

PREFIX = "--regap_"
_EPILOG = """\
An existing pretrain.sh changes by one line:

  deepspeed llava/train/train_mem.py --deepspeed zero2.json ...                     before
  deepspeed --module regap_patch.run llava/train/train_mem.py --deepspeed zero2.json ...    after

  torchrun --nproc_per_node 8 -m regap_patch.run --regap_weight 0.5 -m llava.train.train ...

The first steps (by default the trainer's warm-up) only measure; then alpha is frozen and the gap is added to
the loss. Log lines carry regap/..., and regap.json lies beside every checkpoint. Flags before SCRIPT that are
not ours, such as --local_rank=N, go to the script. Fine-tuning is refused unless you pass
--regap_allow_finetune.
"""


@dataclass(frozen=True)
class Launch:
    """What to run: a script or a module, its own flags, and the settings of the patch."""

    config: ReGapConfig
    target: str
    is_module: bool
    argv: tuple[str, ...]


def build_parser() -> argparse.ArgumentParser:
    """The launcher's own flags: one for each field of `ReGapConfig`."""
    parser = argparse.ArgumentParser(
        prog="python -m regap_patch.run",
        usage="%(prog)s [--regap_loss NAME ...] (SCRIPT.py | -m MODULE) [the script's own flags]",
        description="Run a training script that builds a transformers.Trainer, with ReGap (arXiv 2505.24208) "
        "on its model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for setting in fields(ReGapConfig):
        switch: dict[str, Any] = {"nargs": "?", "const": "True"} if isinstance(setting.default, bool) else {}
        parser.add_argument(
            PREFIX + setting.name,
            dest=setting.name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            **switch,
            help=f"{setting.metadata['help']} (default: {setting.default})".replace("%", "%%"),
        )
    return parser


def parse(argv: Sequence[str]) -> Launch:
    """Split a command line into our flags, the target, and what belongs to the target.

    Exits with status 2 and one sentence for a flag or target that is not there; with 0 for `--help`.
    """
    parser = build_parser()
    ours: list[str] = []
    theirs: list[str] = []
    rest = list(argv)
    while rest and not (rest[0] in ("-m", "--module") or not rest[0].startswith("-")):
        flag = rest.pop(0)
        if flag in ("-h", "--help"):
            ours.append(flag)
        elif not flag.startswith(PREFIX):
            theirs.append(flag)
        else:
            ours.append(flag)
            if "=" not in flag and rest and _takes(flag, rest[0]):
                ours.append(rest.pop(0))
    try:
        config = ReGapConfig.from_text(vars(parser.parse_args(ours)))
    except ConfigError as error:
        parser.error(str(error))
    is_module = bool(rest) and rest[0] in ("-m", "--module")
    rest = rest[1:] if is_module else rest
    if not rest:
        parser.error("no script was given: name SCRIPT.py, or -m MODULE, after our flags and before its own.")
    target, *own = rest
    if not is_module and not Path(target).is_file():
        parser.error(f"there is no script {target!r}: name a file, or a module as -m MODULE.")
    return Launch(config, target, is_module, (*theirs, *own))


def _takes(flag: str, word: str) -> bool:
    """Whether the word after a flag is its value; a switch takes one only if it is True or False."""
    switches = {PREFIX + setting.name for setting in fields(ReGapConfig) if isinstance(setting.default, bool)}
    return flag not in switches or word.lower() in ("true", "false")


@contextmanager
def patched_trainers(config: ReGapConfig) -> Iterator[list[Any]]:
    """While inside, each `transformers.Trainer` that is built patches its model and drives the patch.

    Yields:
        The trainers built so far.

    Raises:
        LaunchError: if transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise LaunchError(
            f"The launcher patches the model of a transformers.Trainer, but importing that failed "
            f"({error}): install transformers, or call apply_regap() in your own loop."
        ) from error
    from regap_patch.patch.apply import apply_regap
    from regap_patch.train.callback import ReGapCallback

    trainer_class: Any = transformers.Trainer
    original = trainer_class.__init__
    built: list[Any] = []

    @functools.wraps(original)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        apply_regap(self.model, config)
        ReGapCallback.attach(self)
        built.append(self)

    trainer_class.__init__ = build
    try:
        yield built
    finally:
        trainer_class.__init__ = original


@contextmanager
def _as_started_by_python(launch: Launch) -> Iterator[None]:
    """`sys.argv` and `sys.path` as `python SCRIPT` or `python -m MODULE` would set them."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [launch.target, *launch.argv]
    if not launch.is_module:
        here = str(Path(launch.target).resolve().parent)
        sys.path[:1] = [here] if path and path[0] in ("", os.getcwd()) else [here, *path[:1]]
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


def run(launch: Launch) -> None:
    """Run the target in this process.

    Raises:
        LaunchError: if it ended well without having built a Trainer.
        ReGapError: whatever the patch refuses, out of the script.
    """
    with patched_trainers(launch.config) as trainers, _as_started_by_python(launch):
        try:
            if launch.is_module:
                runpy.run_module(launch.target, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(launch.target, run_name="__main__")
        except SystemExit as end:
            asked_for_help = {"-h", "--help"} & set(launch.argv)
            if end.code or trainers or asked_for_help:
                raise
            _refuse_idle(launch)
    if not trainers:
        _refuse_idle(launch)


def _refuse_idle(launch: Launch) -> NoReturn:
    raise LaunchError(
        f"{launch.target} ended without building a transformers.Trainer, so nothing was patched: launch the "
        f"script that trains, or call apply_regap(model) in a training loop of your own."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m regap_patch.run` without its end: whatever the script raises is raised."""
    run(parse(sys.argv[1:] if argv is None else argv))


def as_command() -> None:
    """`python -m regap_patch.run`: a script that fails leaves the exit status and traceback of its own.

    What the launcher itself refuses is one sentence.
    """
    try:
        main()
    except LaunchError as error:
        sys.exit(f"python -m regap_patch.run: error: {error}")
    except Exception as error:
        error.__traceback__ = _of_the_script(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def _of_the_script(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the script's first frame on; without `run`, and without runpy between the two."""
    start = trace
    while start is not None and start.tb_frame.f_code is not run.__code__:
        start = start.tb_next
    if start is None:  # raised before the script began
        return trace
    start = start.tb_next
    while start is not None and start.tb_frame.f_globals.get("__name__") == "runpy":
        start = start.tb_next
    return start
