"""A host of your own: where a model keeps its projector, and which of its ids stand for an image."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from regap_patch import ReGapConfig, apply_regap
from regap_patch.hosts import Host, image_token_of, placeholder_slots

HOST = Host(
    name="captioner",
    projector=("bridge",),  # the module whose output are the image rows at the language model's input
    beside_lm=("eye",),  # what else is not the language model
    images=("pixels",),  # the forward argument with the images
    image_token=image_token_of,  # `config.image_token_index`, or any model -> id
    slots=placeholder_slots,  # an image belongs to the sample that holds its placeholders
)


class Captioner(nn.Module):
    """Somebody's model, unchanged. The patch asks for `config`, `get_input_embeddings` and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_token_index=3, bos_token_id=1, eos_token_id=2)
        self.words, self.eye, self.bridge = nn.Embedding(50, 32), nn.Linear(12, 32), nn.Linear(32, 32)
        self.decoder, self.head = nn.GRU(32, 32, batch_first=True), nn.Linear(32, 50)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        image = self.bridge(self.eye(pixels))
        rows = self.words(input_ids).masked_scatter((input_ids == 3)[..., None], image)
        logits = self.head(self.decoder(rows)[0])
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


def main() -> tuple[float, float]:
    """The gap at the first and at the last step."""
    torch.manual_seed(0)
    model = Captioner().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.bridge.requires_grad_(True).parameters(), lr=1e-2)
    captions, pixels = torch.randint(4, 50, (8, 5)), torch.randn(8, 4, 12)
    ids = torch.cat([torch.full((8, 1), 1), torch.full((8, 4), 3), captions], 1)
    labels = ids.masked_fill(ids < 4, -100)
    patch, gaps = apply_regap(model, ReGapConfig(calibration_steps=5), host=HOST), []
    for _ in range(100):
        model(ids, pixels, labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        gaps.append(float(patch.step()["centroid_l2"]))
    return gaps[0], gaps[-1]


if __name__ == "__main__":
    print("gap at the start {:.3f}, at the end {:.3f}".format(*main()))
