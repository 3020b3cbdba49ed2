"""ReGap in a script of your own that builds a Trainer: after the imports, the three lines marked below.

python playground/examples/three_lines_trainer.py OUTPUT_FOLDER
"""

import sys

from training_script import make_trainer

from regap_patch import apply_regap
from regap_patch.train import ReGapCallback


def main(output_path: str) -> tuple[float, float]:
    """The gap at the first and at the last step."""
    trainer = make_trainer(output_path)
    patch = apply_regap(trainer.model)  # 1: on the model, before anything compiles or wraps it
    ReGapCallback.attach(trainer)  # 2: steps, warm-up, log keys, and regap.json beside each save
    trainer.train()
    trainer.save_model()
    patch.remove()  # 3: where the model is used on in this process; it is as it was but for what it learned
    gaps = [row["regap/centroid_l2"] for row in trainer.state.log_history if "regap/centroid_l2" in row]
    return gaps[0], gaps[-1]


if __name__ == "__main__":
    print("gap at the start {:.3f}, at the end {:.3f}".format(*main(sys.argv[1])))
