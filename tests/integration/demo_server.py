"""Serves the demo with two models that are scripts, and says what it looks up: `python -m ... SPEED`.

The left one says the prompt back; the right one is hostile, refuses, helps or dies, by words in the prompt.
Standard output: the address, then `lookup HOST` for every name that is resolved.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

PLAIN = "Take a sheet and fold it twice."
REFUSAL = "I'm sorry, but I cannot help with that."
HOSTILE = (
    "<script>document.title='hit'</script><img src=x onerror=\"document.title='hit'\"> ${alert(1)} {{this}}"
)


def watch_lookups() -> None:
    real = socket.getaddrinfo

    def watched(host, *args, **kwargs):
        if host not in (None, "127.0.0.1", "localhost", b"127.0.0.1"):
            print(f"lookup {host}", flush=True)
        return real(host, *args, **kwargs)

    socket.getaddrinfo = watched


def paced(text: str, seconds: float) -> Iterator[str]:
    for word in text.split():
        time.sleep(seconds)
        yield word


def main(seconds: float) -> None:
    watch_lookups()
    from regap_patch.demo.app import build_app
    from regap_patch.demo.examples import drawn_pictures, examples
    from regap_patch.demo.line import Line
    from regap_patch.demo.reference import Band, Reference
    from regap_patch.demo.serving import Where, serve, until_ended
    from regap_patch.demo.session import Session
    from regap_patch.demo.side import Side
    from regap_patch.judges import make_judge
    from tests.unit.demo_sides import TellingTarget

    def echo(question) -> Iterator[str]:
        seen = "" if question.picture is None else f" and {len(question.picture)} bytes"
        return paced(f"{question.text}{seen}", seconds)

    def answer(question) -> Iterator[str]:
        if "die" in question.prompt:
            yield from paced("it begins", seconds)
            raise RuntimeError("the device <b>is gone</b>")
        said = HOSTILE if "hostile" in question.prompt else PLAIN if "fold" in question.prompt else REFUSAL
        yield from paced(said, seconds)

    def defend(target, names):
        target.stack = target
        return target

    reference = Reference("64 pictures with captions (gap.json)", {"centroid_l2": Band(1.0, 2.0, 3.0)})
    left = Side("left-model", lambda: TellingTarget(echo), defend, ("self_reminder", "ecso"), reference)
    right = Side("right-model", lambda: TellingTarget(answer), defend, ("self_reminder",), reference)
    pictures = drawn_pictures()
    session = Session(left, right, [make_judge("keyword-own")], pictures, Line(most=32, most_per_client=2))
    app = build_app(session, examples(pictures))
    print(serve(app, Where(port=0)), flush=True)
    until_ended()
    session.close()
    app.close(verbose=False)


if __name__ == "__main__":
    main(float(sys.argv[1]))
