"""Targets that hold weights: what they answer, what names them, and what they refuse."""

from __future__ import annotations

import shutil

import pytest
import torch

from regap_patch.errors import EvaluationError
from regap_patch.safety.target import Decoding, Question
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.tiny_hf_folder import make_hf_folder
from tests.unit.evaluation_items import noisy_picture

PICTURES = [noisy_picture(20 + 4 * number, 24, number) for number in range(3)]
QUESTIONS = [
    Question("what is this ?", PICTURES[0]),
    Question("how many shapes are there in the picture , and which is the larger one ?", PICTURES[1]),
    Question("what is this ?"),
    Question("is it red ?", words="A white cup is on a shelf."),
    Question("what ?", PICTURES[2]),
]
GREEDY = Decoding(max_new_tokens=8)
KINDS = {"llava": LlavaTarget, "huggingface": HuggingFaceTarget}


@pytest.fixture(scope="module")
def folders(llava_folder, tiny, tmp_path_factory):
    return {
        "llava": llava_folder,
        "huggingface": make_hf_folder(tiny, tmp_path_factory.mktemp("hf") / "model"),
    }


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module", params=list(KINDS))
def target(request, folders):
    return KINDS[request.param](LocalOptions(str(folders[request.param]), device="cpu"))


def seeds(count: int) -> list[int]:
    return list(range(count))


def test_a_batch_answers_as_each_alone(target):
    together = target.answer(QUESTIONS, GREEDY, seeds(5))
    alone = [target.answer([question], GREEDY, [0])[0] for question in QUESTIONS]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    for one, other in zip(together, alone, strict=True):
        assert (one.num_tokens, one.finish_reason) == (other.num_tokens, other.finish_reason)
        assert one.first_token_refusal_prob == pytest.approx(other.first_token_refusal_prob, rel=1e-4)
        assert one.num_tokens == 8 or one.finish_reason == "stop"
    assert len({reply.first_token_refusal_prob for reply in together}) > 2, "pictures and words are seen"


def test_draws_follow_the_items_seed_and_not_the_batch(target):
    drawn = Decoding(max_new_tokens=8, temperature=1.0, top_p=0.9)
    together = target.answer(QUESTIONS, drawn, [11, 12, 13, 14, 15])
    alone = [target.answer([QUESTIONS[number]], drawn, [11 + number])[0] for number in range(5)]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    other = target.answer(QUESTIONS, drawn, [21, 22, 23, 24, 25])
    assert [reply.text for reply in together] != [reply.text for reply in other]


def test_a_weight_a_template_and_a_dtype_are_in_the_fingerprint(folders, tmp_path):
    for kind, make in KINDS.items():
        folder = tmp_path / kind
        shutil.copytree(folders[kind], folder)
        options = LocalOptions(str(folder), device="cpu")
        before = make(options).fingerprint()
        assert make(options).fingerprint() == before
        assert make(LocalOptions(str(folder), device="cpu", dtype="bfloat16")).fingerprint() != before
        assert make(LocalOptions(str(folder), device="cpu", attention="eager")).fingerprint() != before
        weights = folder / "model.safetensors"
        changed = bytearray(weights.read_bytes())
        changed[-1] ^= 1
        weights.write_bytes(changed)
        after = make(options).fingerprint()
        differing = {name for name in after["files"] if after["files"][name] != before["files"][name]}
        assert differing == {"model/model.safetensors"}
    names = {
        LlavaTarget(LocalOptions(str(folders["llava"]), device="cpu", template=name)).fingerprint()[
            "template_text"
        ]
        for name in (None, "vicuna_v1", "llava_llama_2")
    }
    assert len(names) == 2
    own = LocalOptions(str(folders["huggingface"]), device="cpu", template="Q: <image>\n{text} A:")
    assert HuggingFaceTarget(own).fingerprint()["template_text"] == "Q: <image>\n{prompt} A:"


def test_prompts_are_the_templates(folders):
    target = LlavaTarget(LocalOptions(str(folders["llava"]), device="cpu"))
    _, text = target.template()
    assert text.endswith("USER: <image>\n{prompt} ASSISTANT:")
    assert target.prompt(QUESTIONS[3]).endswith("USER: A white cup is on a shelf.\nis it red ? ASSISTANT:")
    assert "<image>" not in target.prompt(QUESTIONS[2])
    other = HuggingFaceTarget(LocalOptions(str(folders["huggingface"]), device="cpu"))
    assert other.template()[1] == "USER: <image>\n{prompt} ASSISTANT:"
    assert other.prompt(QUESTIONS[3]) == "USER: A white cup is on a shelf.\nis it red ? ASSISTANT:"


def test_first_token_probability_is_the_models(folders):
    target = LlavaTarget(LocalOptions(str(folders["llava"]), device="cpu", openers=("red", "blue")))
    question = Question("what is this ?")
    (reply,) = target.answer([question], GREEDY, [0])
    from llava.mm_utils import tokenizer_image_token

    ids = tokenizer_image_token(target.prompt(question), target._tokenizer, return_tensors="pt")
    with torch.no_grad():
        probabilities = target._model(ids[None]).logits[0, -1].softmax(-1)
    first = {target._tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("red", "blue")}
    assert set(target._openers) >= first
    assert reply.first_token_refusal_prob == pytest.approx(
        float(probabilities[target._openers].sum()), rel=1e-4
    )


def test_what_cannot_be_asked(folders, tiny, tmp_path):
    with pytest.raises(EvaluationError, match=r"no_such cannot be asked|no_such was asked for"):
        LlavaTarget(LocalOptions(str(tmp_path / "no_such"), device="cpu")).fingerprint()
    with pytest.raises(EvaluationError, match="has no mm_vision_tower: name a checkpoint that sees"):
        LlavaTarget(LocalOptions(str(tiny.llama), device="cpu")).fingerprint()
    with pytest.raises(
        EvaluationError, match=r"template 'vicuna_v9' was asked for, but LLaVA has .*vicuna_v1"
    ):
        LlavaTarget(LocalOptions(str(folders["llava"]), device="cpu", template="vicuna_v9")).fingerprint()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EvaluationError, match="no weights lie there"):
        HuggingFaceTarget(LocalOptions(str(empty), device="cpu")).fingerprint()
    target = LlavaTarget(LocalOptions(str(folders["llava"]), device="cpu"))
    with pytest.raises(EvaluationError, match="holds LLaVA's sign for a picture"):
        target.answer([Question("what is <image> ?")], GREEDY, [0])


def test_a_checkpoint_that_changes_while_it_loads(folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folders["llava"], folder)
    target = LlavaTarget(LocalOptions(str(folder), device="cpu"))
    target.fingerprint()
    (folder / "model.safetensors").touch()
    with pytest.raises(EvaluationError, match="changed while it was loaded"):
        target.answer(QUESTIONS[:1], GREEDY, [0])
