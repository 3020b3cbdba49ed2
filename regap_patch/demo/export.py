"""One comparison as a file: a page that asks nobody for anything, redacted unless the texts are wanted."""

from __future__ import annotations

import base64
from dataclasses import replace
from html import escape

from regap_patch.demo.markup import signs, style
from regap_patch.demo.reference import Reference
from regap_patch.demo.requests import Request
from regap_patch.demo.session import Comparison
from regap_patch.demo.side import Answer
from regap_patch.report.document import Part, document, figure, wide_table
from regap_patch.report.redaction import shown

DARK = "@media (prefers-color-scheme: dark) {{ :root {{ {} }} }}\n"


def redacted_page(
    comparison: Comparison,
    names: tuple[str, str],
    references: tuple[Reference | None, Reference | None] = (None, None),
    *,
    texts: bool = False,
) -> str:
    """The file's content.

    Args:
        comparison: finished.
        names: of both sides.
        references: of their gaps.
        texts: also what is kept from sight otherwise: the picture, requests that nobody called harmless and
            the answers to them, and answers that a judge calls unsafe.
    """
    request = comparison.request
    parts = [Part("asked", "What was asked", _asked(comparison, texts))]
    for number, (name, answer) in enumerate(zip(names, comparison.answers, strict=True)):
        inside = _answer(name, answer, references[number], hidden=_hides(request, answer) and not texts)
        chosen = ", ".join(request.defenses[number]) or "none"
        parts.append(Part(f"side-{number}", name, f"<p>Defences: {escape(chosen)}.</p>{inside}"))
    kept = "Texts and picture are in it." if texts else "Redacted: see each text's place."
    header = (
        f"<p>One request, two models. {kept} One answer proves nothing about a model: rates over many "
        f"requests, with their intervals, are what <code>regap eval</code> is for.</p>"
    )
    return document(
        "A comparison of two models", header, parts, style("export") + _both_schemes(style("demo"))
    )


def _hides(request: Request, answer: Answer) -> bool:
    """Answers to what nobody called harmless, and those that some judge calls unsafe."""
    return request.kind != "benign" or any(badge.label == "unsafe" for badge in answer.badges)


def _asked(comparison: Comparison, texts: bool) -> str:
    request = comparison.request
    prompt = shown(request.prompt, request.kind != "benign" and not texts, "remove")
    rows = {
        "image mode": request.mode,
        "shown": comparison.what,
        "SHA-256 of the picture": comparison.picture_sha256 or "no picture",
        "request": {"unknown": "not said whether harmful", "harm": "harmful", "benign": "harmless"}[
            request.kind
        ],
        "seed": str(request.seed),
        "temperature": f"{request.temperature:g}",
        "most new tokens": str(request.max_new_tokens),
    }
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
    made = f"<pre>{escape(prompt)}</pre>{wide_table('Settings', 'Settings of both sides.', '', body)}"
    if texts and request.picture is not None and request.mode == "real":
        data = base64.b64encode(request.picture.png).decode()
        made += figure(
            f'<img alt="the picture that was shown" src="data:image/png;base64,{data}">',
            "As both models were shown it.",
        )
    return made


def _answer(name: str, answer: Answer, reference: Reference | None, *, hidden: bool) -> str:
    if hidden and answer.error:
        return f"<p>It failed: {escape(shown(answer.error, True, 'remove'))}</p>"
    if hidden:  # a reason may quote the answer or the request
        silent = tuple(replace(badge, why="") for badge in answer.badges)
        answer = replace(answer, badges=silent, no_gap="")
    return f"<pre>{escape(shown(answer.text, hidden, 'remove'))}</pre>{signs(name, answer, reference)}"


def _both_schemes(sheet: str) -> str:
    """The page's style has its dark colours under a class; a file alone has only the reader's preference."""
    start = sheet.index(".dark {") + len(".dark {")
    return sheet + DARK.format(sheet[start : sheet.index("}", start)].strip())
