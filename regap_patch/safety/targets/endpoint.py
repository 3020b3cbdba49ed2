"""A server that speaks OpenAI's chat completions: vLLM, llama.cpp, LM Studio or a company's."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from regap_patch.errors import ConfigError, EvaluationError
from regap_patch.safety.streaming import EVENTS, whole_of
from regap_patch.safety.target import Decoding, Question, Reply

REFUSED = (401, 403, 404)  # will not go better for another item
SIGNS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_AT_ONCE = 16
NO_ANSWER = (  # a connection that breaks, and a body of another shape
    *(OSError, http.client.HTTPException),
    *(ValueError, KeyError, IndexError, TypeError, AttributeError),
)


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """Where and whom to ask.

    Attributes:
        base_url: up to and with the version: `http://localhost:8000/v1`.
        model: name of the model there.
        timeout: seconds to wait for an answer.
        retries: further tries after a failure that may pass.
        key_variable: environment variable that holds the key; it is neither stored nor printed.
        offline: only this machine may be asked.

    Raises:
        ConfigError: no address, or one that is elsewhere while offline.
    """

    base_url: str
    model: str
    timeout: float = 120.0
    retries: int = 3
    key_variable: str = "OPENAI_API_KEY"
    offline: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"base_url is {self.base_url!r}: an address is expected, like http://localhost:8000/v1."
            )
        if self.offline and parts.hostname not in LOOPBACK:
            raise ConfigError(
                f"--offline was given, but {parts.hostname} is another machine: leave one of the two out."
            )


class EndpointTarget:
    """A model behind an address. A failure is an error of that item alone, and the next run asks it again.

    Args:
        options: where and whom to ask.
        wait: sleeps between tries.
    """

    def __init__(self, options: EndpointOptions, wait: Callable[[float], None] = time.sleep) -> None:
        self.options, self._wait = options, wait
        self._tell: Callable[[str], None] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Address and name: what weights are behind them is the server's word."""
        return {
            "kind": "endpoint",
            "base_url": self.options.base_url.rstrip("/"),
            "model": self.options.model,
            "template": "the server's",
        }

    def answer(self, questions: Sequence[Question], decoding: Decoding, seeds: Sequence[int]) -> list[Reply]:
        """See `Target`: a batch is asked at once, in threads.

        Raises:
            EvaluationError: the server refuses the key, or has no such model or address.
        """
        with ThreadPoolExecutor(min(len(questions), MAX_AT_ONCE)) as threads:
            asked = [
                threads.submit(self._ask, question, decoding, seed)
                for question, seed in zip(questions, seeds, strict=True)
            ]
            return [one.result() for one in asked]

    @contextmanager
    def telling(self, tell: Callable[[str], None]) -> Iterator[None]:
        """See `safety.streaming`: the server is asked for its answers piece by piece."""
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    def close(self) -> None:
        """Nothing is held."""

    def _ask(self, question: Question, decoding: Decoding, seed: int) -> Reply:
        body = {
            "model": self.options.model,
            "messages": [{"role": "user", "content": content(question)}],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "seed": seed % (1 << 31),
        }
        if decoding.top_p is not None:
            body["top_p"] = decoding.top_p
        if self._tell is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        wrong = ""
        for attempt in range(self.options.retries + 1):
            if attempt:
                self._wait(0.5 * 2 ** (attempt - 1))
            try:
                return _reply(self._post(body))
            except urllib.error.HTTPError as error:
                wrong = f"HTTP {error.code}"
                if error.code in REFUSED:
                    raise EvaluationError(
                        f"{self.options.base_url} refuses {self.options.model} ({wrong}): check the address, "
                        f"the model's name and the key in ${self.options.key_variable}."
                    ) from error
                if error.code < 500 and error.code not in (408, 429):
                    break  # this item is what it does not take
            except TimeoutError:
                wrong = f"no answer within {self.options.timeout:g} s"
            except NO_ANSWER as error:
                reason = getattr(error, "reason", error)
                timed_out = isinstance(reason, TimeoutError)
                wrong = (
                    f"no answer within {self.options.timeout:g} s"
                    if timed_out
                    else f"{type(error).__name__}: {reason}"
                )
        return Reply("", 0, "error", error=f"{self.options.base_url}: {wrong}")

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.options.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.options.base_url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.options.timeout) as response:
            if self._tell is not None and response.headers.get_content_type() == EVENTS:
                return whole_of(response, self._tell)
            found = json.loads(response.read())
        if not isinstance(found, dict):
            raise ValueError(f"an object was expected, not {type(found).__name__}")
        return found


def content(question: Question) -> str | list[dict[str, Any]]:
    """A user's turn as the protocol has it: text, or a picture as data and text."""
    if question.picture is None:
        return question.text
    kind = next((name for sign, name in SIGNS.items() if question.picture.startswith(sign)), "png")
    data = f"data:image/{kind};base64,{base64.b64encode(question.picture).decode()}"
    return [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": question.text}]


def _reply(found: dict[str, Any]) -> Reply:
    choice = found["choices"][0]
    text = choice["message"].get("content") or choice["message"].get("refusal") or ""
    if not isinstance(text, str):
        raise ValueError(f"text was expected as content, not {type(text).__name__}")
    text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair fits in no file
    usage = found.get("usage") or {}
    num_tokens = int(usage.get("completion_tokens") or 0)
    return Reply(text.strip(), num_tokens, str(choice.get("finish_reason") or "stop"))
