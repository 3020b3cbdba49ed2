"""SigLIP's vision transformer: no class token, all its tokens are patches."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from llava.model.multimodal_encoder.tower import VisionTower


class SigLipVisionTower(VisionTower):
    """SigLIP, of a folder of its own or of a whole SigLIP with its text half."""

    config_class = SiglipVisionConfig
    model_class = SiglipVisionModel

    def read_image_processor(self) -> Any:
        """The PIL processor by its own name: with the general one pixels would depend on torchvision."""
        try:
            from transformers.models.siglip.image_processing_pil_siglip import (
                SiglipImageProcessorPil as Processor,
            )
        except ImportError:
            from transformers import SiglipImageProcessor as Processor
        return Processor.from_pretrained(self.vision_tower_name)

    def stem(self) -> list[nn.Module]:
        """Embeddings."""
        return [self.vision_tower.embeddings]

    def select_tokens(self, state: Tensor) -> Tensor:
        """All tokens.

        Raises:
            ValueError: the class token is asked for.
        """
        if self.select_feature != "patch":
            raise ValueError(
                f"mm_vision_select_feature is '{self.select_feature}', and SigLIP has no class token; pass "
                "patch."
            )
        return state
