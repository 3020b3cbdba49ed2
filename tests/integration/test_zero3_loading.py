"""Weights land in parameters that ZeRO-3 has cut into pieces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("deepspeed")

LOADER = """
import json, sys
from types import SimpleNamespace
import deepspeed, torch
deepspeed.init_distributed(dist_backend="gloo")
from transformers.integrations import HfDeepSpeedConfig
zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
batch = {"train_micro_batch_size_per_gpu": 1, "train_batch_size": 1}
alive = HfDeepSpeedConfig({**batch, "zero_optimization": zero})
from llava import LlavaLlamaForCausalLM
from llava.model.zero3 import gathered
folder, args = sys.argv[1], SimpleNamespace(**json.loads(sys.argv[2]))
model = LlavaLlamaForCausalLM.from_pretrained(folder)
projector, table = model.model.mm_projector, model.get_input_embeddings().weight
assert projector[0].weight.numel() == 0, "not partitioned: the test shows nothing"
newline = model.model.image_newline
assert newline.numel() == 0, "not partitioned"
with gathered([newline]):
    assert torch.allclose(newline, torch.full_like(newline, 0.75)), "from the checkpoint"
model.get_model().initialize_vision_modules(args)
with gathered(projector.parameters()):
    assert all((p == 0.5).all() for p in projector.parameters())
with gathered([newline]):
    assert (newline == 0.25).all(), "from the projector's file"
fc1 = model.get_vision_tower().vision_tower.encoder.layers[0].mlp.fc1.bias
with gathered([fc1]):
    assert (fc1 == 7).all(), "the tower's own weights"
class Tokenizer:
    size = table.ds_shape[0]
    def add_tokens(self, tokens, special_tokens):
        self.size += len(tokens)
        return len(tokens)
    def __len__(self):
        return self.size
args.pretrain_mm_mlp_adapter = None
model.initialize_vision_tokenizer(args, Tokenizer())
table = model.get_input_embeddings().weight
with gathered([table]):
    torch.testing.assert_close(table[-1], table[:-2].mean(0))
print("loaded")
"""


def test_projector_tower_and_new_tokens(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
    from tiny_llava import make_model, model_args

    model = make_model(tiny, mm_patch_merge_type="spatial_unpad")
    torch.nn.init.constant_(model.model.image_newline, 0.75)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    trained = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"
    weights[trained] = torch.full_like(weights[trained], 7)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    state = model.model.mm_projector.state_dict()
    projector = tmp_path / "mm_projector.bin"
    trained = {f"model.mm_projector.{k}": torch.full_like(v, 0.5) for k, v in state.items()}
    torch.save(trained | {"model.image_newline": torch.full((64,), 0.25)}, projector)

    args = model_args(
        tiny,
        pretrain_mm_mlp_adapter=str(projector),
        mm_use_im_start_end=True,
        mm_patch_merge_type="spatial_unpad",
    )
    ranks = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29655",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path), json.dumps(vars(args))],
        env={**os.environ, **ranks, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.endswith("loaded\n"), done.stderr[-3000:]
