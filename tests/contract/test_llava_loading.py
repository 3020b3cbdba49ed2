"""From files and words to a loaded model and its inputs: what decides, and what refusals say."""

from __future__ import annotations

import json
import runpy
import sys
from types import SimpleNamespace
from zlib import crc32

import pytest
import torch
from PIL import Image
from tiny_llava import make_model, model_args

from llava.constants import IMAGE_TOKEN_INDEX


def load(path, base=None, **kwargs):
    from llava.model.builder import load_pretrained_model

    return load_pretrained_model(str(path), None if base is None else str(base), device="cpu", **kwargs)


def edited(llava_folder, tmp_path, **fields):
    """A copy of a checkpoint with other fields in its configuration."""
    for file in llava_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((llava_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
    return tmp_path


QUESTION = torch.tensor([[1, 20, IMAGE_TOKEN_INDEX, 30]])
PICTURE = torch.linspace(-1, 1, 3 * 56 * 56).view(1, 3, 56, 56)


@pytest.fixture(scope="module")
def expected(llava_model):
    with torch.no_grad():
        return llava_model(QUESTION, images=PICTURE).logits


def test_a_whole_model(llava_folder, expected):
    tokenizer, loaded, processor, context = load(llava_folder)
    assert loaded.dtype == torch.float16, "as ever"
    assert loaded.get_vision_tower().dtype == torch.float32
    assert not loaded.training
    assert processor.crop_size["height"] == 56
    assert context == 2048
    assert isinstance(context, int)
    assert len(tokenizer) == loaded.config.vocab_size
    with torch.no_grad():
        logits = loaded.float()(QUESTION, images=PICTURE).logits
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=0)


def test_dtype_and_device_map_can_be_chosen(llava_folder, expected):
    _, loaded, _, _ = load(llava_folder, torch_dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(QUESTION, images=PICTURE).logits, expected)
    _, loaded, _, _ = load(llava_folder, torch_dtype=torch.bfloat16, device_map={"": "cpu"})
    assert loaded.get_vision_tower().dtype == loaded.dtype == torch.bfloat16


def test_a_projector_on_its_base(stage_one_folder, tiny, expected):
    _, loaded, _, _ = load(stage_one_folder, tiny.llama, torch_dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(QUESTION, images=PICTURE).logits, expected)


def test_a_plain_language_model(tiny):
    _, loaded, processor, context = load(tiny.llama)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert processor is None
    assert context == 2048


def test_the_name_decides_nothing(llava_folder, expected):
    _, loaded, _, _ = load(llava_folder, model_name="vicuna-mpt-lora", torch_dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(QUESTION, images=PICTURE).logits, expected)


@pytest.mark.parametrize("model_type", ["llava", "share4v"])
def test_old_files_that_call_themselves_otherwise(llava_folder, tmp_path, expected, model_type):
    _, loaded, _, _ = load(edited(llava_folder, tmp_path, model_type=model_type), torch_dtype=torch.float32)
    assert type(loaded).__name__ == "LlavaLlamaForCausalLM"
    with torch.no_grad():
        torch.testing.assert_close(loaded(QUESTION, images=PICTURE).logits, expected)


def test_configurations_of_before_transformers_five(llava_folder, tmp_path):
    old = {"rope_parameters": None, "dtype": None, "rope_theta": 5e5, "rope_scaling": None}
    path = edited(llava_folder, tmp_path, **old, max_sequence_length=512, tokenizer_model_max_length=1024)
    _, loaded, _, context = load(path)
    assert loaded.config.rope_parameters["rope_theta"] == 5e5
    assert context == 512


def test_the_shorter_limit_is_the_context(llava_folder, tmp_path):
    assert load(edited(llava_folder, tmp_path, tokenizer_model_max_length=100))[3] == 100


def test_missing_token_flags_mean_a_patch_token(llava_folder, tmp_path):
    path = edited(llava_folder, tmp_path, mm_use_im_patch_token=True, mm_use_im_start_end=True)
    tokenizer, loaded, _, _ = load(path)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer) - 3, len(tokenizer)))
    assert tokens == ["<im_patch>", "<im_start>", "<im_end>"]
    for embedding in (loaded.get_input_embeddings(), loaded.get_output_embeddings()):
        old, new = embedding.weight[:-3].float(), embedding.weight[-3:].float()
        torch.testing.assert_close(new, old.mean(0).expand(3, -1), atol=1e-4, rtol=0)
        assert len(old) == len(tokenizer) - 3


def test_refusals(llava_folder, stage_one_folder, tiny, tmp_path):
    whole = f"'{llava_folder}'"
    with pytest.raises(FileNotFoundError, match=r"no language model; pass the one .* as --model-base"):
        load(stage_one_folder)
    with pytest.raises(FileNotFoundError, match=f"{whole} holds a whole model and no such file; leave"):
        load(llava_folder, tiny.llama)
    with pytest.raises(ValueError, match=r"is a plain language model .* leave --model-base out"):
        load(tiny.llama, tiny.llama)
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava_mpt", "mm_vision_tower": "x"}))
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is of the type 'llava_mpt'"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava_llama", "mm_vision_tower": "x"}))
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": {}}))
    with pytest.raises(ValueError, match="is in transformers' own format"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"weight": (4096, 1024), "bias": (4096,)},
            "holds linear from width 1024 to 4096, but the model wants mlp2x_gelu from width 64 to 64",
        ),
        ({"0.weight": (64, 64), "0.bias": (64,)}, "holds mlp1x_gelu from width 64 to 64, but the"),
        ({"0.weight": (64, 32), "2.weight": (64, 64)}, "holds mlp2x_gelu from width 32 to 64, but the"),
        ({"0.weight": (64, 64), "2.weight": (64, 64)}, "is incomplete or damaged: .*Missing key"),
        ({"1.weight": (64, 64)}, "No projector type has the keys"),
    ],
)
def test_a_projector_file_that_does_not_fit(tiny, tmp_path, tensors, message):
    path = tmp_path / "mm_projector.bin"
    torch.save({f"model.mm_projector.{key}": torch.zeros(shape) for key, shape in tensors.items()}, path)
    with pytest.raises(ValueError, match=message):
        make_model(tiny, pretrain_mm_mlp_adapter=str(path))


def test_a_projector_file_that_is_none(tiny, tmp_path):
    path = tmp_path / "mm_projector.bin"
    with pytest.raises(FileNotFoundError, match=r"does not exist; pass the mm_projector.bin"):
        make_model(tiny, pretrain_mm_mlp_adapter=str(path))
    path.write_text("words")
    with pytest.raises(ValueError, match="cannot be read as a torch file of tensors"):
        make_model(tiny, pretrain_mm_mlp_adapter=str(path))
    torch.save({"lm_head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"holds no key with 'mm_projector.'"):
        make_model(tiny, pretrain_mm_mlp_adapter=str(path))


def test_unknown_towers_and_projectors(tiny):
    with pytest.raises(ValueError, match="neither a folder here nor a known CLIP or SigLIP on the hub"):
        make_model(tiny, vision_tower="no/such-tower")
    with pytest.raises(ValueError, match="The projector type 'mlp0x_gelu' is unknown"):
        make_model(tiny, mm_projector_type="mlp0x_gelu")


def test_third_parties_bring_their_towers(monkeypatch, tiny):
    from llava.model.multimodal_encoder import builder

    class Tower(torch.nn.Module):
        def __init__(self, name, args, delay_load=False):
            super().__init__()
            self.made = (name, delay_load)

        @classmethod
        def accepts(cls, name):
            return name == "mine"

    def entry_points(group):
        assert group == "llava.vision_towers"
        return [SimpleNamespace(load=lambda: Tower)]

    monkeypatch.setattr(builder, "entry_points", entry_points)
    made = builder.build_vision_tower(SimpleNamespace(mm_vision_tower="mine"), delay_load=True)
    assert made.made == ("mine", True)
    other = builder.build_vision_tower(model_args(tiny))
    assert type(other).__name__ == "CLIPVisionTower"


class SlowLlama:
    """LLaMA's tokenizer as transformers 4.37 computes it, on SentencePiece itself."""

    def __init__(self, path, legacy):
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(path.read_bytes())
        proto.normalizer_spec.add_dummy_prefix = legacy
        self.pieces = SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.legacy = legacy
        self.specials = {"<unk>": 0, "<s>": 1, "</s>": 2, "<im_end>": len(self.pieces)}

    def ids(self, text):
        import re

        ids = [1]
        parts = re.split(f"({'|'.join(self.specials)})", text if self.legacy or not text else "\u2581" + text)
        if not self.legacy and len(parts) > 1 and parts[0] == "\u2581":
            parts[0] = ""
        for part in parts:
            if part in self.specials:
                ids.append(self.specials[part])
            elif part:
                ids += self.pieces.encode(part)
        return ids


TEXTS = (
    "A chat. USER: <image>\nWhat is it? ASSISTANT: red circle</s>USER: why? ASSISTANT: because</s>",
    "<image> word",
    "<image>  two spaces",
    " starts with a space<image>",
    "a<image><image>b",
    "",
    " ",
    "</s> after an end",
    "x</s> USER",
    "<image><im_end> added later",
    "<image><im_end>\nadded later",
    "\u2581literal",
    "\n\n<image>\n",
    "unicode: caf\u00e9 \u732b \U0001f600<image> \u732b",
)


@pytest.mark.parametrize("legacy", [False, True, None])
def test_ids_are_those_of_the_slow_tokenizer(tiny, tmp_path, legacy):
    """A folder that says nothing is legacy."""
    from llava.mm_utils import tokenizer_image_token
    from llava.tokenization import load_tokenizer

    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny.llama / name).read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["legacy"]
    if legacy is not None:
        config["legacy"] = legacy
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_bytes((tiny.llama / "config.json").read_bytes())
    tokenizer = load_tokenizer(str(tmp_path))
    tokenizer.add_tokens(["<im_end>"], special_tokens=True)
    slow = SlowLlama(tmp_path / "tokenizer.model", legacy is not False)
    for text in TEXTS:
        pieces = [slow.ids(piece)[1:] for piece in text.split("<image>")]
        wanted = [1, *pieces[0]]
        for piece in pieces[1:]:
            wanted += [IMAGE_TOKEN_INDEX, *piece]
        assert tokenizer_image_token(text, tokenizer) == wanted, text
    as_tensor = tokenizer_image_token(TEXTS[0], tokenizer, return_tensors="pt")
    assert as_tensor.dtype == torch.int64
    with pytest.raises(ValueError, match="return_tensors is 'np'"):
        tokenizer_image_token("", tokenizer, return_tensors="np")


def test_pictures_are_padded_or_cropped(tiny):
    from llava.mm_utils import expand2square, process_images
    from llava.model.multimodal_encoder.builder import build_vision_tower

    processor = build_vision_tower(model_args(tiny)).image_processor
    wide = Image.new("RGB", (112, 57), "white")
    square = expand2square(wide, (1, 2, 3))
    assert square.size == (112, 112)
    assert square.getpixel((0, 26)) == (1, 2, 3)
    assert square.getpixel((0, 27)) == square.getpixel((111, 83)) == (255, 255, 255)
    assert square.getpixel((0, 84)) == (1, 2, 3)
    cropped = process_images([wide, wide], processor, SimpleNamespace())
    padded = process_images([wide], processor, SimpleNamespace(image_aspect_ratio="pad"))
    assert cropped.shape == (2, 3, 56, 56)
    assert cropped.std(dim=(2, 3)).max() < 1e-5, "nothing but the picture"
    assert padded[0, :, 0, 0].abs().max() < 0.02, "the mean colour is zero"


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/llava-v1.5-7b/", "llava-v1.5-7b"), ("a/run/checkpoint-20", "run_checkpoint-20"), ("x", "x")],
)
def test_names_of_models(path, name):
    from llava.mm_utils import get_model_name_from_path

    assert get_model_name_from_path(path) == name


def test_keywords_stop_generation(tiny):
    from llava.mm_utils import KeywordsStoppingCriteria
    from llava.tokenization import load_tokenizer

    tokenizer = load_tokenizer(str(tiny.llama))
    prompt = torch.tensor([tokenizer("red circle").input_ids] * 2)
    more = torch.tensor([tokenizer("red circle STOP").input_ids] * 2)
    assert KeywordsStoppingCriteria(["STOP"], tokenizer, prompt)(more, None)
    assert not KeywordsStoppingCriteria(["HALT"], tokenizer, prompt)(more, None)
    mixed = torch.stack([more[0], more[0].roll(1)])
    assert not KeywordsStoppingCriteria(["STOP"], tokenizer, prompt)(mixed, None)


def test_one_question_from_the_command_line(llava_folder, tmp_path, capsys):
    from llava.eval.run_llava import eval_model, parser

    picture = tmp_path / "red.png"
    Image.new("RGB", (80, 40), "red").save(picture)
    flags = [
        "--model-path",
        str(llava_folder),
        "--temperature",
        "0",
        "--max_new_tokens",
        "5",
        "--conv-mode",
        "v1",
    ]
    ask = [*flags, "--image-file", f"{picture},{picture}", "--device", "cpu"]
    front = eval_model(parser().parse_args([*ask, "--query", "Same?"]))
    query = "<image-placeholder>\n<image-placeholder>\nSame?"
    placed = eval_model(parser().parse_args([*ask, "--query", query]))
    assert front == placed
    assert capsys.readouterr().out == f"{front}\n{placed}\n"
    with pytest.raises(FileNotFoundError, match=r"The picture 'no.png' does not exist"):
        eval_model(parser().parse_args([*flags, "--image-file", "no.png", "--query", "?"]))
    whole = picture.read_bytes()
    torn_chunk = whole.replace(b"IDAT", b"\xfd\xf2F9")  # Pillow calls it a SyntaxError
    bomb = whole[:16] + bytes.fromhex("00100000" * 2) + whole[24:]
    bomb = bomb[:29] + crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]  # 2^40 pixels, it says
    for damaged in (b"words", torn_chunk, bomb):
        picture.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read as a picture"):
            eval_model(parser().parse_args([*flags, "--image-file", str(picture), "--query", "?"]))


@pytest.mark.parametrize("module", ["llava.eval.run_llava", "llava.serve.cli"])
def test_bad_input_ends_a_program_with_its_sentence(module, tiny, tmp_path, monkeypatch):
    picture = tmp_path / "red.png"
    Image.new("RGB", (80, 40), "red").save(picture)
    query = ["--query", "?"] if module.endswith("run_llava") else []
    monkeypatch.setattr("builtins.input", lambda prompt: "?")
    for shown, sentence in (("no.png", "'no.png' does not exist"), (str(picture), "which sees nothing")):
        flags = ["--model-path", str(tiny.llama), "--device", "cpu", "--image-file", shown, *query]
        monkeypatch.setattr("sys.argv", [module, *flags])
        monkeypatch.delitem(sys.modules, module, raising=False)
        with pytest.raises(SystemExit, match=sentence):
            runpy.run_module(module, run_name="__main__")


def test_a_talk_in_the_terminal(llava_folder, tmp_path, capsys, monkeypatch):
    """The second prompt holds the first answer once, and each separator once."""
    from llava.serve import cli

    picture = tmp_path / "red.png"
    Image.new("RGB", (80, 40), "red").save(picture)
    lines = iter(["What is it?", "Sure?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    flags = ["--model-path", str(llava_folder), "--image-file", str(picture), "--conv-mode", "v1"]
    cli.main(cli.parser().parse_args([*flags, "--temperature", "0", "--max-new-tokens", "4", "--debug"]))
    shown = [eval(line) for line in capsys.readouterr().out.splitlines() if line.strip().startswith("{")]
    assert len(shown) == 2
    answers = [turn["outputs"] for turn in shown]
    assert shown[1]["prompt"].endswith(
        f"USER: <image>\nWhat is it? ASSISTANT: {answers[0]}</s>USER: Sure? ASSISTANT: {answers[1]}</s>"
    )


def test_a_talk_about_several_pictures_some_of_them_shown_later(llava_folder, tmp_path, capsys, monkeypatch):
    """Each picture is where it was shown; a wrong line costs the conversation nothing."""
    from llava.serve import cli

    files = []
    for colour in ("red", "green", "blue"):
        files.append(str(tmp_path / f"{colour}.png"))
        Image.new("RGB", (80, 40), colour).save(files[-1])
    red, green, blue = files
    lines = iter(
        [
            "<image-placeholder> or <image-placeholder>?",
            f"/image {blue}, gone.png",
            f"/image {blue}",
            "<image-placeholder> and <image-placeholder>?",
            "And this?",
            "",
        ]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    seen = []
    answer = cli.Chat.say
    monkeypatch.setattr(
        cli.Chat,
        "say",
        lambda chat, *said, **how: (answer(chat, *said, **how), seen.append(chat.pictures))[0],
    )
    flags = ["--model-path", str(llava_folder), "--image-file", f"{red},{green}", "--conv-mode", "v1"]
    cli.main(cli.parser().parse_args([*flags, "--temperature", "0", "--max-new-tokens", "4", "--debug"]))
    out = capsys.readouterr().out
    assert "The picture 'gone.png' does not exist" in out
    assert "has 4 <image> and 3 pictures; write <image> once for each picture." in out
    prompts = [eval(line)["prompt"] for line in out.splitlines() if line.strip().startswith("{")]
    assert len(prompts) == 2
    assert "USER: <image> or <image>? ASSISTANT:" in prompts[0]
    assert "</s>USER: <image>\nAnd this? ASSISTANT:" in prompts[1]
    assert [[p.getpixel((0, 0)) for p in pictures] for pictures in seen] == [
        [(255, 0, 0), (0, 128, 0)],
        [(255, 0, 0), (0, 128, 0), (0, 0, 255)],
    ]
