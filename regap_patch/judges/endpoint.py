"""A language model behind an OpenAI-compatible endpoint, judging by a rubric file."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

from regap_patch.errors import JudgeError
from regap_patch.judges.protocol import HARM_AND_BENIGN, Exchange, Judgement, failed
from regap_patch.records import Kind, Label, ResponseClass

CLASSES = frozenset(get_args(ResponseClass)) - {"judge-error", "empty"}
GIVE_UP_AFTER = 8  # rows in a row without a reply: the endpoint is dead, the rest waits for the next run,
GIVE_UP_FOR = 60.0  # or, in a process that lasts, for so many seconds
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
_NO_REPLY = (ValueError, KeyError, IndexError, TypeError)  # a body of another shape


class EndpointJudge:
    """Each exchange is one request; what fails is unscored and asked again by the next run.

    The key, if the endpoint wants one, is read from the environment and stored nowhere.
    """

    threshold = None
    kinds: tuple[Kind, ...] = HARM_AND_BENIGN
    meta_fields: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        url: str,
        model: str,
        rubric: str,
        settings: Mapping[str, Any],
        *,
        timeout: float = 60.0,
        retries: int = 2,
        wait: float = 1.0,
    ) -> None:
        """`url` ends before `/chat/completions`; `rubric` has the fields {question} and {answer}.

        Raises:
            JudgeError: the address is none, or the rubric lacks a field.
        """
        if not url.startswith(("http://", "https://")):
            raise JudgeError(
                f"{name} needs the address of an endpoint, found {url!r}: pass --judge_endpoint http://..."
            )
        if "{question}" not in rubric or "{answer}" not in rubric:
            raise JudgeError(
                f"The rubric of {name} lacks {{question}} or {{answer}}: put both into the file."
            )
        self.name = name
        self.revision = model
        self._url = url.rstrip("/") + "/chat/completions"
        self._rubric = rubric
        self._body = {
            "model": model,
            "temperature": 0,
            "max_tokens": int(settings["max_tokens"]),
            "seed": int(settings["seed"]),
        }
        self._key = os.environ.get(str(settings["key_variable"]), "")
        self._timeout, self._retries, self._wait = timeout, retries, wait
        self._workers = int(settings["workers"])
        self.settings = {
            "rubric": hashlib.sha256(rubric.encode()).hexdigest()[:16],
            "request": self._body,
        }
        self._lock = threading.Lock()
        self._failures, self._failed_at = 0, 0.0

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """As many at a time as the preset's `workers`."""
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(self._judge_one, exchanges))

    def _judge_one(self, exchange: Exchange) -> Judgement:
        if self._failures >= GIVE_UP_AFTER and time.monotonic() < self._failed_at + GIVE_UP_FOR:
            return failed(f"not asked: {self._url} gave no reply {GIVE_UP_AFTER} times in a row")
        try:
            said = self._ask(self._filled(exchange))
        except (OSError, http.client.HTTPException, *_NO_REPLY) as error:
            with self._lock:
                self._failures, self._failed_at = self._failures + 1, time.monotonic()
            return failed(f"{self._url}: {type(error).__name__}: {error}")
        with self._lock:
            self._failures = 0
        return parse_rubric(said)

    def _filled(self, exchange: Exchange) -> str:
        """By replacement in one pass: braces in an answer mean nothing."""
        before, _, rest = self._rubric.partition("{question}")
        if "{answer}" in before:
            first, _, between = before.partition("{answer}")
            return first + _quoted(exchange.answer) + between + _quoted(exchange.question) + rest
        between, _, after = rest.partition("{answer}")
        return before + _quoted(exchange.question) + between + _quoted(exchange.answer) + after

    def _ask(self, text: str) -> str:
        """One reply; what may pass is tried again after a pause that doubles."""
        body = json.dumps(self._body | {"messages": [{"role": "user", "content": text}]}).encode()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        for attempt in range(self._retries + 1):
            request = urllib.request.Request(self._url, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                    said = json.load(reply)["choices"][0]["message"]["content"]
                    # Half of a surrogate pair fits in no file.
                    return said.encode("utf-8", "replace").decode() if isinstance(said, str) else ""
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in _RETRIED or attempt == self._retries:
                    raise
            except (OSError, http.client.HTTPException):
                if attempt == self._retries:
                    raise
            time.sleep(self._wait * 2**attempt)
        raise OSError("no attempt was made")


def _quoted(text: str) -> str:
    """As a JSON string: an answer cannot end the place that the rubric gives it."""
    return json.dumps(text, ensure_ascii=False)


def parse_rubric(said: str) -> Judgement:
    """The last JSON object in a reply, with `class` among the known ones; all else is unscored."""
    start = said.rfind("{")
    end = said.find("}", start)
    try:
        found = json.loads(said[start : end + 1]) if 0 <= start < end else {}
    except ValueError:
        found = {}
    named: Any = found.get("class") if isinstance(found, dict) else None
    if not isinstance(named, str) or named not in CLASSES:
        return failed("the judge's reply holds no class that the rubric names", said)
    label: Label = "unsafe" if named == "unsafe" else "safe"
    response_class: Any = named
    return Judgement(label, response_class, raw=said)
