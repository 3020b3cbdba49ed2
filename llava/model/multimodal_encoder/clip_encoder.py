"""CLIP's vision transformer as LLaVA uses it: frozen, one hidden layer's patch features."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from llava.model.checkpoint_files import read_tensors
from llava.model.published_names import current_state_dict
from llava.model.zero3 import gathered, load_gathered

logger = logging.getLogger(__name__)

SAVED_PREFIX = "model.vision_tower.vision_tower."
"""Where a LLaVA checkpoint keeps the tower that it was trained with."""


class CLIPVisionTower(nn.Module):
    """A frozen CLIP: images (B, 3, H, W) -> patch features (B, P, Dv).

    Args:
        vision_tower: folder or hub name.
        args: model configuration or training arguments, with `mm_vision_select_layer` and, optionally,
            `mm_vision_select_feature` ("patch" drops the class token, "cls_patch" keeps it). A model
            configuration that came from a LLaVA checkpoint also says where a tower that was trained on may be
            saved.
        delay_load: build without weights; `load_model` reads them.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.select_layer = args.mm_vision_select_layer
        self.select_feature = getattr(args, "mm_vision_select_feature", "patch")
        # Training arguments have no such attribute, and then there is no checkpoint to look into.
        self.saved_in: str | None = getattr(args, "name_or_path", None) or None
        if delay_load:
            self.cfg_only = CLIPVisionConfig.from_pretrained(vision_tower)
        else:
            self.load_model()

    def load_model(self, device_map: Any = None) -> None:
        """Read the weights and freeze them; does nothing when they are there already.

        Weights that a LLaVA checkpoint brings along win over the published ones if somebody trained them. A
        saved copy that is only the published tower in a smaller dtype is left aside: the published one is
        more exact.
        """
        if self.is_loaded:
            return
        self.image_processor = _image_processor(self.vision_tower_name)
        self.vision_tower = CLIPVisionModel.from_pretrained(
            self.vision_tower_name, device_map=device_map, dtype=torch.float32
        )
        self._restore_trained_weights()
        self.vision_tower.requires_grad_(False)
        self.is_loaded = True

    def _restore_trained_weights(self) -> None:
        if self.saved_in is None:
            return
        saved = current_state_dict(read_tensors(self.saved_in, SAVED_PREFIX, local_only=True))
        saved = {key: tensor for key, tensor in saved.items() if not key.endswith("position_ids")}
        if not saved:
            return
        with gathered(self.vision_tower.parameters()):
            published = self.vision_tower.state_dict()
            trained = saved.keys() != published.keys() or any(
                not torch.equal(tensor, published[key].to("cpu", tensor.dtype))
                for key, tensor in saved.items()
            )
        if trained:
            load_gathered(self.vision_tower, saved)
            logger.info("The vision tower's weights are those saved in %s.", self.saved_in)

    def train(self, mode: bool = True) -> CLIPVisionTower:
        """A frozen tower stays in evaluation mode: nothing to regularise, nothing to recompute."""
        super().train(mode)
        if self.is_loaded and not self._trainable():
            self.vision_tower.eval()
        return self

    def feature_select(self, image_forward_outs: Any) -> Tensor:
        """Pick `hidden_states[select_layer]` and drop the class token unless asked to keep it: (B, P, Dv)."""
        features = image_forward_outs.hidden_states[self.select_layer]
        if self.select_feature == "patch":
            return features[:, 1:]
        if self.select_feature == "cls_patch":
            return features
        raise ValueError(
            f"mm_vision_select_feature is '{self.select_feature}'; pass patch (without the class token) or "
            "cls_patch."
        )

    def forward(self, images: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Patch features, in the dtype of the images. A list of (3, H, W) gives a list of (1, P, Dv)."""
        if isinstance(images, list):
            return [self(image.unsqueeze(0)) for image in images]
        # The dtype of the images decides the dtype of the features: callers cast images, never features.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trainable()):
            selected = self._selected_state(images.to(self.device, self.dtype))
            outputs = SimpleNamespace(hidden_states={self.select_layer: selected})
            return self.feature_select(outputs).to(images.dtype)

    def _selected_state(self, images: Tensor) -> Tensor:
        """The selected hidden state (B, P + 1, Dv); the layers above it would run for nothing."""
        tower = self.vision_tower
        state = tower.pre_layrnorm(tower.embeddings(images))
        layers = tower.encoder.layers
        for layer in layers[: range(len(layers) + 1)[self.select_layer]]:
            state = layer(state, None)
        return state

    def _trainable(self) -> bool:
        return any(parameter.requires_grad for parameter in self.vision_tower.parameters())

    @property
    def dummy_feature(self) -> Tensor:
        """(1, Dv) zeros."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.vision_tower.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.vision_tower.device

    @property
    def config(self) -> CLIPVisionConfig:
        """CLIP's configuration, also before the weights are there."""
        return self.vision_tower.config if self.is_loaded else self.cfg_only

    @property
    def hidden_size(self) -> int:
        """Dv."""
        return self.config.hidden_size

    @property
    def num_patches_per_side(self) -> int:
        """Square root of P without the class token."""
        return self.config.image_size // self.config.patch_size

    @property
    def num_patches(self) -> int:
        """P without the class token."""
        return self.num_patches_per_side**2


def _image_processor(name: str) -> Any:
    """The PIL processor by its own name: with the general one pixels would depend on torchvision."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:
        from transformers import CLIPImageProcessor as Processor
    return Processor.from_pretrained(name)
