"""What turns one checkpoint into another: merging, consolidating, extracting, deltas."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lora_folders import with_adapter, write
from safetensors.torch import load_file, save_file
from tiny_llava import make_model

from llava.constants import IMAGE_TOKEN_INDEX

ROOT = Path(__file__).parents[2]
QUESTION = torch.tensor([[1, 20, IMAGE_TOKEN_INDEX, 30]])
PICTURE = torch.linspace(-1, 1, 3 * 56 * 56).view(1, 3, 56, 56)


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(module, *argv):
    """A command's `main` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, argv)])
        module.main()


@torch.no_grad()
def answer(path, **kwargs):
    from llava.model.builder import load_pretrained_model

    _, model, _, _ = load_pretrained_model(str(path), device="cpu", torch_dtype=torch.float32, **kwargs)
    return model(QUESTION, images=PICTURE).logits


def in_shards(folder, output, suffix):
    """A checkpoint in several files, safetensors or torch's."""
    shutil.copytree(folder, output, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = list(load_file(folder / "model.safetensors").items())
    stem, save = {"bin": ("pytorch_model", torch.save), "safetensors": ("model", save_file)}[suffix]
    places = {}
    for part in range(3):
        name = f"{stem}-0000{part + 1}-of-00003.{suffix}"
        save(dict(tensors[part::3]), output / name)
        places |= dict.fromkeys(dict(tensors[part::3]), name)
    (output / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return output


def test_merging_a_lora_run(tiny, tmp_path, capsys):
    model = make_model(tiny)
    model.generation_config.temperature, model.generation_config.do_sample = 0.9, False  # as Vicuna's
    folder = write(with_adapter(model), tmp_path / "lora", ["mm_projector"])
    flags = ["--model-path", folder, "--torch-dtype", "float32", "--save-model-path", tmp_path / "merged"]
    command(script("merge_lora_weights"), *flags)
    assert "load it without a base" in capsys.readouterr().out
    torch.testing.assert_close(answer(tmp_path / "merged"), answer(folder))
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model"} <= names
    assert not any("adapter" in name or "incomplete" in name for name in names)
    held = load_file(tmp_path / "merged" / "model.safetensors")
    assert "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding" in held
    with pytest.raises(FileExistsError, match=r"holds files already; pass a new folder"):
        command(script("merge_lora_weights"), *flags)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_consolidating_shards(llava_folder, tmp_path, suffix):
    from llava.model import consolidate

    shards = in_shards(llava_folder, tmp_path / "shards", suffix)
    command(consolidate, "--src", shards, "--dst", tmp_path / "whole")
    held, was = (load_file(path / "model.safetensors") for path in (tmp_path / "whole", llava_folder))
    assert held.keys() == was.keys()
    for name, tensor in held.items():
        torch.testing.assert_close(tensor, was[name].half(), atol=0, rtol=0)


def test_consolidating_takes_a_tower_along(llava_folder, tiny, tmp_path):
    from llava.model.consolidate import consolidate_ckpt

    source = shutil.copytree(llava_folder, tmp_path / "source")
    shutil.copytree(tiny.clip, source / "vision_tower")
    consolidate_ckpt(str(source), tmp_path / "whole", torch_dtype=torch.float32)
    shutil.rmtree(source)
    torch.testing.assert_close(answer(tmp_path / "whole"), answer(llava_folder))


def test_no_merging_into_quantised_weights(tiny, tmp_path):
    from llava.model.consolidate import consolidate_ckpt

    base = shutil.copytree(tiny.llama, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    folder = write(with_adapter(make_model(tiny)), tmp_path / "lora", ["mm_projector"])
    with pytest.raises(ValueError, match=r"is quantised \(bitsandbytes\), and an adapter cannot be merged"):
        consolidate_ckpt(str(folder), tmp_path / "merged", str(base))
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_extracting_the_projector(llava_model, llava_folder, tmp_path, suffix, capsys):
    shards = in_shards(llava_folder, tmp_path / "shards", suffix)
    output = tmp_path / "new" / "mm_projector.bin"
    command(script("extract_mm_projector"), "--model-path", shards, "--output", output)
    held = torch.load(output, weights_only=True)
    own = llava_model.model.mm_projector.state_dict()
    assert held.keys() == {f"model.mm_projector.{name}" for name in own}
    assert all(torch.equal(tensor, own[name.split("mm_projector.")[1]]) for name, tensor in held.items())
    assert "4 tensors written" in capsys.readouterr().out
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_extracting_from_a_lora_run_and_from_nothing(tiny, tmp_path):
    extract = script("extract_mm_projector").extract
    model = make_model(tiny)
    own = model.model.mm_projector.state_dict()
    folder = write(with_adapter(model), tmp_path / "lora", ["mm_projector"])
    assert extract(str(folder), tmp_path / "projector.bin") == [
        f"model.mm_projector.{key}" for key in sorted(own)
    ]
    with pytest.raises(ValueError, match=r"holds no projector \(no tensor called model.mm_projector"):
        extract(str(tiny.llama), tmp_path / "none.bin")
    assert not (tmp_path / "none.bin").exists()


@pytest.fixture
def enlarged(llava_folder, tmp_path):
    """A LLaVA with two tokens more than its base, in half precision."""
    tensors = {name: tensor.half() for name, tensor in load_file(llava_folder / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(0)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.randn(len(tensors[name]) + 2, 64, generator=generator).half()
    folder = tmp_path / "target"
    shutil.copytree(llava_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 2}))
    return folder


@pytest.mark.parametrize("shards", [False, True])
def test_a_delta_and_back(enlarged, tiny, tmp_path, shards):
    from llava.model import apply_delta, make_delta

    target = in_shards(enlarged, tmp_path / "shards", "bin") if shards else enlarged
    paths = ["--base-model-path", tiny.llama, "--delta-path", tmp_path / "delta", "--target-model-path"]
    command(make_delta, *paths, target)
    command(apply_delta, *paths, tmp_path / "again")

    base = load_file(tiny.llama / "model.safetensors")
    own = load_file(enlarged / "model.safetensors")
    delta, again = (everything(tmp_path / name) for name in ("delta", "again"))
    assert delta.keys() == again.keys() == own.keys()
    rows = len(base["lm_head.weight"])
    expected = own["lm_head.weight"][:rows] - base["lm_head.weight"].half()
    assert torch.equal(delta["lm_head.weight"][:rows], expected)
    assert torch.equal(delta["lm_head.weight"][rows:], own["lm_head.weight"][rows:])
    assert torch.equal(delta["model.mm_projector.0.weight"], own["model.mm_projector.0.weight"])
    for name, tensor in again.items():
        torch.testing.assert_close(tensor, own[name], atol=2e-3, rtol=0)
    assert (tmp_path / "again" / "tokenizer.model").is_file()
    assert answer(tmp_path / "again").shape == answer(enlarged).shape


def everything(folder):
    from llava.model.checkpoint_files import read_tensors

    return read_tensors(folder, "")


def test_deltas_of_other_bases(enlarged, tiny, tmp_path):
    from llava.model.weight_delta import add_base, subtract_base

    base = shutil.copytree(tiny.llama, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    for broken, sentence in (
        ({"model.norm.weight": torch.ones(32)}, r"has the shape \(64,\), and \(32,\) in the base"),
        ({"lm_head.weight": torch.ones(900, 64)}, r"lm_head.weight has the shape .* \(900, 64\) in the base"),
        ({"model.norm.weight": None}, r"has no model.norm.weight, which is not a part that only a LLaVA has"),
    ):
        kept = {name: tensor for name, tensor in {**tensors, **broken}.items() if tensor is not None}
        save_file(kept, base / "model.safetensors")
        with pytest.raises(ValueError, match=sentence):
            subtract_base(str(base), str(enlarged), tmp_path / "delta")
        assert not list((tmp_path / "delta").iterdir()), "nothing half-written"
    with pytest.raises(FileNotFoundError, match=r"'no/such' has no config.json"):
        add_base("no/such", tmp_path / "new", str(enlarged))


def test_a_delta_is_uploaded_when_asked(enlarged, tiny, tmp_path, monkeypatch):
    import huggingface_hub

    from llava.model.make_delta import make_delta

    calls = []

    class Hub:
        def create_repo(self, name, exist_ok):
            calls.append((name, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            calls.append((repo_id, folder_path))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    make_delta(str(tiny.llama), str(enlarged), str(tmp_path / "first"))
    assert not calls
    make_delta(str(tiny.llama), str(enlarged), str(tmp_path / "second"), "me/delta")
    assert calls == [("me/delta", True), ("me/delta", str(tmp_path / "second"))]


def test_upstreams_name_for_old_checkpoints(llava_folder):
    from llava.model.utils import auto_upgrade

    before = (llava_folder / "config.json").read_bytes()
    auto_upgrade(str(llava_folder))
    assert (llava_folder / "config.json").read_bytes() == before


def test_a_command_ends_with_one_sentence(tmp_path):
    flags = ["--model-path", tmp_path, "--output", tmp_path / "new.bin"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/extract_mm_projector.py", *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"'{tmp_path}' holds no projector")
    assert done.stderr.count("\n") == 1
