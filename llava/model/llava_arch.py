"""What makes a language model a LLaVA: two mixins, to be put before the classes of transformers.

`LlavaMetaModel` owns tower and projector; `LlavaMetaForCausalLM` puts image features between the word
embeddings.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_PATCH_TOKEN,
    IMAGE_TOKEN_INDEX,
)
from llava.model.anyres import check_merge_type, wants_tiles
from llava.model.image_slots import Images, to_slots
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.model.projector_file import (
    load_newline,
    load_projector,
    load_token_embeddings,
    read_projector_file,
)
from llava.model.splice import plan_splice, splice_embeddings, splice_labels
from llava.model.tile_merge import TileGrid, join_tiles, needs_newline, unpad_image
from llava.model.zero3 import gathered

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel", "unpad_image"]

logger = logging.getLogger(__name__)


class LlavaMetaModel:
    """Tower and projector of a decoder; `config` says which, if any."""

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        if getattr(config, "mm_vision_tower", None) is not None:
            # Weights come later: inside `from_pretrained` parameters have no storage yet.
            self.vision_tower = build_vision_tower(config, delay_load=True)
            self.mm_projector = build_vision_projector(config)
            wants_tiles(config)  # says now what a generation would stumble over
            if needs_newline(getattr(config, "mm_patch_merge_type", None)):
                self.image_newline = nn.Parameter(torch.empty(config.hidden_size))

    def _init_weights(self, module: nn.Module) -> None:
        """Give a parameter that a checkpoint lacks its first value; transformers calls it for each module."""
        super()._init_weights(module)  # type: ignore[misc]
        newline = module._parameters.get("image_newline")
        if newline is not None:
            from transformers import initialization

            initialization.copy_(newline, _first_newline(len(newline)).to(newline))

    def get_vision_tower(self) -> Any:
        """The tower, None for a language model that has none (yet)."""
        tower = getattr(self, "vision_tower", None)
        return tower[0] if isinstance(tower, list) else tower

    def initialize_vision_modules(self, model_args: Any, fsdp: Any = None) -> None:
        """Give a language model its tower and projector, or load those that its configuration names.

        Args:
            model_args: `vision_tower`, `mm_vision_select_layer`, `mm_vision_select_feature`,
                `mm_projector_type`, `mm_patch_merge_type`, `pretrain_mm_mlp_adapter` (a projector file, or
                None); optionally `s2` and `s2_scales`.
            fsdp: wrapping options; when not empty the tower is hidden from wrapping in a list of one.

        Raises:
            ValueError: the projector file, or the checkpoint's projector, does not fit.
        """
        config = self.config
        tower = self.get_vision_tower()
        more_scales = getattr(model_args, "s2", False) and not getattr(config, "s2", False)
        if tower is None or tower.vision_tower_name != model_args.vision_tower or more_scales:
            tower = build_vision_tower(model_args)
        else:
            tower.load_model()
        self.vision_tower = [tower] if fsdp else tower

        config.mm_vision_tower = model_args.vision_tower
        config.use_mm_proj = True
        if hasattr(tower, "s2_scales"):
            config.s2, config.s2_scales = True, ",".join(map(str, tower.s2_scales))
        elif getattr(config, "s2", False):
            config.s2 = False
        if getattr(self, "mm_projector", None) is not None and config.mm_hidden_size != tower.hidden_size:
            raise ValueError(
                f"The checkpoint's projector takes features of width {config.mm_hidden_size}, and those of "
                f"the tower '{tower.vision_tower_name}' are {tower.hidden_size} wide; pass the tower that it "
                "was trained with."
            )
        config.mm_hidden_size = tower.hidden_size
        config.mm_vision_select_layer = tower.select_layer = model_args.mm_vision_select_layer
        config.mm_vision_select_feature = tower.select_feature = model_args.mm_vision_select_feature
        config.mm_patch_merge_type = getattr(model_args, "mm_patch_merge_type", None) or "flat"
        check_merge_type(config.mm_patch_merge_type)
        self._initialize_projector(getattr(model_args, "mm_projector_type", "linear"))

        self._initialize_newline()

        path = model_args.pretrain_mm_mlp_adapter
        if path is not None:
            tensors = read_projector_file(path)
            load_projector(self.mm_projector, tensors, path)
            load_newline(getattr(self, "image_newline", None), tensors, path)

    def _initialize_projector(self, kind: str) -> None:
        if getattr(self, "mm_projector", None) is None:
            self.config.mm_projector_type = kind
            # The first weights follow from the seed alone: loading under ZeRO-3 draws other numbers before.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(torch.initial_seed())
                self.mm_projector = build_vision_projector(self.config)
            return
        existing = getattr(self.config, "mm_projector_type", "linear")
        if existing != kind:
            logger.warning("The checkpoint's projector is %s and stays so; %s was asked for.", existing, kind)
        for parameter in self.mm_projector.parameters():  # LoRA freezes everything that it finds
            parameter.requires_grad = True

    def _initialize_newline(self) -> None:
        """The end of a row of tiles, for the merge that has one; it trains wherever the projector does."""
        if not needs_newline(self.config.mm_patch_merge_type):
            if hasattr(self, "image_newline"):
                del self.image_newline
        elif hasattr(self, "image_newline"):
            self.image_newline.requires_grad = True
        else:
            like = next(self.mm_projector.parameters(), self.embed_tokens.weight)
            self.image_newline = nn.Parameter(_first_newline(self.config.hidden_size).to(like.dtype))


class LlavaMetaForCausalLM(ABC):
    """The multimodal half of a causal language model."""

    config: Any
    _warned_of_truncation = False

    @abstractmethod
    def get_model(self) -> Any:
        """The decoder, a `LlavaMetaModel`."""

    def get_vision_tower(self) -> Any:
        """The tower, None if there is none."""
        return self.get_model().get_vision_tower()

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, P, D): tower, then projector."""
        features = self.get_vision_tower()(images)
        projector = self.get_model().mm_projector
        weight = next(projector.parameters(), None)
        return projector(features if weight is None else features.to(weight.dtype))

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: Tensor | None,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        past_key_values: Any,
        labels: Tensor | None,
        images: Images | None,
        image_sizes: Any = None,
        *,
        padding_side: str | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Any, Tensor | None, Tensor | None]:
        """Replace ids by embeddings, with each image's features in the place of its placeholder.

        Decoding steps (one id a row), text-only batches (no `images`) and models without a tower pass
        unchanged.

        Args:
            input_ids: (B, L) int64, `IMAGE_TOKEN_INDEX` where an image belongs.
            position_ids: only whether it is None matters: positions are rebuilt.
            attention_mask: (B, L); None means that all ids are real.
            past_key_values: passed through.
            labels: (B, L) or None.
            images: see `image_slots`; one slot per placeholder and one per text-only row.
            image_sizes: (width, height) of each slot's original image; for tiles that are not merged flat.
            padding_side: "left" or "right"; default `config.tokenizer_padding_side`, else right.

        Returns:
            `(None, position_ids, attention_mask, past_key_values, inputs_embeds (B, T, D), labels (B, T))`,
            rows cut to `config.tokenizer_model_max_length`. A mask is returned if one was given or padding
            was added; positions and labels if they were given.

        Raises:
            ValueError: numbers of images and placeholders differ, or placeholders but no images; or tiles
                that do not fit the configuration or the sizes.
        """
        tower = self.get_vision_tower()
        if input_ids is None or input_ids.shape[1] == 1 or tower is None or images is None:
            _check_no_placeholder(input_ids, has_tower=tower is not None)
            return input_ids, position_ids, attention_mask, past_key_values, None, labels

        pixels, tiles = to_slots(images)
        plan_args = {
            "attention_mask": attention_mask,
            "max_length": getattr(self.config, "tokenizer_model_max_length", None),
            "padding_side": padding_side or getattr(self.config, "tokenizer_padding_side", "right"),
        }
        embed = self.get_model().embed_tokens
        if pixels is None:
            features, lengths = torch.empty(0, embed.embedding_dim, device=input_ids.device), tiles
        else:
            encoded = self.encode_images(pixels)
            if isinstance(images, Tensor) and images.ndim == 4:  # no tiles, whatever the configuration says
                features, lengths = encoded.flatten(0, 1), [encoded.shape[1]] * len(tiles)
            else:
                newline = getattr(self.get_model(), "image_newline", None)
                grid = TileGrid(self.config, pixels.shape[-1], encoded.shape[1])
                features, lengths = join_tiles(encoded, tiles, image_sizes, grid, newline)
        plan = plan_splice(input_ids, lengths, **plan_args)
        self._warn_of_truncation(plan.cut_rows, plan_args["max_length"])

        embeds = splice_embeddings(plan, embed(input_ids.flatten()[plan.text_source]), features)
        mask = None
        if attention_mask is not None:
            mask = plan.attention_mask().to(attention_mask.dtype)
        elif plan.padded:
            mask = plan.attention_mask()
        positions = None if position_ids is None else plan.position_ids()
        if labels is not None:
            labels = splice_labels(plan, labels)
        return None, positions, mask, past_key_values, embeds, labels

    def _warn_of_truncation(self, rows: int, limit: int | None) -> None:
        if rows and not self._warned_of_truncation:
            self._warned_of_truncation = True
            logger.warning(
                "%d rows of this batch are longer than tokenizer_model_max_length=%s with their image tokens "
                "and lose their end; raise --model_max_length if answers get lost (said once).",
                rows,
                limit,
            )

    def initialize_vision_tokenizer(self, model_args: Any, tokenizer: Any) -> None:
        """Add `<im_patch>`, `<im_start>` and `<im_end>` to the vocabulary, as `model_args` asks for.

        New rows of the embeddings are the mean of the old ones. In stage 1 (`tune_mm_mlp_adapter`) the input
        embeddings train with start and end tokens, and the output embeddings never do.

        Raises:
            ValueError: the projector file has no, or other, embeddings of the added tokens.
        """
        if model_args.mm_use_im_patch_token:
            tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
            self.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if model_args.mm_use_im_start_end:
            added = tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
            self.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            for embedding in (self.get_input_embeddings(), self.get_output_embeddings()):
                _average_last_rows(embedding.weight, added)
            path = model_args.pretrain_mm_mlp_adapter
            if path and added:
                load_token_embeddings(self.get_input_embeddings(), read_projector_file(path), added)
        if model_args.tune_mm_mlp_adapter and (
            model_args.mm_use_im_patch_token or model_args.mm_use_im_start_end
        ):
            self.get_input_embeddings().requires_grad_(bool(model_args.mm_use_im_start_end))
            self.get_output_embeddings().requires_grad_(False)


def _first_newline(width: int) -> Tensor:
    """(D,) float32 ~ N(0, 1/D), from the run's seed alone."""
    generator = torch.Generator().manual_seed(torch.initial_seed())
    return torch.randn(width, generator=generator) / width**0.5


def _average_last_rows(weight: nn.Parameter, count: int) -> None:
    with gathered([weight], write=True):
        if count:
            weight.data[-count:] = weight.data[:-count].mean(0)


def _check_no_placeholder(input_ids: Tensor | None, *, has_tower: bool) -> None:
    if input_ids is None or input_ids.shape[1] == 1:  # decoding steps stay free of a host synchronisation
        return
    count = int((input_ids == IMAGE_TOKEN_INDEX).sum())
    if count:
        reason = "no images were given" if has_tower else "the model has no vision tower"
        raise ValueError(
            f"The batch has {count} <image> placeholders but {reason}; pass images=... to a model with a "
            "vision tower."
        )
