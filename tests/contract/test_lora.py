"""LoRA: where adapters go, what trains beside them, what is saved, and where a run may start from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.mini_run import LORA, flags, history, launch, losses, prepared, weights

LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture(scope="module")
def train():
    from llava.train.train import train

    torch.set_num_threads(1)
    return train


@pytest.fixture(scope="module")
def llava(tiny, train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole LLaVA; its configuration makes readers build the tower at once, as v1.6's does."""
    folder = tmp_path_factory.mktemp("whole") / "llava"
    train(argv=flags(tiny, 2, folder, max_steps=1))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"unfreeze_mm_vision_tower": True}))
    return folder


@pytest.fixture(scope="module")
def adapter(tiny, train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "llava-lora"
    train(argv=flags(tiny, 2, folder, max_steps=3, **LORA))
    return folder


def adapted(model: torch.nn.Module) -> set[str]:
    return {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}


def test_only_layers_of_the_language_model_get_an_adapter(tiny, llava: Path, tmp_path: Path):
    model = prepared(flags(tiny, 2, tmp_path, model_name_or_path=llava, **LORA)).model
    found = adapted(model)
    assert found == {
        f"base_model.model.model.layers.{index}.{'mlp' if name[0] in 'gud' else 'self_attn'}.{name}"
        for index in range(2)
        for name in LAYERS
    }
    base = model.get_base_model()
    names = [name for name, part in base.named_modules() if isinstance(part, torch.nn.Linear)]
    in_tower = [name for name in names if "vision_tower" in name and name.rsplit(".", 1)[-1] in LAYERS]
    assert in_tower, "a suffix of a name would not have hit the tower: the test shows nothing"


def test_names_for_forks():
    from llava.train.train import find_all_linear_names

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"up": torch.nn.Linear(2, 2)})])
            self.mm_projector = torch.nn.Linear(2, 2)
            self.lm_head = torch.nn.Linear(2, 2)

        def get_output_embeddings(self):
            return self.lm_head

    assert find_all_linear_names(Model()) == ["up"]


@pytest.mark.parametrize(
    ("changes", "beside"),
    [
        ({}, {"mm_projector"}),
        ({"freeze_mm_mlp_adapter": True}, set()),
        ({"freeze_backbone": True}, {"mm_projector"}),
    ],
)
def test_adapters_and_projector_train(tiny, tmp_path: Path, changes: dict, beside: set[str]):
    model = prepared(flags(tiny, 2, tmp_path, **LORA, **changes)).model
    trains = [name for name, param in model.named_parameters() if param.requires_grad]
    assert {name.split(".")[4] for name in trains if "lora_" not in name} == {*(["0", "2"] if beside else [])}
    assert all(any(part in name for part in ("lora_", *beside)) for name in trains)
    assert sum("lora_" in name for name in trains) == 2 * 2 * len(LAYERS)


@pytest.fixture(scope="module")
def biased(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny language model with biases in its attention, drawn anew where it is loaded."""
    folder = tmp_path_factory.mktemp("biased") / "llama"
    shutil.copytree(tiny.llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_bias": True, "mlp_bias": True}))
    return folder


@pytest.mark.parametrize(("kind", "biases"), [("none", 0), ("lora_only", 2 * 7), ("all", 2 * 7)])
def test_biases_train_and_are_saved_as_asked(
    tiny, train, biased: Path, tmp_path: Path, kind: str, biases: int
):
    changes = LORA | {"lora_bias": kind, "model_name_or_path": biased}
    first, again = tmp_path / "first-llava-lora", tmp_path / "again-llava-lora"
    train(argv=flags(tiny, 2, first, max_steps=2, **changes))
    in_adapter = [name for name in load_file(first / "adapter_model.safetensors") if name.endswith(".bias")]
    beside = torch.load(first / "non_lora_trainables.bin", weights_only=True)
    in_language_model = [name for name in beside if ".layers." in name]
    assert len(in_adapter) == biases
    assert sorted(in_language_model) == sorted(in_adapter)
    assert not any("vision_tower" in name for name in weights(first))

    still = {"learning_rate": 0.0, "mm_projector_lr": 0.0}
    train(argv=flags(tiny, 2, again, max_steps=1, lora_weight_path=first, **(changes | still)))
    for name, tensor in weights(first).items():
        assert torch.equal(weights(again)[name], tensor), name


def test_added_tokens_bring_their_embeddings(tiny, train, tmp_path: Path):
    folder = tmp_path / "llava-lora"
    train(argv=flags(tiny, 2, folder, max_steps=1, mm_use_im_start_end=True, **LORA))
    saved = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert rows == json.loads((tiny.llama / "config.json").read_text())["vocab_size"] + 2
    for name in ("base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"):
        assert len(saved[name]) == rows


def test_frozen_projector_is_saved_since_the_base_may_have_none(tiny, train, tmp_path: Path):
    from llava.model.builder import load_pretrained_model

    train(argv=flags(tiny, 1, tmp_path / "projector", max_steps=1))
    first = tmp_path / "projector" / "mm_projector.bin"
    frozen = {"pretrain_mm_mlp_adapter": first, "freeze_mm_mlp_adapter": True, "mm_projector_lr": None}
    train(argv=flags(tiny, 2, tmp_path / "llava-lora", max_steps=1, **frozen, **LORA))
    _, model, _, _ = load_pretrained_model(
        str(tmp_path / "llava-lora"), device="cpu", torch_dtype=torch.float32
    )
    for name, tensor in torch.load(first, weights_only=True).items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_every_save_is_complete(tiny, train, tmp_path: Path):
    folder = tmp_path / "llava-lora"
    train(argv=flags(tiny, 2, folder, save_strategy="steps", save_steps=2, **LORA))
    whole = {"adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.bin", "config.json"}
    whole |= {"generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"}
    resumable = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "llava_run.json"}
    assert {path.name for path in folder.iterdir() if path.is_file()} == whole | {"trainer_state.json"}
    for step in (2, 4):
        files = {path.name for path in (folder / f"checkpoint-{step}").iterdir()}
        assert files == whole | resumable | {"trainer_state.json"}
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["r"]) == (str(tiny.llama), 4)


def test_checkpoint_of_a_quantised_run_describes_the_base_as_it_is(tiny, train, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    train(argv=flags(tiny, 2, tmp_path / "llava-lora", max_steps=1, bits=4, **LORA))
    assert "quantization_config" not in json.loads((tmp_path / "llava-lora" / "config.json").read_text())


def test_run_in_bf16_and_few_bits_has_upstreams_dtypes(tiny, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    model = prepared(flags(tiny, 2, tmp_path, bits=4, bf16=True, **LORA)).model
    expected = {
        "lora_": torch.bfloat16,
        "mm_projector": torch.bfloat16,
        "embed_tokens": torch.bfloat16,
        "lm_head": torch.bfloat16,
        "vision_tower": torch.bfloat16,
        "norm": torch.float32,
        "base_layer": torch.uint8,
    }
    for name, param in model.named_parameters():
        kind = next(part for part in expected if part in name)
        assert param.dtype == expected[kind], name


def test_what_trains_in_fp16_and_few_bits_has_gradients_that_can_be_unscaled(tiny, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    from types import SimpleNamespace

    from llava.train.quantization import settle_dtypes

    model = prepared(flags(tiny, 2, tmp_path, bits=4, **LORA)).model
    args = SimpleNamespace(bits=4, bf16=False, fp16=True, run_dtype=torch.float16)  # no CPU runs --fp16
    settle_dtypes(model, args)
    trains = [param for param in model.parameters() if param.requires_grad]
    for param in trains:
        param.grad = torch.ones_like(param)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(torch.ones(()))
    scaler.unscale_(torch.optim.SGD(trains, lr=0.0))
    assert all((param.grad == 0.5).all() for param in trains)


def test_activation_checkpointing_changes_no_number(tiny, train, tmp_path: Path):
    for name in ("plain", "checkpointed"):
        train(argv=flags(tiny, 2, tmp_path / name, gradient_checkpointing=name == "checkpointed", **LORA))
    assert losses(tmp_path / "checkpointed") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    for key, tensor in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "checkpointed")[key], tensor, rtol=1e-4, atol=1e-6)


def test_another_rank_is_another_run(tiny, train, tmp_path: Path):
    from llava.train.checkpoint import ForeignCheckpointError

    argv = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    train(argv=flags(tiny, 2, tmp_path / "run", **argv, **LORA))
    with pytest.raises(ForeignCheckpointError, match="lora_r was 4 there and is 8 now"):
        train(argv=flags(tiny, 2, tmp_path / "run", **argv, **(LORA | {"lora_r": 8})))


def test_starting_from_an_adapter_of_another_kind_is_one_sentence(tiny, adapter: Path, tmp_path: Path):
    def start(**changes: object) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as found:
            prepared(flags(tiny, 2, tmp_path, **(LORA | {"lora_weight_path": adapter} | changes)))
        assert "\n" not in str(found.value)
        return str(found.value)

    assert start(lora_r=8).endswith("was made with r 4, and this run asks for 8: pass --lora_r 4.")
    assert "holds no adapter_config.json" in start(lora_weight_path=tiny.llama)
    for field, value in {"use_rslora": True, "alpha_pattern": {"q_proj": 32}}.items():
        scaled = tmp_path / field
        shutil.copytree(adapter, scaled)
        settings = json.loads((scaled / "adapter_config.json").read_text())
        (scaled / "adapter_config.json").write_text(json.dumps(settings | {field: value}))
        assert f"was made with {field} {value}, another scale" in start(lora_weight_path=scaled)
    assert "which does not fit this model (4 weights too many, 0 too few)" in start(
        vision_tower=None, mm_projector_lr=None
    )
    other = tmp_path / "other-llama"
    from regap_patch.study.tiny import make_tiny_llama

    make_tiny_llama(other, tiny.root / "tokenizer", intermediate_size=96)
    assert "(4, 96) in this model: start from the base that it was trained on." in start(
        model_name_or_path=other
    )


def test_quantised_weights_are_not_quantised_again(tiny, tmp_path: Path):
    folder = tmp_path / "llama"
    shutil.copytree(tiny.llama, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    for bits in (4, 16):
        with pytest.raises(ValueError, match="is quantised already") as found:
            prepared(flags(tiny, 2, tmp_path / "run", model_name_or_path=folder, bits=bits, **LORA))
        assert str(found.value) == (
            f"--model_name_or_path {folder} is quantised already (bitsandbytes), and training starts from "
            "whole weights: pass the checkpoint that it was made from; --bits 4 or 8 quantises while loading."
        )


def test_bits_and_zero_3_exclude_each_other():
    from types import SimpleNamespace

    from llava.train import quantization

    deepspeed = SimpleNamespace(is_zero3=lambda: True)
    args = SimpleNamespace(bits=4, lora_enable=True, quant_type="nf4", hf_deepspeed_config=deepspeed)
    with pytest.raises(ValueError, match="--bits 4 and ZeRO-3 exclude each other"):
        quantization.refuse_contradictions(args)


def test_text_alone_trains_adapters_of_a_language_model(tiny, train, tmp_path: Path):
    from llava.model.builder import load_pretrained_model

    samples = [sample for sample in json.loads(tiny.world.finetune_json.read_text()) if "image" not in sample]
    (tmp_path / "text.json").write_text(json.dumps(samples * 4))
    text = {"vision_tower": None, "mm_projector_lr": None, "data_path": tmp_path / "text.json"}
    train(argv=flags(tiny, 2, tmp_path / "lora", max_steps=2, **text, **LORA))
    assert torch.load(tmp_path / "lora" / "non_lora_trainables.bin", weights_only=True) == {}
    _, model, processor, _ = load_pretrained_model(
        str(tmp_path / "lora"), device="cpu", torch_dtype=torch.float32
    )
    base = load_file(tiny.llama / "model.safetensors")
    assert processor is None
    assert not torch.equal(
        model.state_dict()["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.equal(model.state_dict()["lm_head.weight"], base["lm_head.weight"])


def test_regap_finds_the_model_inside_peft_and_joins_every_save(tiny, tmp_path: Path):
    from regap_patch.errors import ReGapError

    argv = flags(tiny, 2, tmp_path / "run", save_strategy="steps", save_steps=2, max_steps=2, **LORA)
    launch("--regap_loss off", argv)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        found = json.loads((folder / "regap.json").read_text())
        assert (found["config"]["loss"], found["host"]) == ("off", "llava")
    assert all("regap/centroid_l2" in line for line in history(tmp_path / "run"))
    with pytest.raises(ReGapError, match="lora_A"):
        launch("--regap_calibration_steps 1", flags(tiny, 2, tmp_path / "other", max_steps=2, **LORA))
