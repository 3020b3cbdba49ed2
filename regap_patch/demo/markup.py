"""HTML of what is found about an answer, for the page and for its export. Whatever a model says stays text.

No inline style: the exported page forbids it. Colours are classes of `assets/demo.css`, and every colour has
its word beside it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources

from regap_patch.demo.reference import SHOWN, Band, Reference
from regap_patch.demo.session import Comparison, Curve
from regap_patch.demo.side import Answer
from regap_patch.demo.verdicts import Badge
from regap_patch.report.document import wide_table
from regap_patch.report.drawing import Axis, Scale

TITLES = {"centroid_l2": "centroid distance", "pairwise_sq": "mean squared pairwise distance"}
STATES = {
    "waiting": "waits",
    "loading": "loads the model",
    "answering": "answers",
    "done": "is done",
    "failed": "failed",
    "stopped": "was stopped",
}
WIDTH, HEIGHT = 320, 34  # of a meter
CURVE = (640, 260)  # of the figure of layers
_TEMPLATE = str.maketrans({sign: f"&#{ord(sign)};" for sign in "{}$`"})


def style(name: str) -> str:
    """A style sheet: `demo` of these pieces, `export` of the page around them."""
    sheet = resources.files("regap_patch.demo").joinpath("assets").joinpath(f"{name}.css")
    return sheet.read_text(encoding="utf-8")


def inert(text: str) -> str:
    """Text that stays text, for a parser of HTML and for a template engine that sees the HTML first."""
    return html.escape(text).translate(_TEMPLATE)


def signs(name: str, answer: Answer, reference: Reference | None) -> str:
    """All about one answer: how far it is, badges, latency, first token, gap."""
    if answer.state == "failed":
        return f'<p class="demo-error" role="alert"><b>{inert(name)} failed.</b> {inert(answer.error)}</p>'
    found = [f'<p class="demo-state" role="status">{inert(name)} {STATES[answer.state]}.</p>']
    if answer.response_class is not None:
        found.append(f'<p class="demo-badges">{_refusal(answer)}{"".join(map(_badge, answer.badges))}</p>')
        found.append(_numbers(answer))
    if answer.gap is not None:
        found.append(meter(answer, reference))
    elif answer.no_gap:
        found.append(f'<p class="demo-note">Gap: {inert(answer.no_gap)}</p>')
    return "".join(found)


def meter(answer: Answer, reference: Reference | None) -> str:
    """The gap of this input against the checkpoint's band."""
    assert answer.gap is not None
    rows = "".join(
        _bar(TITLES[name], answer.gap[name], reference.bands.get(name) if reference else None)
        for name in SHOWN
    )
    source = (
        f"Band: 5 % to 95 % of {inert(reference.source)}."
        if reference and any(band.low is not None for band in reference.bands.values())
        else f"Mark: {inert(reference.source)}."
        if reference
        else "No reference: <code>regap gap</code> writes one, to <code>gap.json</code> beside the weights."
    )
    return f'<div class="demo-meter">{rows}<p class="demo-note">{source}</p></div>'


def modes_table(comparisons: Sequence[Comparison], names: tuple[str, str]) -> str:
    """One row an image mode: what each side made of it."""
    head = "".join(f"<th>{inert(name)}</th>" for name in ("image mode", *names))
    body = "".join(
        f'<tr><td class="words">{inert(one.request.mode)}</td>'
        + "".join(f'<td class="words">{_cell(answer)}</td>' for answer in one.answers)
        + "</tr>"
        for one in comparisons
    )
    return wide_table("All image modes", "The same request in all image modes.", f"<tr>{head}</tr>", body)


def curve_figure(curves: tuple[Curve, Curve], names: tuple[str, str]) -> str:
    """Distance of the centroids in units of a text row's length, layer by layer, and the same as a table."""
    failed = [
        f'<p class="demo-error" role="alert"><b>{inert(name)}:</b> {inert(curve.error)}</p>'
        for name, curve in zip(names, curves, strict=True)
        if curve.error
    ]
    lines = [(name, curve) for name, curve in zip(names, curves, strict=True) if curve.layers]
    if not lines:
        return "".join(failed)
    return "".join(failed) + _curve_drawing(lines) + _curve_table(lines)


def _refusal(answer: Answer) -> str:
    kind = answer.response_class or ""
    tone = "refusal" if kind == "refusal" else "plain"
    return (
        f'<span class="demo-badge {tone}">{"refusal" if kind == "refusal" else f"no refusal: {kind}"}</span>'
    )


def _badge(badge: Badge) -> str:
    score = "" if badge.score is None else f" {badge.score:.2f}"
    why = f": {inert(badge.why)}" if badge.why else ""
    return f'<span class="demo-badge {badge.label}">{inert(badge.judge)}: {badge.label}{score}{why}</span>'


def _numbers(answer: Answer) -> str:
    rows = []
    if answer.first_token_refusal_prob is not None:
        rows.append(("refusal at the first token", f"{100 * answer.first_token_refusal_prob:.1f} %"))
    if answer.first_seconds is not None:
        rows.append(("first token after", f"{answer.first_seconds:.2f} s"))
    if answer.seconds is not None:
        rows.append(("whole answer after", f"{answer.seconds:.2f} s"))
    cut = ", cut there" if answer.finish_reason == "length" else ""
    rows.append(("new tokens", f"{answer.num_tokens}{cut}"))
    rows.append(("generations", f"{answer.generations}"))
    return f'<dl class="demo-numbers">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in rows)}</dl>'


def _bar(title: str, value: float, band: Band | None) -> str:
    ends = [value] if band is None else [value, band.middle, band.high or 0.0]
    place = Scale(Axis(title, 0.0, 1.1 * max(*ends, 1e-9)), 0, WIDTH)
    words, marks = f"{title} {value:.4g}", ""
    if band is not None:
        words += f", {band.place(value)}"
        marks = f'<path class="middle" d="M{place(band.middle):.1f} 4V24"/>'
        if band.low is not None and band.high is not None:
            words += f" of {band.low:.4g} to {band.high:.4g}"
            wide = place(band.high) - place(band.low)
            marks = (
                f'<rect class="band" x="{place(band.low):.1f}" y="6" width="{wide:.1f}" height="16"/>' + marks
            )
    return (
        f'<p class="demo-meter-words">{words}</p>'
        f'<svg class="demo-bar" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">'
        f'<rect class="track" x="0" y="10" width="{WIDTH}" height="8"/>{marks}'
        f'<circle class="value" cx="{place(value):.1f}" cy="14" r="7"/></svg>'
    )


def _cell(answer: Answer) -> str:
    if answer.state == "failed":
        return f'<span class="demo-badge unscored">failed</span> {inert(answer.error)}'
    if answer.response_class is None:
        return f'<span class="demo-note">{STATES[answer.state]}</span> {inert(answer.text)}'
    return f"{_refusal(answer)}{''.join(map(_badge, answer.badges))}<br>{inert(answer.text)}"


def _curve_drawing(lines: Sequence[tuple[str, Curve]]) -> str:
    width, height = CURVE
    most = max(row.relative for _, curve in lines for row in curve.layers)
    deepest = max(row.layer for _, curve in lines for row in curve.layers)
    x = Scale(Axis("layer", 0, max(deepest, 1)), 60, width - 20)
    vertical = Axis("distance / length of a text row", 0, 1.1 * most or 1.0)
    y = Scale(vertical, height - 40, 20)
    ticks = "".join(
        f'<path class="grid" d="M60 {y(t):.1f}H{width - 20}"/>'
        f'<text x="54" y="{y(t) + 4:.1f}" text-anchor="end">{vertical.text(t)}</text>'
        for t in vertical.ticks()
    )
    drawn = []
    for number, (name, curve) in enumerate(lines):
        points = " ".join(f"{x(row.layer):.1f},{y(row.relative):.1f}" for row in curve.layers)
        drawn.append(f'<polyline class="side-{number}" points="{points}"/>')
        place = f'x="{width - 20}" y="{36 + 16 * number}" text-anchor="end"'
        drawn.append(f'<text class="side-{number}" {place}>{inert(name)}</text>')
    step = max(1, deepest // 8)
    drawn += [
        f'<text x="{x(layer):.1f}" y="{height - 24}" text-anchor="middle">{layer}</text>'
        for layer in range(0, deepest + 1, step)
    ]
    words = "Distance of the centroids of image and text rows, in lengths of a text row, by layer"
    return (
        f'<svg class="demo-curve" viewBox="0 0 {width} {height}" role="img" aria-label="{words}">{ticks}'
        f'{"".join(drawn)}<text x="{width / 2:.0f}" y="{height - 8}" text-anchor="middle">layer</text></svg>'
    )


def _curve_table(lines: Sequence[tuple[str, Curve]]) -> str:
    head = "".join(f"<th>{inert(name)}</th>" for name in ("layer", *(name for name, _ in lines)))
    depth = max(len(curve.layers) for _, curve in lines)
    body = "".join(
        f"<tr><td>{layer}</td>"
        + "".join(
            f"<td>{curve.layers[layer].relative:.3f}</td>" if layer < len(curve.layers) else "<td>-</td>"
            for _, curve in lines
        )
        + "</tr>"
        for layer in range(depth)
    )
    caption = "Distance of the centroids in lengths of a text row."
    return wide_table("Distance by layer", caption, f"<tr>{head}</tr>", body)
