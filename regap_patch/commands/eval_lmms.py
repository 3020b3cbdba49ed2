"""`regap eval lmms-eval`: our benchmarks as task files of lmms-eval, and its logs as a run of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regap_patch.commands.eval_run import add_asking, decoding_of, tasks_of


def add_lmms_eval(steps: Any) -> None:
    """Register the command."""
    parser = steps.add_parser(
        "lmms-eval",
        help="benchmarks as task files of lmms-eval; with --logs its sample logs as a run that can be judged",
        description="Without --logs: writes one task of lmms-eval for each benchmark and image mode into "
        "--task_path. With --logs: makes a run of the logs, which judge, score and report take.",
    )
    parser.add_argument("--task_path", type=Path, required=True, help="folder of the task files; keep it")
    parser.add_argument("--logs", type=Path, help="folder in which lmms-eval --log_samples wrote")
    parser.add_argument("--output_path", type=Path, help="folder of the run that --logs becomes")
    parser.add_argument("--seed", type=int, default=0, help="of noise and choices (%(default)s)")
    parser.add_argument("--gen_kwargs", default="", help="max_new_tokens of an answer")
    add_asking(parser)
    parser.set_defaults(run=_lmms_eval)


def _lmms_eval(arguments: argparse.Namespace) -> int:
    from regap_patch.errors import ConfigError
    from regap_patch.safety.lmms_eval import read_logs, write_tasks
    from regap_patch.safety.profiles import profile_of

    if (arguments.logs is None) != (arguments.output_path is None):
        raise ConfigError("--logs and --output_path go together: what is read has to be written somewhere.")
    if arguments.logs is not None:
        print(read_logs(arguments.task_path, arguments.logs, arguments.output_path).root)
        return 0
    profile = profile_of(arguments.profile) if arguments.profile else None
    names = write_tasks(
        tasks_of(arguments),
        arguments.task_path,
        seed=arguments.seed,
        max_new_tokens=decoding_of(arguments.gen_kwargs, profile).max_new_tokens,
    )
    print(
        f"python -m lmms_eval --include_path {arguments.task_path} --tasks {','.join(names)} --log_samples "
        f"--output_path LOGS --model ..."
    )
    return 0
