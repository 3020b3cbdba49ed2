"""Both columns and the line before them: all that the demo does, without a user interface."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from regap_patch.demo.line import Line, Stopped, Ticket
from regap_patch.demo.pictures import Picture
from regap_patch.demo.requests import Asked, Request, asked, possible_modes
from regap_patch.demo.side import Answer, Side, in_words
from regap_patch.errors import DemoError
from regap_patch.judges.protocol import Judge
from regap_patch.measure.centroids import LayerDistance

PATIENCE = 1.0  # seconds between two looks at a line that does not move
PACE = 0.05  # seconds between two pictures of an answer that grows
FINAL = ("done", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One request and what both sides say to it.

    Attributes:
        request: as it was made.
        what: stands in the picture's place, for people.
        picture_sha256: of what both models were shown; None without a picture.
        answers: left and right.
        ahead: requests that come first, while it waits.
    """

    request: Request
    what: str
    picture_sha256: str | None
    answers: tuple[Answer, Answer] = (Answer(), Answer())
    ahead: int = 0

    @property
    def finished(self) -> bool:
        """Nothing more will come."""
        return all(answer.state in FINAL for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Curve:
    """A side's distances layer by layer, or why there are none."""

    layers: tuple[LayerDistance, ...] = ()
    error: str = ""


class Session:
    """Two models and those who ask them, one request after the other.

    Args:
        left: a side.
        right: the other.
        judges: who are asked about every answer.
        pool: pictures for mode irrelevant.
        line: who may ask.
    """

    def __init__(
        self,
        left: Side,
        right: Side,
        judges: Sequence[Judge] = (),
        pool: Sequence[Picture] = (),
        line: Line | None = None,
    ) -> None:
        self.sides = (left, right)
        self.judges, self.pool = tuple(judges), tuple(pool)
        self.line = line or Line()
        self._threads = [ThreadPoolExecutor(1, f"demo-{where}") for where in ("left", "right")]

    def asked(self, request: Request) -> Asked:
        """What both models will get."""
        return asked(request, self.pool)

    def ask(self, request: Request, client: str = "") -> Iterator[Comparison]:
        """Both answers as they grow; the last comparison is whole. To close the iterator is to stop.

        Args:
            request: what is asked.
            client: who asks; one has few places in the line.

        Raises:
            DemoError: nothing to show in this mode, or no place in the line.
        """
        question = self.asked(request)
        with self.line.enter(client) as ticket:
            yield from self._each(request, question, ticket)

    def ask_modes(self, request: Request, client: str = "") -> Iterator[list[Comparison]]:
        """The same in all image modes, one after the other; arguments and errors as `ask`.

        Mode irrelevant is passed over where there is no other picture.
        """
        modes = [
            mode for mode in possible_modes(request) if mode != "irrelevant" or self._has_another(request)
        ]
        done: list[Comparison] = []
        with self.line.enter(client) as ticket:
            for mode in modes:
                one = request.in_mode(mode)
                for comparison in self._each(one, self.asked(one), ticket):
                    yield [*done, comparison]
                if ticket.stopped:
                    return
                done.append(comparison)

    def layers(self, request: Request, client: str = "") -> tuple[Curve, Curve]:
        """The curve of each side; arguments and errors as `ask`."""
        question = self.asked(request)
        with self.line.enter(client) as ticket:
            while not ticket.wait(PATIENCE) and not ticket.stopped:
                pass
            if ticket.stopped:
                raise DemoError("The measurement was stopped before its turn.")
            jobs = [
                thread.submit(_curve, side, question)
                for thread, side in zip(self._threads, self.sides, strict=True)
            ]
            left, right = (job.result() for job in jobs)
            return left, right

    def stop(self, client: str) -> int:
        """Stop all that a client asked for; how many requests that were."""
        return self.line.stop(client)

    def close(self) -> None:
        """Stop all that runs, and let go of both models."""
        self.line.close()
        for thread, side in zip(self._threads, self.sides, strict=True):
            thread.submit(side.close)
            thread.shutdown()

    def _has_another(self, request: Request) -> bool:
        return any(request.picture is None or one.sha256 != request.picture.sha256 for one in self.pool)

    def _each(self, request: Request, question: Asked, ticket: Ticket) -> Iterator[Comparison]:
        so_far = Comparison(request, question.what, question.picture_sha256)
        yield replace(so_far, ahead=ticket.ahead())
        while not ticket.wait(PATIENCE):
            if ticket.stopped:
                yield _stopped(so_far)
                return
            yield replace(so_far, ahead=ticket.ahead())
        yield from self._answers(so_far, question, ticket)

    def _answers(self, so_far: Comparison, question: Asked, ticket: Ticket) -> Iterator[Comparison]:
        """Both sides at once, each on its own thread."""
        news: queue.Queue[tuple[int, Answer]] = queue.Queue()
        for number in range(2):
            self._threads[number].submit(self._one, number, so_far.request, question, ticket, news.put)
        pause = threading.Event()
        while not so_far.finished:
            answers = list(so_far.answers)
            try:
                number, answers[number] = news.get(timeout=PATIENCE)
            except queue.Empty:
                if ticket.stopped:  # a model that loads, or is behind an address, hears of it late
                    yield _stopped(so_far)
                    return
                continue
            while not news.empty():
                number, answer = news.get()
                answers[number] = answer
            so_far = replace(so_far, answers=(answers[0], answers[1]))
            yield so_far
            pause.wait(PACE)

    def _one(
        self,
        number: int,
        request: Request,
        question: Asked,
        ticket: Ticket,
        put: Callable[[tuple[int, Answer]], None],
    ) -> None:
        latest = Answer()

        def show(answer: Answer) -> None:
            nonlocal latest
            ticket.check()
            latest = answer
            put((number, answer))

        try:
            self.sides[number].answer(request, request.defenses[number], question, self.judges, show)
        except Stopped:
            put((number, replace(latest, state="stopped")))
        except Exception as error:  # of any kind: it is this column's own, and the other goes on
            self.sides[number].give_up(error)
            put((number, replace(latest, state="failed", error=in_words(error))))


def _stopped(comparison: Comparison) -> Comparison:
    left, right = (
        answer if answer.state in FINAL else replace(answer, state="stopped") for answer in comparison.answers
    )
    return replace(comparison, answers=(left, right))


def _curve(side: Side, question: Asked) -> Curve:
    try:
        return Curve(tuple(side.layers(question)))
    except Exception as error:
        return Curve(error=in_words(error))
