"""What a language model becomes when it sees: the same for every family of decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.model.image_slots import Images
from llava.model.llava_arch import LlavaMetaForCausalLM
from llava.model.prompt_batch import pad_left
from llava.model.publishing import PublishedConfig, PublishedModel


class MultimodalConfig(PublishedConfig):
    """Mixin before a language model's configuration, with LLaVA's `mm_*` fields beside that one's."""

    model_type: str
    language_model_types: ClassVar[frozenset[str]]
    """Values of `model_type` in the files of language models, and of LLaVAs of other projects, read alike."""

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a language model's file as that of a LLaVA without a tower, old LLaVAs' under other names too.

        Raises:
            ValueError: another architecture.
        """
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)  # type: ignore
        kind = config.get("model_type", cls.model_type)
        ours = kind == "llava" and "mm_vision_tower" in config  # transformers' own LLaVA has the same name
        if not ours and kind != cls.model_type and kind not in cls.language_model_types:
            known = ", ".join(sorted({cls.model_type, *cls.language_model_types}))
            raise ValueError(
                f"'{pretrained_model_name_or_path}' is of the type '{kind}', and {cls.__name__} reads "
                f"{known}; pass a checkpoint of that family, or take the class of its own."
            )
        return {**config, "model_type": cls.model_type}, kwargs


class MultimodalCausalLM(PublishedModel, LlavaMetaForCausalLM):
    """Mixin before a `...ForCausalLM` of transformers."""

    decoder_class: ClassVar[type]
    """The family's decoder with a `LlavaMetaModel` before it."""

    # The tower reads its own saved weights when it is loaded.
    _keys_to_ignore_on_load_unexpected = {r"\.vision_tower\."}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        PreTrainedModel.__init__(self, config)  # past the family's own, which makes a decoder without eyes
        self.model = self.decoder_class(config)
        self.vocab_size = config.vocab_size
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[attr-defined]

    def get_model(self) -> Any:
        """The decoder."""
        return self.model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        images: Images | None = None,
        image_sizes: Any = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """The family's forward; with `images` placeholders in `input_ids` (B, L) become image features first.

        Everything else (`num_items_in_batch`, `logits_to_keep`, ...) goes on to the family. The projector
        runs once.

        Raises:
            ValueError: numbers of images and placeholders differ.
        """
        if inputs_embeds is None:
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes
                )
            )
            if inputs_embeds is not None and labels is not None and past_key_values is None:
                attention_mask, position_ids = self._without_needless_mask(attention_mask, position_ids)
        switches = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "return_dict": return_dict,
        }
        return super().forward(  # type: ignore[misc]
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            **{name: value for name, value in switches.items() if value is not None},
            **kwargs,
        )

    def _without_needless_mask(
        self, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Mask and positions that the decoder needs for a loss.

        Padding on the right comes after all that has a label, and attention looks back only, so it changes
        neither loss nor gradients; and without a mask attention has faster kernels.
        """
        if getattr(self.config, "tokenizer_padding_side", "right") == "left":
            return attention_mask, position_ids
        return None, None

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | Sequence[Tensor] | None = None,
        images: Images | None = None,
        image_sizes: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Generate from prompts with images; returns the new ids only, never the prompt.

        Prompts of different lengths are padded on the left here, whatever the tokenizer's side.

        Args:
            inputs: (B, L) int64 with `IMAGE_TOKEN_INDEX` placeholders (give `attention_mask` if rows are
                padded), or a list of B ragged (L,).
            images: as in `forward`.
            image_sizes: the same.
            kwargs: `attention_mask` (B, L) and everything that transformers' `generate` takes.

        Raises:
            NotImplementedError: `inputs_embeds` was given.
            ValueError: no inputs, or numbers of images and placeholders differ.
        """
        if kwargs.get("inputs_embeds") is not None:
            raise NotImplementedError("generate makes inputs_embeds itself; pass token ids as `inputs`.")
        inputs = kwargs.pop("input_ids", None) if inputs is None else inputs
        if inputs is None:
            raise ValueError("generate needs the prompt's token ids; pass `inputs`.")
        kwargs.pop("position_ids", None)
        inputs, attention_mask = pad_left(inputs, kwargs.pop("attention_mask", None))
        inputs = inputs.to(self.device)  # type: ignore[attr-defined]
        _, _, mask, _, embeds, _ = self.prepare_inputs_labels_for_multimodal(
            inputs, None, attention_mask, None, None, images, image_sizes, padding_side="left"
        )
        if embeds is None:  # text only
            embeds, mask = self.get_model().embed_tokens(inputs), attention_mask
        return super().generate(inputs_embeds=embeds, attention_mask=mask, **kwargs)  # type: ignore[misc]
