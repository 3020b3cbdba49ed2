"""ReGap in a training loop of your own: patch the model, and say when an optimizer step is done.

python playground/examples/plain_loop.py
"""

import torch
from torch.utils.data import DataLoader
from training_script import captioned_images, tiny_llava

from regap_patch import ReGapConfig, apply_regap


def main(epochs: int = 5) -> tuple[float, float]:
    """The gap at the first and at the last step."""
    model = tiny_llava().train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    loader = DataLoader(captioned_images(), batch_size=8, shuffle=True)
    gaps = []
    with apply_regap(model, ReGapConfig(calibration_steps=5)) as patch:
        for _ in range(epochs):
            for batch in loader:
                model(**batch).loss.backward()  # carries alpha * gap once alpha is known
                optimizer.step()
                optimizer.zero_grad()
                gaps.append(float(patch.step()["centroid_l2"]))
        print(patch, patch.last, sep="\n")
    return gaps[0], gaps[-1]


if __name__ == "__main__":
    print("gap at the start {:.3f}, at the end {:.3f}".format(*main()))
