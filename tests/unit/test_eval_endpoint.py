"""A target behind an address: what is sent, and every way in which it does not answer."""

from __future__ import annotations

import base64
import socket

import pytest

from regap_patch.cli import main
from regap_patch.errors import ConfigError, EvaluationError
from regap_patch.safety.benchmarks import custom
from regap_patch.safety.manifest import Settings
from regap_patch.safety.run import run_evaluation
from regap_patch.safety.target import Decoding, Question, Reply
from regap_patch.safety.targets.endpoint import EndpointOptions, EndpointTarget
from regap_patch.safety.tasks import Task
from tests.unit.chat_server import chat_server, said
from tests.unit.evaluation_items import make_items, noisy_picture

GREEDY = Decoding(max_new_tokens=16)


def target(url: str, **options) -> tuple[EndpointTarget, list[float]]:
    waits: list[float] = []
    return EndpointTarget(EndpointOptions(url, "toy", **options), waits.append), waits


def ask(url: str, *questions: Question, **options) -> list[Reply]:
    return target(url, **options)[0].answer(questions, GREEDY, range(len(questions)))


def test_what_is_sent(monkeypatch):
    monkeypatch.setenv("TOY_KEY", "secret")
    picture = noisy_picture(4, 4, 0)
    with chat_server(lambda body: said(" a blorp \n")) as (url, seen):
        drawn = Decoding(max_new_tokens=9, temperature=0.5, top_p=0.9)
        asked = [Question("fold ?", picture), Question("fold ?"), Question("fold ?", words="A cup.")]
        made, _ = target(url, key_variable="TOY_KEY")
        replies = made.answer(asked, drawn, [1, 2, (1 << 62) + 3])
        print(made.fingerprint())
    assert replies == [Reply("a blorp", 7, "stop")] * 3
    assert {request["path"] for request in seen} == {"/v1/chat/completions"}
    assert {request["headers"]["Authorization"] for request in seen} == {"Bearer secret"}
    by_seed = {request["body"]["seed"]: request["body"] for request in seen}
    assert sorted(by_seed) == [1, 2, 3]
    settings = {"model": "toy", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9}
    assert all(settings.items() <= body.items() for body in by_seed.values())
    image, text = by_seed[1]["messages"][0]["content"]
    url = image["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    assert base64.b64decode(url.partition(",")[2]) == picture
    assert text == {"type": "text", "text": "fold ?"}
    assert by_seed[2]["messages"] == [{"role": "user", "content": "fold ?"}]
    assert by_seed[3]["messages"][0]["content"] == "A cup.\nfold ?"
    assert "secret" not in str(made.fingerprint())


def test_a_server_that_recovers_is_asked_again():
    codes = iter((500, 503, 429))

    def reply(body):
        code = next(codes, 200)
        return said("yes") if code == 200 else (code, {"error": "busy"})

    with chat_server(reply) as (url, seen):
        made, waits = target(url)
        assert made.answer([Question("?")], GREEDY, [0]) == [Reply("yes", 7, "stop")]
    assert len(seen) == 4
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("reply", "error", "tries"),
    [
        ((500, {}), "HTTP 500", 3),
        ((400, {}), "HTTP 400", 1),
        ((200, b"no json"), "JSONDecodeError", 3),
        ((200, {"choices": []}), "IndexError", 3),
        ((200, {"error": {}}), "KeyError", 3),
        ((200, []), "an object was expected, not list", 3),
        (said(["parts"]), "text was expected as content, not list", 3),
        ((200, {"choices": [{"message": None}]}), "AttributeError", 3),
        ((0, 1.0), "no answer within 0.2 s", 3),
        ((-1, b"no HTTP\r\n\r\n"), "BadStatusLine", 3),
        ((-1, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "IncompleteRead", 3),
    ],
)
def test_what_is_no_answer_is_an_error_of_that_item(reply, error, tries):
    with chat_server(lambda body: reply) as (url, seen):
        (found,) = ask(url, Question("?"), retries=2, timeout=0.2)
    assert (found.text, found.finish_reason) == ("", "error")
    assert error in found.error
    assert url in found.error
    assert len(seen) == tries


def test_odd_answers():
    with chat_server(lambda body: said(None, refusal="I will not.")) as (url, _):
        assert ask(url, Question("?"))[0].text == "I will not."
    with chat_server(lambda body: said("half \ud83d")) as (url, _):
        assert ask(url, Question("?"))[0].text == "half ?"
    with chat_server(
        lambda body: (200, {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]})
    ) as (
        url,
        _,
    ):
        assert ask(url, Question("?")) == [Reply("", 0, "length")]


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refused_key_stops_the_run(code):
    with (
        chat_server(lambda body: (code, {})) as (url, _),
        pytest.raises(
            EvaluationError,
            match=rf"refuses toy \(HTTP {code}\): check the address, the model's name and the key",
        ),
    ):
        ask(url, Question("?"))


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        (found,) = ask(url, Question("?"), retries=1)
    assert "onnection refused" in found.error


def test_options_that_mean_nothing():
    for url in ("localhost:8000", "ftp://x/v1", "http://"):
        with pytest.raises(ConfigError, match="an address is expected"):
            EndpointOptions(url, "toy")
    with pytest.raises(ConfigError, match=r"far\.example is another machine"):
        EndpointOptions("http://far.example/v1", "toy", offline=True)
    EndpointOptions("http://localhost:1/v1", "toy", offline=True)


def test_a_dead_server_leaves_rows_and_the_next_run_completes_them(tmp_path):
    task = Task(custom, make_items(tmp_path / "data", 12), ("none", "real"))
    settings = Settings(GREEDY, batch_size=4)
    alive = True

    def reply(body):
        text = body["messages"][0]["content"]
        return (500, {}) if not alive or "blorp 3" in str(text) else said(f"said {len(str(text))}")

    with chat_server(reply) as (url, _):
        made, _ = target(url, retries=1)
        found = run_evaluation(made, [task], tmp_path / "run", settings)
        assert (found.answered, found.errors, found.missing) == (22, 2, 2)
        alive = False
        with pytest.raises(
            EvaluationError, match=r"Nothing answered 3 blocks in a row, .*HTTP 500; mend that"
        ):
            run_evaluation(made, [task], tmp_path / "dead", settings)
    with chat_server(lambda body: said("whole")) as (other, _):
        moved = EndpointTarget(EndpointOptions(url, "toy"))
        moved._post = EndpointTarget(EndpointOptions(other, "toy"))._post
        assert run_evaluation(moved, [task], tmp_path / "run", settings).missing == 0
        assert run_evaluation(moved, [task], tmp_path / "dead", settings).missing == 0


def test_a_batch_of_nothing_is_refused_and_not_taken_for_the_default(tmp_path, capsys):
    root = make_items(tmp_path / "data", 1, pictures=False)
    flags = ["--model", "endpoint", "--model_args", "base_url=http://127.0.0.1:9/v1,model=toy,retries=0"]
    flags += ["--tasks", f"custom={root}", "--output_path", str(tmp_path / "run"), "--batch_size", "0"]
    assert main(["eval", "run", *flags]) == 1
    assert "batch_size is 0" in capsys.readouterr().err
