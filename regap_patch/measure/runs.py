"""From checkpoints to files: one JSON each, and what is done and unchanged is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regap_patch.errors import MeasureError, UnknownHostError
from regap_patch.measure.checkpoints import (
    Checkpoint,
    PreparedPairs,
    fingerprint,
    kind_of,
    load_checkpoint,
    made_of,
)
from regap_patch.measure.gap import measure_gap
from regap_patch.measure.mir import MirSettings, Progress, measure_mir
from regap_patch.measure.pairs import PairSet
from regap_patch.measure.results import (
    GAP_SCHEMA,
    MIR_SCHEMA,
    gap_fields,
    is_done,
    key_of,
    mir_fields,
    versions,
    write_result,
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class LoadOptions:
    """How checkpoints are loaded and shown their pairs; see `load_checkpoint`.

    Attributes:
        base: language model of those that are a projector or an adapter.
        template: of the prompt.
        device: where the model runs; with `offload` one layer of it at a time.
        dtype: precision.
        offload: the model stays on the CPU.
        max_text_tokens: where texts are cut.
    """

    base: str | None = None
    template: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    offload: bool = False
    max_text_tokens: int | None = None

    def load(self, path: str) -> Checkpoint:
        """Load one."""
        dtype = self.dtype or ("float32" if self.device == "cpu" else "float16")
        where = "cpu" if self.offload else self.device
        return load_checkpoint(path, base=self.base, template=self.template, device=where, dtype=dtype)


def mir_of_checkpoints(
    paths: Sequence[str],
    chosen: PairSet,
    output_path: Path,
    options: LoadOptions,
    settings: MirSettings,
    *,
    progress: Progress = lambda what, done, of: None,
    say: Say = lambda line: None,
) -> list[Path]:
    """Write `mir.json` of each checkpoint.

    Args:
        paths: folders or hub names; among several, what is no vision-language checkpoint is passed over.
        chosen: the pairs, the same for all.
        output_path: folder; or for one checkpoint a file that ends in `.json`.
        options: see `LoadOptions`.
        settings: see `MirSettings`.
        progress: told what is being done and how far it is.
        say: told a line for what was passed over or done before.

    Returns:
        The files, in the order of the checkpoints.

    Raises:
        MeasureError: as `measure_mir`, or nothing to measure.
        UnknownHostError: the only checkpoint sees no images.
    """

    def measure(checkpoint: Checkpoint) -> dict[str, Any]:
        pairs = PreparedPairs(checkpoint.prompter, chosen.pairs, max_text_tokens=options.max_text_tokens)
        names = [pair.name for pair in chosen.pairs]
        report = measure_mir(checkpoint.model, pairs, settings, names=names, progress=progress)
        return {**mir_fields(report), "data": _data(chosen, checkpoint, options, pairs)}

    wanted = {"settings": asdict(settings), "options": asdict(options)}
    return _each(paths, chosen, output_path, options, MIR_SCHEMA, wanted, measure, say)


def gap_of_checkpoints(
    paths: Sequence[str],
    chosen: PairSet,
    output_path: Path,
    options: LoadOptions,
    *,
    progress: Progress = lambda what, done, of: None,
    say: Say = lambda line: None,
) -> list[Path]:
    """Write `gap.json` of each checkpoint; arguments and errors as in `mir_of_checkpoints`."""

    def measure(checkpoint: Checkpoint) -> dict[str, Any]:
        pairs = PreparedPairs(
            checkpoint.prompter, chosen.pairs, max_text_tokens=options.max_text_tokens, bare=True
        )
        names = [pair.name for pair in chosen.pairs]
        report = measure_gap(checkpoint.model, pairs, names=names, progress=progress)
        data = {**_data(chosen, checkpoint, options, pairs), "template": "<image>{text}"}
        return {**gap_fields(report), "data": data}

    return _each(paths, chosen, output_path, options, GAP_SCHEMA, {"options": asdict(options)}, measure, say)


def _each(
    paths: Sequence[str],
    chosen: PairSet,
    output_path: Path,
    options: LoadOptions,
    schema: str,
    wanted: Mapping[str, Any],
    measure: Callable[[Checkpoint], dict[str, Any]],
    say: Say,
) -> list[Path]:
    seeing = _that_see(paths, say)
    files = output_files(seeing, output_path)
    for path, file in files.items():
        source = {name: part for name, part in chosen.provenance.items() if name != "names"}
        model = [fingerprint(part) for part in made_of(path, options.base)]
        key = key_of(schema, model, source, wanted)
        if is_done(file, key):
            say(f"{path}: done before, {file}")
            continue
        began = time.monotonic()
        checkpoint = options.load(path)
        found = measure(checkpoint)
        head = {"schema": schema, "key": key, "checkpoint": checkpoint.description}
        seconds = round(time.monotonic() - began, 1)
        write_result(file, {**head, **found, "versions": versions(), "seconds": seconds})
        del checkpoint  # before the next one is loaded
    return list(files.values())


def _that_see(paths: Sequence[str], say: Say) -> list[str]:
    """The paths that are vision-language checkpoints; a single one must be."""
    if len(paths) == 1:
        kind_of(paths[0])
        return list(paths)
    seeing = []
    for path in paths:
        reason = _why_not(path)
        if reason:
            say(f"{path}: passed over, {reason}")
        else:
            seeing.append(path)
    if not seeing:
        raise MeasureError(
            f"None of the {len(paths)} paths is a vision-language checkpoint: name folders with a "
            f"config.json of one."
        )
    return seeing


def _why_not(path: str) -> str:
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        return "no config.json"
    try:
        kind_of(path)
    except UnknownHostError:
        return "a model without images"
    return ""


def output_files(paths: Sequence[str], output_path: Path) -> dict[str, Path]:
    """Where the result of each checkpoint goes.

    Raises:
        MeasureError: one file for several checkpoints.
    """
    if output_path.suffix == ".json":
        if len(paths) > 1:
            raise MeasureError(
                f"{len(paths)} checkpoints were to be written to the one file {output_path}: give "
                f"--output_path a folder."
            )
        return {paths[0]: output_path}
    parts = {path: _parts(path) for path in paths}
    distinct = set(parts.values())
    return {path: output_path / f"{_name(own, distinct - {own})}.json" for path, own in parts.items()}


def _parts(path: str) -> tuple[str, ...]:
    folder = Path(path)
    return folder.resolve().parts[1:] if folder.exists() else tuple(path.split("/"))


def _name(own: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    """As many of a path's last parts as no other ends in; of `checkpoint-N` always the run as well."""
    least = 2 if own[-1].startswith("checkpoint-") else 1
    unlike = (n for n in range(least, len(own)) if all(own[-n:] != other[-n:] for other in others))
    return "-".join(own[-next(unlike, len(own)) :])


def _data(
    chosen: PairSet, checkpoint: Checkpoint, options: LoadOptions, pairs: PreparedPairs
) -> dict[str, Any]:
    return {
        **chosen.provenance,
        "template": checkpoint.prompter.template,
        "max_text_tokens": options.max_text_tokens,
        "texts_cut": len(pairs.cut),
    }
