"""Vision-language models in transformers' own format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regap_patch.errors import EvaluationError
from regap_patch.safety.generation import positions
from regap_patch.safety.target import Question
from regap_patch.safety.targets.local import LocalTarget, opened
from regap_patch.safety.weights import folder_of

IMAGE, TEXT = "<image>", "{text}"


class HuggingFaceTarget(LocalTarget):
    """A model that `AutoModelForImageTextToText` loads, asked through its processor's chat template.

    `template` may be a text with `{text}` and `<image>` in its place, for a processor without one.

    Args:
        options: how it is loaded.
    """

    kind = "huggingface"
    _processor: Any = None

    def parts(self) -> dict[str, str]:
        """The checkpoint is one whole."""
        return {"model": self.options.pretrained}

    def template(self) -> tuple[str, str]:
        """Where it comes from, and rendered text."""
        name = "own text" if self.options.template else "chat template"
        return name, self.prompt(Question("{prompt}", b""))

    def load(self) -> tuple[Any, Any]:
        """By transformers."""
        import torch
        import transformers

        models: Any = transformers.AutoModelForImageTextToText
        model = models.from_pretrained(
            folder_of(self.options.pretrained),
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.options.attention,
        )
        return model.to(self.device).eval(), self.processor().tokenizer

    def together(self, questions: Sequence[Question]) -> list[list[int]]:
        """A processor takes pictures with all texts of a batch or with none."""
        seeing = [number for number, asked in enumerate(questions) if asked.picture is not None]
        blind = [number for number, asked in enumerate(questions) if asked.picture is None]
        return [numbers for numbers in (seeing, blind) if numbers]

    def new_ids(
        self, questions: Sequence[Question], generation: dict[str, Any], max_new_tokens: int
    ) -> list[list[int]]:
        """See `LocalTarget`."""
        placed = self._placed(questions)
        output = self._model.generate(**placed, do_sample=False, max_new_tokens=max_new_tokens, **generation)
        rows: list[list[int]] = output[:, placed["input_ids"].shape[1] :].tolist()
        return rows

    def prefill(self, questions: Sequence[Question]) -> dict[str, Any]:
        """See `LocalTarget`."""
        placed = self._placed(questions)
        return {**placed, "position_ids": positions(placed["attention_mask"])}

    def _placed(self, questions: Sequence[Question]) -> dict[str, Any]:
        """What the processor makes of a batch, where the model is."""
        pictures = [opened(asked.picture) for asked in questions if asked.picture is not None]
        made = self.processor()(
            text=[self.prompt(asked) for asked in questions],
            images=pictures or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return {
            name: value.to(self._model.device, self._model.dtype)
            if value.is_floating_point()
            else value.to(self._model.device)
            for name, value in made.items()
        }

    def processor(self) -> Any:
        """The checkpoint's own, loaded once.

        Raises:
            EvaluationError: it does not load.
        """
        if self._processor is None:
            import transformers

            processors: Any = transformers.AutoProcessor
            try:
                self._processor = processors.from_pretrained(folder_of(self.options.pretrained))
            except (OSError, ValueError) as error:
                raise EvaluationError(
                    f"{self.options.pretrained} cannot be asked, for its processor does not load: {error}"
                ) from error
        return self._processor

    def prompt(self, asked: Question) -> str:
        """See `LocalTarget`."""
        seeing = asked.picture is not None
        if self.options.template is not None:
            if TEXT not in self.options.template:
                raise EvaluationError(
                    f"The template {self.options.template!r} has no {TEXT}: write it where the question goes."
                )
            words = self.options.template if seeing else _without_image(self.options.template)
            return words.replace(TEXT, asked.text)
        processor = self.processor()
        if not getattr(processor, "chat_template", None):
            raise EvaluationError(
                f"{self.options.pretrained} has no chat template: give one as text with {TEXT} and {IMAGE} "
                f"(--conv_mode $'USER: {IMAGE}\\n{TEXT} ASSISTANT:')."
            )
        content = [{"type": "image"}] * seeing + [{"type": "text", "text": asked.text}]
        turn = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def _without_image(template: str) -> str:
    return template.replace(f"{IMAGE}\n", "").replace(IMAGE, "")
