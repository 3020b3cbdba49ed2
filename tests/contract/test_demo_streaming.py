"""Streamed text of targets that hold weights: it grows, it ends as the answer does, and it can be ended."""

from __future__ import annotations

import pytest

from regap_patch.commands.defended import DefendedTarget
from regap_patch.defenses import make_stack
from regap_patch.safety.target import Decoding, Question
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.tiny_hf_folder import make_hf_folder
from tests.unit.evaluation_items import noisy_picture

SEEING = Question("what is this ?", noisy_picture(20, 24, 0))
BLIND = Question("what is this ?")
KINDS = {"llava": LlavaTarget, "huggingface": HuggingFaceTarget}


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module", params=list(KINDS))
def target(request, llava_folder, tiny, tmp_path_factory):
    if request.param == "llava":
        return LlavaTarget(LocalOptions(str(llava_folder), device="cpu"))
    folder = make_hf_folder(tiny, tmp_path_factory.mktemp("hf") / "model")
    return HuggingFaceTarget(LocalOptions(str(folder), device="cpu"))


@pytest.mark.parametrize("question", [SEEING, BLIND], ids=["seeing", "blind"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_streamed_text_is_the_answer(target, question, temperature):
    told: list[str] = []
    decoding = Decoding(max_new_tokens=12, temperature=temperature)
    with target.telling(told.append):
        (streamed,) = target.answer([question], decoding, [3])
    (alone,) = target.answer([question], decoding, [3])
    assert streamed == alone
    assert told[-1] == alone.text
    assert len(told) > 3
    assert sorted(map(len, told)) == list(map(len, told))


def test_what_the_listener_raises_ends_the_answer(target):
    seen = []

    class Enough(Exception):
        pass

    def listen(text):
        seen.append(text)
        if len(seen) == 3:
            raise Enough

    with pytest.raises(Enough), target.telling(listen):
        target.answer([SEEING], Decoding(max_new_tokens=64), [0])
    assert len(seen) == 3
    assert target.answer([SEEING], Decoding(max_new_tokens=4), [0])[0].num_tokens == 4
    assert len(seen) == 3  # nobody listens any more


def test_a_defended_target_streams_what_it_says(target):
    told: list[str] = []
    defended = DefendedTarget(target, make_stack("adashield_s+coca"))
    with defended.telling(told.append):
        (reply,) = defended.answer([SEEING], Decoding(max_new_tokens=8), [0])
    assert told[-1] == reply.text
    defended.stack.close()
