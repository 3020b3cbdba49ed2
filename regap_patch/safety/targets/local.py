"""What the targets that hold weights share: their options, their loading, and how a batch becomes replies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from regap_patch.errors import ConfigError, EvaluationError
from regap_patch.safety.generation import OPENERS, all_processors, end_ids, ended, opener_ids
from regap_patch.safety.streaming import TextSoFar
from regap_patch.safety.target import Decoding, Question, Reply
from regap_patch.safety.weights import Files

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How a checkpoint is loaded.

    Attributes:
        pretrained: folder or hub name.
        base: language model under a projector or an adapter.
        template: name of a conversation template of LLaVA, or, for a model in transformers' format, text with
            `{text}` and `<image>`; None for the usual one.
        device: where it runs; None for a GPU, if there is one.
        dtype: None for float32 on the CPU, else float16.
        attention: implementation of transformers.
        openers: of refusals, for `first_token_refusal_prob`.

    Raises:
        ConfigError: an unknown dtype.
    """

    pretrained: str
    base: str | None = None
    template: str | None = None
    device: str | None = None
    dtype: str | None = None
    attention: str = "sdpa"
    openers: tuple[str, ...] = OPENERS

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}: choose one of {', '.join(DTYPES)}.")

    def place(self) -> tuple[str, str]:
        """Device and dtype."""
        device = self.device
        if device is None:
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        return device, self.dtype or ("float32" if device == "cpu" else "float16")


class LocalTarget(ABC):
    """A checkpoint that is loaded at the first question.

    Args:
        options: how.
    """

    kind: str

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self.device, self.dtype = options.place()
        self._files: Files | None = None
        self._model: Any = None
        self._tokenizer: Any = None
        self._openers: list[int] = []
        self._tell: Callable[[str], None] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Hashes of all files, template, dtype, attention and kind of device.

        Raises:
            EvaluationError: the checkpoint is not there or not whole.
        """
        self._files = Files(self.parts())
        name, rendered = self.template()
        return {
            "kind": self.kind,
            "files": self._files.sha256(),
            "template": name,
            "template_text": rendered,
            "dtype": self.dtype,
            "attention": self.options.attention,
            "device": self.device.partition(":")[0],
            "openers": list(self.options.openers),
        }

    def answer(
        self,
        questions: Sequence[Question],
        decoding: Decoding,
        seeds: Sequence[int],
        processors: Sequence[Any] = (),
    ) -> list[Reply]:
        """See `Target`.

        Args:
            questions: a batch.
            decoding: how answers are drawn.
            seeds: of sampling.
            processors: of scores (B, V), before the refusal's probability is taken and a token drawn; only
                for questions that one pass takes (`together`).
        """
        import torch

        self._load_once()
        found: dict[int, Reply] = {}
        try:
            with torch.inference_mode():
                for numbers in self.together(questions):
                    asked = [questions[number] for number in numbers]
                    drawn = [seeds[number] for number in numbers]
                    first, steps = all_processors(decoding, drawn, self._openers, processors)
                    told = {"streamer": self._teller(decoding)} if self._tell else {}
                    generation = {"logits_processor": steps, **told}
                    rows = self.new_ids(asked, generation, decoding.max_new_tokens)
                    opening: Sequence[float | None] = first.probabilities or [None] * len(numbers)
                    found |= {
                        number: self._reply(row, decoding, share)
                        for number, row, share in zip(numbers, rows, opening, strict=True)
                    }
        except torch.OutOfMemoryError as error:
            smaller = (
                "take a smaller --batch_size, into a folder of its own"
                if len(questions) > 1
                else "ask for fewer new tokens, or take another --device"
            )
            raise EvaluationError(
                f"A batch of {len(questions)} does not fit into the memory of {self.device}: {smaller}."
            ) from error
        return [found[number] for number in range(len(questions))]

    @contextmanager
    def telling(self, tell: Callable[[str], None]) -> Iterator[None]:
        """See `safety.streaming`: each new token of a batch's first question tells its text so far."""
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer, for those that look inside."""
        self._load_once()
        return self._model, self._tokenizer

    @property
    def hardware(self) -> str:
        """What computes, for people."""
        import platform

        if not self.device.startswith("cuda"):
            return f"{self.device} ({platform.machine()})"
        import torch

        return str(torch.cuda.get_device_name(self.device))

    def close(self) -> None:
        """Let go of the weights; the next question loads them again."""
        self._model = None
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    @abstractmethod
    def parts(self) -> dict[str, str]:
        """Folder or hub name of all that is loaded, by a name for people."""

    @abstractmethod
    def template(self) -> tuple[str, str]:
        """Name of the template, and what it makes of a question with a picture."""

    @abstractmethod
    def load(self) -> tuple[Any, Any]:
        """The model in evaluation mode and its tokenizer."""

    def together(self, questions: Sequence[Question]) -> list[list[int]]:
        """Numbers of the questions that one call of `generate` takes: all of them."""
        return [list(range(len(questions)))]

    @abstractmethod
    def new_ids(
        self, questions: Sequence[Question], generation: dict[str, Any], max_new_tokens: int
    ) -> list[list[int]]:
        """New tokens of each question, padded at the end."""

    @abstractmethod
    def prompt(self, asked: Question) -> str:
        """What the template makes of a question, with `<image>` where its picture goes."""

    @abstractmethod
    def prefill(self, questions: Sequence[Question]) -> dict[str, Any]:
        """Arguments of the model's forward for these prompts, padded on the left.

        Args:
            questions: such that one pass takes them.

        Returns:
            Among others `attention_mask` (B, L) and `position_ids` (B, L).
        """

    def _load_once(self) -> None:
        if self._model is not None:
            return
        from importlib import import_module

        logging: Any = import_module("transformers.utils.logging")
        was = logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            self._model, self._tokenizer = self.load()
        except (OSError, ValueError, ImportError) as error:
            raise EvaluationError(f"{self.options.pretrained} cannot be loaded: {error}") from error
        finally:
            logging.set_verbosity(was)
        self._openers = opener_ids(self._tokenizer, self.options.openers)
        if self._files is not None:
            self._files.make_sure()

    def _reply(self, row: Sequence[int], decoding: Decoding, opening: float | None) -> Reply:
        end = ended(row, end_ids(self._model, self._tokenizer), decoding.max_new_tokens)
        return Reply(self._text(end.ids), end.num_tokens, end.finish_reason, opening)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True).strip())

    def _teller(self, decoding: Decoding) -> TextSoFar:
        """What `generate` takes as `streamer`."""
        assert self._tell is not None
        ends = end_ids(self._model, self._tokenizer)
        return TextSoFar(lambda row: self._text(ended(row, ends, decoding.max_new_tokens).ids), self._tell)


def opened(picture: bytes) -> Any:
    """A picture file's RGB."""
    from PIL import Image

    with Image.open(BytesIO(picture)) as image:
        return image.convert("RGB")
