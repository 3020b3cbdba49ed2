"""LLaVA's checkpoints, through the `llava` that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regap_patch.errors import EvaluationError
from regap_patch.safety.generation import positions
from regap_patch.safety.target import Question
from regap_patch.safety.targets.local import LocalTarget, opened

DEFAULT_TEMPLATE = "vicuna_v1"


class LlavaTarget(LocalTarget):
    """A LLaVA: a whole one, or a projector or adapter on its base. `template` is the name of a conversation.

    Args:
        options: how it is loaded.
    """

    kind = "llava"

    def parts(self) -> dict[str, str]:
        """The checkpoint, its base, and its vision tower."""
        from llava.model.layouts import read_layout

        path, base = self.options.pretrained, self.options.base
        try:
            layout = read_layout(path, base)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path} cannot be asked: {error}") from error
        if not layout.is_llava:
            raise EvaluationError(
                f"{path} was to be asked as a LLaVA, but its config.json has no mm_vision_tower: name a "
                f"checkpoint that sees, or use --model huggingface for another format."
            )
        found = {"model": path, "tower": layout.tower or str(layout.fields["mm_vision_tower"])}
        return found if layout.weights == path else {**found, "base": layout.weights}

    def template(self) -> tuple[str, str]:
        """Name and rendered text."""
        return self._name(), self.prompt(Question("{prompt}", b""))

    def load(self) -> tuple[Any, Any]:
        """By LLaVA's own loader."""
        import torch

        from llava.model.builder import load_pretrained_model

        tokenizer, model, self._image_processor, _ = load_pretrained_model(
            self.options.pretrained,
            self.options.base,
            "llava",
            device_map={"": self.device},
            device=self.device,
            torch_dtype=getattr(torch, self.dtype),
            attn_implementation=self.options.attention,
        )
        return model, tokenizer

    def new_ids(
        self, questions: Sequence[Question], generation: dict[str, Any], max_new_tokens: int
    ) -> list[list[int]]:
        """See `LocalTarget`."""
        ids, slots, sizes = self._tokenized(questions)
        output = self._model.generate(
            ids,
            images=slots,
            image_sizes=sizes,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            **generation,
        )
        rows: list[list[int]] = output.tolist()
        return rows

    def prefill(self, questions: Sequence[Question]) -> dict[str, Any]:
        """See `LocalTarget`: what `generate` makes of a batch, ids replaced by embeddings."""
        from llava.model.prompt_batch import pad_left

        rows, slots, sizes = self._tokenized(questions)
        ids, mask = pad_left(rows, None)
        assert mask is not None, "prompts were a list"
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        _, _, spliced, _, embeds, _ = self._model.prepare_inputs_labels_for_multimodal(
            ids, None, mask, None, None, slots, sizes, padding_side="left"
        )
        if embeds is None:
            embeds, spliced = self._model.get_model().embed_tokens(ids), mask
        return {"inputs_embeds": embeds, "attention_mask": spliced, "position_ids": positions(spliced)}

    def _tokenized(self, questions: Sequence[Question]) -> tuple[list[Any], Any, Any]:
        """Ids of each prompt, and pixels and sizes of all pictures."""
        from llava.eval.answering import check_images, image_slots
        from llava.mm_utils import tokenizer_image_token

        pictures = [[] if asked.picture is None else [opened(asked.picture)] for asked in questions]
        prompts = [self.prompt(asked) for asked in questions]
        try:
            check_images(prompts, pictures)
        except ValueError as error:
            raise EvaluationError(f"A question holds LLaVA's sign for a picture: {error}") from error
        slots, sizes = image_slots(pictures, self._image_processor, self._model)
        ids = [tokenizer_image_token(prompt, self._tokenizer, return_tensors="pt") for prompt in prompts]
        return ids, slots, sizes

    def _name(self) -> str:
        return self.options.template or DEFAULT_TEMPLATE

    def prompt(self, asked: Question) -> str:
        """See `LocalTarget`."""
        from llava.conversation import conv_templates
        from llava.mm_utils import place_images

        if self._name() not in conv_templates:
            raise EvaluationError(
                f"The template {self._name()!r} was asked for, but LLaVA has "
                f"{', '.join(sorted(conv_templates))}: choose one with --conv_mode."
            )
        start_end = getattr(getattr(self._model, "config", None), "mm_use_im_start_end", False)
        turn = asked.text if asked.picture is None else place_images(asked.text, 1, start_end)
        conversation = conv_templates[self._name()].copy()
        conversation.append_message(conversation.roles[0], turn)
        conversation.append_message(conversation.roles[1], None)
        return str(conversation.get_prompt())
