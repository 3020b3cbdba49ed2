"""MIR of a model over image-text pairs: forward passes in, one report out.

Axes: m pairs, K layers, L rows of the language model's input, D its width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch.errors import MeasureError, RowsError
from regap_patch.gap.clouds import Cloud
from regap_patch.gap.curve import pairs_curve
from regap_patch.gap.integration_rate import MirResult, combine
from regap_patch.gap.layer import LayerTerm, layer_term
from regap_patch.gap.reference_script import reference_term
from regap_patch.hosts.decoder import Decoder, find_decoder
from regap_patch.hosts.host import Host
from regap_patch.hosts.table import find_host, unwrapped
from regap_patch.measure.capture import Sample, capture
from regap_patch.measure.decoder import evaluating
from regap_patch.measure.layer_major import Ledger, states_by_layer, why_not
from regap_patch.measure.offload import all_but_layers, brought_in_turn
from regap_patch.measure.projection import Projection, project
from regap_patch.measure.streaming import stream_terms

AUTO, LAYER_MAJOR, STREAMING = "auto", "layer_major", "streaming"
GROUPS, CHEAP_WIDTH = 10, 1024
Progress = Callable[[str, int, int], None]  # what, how many are done, of how many


@dataclass(frozen=True)
class MirSettings:
    """How to measure.

    Attributes:
        sizes: also take MIR over the first so many pairs; each at least 2.
        groups: of pairs for the jackknife's bias correction; 0 for none, None for 10 up to width 1024, where
            they cost little, and none beyond.
        evaluation: `layer_major`, `streaming`, or `auto`: streaming where layers cannot be called alone.
        offload: bring one layer's weights at a time to this device; the model stays where it is.
        project_layers: layers (0 to K, negative from the end) of which a flat picture is taken.
        compat: numbers of the published script to take beside, of `regap_patch.gap.COMPAT_IN_WORDS`.
    """

    sizes: tuple[int, ...] = ()
    groups: int | None = None
    evaluation: str = AUTO
    offload: torch.device | str | None = None
    project_layers: tuple[int, ...] = ()
    compat: tuple[str, ...] = ()


@dataclass(frozen=True)
class MirReport:
    """What `measure_mir` found.

    Attributes:
        result: over all pairs, with layer 0 beside the sum.
        curve: the same over the first pairs, by their number; the last is `result`.
        evaluation: how the states were taken: `mode`, why not layer by layer, the stream's certificate.
        memory: bytes: the most that the collector held, and what storing all states would have.
        rows: image rows and text rows of all pairs.
        host: the model family.
        projections: of the layers asked for.
        compat: what the published script would have said, by mode.
    """

    result: MirResult
    curve: dict[int, MirResult]
    evaluation: dict[str, Any]
    memory: dict[str, int]
    rows: dict[str, int]
    host: str
    projections: tuple[Projection, ...] = ()
    compat: dict[str, MirResult] = field(default_factory=dict)


@dataclass
class _Run:
    """One measurement in progress."""

    model: nn.Module
    host: Host
    projector: nn.Module
    decoder: Decoder
    pairs: Sequence[Mapping[str, Any]]
    names: Sequence[str]
    sizes: Sequence[int]
    groups: int | None
    compat: Sequence[str]
    shown: Sequence[int]
    device: torch.device | None
    progress: Progress
    ledger: Ledger = field(default_factory=Ledger)


def measure_mir(
    model: nn.Module,
    pairs: Sequence[Mapping[str, Any]],
    settings: MirSettings | None = None,
    *,
    names: Sequence[str] | None = None,
    host: Host | None = None,
    progress: Progress = lambda what, done, of: None,
) -> MirReport:
    """Modality Integration Rate (arXiv 2410.07167), with the exact matrix root, over image-text pairs.

    No `generate`, no attentions, no output layer: each pair goes once through tower, projector and decoder.
    Layer by layer it holds one state of each pair, (1, L, D) in the model's precision; storing every state
    would hold K + 1. Both give the same bits.

    Args:
        model: of any known host; its mode and its config are as before afterwards.
        pairs: forward arguments of each pair, one sample and not padded; they may be made when asked for.
        settings: see `MirSettings`.
        names: of the pairs, for messages.
        host: the model family, where it is none of the table's.
        progress: told what is being done and how far it is.

    Returns:
        See `MirReport`. Cost: one forward pass and, for each layer, `regap_patch.gap.layer_term`.

    Raises:
        UnknownHostError: no known host fits the model.
        MeasureError: fewer than 2 pairs, a pair without image or text, rows cut off, states that are not
            finite (with layer and pair), rows that are all the same.
    """
    host, projector = find_host(model, host)
    base = unwrapped(model)
    settings = settings or MirSettings()
    sizes = sorted({*settings.sizes, len(pairs)})
    if sizes[0] < 2 or sizes[-1] > len(pairs):
        raise MeasureError(
            f"MIR was asked of {', '.join(map(str, sizes))} pairs, but {len(pairs)} were given: it takes at "
            f"least 2, and no more than there are."
        )
    decoder = find_decoder(host, base)
    depth = len(decoder.layers)
    run = _Run(
        model=base,
        host=host,
        projector=projector,
        decoder=decoder,
        pairs=pairs,
        names=names or [f"pair {number}" for number in range(len(pairs))],
        sizes=sizes,
        groups=settings.groups,
        compat=settings.compat,
        shown=_layers(settings.project_layers, depth),
        device=None if settings.offload is None else torch.device(settings.offload),
        progress=progress,
    )
    with evaluating(base), all_but_layers(decoder, base, run.device), _named(run.names):
        return _measure(run, settings.evaluation)


def _measure(run: _Run, evaluation: str) -> MirReport:
    samples: list[Sample] = []
    for number, name in enumerate(run.names):
        run.progress("inputs", number, len(run.pairs))
        samples.append(capture(run.model, run.host, run.projector, run.decoder, run.pairs[number], name))
    run.progress("inputs", len(run.pairs), len(run.pairs))
    rows = {
        "image": sum(len(sample.image) for sample in samples),
        "text": sum(len(sample.text) for sample in samples),
    }
    everything = (len(run.decoder.layers) + 1) * sum(sample.call.hidden.nbytes for sample in samples)
    by_length = sorted(range(len(samples)), key=lambda index: samples[index].call.hidden.shape[1])
    reason = "it was asked for"
    tail: list[nn.Module] = []
    if evaluation != STREAMING:
        tried = [(samples[index], run.pairs[index]) for index in (by_length[-1], by_length[0])]
        reason, tail = why_not(run.decoder, run.model, tried, run.device)
    if reason and evaluation == LAYER_MAJOR:
        raise MeasureError(
            f"Layer by layer was asked for, but {reason}: leave the choice to us, or take the streaming mode."
        )
    compat: dict[str, MirResult] = {}
    how: dict[str, Any] = {"mode": LAYER_MAJOR}
    if reason:
        if run.compat:
            raise MeasureError(
                f"The published script's number ({run.compat[0]}) was asked for, which takes all rows of a "
                f"layer at once, but {reason}: leave --compat out."
            )
        curve, pictures, certificate = _stream(run, samples)
        how = {"mode": STREAMING, "why": reason, "certificate": certificate}
    else:
        curve, pictures, compat = _layer_by_layer(run, samples, tail)
    memory = {"collector_peak": run.ledger.peak, "store_everything": everything}
    return MirReport(curve[len(samples)], curve, how, memory, rows, run.host.name, tuple(pictures), compat)


def _layer_by_layer(
    run: _Run, samples: Sequence[Sample], tail: Sequence[nn.Module]
) -> tuple[dict[int, MirResult], list[Projection], dict[str, MirResult]]:
    terms: dict[int, list[LayerTerm]] = {size: [] for size in run.sizes}
    compat: dict[str, list[LayerTerm]] = {mode: [] for mode in run.compat}
    cheap = GROUPS if samples[0].call.hidden.shape[-1] <= CHEAP_WIDTH else 0
    groups = min(cheap if run.groups is None else run.groups, len(samples))
    pictures: list[Projection] = []
    depth = len(run.decoder.layers)
    states = states_by_layer(run.decoder, samples, tail, run.ledger, run.device)
    for layer, hidden in enumerate(states):
        run.progress("layers", layer, depth + 1)
        image, text = _clouds(layer, samples, hidden)
        copied = _copied(image, hidden) + _copied(text, hidden)
        run.ledger.take(copied)
        for size, term in pairs_curve(image, text, run.sizes[:-1]).items():
            terms[size].append(term)
        terms[len(samples)].append(layer_term(image, text, errors=True, groups=groups))
        for mode, found in compat.items():
            found.append(reference_term(image, text, mode))
        if layer in run.shown:
            pictures.append(project(layer, image, text))
        run.ledger.take(-copied)
        del image, text
    run.progress("layers", depth + 1, depth + 1)
    curve = {size: combine(found[1:], layer_zero=found[0]) for size, found in terms.items()}
    return curve, pictures, {mode: combine(found[1:], layer_zero=found[0]) for mode, found in compat.items()}


def _copied(cloud: Cloud, hidden: Sequence[Tensor]) -> int:
    """Bytes of the rows that are no views of the states: those that are no neighbours."""
    return sum(
        rows.nbytes
        for rows, state in zip(cloud.samples, hidden, strict=True)
        if rows.untyped_storage().data_ptr() != state.untyped_storage().data_ptr()
    )


def _clouds(layer: int, samples: Sequence[Sample], hidden: Sequence[Tensor]) -> tuple[Cloud, Cloud]:
    both = [sample.rows(state) for sample, state in zip(samples, hidden, strict=True)]
    image = Cloud.of([rows for rows, _ in both], f"image rows of layer {layer}")
    return image, Cloud.of([rows for _, rows in both], f"text rows of layer {layer}")


def _stream(
    run: _Run, samples: Sequence[Sample]
) -> tuple[dict[int, MirResult], list[Projection], dict[str, Any]]:
    curve: dict[int, MirResult] = {}
    pictures: list[Projection] = []
    certificate: dict[str, Any] = {}
    for sample in samples:  # only their positions are wanted from here on
        sample.call.hidden = sample.call.hidden.new_empty(0)
        sample.call.args, sample.call.kwargs = (), {}
    for size in run.sizes:
        with brought_in_turn(run.decoder, run.device):
            found = stream_terms(
                run.decoder,
                run.model,
                samples[:size],
                lambda number: run.pairs[number],
                run.ledger,
                keep=run.shown if size == len(samples) else (),
                progress=lambda number, size=size: run.progress("pairs", number + 1, size),  # type: ignore[misc]
            )
        curve[size] = combine(found.terms[1:], layer_zero=found.terms[0])
        pictures = [project(layer, *rows) for layer, rows in found.samples.items()]
        certificate = found.certificate
    return curve, pictures, certificate


def _layers(asked: Sequence[int], depth: int) -> list[int]:
    wrong = [layer for layer in asked if not -depth - 1 <= layer <= depth]
    if wrong:
        raise MeasureError(
            f"Layer {wrong[0]} was asked for, but there are 0 (the input) to {depth}: name one of those."
        )
    return sorted({layer % (depth + 1) for layer in asked})


@contextmanager
def _named(names: Sequence[str]) -> Iterator[None]:
    """What the mathematics refuses of sample i is refused of the pair of that name."""
    try:
        yield
    except RowsError as error:
        where = "" if error.sample is None else f" (sample {error.sample} is {names[error.sample]})"
        raise MeasureError(f"{str(error).rstrip('.')}{where}.") from error
