"""What each control of the page does: plain values in, plain values out, and no user interface known.

A refusal (`DemoError`) comes out as a sentence in the page's notice, never as an exception.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from regap_patch.demo.export import redacted_page
from regap_patch.demo.kept_files import KeptFiles
from regap_patch.demo.markup import curve_figure, inert, modes_table, signs
from regap_patch.demo.pictures import Picture, read_upload
from regap_patch.demo.requests import Request
from regap_patch.demo.session import Comparison, Session
from regap_patch.errors import DemoError, ReGapError

MOST_HISTORY = 10  # comparisons of one client


class Form(NamedTuple):
    """The controls, from the page's top to its bottom; the fields of `Request` with a file for a picture."""

    picture: str | None
    prompt: str
    mode: str
    kind: str = "unknown"
    seed: float = 0
    max_new_tokens: float = 64
    temperature: float = 0
    left_defenses: Sequence[str] = ()
    right_defenses: Sequence[str] = ()


class Columns(NamedTuple):
    """What a comparison writes onto the page.

    Attributes:
        notice: a sentence, HTML; "" for none.
        left: text of the answer.
        left_signs: HTML.
        right: text of the answer.
        right_signs: HTML.
        record: all of it as plain JSON values.
    """

    notice: str
    left: str
    left_signs: str
    right: str
    right_signs: str
    record: dict[str, Any]


class Handlers:
    """The page's own functions.

    Args:
        session: that does the work.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.files = KeptFiles()
        left, right = session.sides
        self.names = (left.name, right.name)

    def ask(self, form: Form, client: str) -> Iterator[tuple[Columns, Comparison | None]]:
        """Both columns as they grow; with the last the comparison, for the history."""
        try:
            for comparison in self.session.ask(_request(form), client):
                yield self.columns(comparison), comparison if comparison.finished else None
        except ReGapError as error:
            yield _refused(error), None

    def ask_modes(self, form: Form, client: str) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
        """Notice, table and records of all image modes as they come."""
        try:
            for found in self.session.ask_modes(_request(form), client):
                records = [self.record(one) for one in found]
                yield _waiting(found[-1]), modes_table(found, self.names), records
        except ReGapError as error:
            yield notice(error), "", []

    def layers(self, form: Form, client: str) -> tuple[str, str]:
        """Notice, and the figure of distances by layer."""
        try:
            return "", curve_figure(self.session.layers(_request(form), client), self.names)
        except ReGapError as error:
            return notice(error), ""

    def stop(self, client: str) -> str:
        """Stop all of a client's requests; a sentence."""
        count = self.session.stop(client)
        return f"{count} stopped." if count else "Nothing was running."

    def check_picture(self, picture: str | None) -> tuple[str | None, str]:
        """An upload as the models will see it, or no picture and a notice why."""
        if picture is None:
            return None, ""
        try:
            found = read_upload(picture)
        except DemoError as error:
            return None, notice(error)
        return self.files.keep("picture", ".png", found.png), _changed(found)

    def shown(self, form: Form) -> str:
        """What stands in the picture's place in this mode: HTML."""
        try:
            asked = self.session.asked(_request(form._replace(prompt=form.prompt or "?")))
        except ReGapError as error:
            return f'<p class="demo-note">{inert(str(error))}</p>'
        image = ""
        if asked.question.picture is not None:
            data = base64.b64encode(asked.question.picture).decode()
            image = f'<img alt="{inert(asked.what)}" src="data:image/png;base64,{data}">'
        digest = f" SHA-256 {asked.picture_sha256[:16]}…" if asked.picture_sha256 else ""
        return (
            f'<div class="demo-shown">{image}<p>Both models are shown: {inert(asked.what)}.{digest}</p></div>'
        )

    def export(self, comparison: Comparison | None, texts: bool) -> str | None:
        """Path of a page that holds one comparison; None before the first."""
        if comparison is None:
            return None
        left, right = self.session.sides
        page = redacted_page(comparison, self.names, (left.reference, right.reference), texts=texts)
        return self.files.keep("comparison", ".html", page.encode())

    def columns(self, comparison: Comparison) -> Columns:
        """One comparison as the page shows it."""
        (left, right), sides = comparison.answers, self.session.sides
        return Columns(
            _waiting(comparison),
            left.text,
            signs(self.names[0], left, sides[0].reference),
            right.text,
            signs(self.names[1], right, sides[1].reference),
            self.record(comparison),
        )

    def record(self, comparison: Comparison) -> dict[str, Any]:
        """One comparison as plain JSON values, without the picture's bytes."""
        request = comparison.request
        fields = {
            field.name: getattr(request, field.name)
            for field in dataclasses.fields(request)
            if field.name not in ("picture", "defenses")
        }
        sides = [
            {"name": name, "defenses": list(defenses), **dataclasses.asdict(answer)}
            for name, defenses, answer in zip(self.names, request.defenses, comparison.answers, strict=True)
        ]
        return {
            **fields,
            "shown": comparison.what,
            "picture_sha256": comparison.picture_sha256,
            "ahead": comparison.ahead,
            "finished": comparison.finished,
            "sides": sides,
        }


def remembered(history: Sequence[Comparison], comparison: Comparison) -> list[Comparison]:
    """A client's history with one more, the latest first."""
    return [comparison, *history][:MOST_HISTORY]


def titles(history: Sequence[Comparison]) -> list[str]:
    """A line for each comparison of a history, numbered from the latest."""
    return [
        f"{number}. {one.request.mode}: {one.request.prompt[:60]}" for number, one in enumerate(history, 1)
    ]


def notice(error: Exception) -> str:
    """A refusal, for those who see it and for those who hear it."""
    return f'<p class="demo-error" role="alert">{inert(str(error))}</p>'


def _request(form: Form) -> Request:
    picture = None if form.picture is None else read_upload(form.picture)
    try:
        numbers = {"seed": int(form.seed), "max_new_tokens": int(form.max_new_tokens)}
        temperature = float(form.temperature)
    except (TypeError, ValueError, OverflowError) as error:
        raise DemoError(f"A setting is no number ({error}): give seed, tokens and temperature.") from error
    mode: Any = form.mode
    kind: Any = form.kind
    defenses = tuple(form.left_defenses or ()), tuple(form.right_defenses or ())
    return Request(
        form.prompt or "", picture, mode, kind, temperature=temperature, defenses=defenses, **numbers
    )


def _refused(error: Exception) -> Columns:
    return Columns(notice(error), "", "", "", "", {"error": str(error)})


def _waiting(comparison: Comparison) -> str:
    ahead = comparison.ahead
    if not ahead or comparison.finished:
        return ""
    return f'<p class="demo-note" role="status">{ahead} request{"s" * (ahead > 1)} before yours.</p>'


def _changed(picture: Picture) -> str:
    return f'<p class="demo-note">Your picture was {inert(picture.changed)}.</p>' if picture.changed else ""
