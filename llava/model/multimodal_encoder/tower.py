"""What all vision transformers have in common as towers of a LLaVA: one hidden layer's patch features."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llava.model.checkpoint_files import read_tensors
from llava.model.published_names import current_state_dict
from llava.model.zero3 import gathered, load_gathered

logger = logging.getLogger(__name__)

SAVED_PREFIX = "model.vision_tower.vision_tower."
"""Where a LLaVA checkpoint keeps the tower that it was trained with."""


class VisionTower(nn.Module):
    """A vision transformer: images (B, 3, H, W) -> patch features (B, P, Dv).

    It is frozen when it is loaded; `unfreeze` makes it train.

    Args:
        vision_tower: folder or hub name.
        args: model configuration or training arguments, with `mm_vision_select_layer` and, optionally,
            `mm_vision_select_feature` ("patch" drops a class token, "cls_patch" keeps it). A model
            configuration that came from a LLaVA checkpoint also says where a tower that was trained on may be
            saved.
        delay_load: build without weights; `load_model` reads them.
    """

    config_class: ClassVar[Any]
    model_class: ClassVar[Any]

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.select_layer = args.mm_vision_select_layer
        self.select_feature = getattr(args, "mm_vision_select_feature", "patch")
        # Training arguments have no such attribute, and then there is no checkpoint to look into.
        self.saved_in: str | None = getattr(args, "name_or_path", None) or None
        if delay_load:
            self.cfg_only = self.config_class.from_pretrained(vision_tower)
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
        self.image_processor = self.read_image_processor()
        self.vision_tower = self.model_class.from_pretrained(
            self.vision_tower_name, device_map=device_map, dtype=torch.float32
        )
        self._restore_trained_weights()
        self.vision_tower.requires_grad_(False)
        self.is_loaded = True

    def read_image_processor(self) -> Any:
        """The processor that comes with the tower."""
        raise NotImplementedError

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

    def unfreeze(self) -> None:
        """Make the parts train that the selected features come from; the rest would never get a gradient."""
        for part in (*self.stem(), *self._used_layers()):
            part.requires_grad_(True)

    def train(self, mode: bool = True) -> VisionTower:
        """A frozen tower stays in evaluation mode: nothing to regularise, nothing to recompute."""
        super().train(mode)
        if self.is_loaded and not self._trainable():
            self.vision_tower.eval()
        return self

    def forward(self, images: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Patch features, in the dtype of the images. A list of (3, H, W) gives a list of (1, P, Dv)."""
        if isinstance(images, list):
            return [self(image.unsqueeze(0)) for image in images]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trainable()):
            return self.patch_features(images)

    def patch_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, P, Dv) of the selected layer, in the dtype of the images."""
        # The dtype of the images decides the dtype of the features: callers cast images, never features.
        state = self.first_state(images.to(self.device, self.dtype))
        for layer in self._used_layers():
            state = layer(state, None)
        return self.select_tokens(state).to(images.dtype)

    def stem(self) -> list[nn.Module]:
        """The modules before the first layer."""
        raise NotImplementedError

    def first_state(self, images: Tensor) -> Tensor:
        """What the first layer gets, `hidden_states[0]`."""
        state = images
        for part in self.stem():
            state = part(state)
        return state

    def feature_select(self, image_forward_outs: Any) -> Tensor:
        """Tokens of `hidden_states[select_layer]` of a whole forward: (B, P, Dv)."""
        return self.select_tokens(image_forward_outs.hidden_states[self.select_layer])

    def select_tokens(self, state: Tensor) -> Tensor:
        """The tokens of a hidden state that become features.

        Raises:
            ValueError: `select_feature` asks for what there is not.
        """
        raise NotImplementedError

    def _used_layers(self) -> nn.ModuleList:
        """Up to the selected one: the layers above it would run for nothing."""
        layers = self.vision_tower.encoder.layers
        return layers[: range(len(layers) + 1)[self.select_layer]]

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
    def config(self) -> Any:
        """The transformer's configuration, also before the weights are there."""
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
