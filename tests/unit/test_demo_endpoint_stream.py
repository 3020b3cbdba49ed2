"""A streamed answer of a server: its text as it comes, and every way in which it breaks off."""

from __future__ import annotations

import json

import pytest

from regap_patch.safety.target import Decoding, Question, Reply
from regap_patch.safety.targets.endpoint import EndpointOptions, EndpointTarget
from tests.unit.chat_server import chat_server, said

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"


def part(text: str | None = None, finish: str | None = None) -> dict:
    return {"choices": [{"delta": {} if text is None else {"content": text}, "finish_reason": finish}]}


def stream(*parts: dict, done: bool = True) -> tuple[int, bytes]:
    lines = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in parts)
    return -1, HEAD + b": a comment\n\n" + lines + (b"data: [DONE]\n\n" if done else b"")


def ask(reply, tell) -> tuple[Reply, list[dict]]:
    with chat_server(lambda body: reply) as (url, seen):
        target = EndpointTarget(EndpointOptions(url, "toy", retries=0))
        with target.telling(tell):
            (found,) = target.answer([Question("fold ?")], Decoding(max_new_tokens=16), [0])
    return found, seen


def test_text_comes_piece_by_piece():
    told: list[str] = []
    usage = {"choices": [], "usage": {"completion_tokens": 5}}
    found, seen = ask(stream(part(" a"), part(" blörp"), part(None, "stop"), usage), told.append)
    assert found == Reply("a blörp", 5, "stop")
    assert told == ["a", "a blörp", "a blörp"]
    assert seen[0]["body"]["stream"] is True


def test_a_server_that_does_not_stream_is_understood():
    found, _ = ask(said("a blorp"), lambda text: None)
    assert found.text == "a blorp"


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (stream(part("a bl"), done=False), "in the middle of an answer"),
        (stream(part("a bl"), {"error": {"message": "out of memory"}}), "out of memory"),
        ((-1, HEAD + b"data: {torn\n\n"), "JSONDecodeError"),
    ],
)
def test_a_stream_that_breaks_off_is_an_error(reply, says):
    found, _ = ask(reply, lambda text: None)
    assert found.text == ""
    assert says in found.error


def test_what_the_listener_raises_comes_out():
    class Enough(Exception):
        pass

    def enough(text):
        raise Enough

    with pytest.raises(Enough):
        ask(stream(part("a"), part("b", "stop")), enough)


def test_nobody_listens_nothing_is_streamed():
    with chat_server(lambda body: said("a blorp")) as (url, seen):
        EndpointTarget(EndpointOptions(url, "toy")).answer([Question("fold ?")], Decoding(), [0])
    assert "stream" not in seen[0]["body"]
