"""CLIP's vision transformer as LLaVA uses it, at one scale or at several."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from llava.model.multimodal_encoder.multi_scale import DEFAULT_SCALES, multi_scale_features, parse_scales
from llava.model.multimodal_encoder.tower import VisionTower


class CLIPVisionTower(VisionTower):
    """CLIP; of P features "cls_patch" makes one more."""

    config_class = CLIPVisionConfig
    model_class = CLIPVisionModel

    def read_image_processor(self) -> Any:
        """The PIL processor by its own name: with the general one pixels would depend on torchvision."""
        try:
            from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
        except ImportError:
            from transformers import CLIPImageProcessor as Processor
        return Processor.from_pretrained(self.vision_tower_name)

    def stem(self) -> list[nn.Module]:
        """Embeddings, and CLIP's own normalisation of them."""
        return [self.vision_tower.embeddings, self.vision_tower.pre_layrnorm]

    def select_tokens(self, state: Tensor) -> Tensor:
        """Drop the class token unless asked to keep it.

        Raises:
            ValueError: `select_feature` is neither of the two.
        """
        if self.select_feature == "patch":
            return state[:, 1:]
        if self.select_feature == "cls_patch":
            return state
        raise ValueError(
            f"mm_vision_select_feature is '{self.select_feature}'; pass patch (without the class token) or "
            "cls_patch."
        )


class CLIPVisionTowerS2(CLIPVisionTower):
    """CLIP at several scales ("S2"): as many features, and Dv times the number of scales.

    Args:
        vision_tower: as `CLIPVisionTower`.
        args: the same; `s2_scales` gives the sides of the squares, the first CLIP's own.
        delay_load: the same.

    Raises:
        ValueError: scales that CLIP cannot look at, or a class token is asked for, which has no place.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False) -> None:
        super().__init__(vision_tower, args, delay_load=True)
        scales = getattr(args, "s2_scales", None) or DEFAULT_SCALES
        self.s2_scales = parse_scales(scales, self.cfg_only.image_size)
        if self.select_feature != "patch":
            raise ValueError(
                f"mm_vision_select_feature is '{self.select_feature}', and features of several scales (s2) "
                "have no class token; pass patch."
            )
        if not delay_load:
            self.load_model()

    def read_image_processor(self) -> Any:
        """CLIP's, for pictures of the largest scale."""
        processor = super().read_image_processor()
        side = self.s2_scales[-1]
        processor.size["shortest_edge"] = side
        processor.crop_size["height"] = processor.crop_size["width"] = side
        return processor

    def patch_features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S), S the largest scale -> (B, P, scales * Dv)."""
        return multi_scale_features(super().patch_features, images, self.s2_scales)

    @property
    def hidden_size(self) -> int:
        """Dv, of all scales together."""
        return super().hidden_size * len(self.s2_scales)
