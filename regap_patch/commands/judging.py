"""`regap eval judge` and `regap eval validate-judge`: judges made from flags, what they did as lines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from regap_patch.commands.eval_run import go_offline
from regap_patch.errors import ConfigError, JudgeError

FAILED = 3  # exit status: some judgements did not come about


def add_judge(commands: Any) -> None:
    """Register `judge`."""
    parser = commands.add_parser(
        "judge",
        help="judge the answers of a run; what is judged and unchanged is not judged again",
        description="Reads samples and answers of RUN and writes RUN/verdicts/JUDGE/. Failed judgements are "
        f"kept as unscored and asked again by the next call; while there are any, the exit is {FAILED}.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder that `regap eval run` wrote")
    add_judge_options(parser)
    parser.add_argument("--tasks", help="only these benchmarks, joined by commas")
    parser.add_argument("--threshold", type=float, help="of one judge with scores; nothing is asked again")
    parser.add_argument(
        "--overwrite", action="store_true", help="judge anew what another revision of this judge has judged"
    )
    parser.set_defaults(run=_judge)


def add_validate_judge(commands: Any) -> None:
    """Register `validate-judge`."""
    parser = commands.add_parser(
        "validate-judge",
        help="how a judge fares against human labels: kappa, sensitivity, specificity",
        description="LABELS is a CSV with question, answer and label (1 or 0); PyRIT's refusal.csv and "
        "JailbreakBench's judge_comparison are read as they are.",
    )
    parser.add_argument("labels", metavar="LABELS", type=Path, nargs="+", help="CSV files; taken together")
    add_judge_options(parser)
    parser.add_argument(
        "--finding",
        choices=("unsafe", "refusal"),
        default="unsafe",
        help="what label 1 says of the answer (%(default)s)",
    )
    for name in ("question", "answer", "label"):
        parser.add_argument(f"--{name}_column", help=f"column of the {name}, where its name is not known")
    parser.add_argument("--threshold", type=float, help="of judges with scores, instead of the preset's")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    parser.add_argument("--output_path", type=Path, help="JSON file to write")
    parser.set_defaults(run=_validate)


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """What a judge needs from here: weights, lists, endpoints, hardware."""
    add = parser.add_argument
    add("--judges", required=True, help="presets, joined by commas; an unknown name lists them")
    add("--batch_size", type=int, default=8, help="exchanges at a time (%(default)s)")
    add(
        "--judge_model",
        action="append",
        default=[],
        metavar="JUDGE=PATH",
        help="folder or hub name of a judge's weights, instead of the published name",
    )
    add("--device", default="auto", help="of weights: cpu, cuda, cuda:1; auto is cuda where there is one")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of weights; auto is the checkpoint's own",
    )
    add(
        "--keywords",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="file, or folder to search, with published keyword lists; proven by their hash",
    )
    add("--judge_prompt", type=Path, help="text or Python file with HarmBench's published prompt")
    add("--judge_endpoint", metavar="URL", help="OpenAI-compatible server: http://HOST:PORT/v1")
    add("--judge_endpoint_model", metavar="NAME", help="the model's name there")
    add("--rubric", type=Path, help="text with {question} and {answer}, instead of ours")
    add("--judge_timeout", type=float, default=60.0, help="seconds for one reply (%(default)s)")
    add("--judge_retries", type=int, default=2, help="of one request (%(default)s)")
    add("--offline", action="store_true", help="no network: neither hubs nor other machines are asked")


def _resources(arguments: argparse.Namespace) -> Any:
    go_offline(arguments.offline)
    from regap_patch.judges.make import Resources
    from regap_patch.safety.benchmarks.scoring import score_text

    models = {}
    for pair in arguments.judge_model:
        name, equals, path = pair.partition("=")
        if not equals or not path:
            raise ConfigError(f"--judge_model takes JUDGE=PATH, found {pair!r}: write beaver-dam-7b=FOLDER.")
        models[name] = path
    unused = set(models) - set(_names(arguments))
    if unused:
        raise ConfigError(
            f"--judge_model names {', '.join(sorted(unused))}, which --judges does not: use the same names."
        )
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch_size must be at least 1, found {arguments.batch_size}.")
    return Resources(
        models=models,
        keywords=tuple(arguments.keywords),
        prompt=arguments.judge_prompt,
        endpoint=arguments.judge_endpoint,
        endpoint_model=arguments.judge_endpoint_model,
        rubric=arguments.rubric,
        threshold=arguments.threshold,
        device=arguments.device,
        dtype=arguments.dtype,
        offline=arguments.offline,
        timeout=arguments.judge_timeout,
        retries=arguments.judge_retries,
        score=score_text,
    )


def _names(arguments: argparse.Namespace) -> list[str]:
    return [name.strip() for name in arguments.judges.split(",") if name.strip()]


def _judge(arguments: argparse.Namespace) -> int:
    from regap_patch.judges import judge_run, make_judge, preset
    from regap_patch.judges.run import about_of

    resources = _resources(arguments)
    described = [preset(name) for name in _names(arguments)]  # a wrong name fails before anything is loaded
    if not described:
        raise ConfigError("--judges names no judge: write --judges world, for example.")
    if arguments.threshold is not None and len(described) > 1:
        raise ConfigError(
            f"--threshold {arguments.threshold:g} was given for {len(described)} judges, but the scores of "
            f"two judges have no threshold in common: name one judge."
        )
    missing = 0
    for one in described:
        judge = make_judge(one.name, resources)
        if arguments.threshold is not None and judge.threshold is None:
            raise ConfigError(
                f"--threshold {arguments.threshold:g} was given, but {one.name} has no scores: leave it out."
            )
        report = judge_run(
            arguments.run_folder,
            judge,
            batch_size=arguments.batch_size,
            benchmarks=arguments.tasks.split(",") if arguments.tasks else None,
            about=about_of(one),
            overwrite=arguments.overwrite,
        )
        counts = ", ".join(f"{count} {label}" for label, count in sorted(report.labels.items())) or "nothing"
        print(f"{report.judge}: {counts} ({report.asked} asked now, {report.kept} were there)")
        if report.unanswered:
            print(f"  {report.unanswered} samples have no answer yet: `regap eval run` goes on with them")
        failed = report.labels.get("unscored", 0)
        if failed:
            print(f"  {failed} judgements failed: the same command asks them again")
        missing += failed
    return FAILED if missing else 0


def _validate(arguments: argparse.Namespace) -> int:
    from regap_patch.judges import make_judge, read_labelled, validate
    from regap_patch.report.agreement import agreement

    given = {name: getattr(arguments, f"{name}_column") for name in ("question", "answer", "label")}
    columns = {name: column for name, column in given.items() if column}
    labelled = [row for path in arguments.labels for row in read_labelled(path, columns)]
    resources = _resources(arguments)
    found: dict[str, Any] = {}
    print(f"| judge | items | sensitivity | specificity | kappa [95 %] | unscored |\n{'|---' * 6}|")
    for name in _names(arguments):
        made = validate(
            make_judge(name, resources),
            labelled,
            finding=arguments.finding,
            batch_size=arguments.batch_size,
        )
        agreed = agreement(made.pairs, seed=arguments.seed) if made.pairs else None
        interval = agreed.interval if agreed else None
        found[name] = {
            "finding": made.finding,
            "items": len(labelled),
            "unscored": made.unscored,
            "sensitivity": list(made.sensitivity),
            "specificity": list(made.specificity),
            "kappa": agreed.kappa if agreed else None,
            "kappa_interval": [interval.low, interval.high] if interval else None,
        }
        print(_row(name, found[name]))
    if arguments.output_path is not None:
        _write(arguments.output_path, found)
    return FAILED if any(row["unscored"] for row in found.values()) else 0


def _row(name: str, found: dict[str, Any]) -> str:
    shares = [
        f"{hit}/{all_} ({hit / all_:.2f})" if all_ else "no items"
        for hit, all_ in (found["sensitivity"], found["specificity"])
    ]
    kappa = "none" if found["kappa"] is None else f"{found['kappa']:.2f}"
    if found["kappa_interval"]:
        kappa += " [{:.2f}, {:.2f}]".format(*found["kappa_interval"])
    return f"| {name} | {found['items']} | {' | '.join(shares)} | {kappa} | {found['unscored']} |"


def _write(path: Path, found: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise JudgeError(f"{path} was to be written, but that failed: {error}.") from error
