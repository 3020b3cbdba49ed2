"""A batch of ragged questions is answered as each of them alone."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tiny_llava import make_model

from llava.eval.answering import answer_batch
from llava.tokenization import load_tokenizer
from scripts.bench.batched_generation import PINPOINTS, answer_all, make_questions, make_talkative

QUESTIONS = make_questions(32, seed=1)


@pytest.fixture(scope="module", params=["pad", "anyres"])
def loaded(request, tiny):
    """A model that ends its answers at different lengths."""
    anyres = request.param == "anyres"
    model = make_model(tiny, mm_patch_merge_type="spatial_unpad" if anyres else "flat").eval()
    model.config.image_aspect_ratio, model.config.image_grid_pinpoints = request.param, PINPOINTS
    make_talkative(model, 0.02)
    return model, load_tokenizer(str(tiny.llama)), model.get_vision_tower().image_processor


def test_answers_do_not_depend_on_the_batch(loaded):
    alone = answer_all(*loaded, QUESTIONS, 1, 16)
    assert answer_all(*loaded, QUESTIONS, 16, 16) == alone
    assert answer_all(*loaded, QUESTIONS[::-1], 5, 16) == alone[::-1]
    assert len(set(alone)) > 24
    lengths = [len(loaded[1](answer).input_ids) for answer in alone]
    assert min(lengths) < 8, "rows stop by themselves"
    assert max(lengths) > 14


def test_answers_depend_on_the_pictures(loaded):
    """Else the test above could not see a picture in the wrong row."""
    one, other, *_ = (question for question in QUESTIONS if len(question.pictures) == 2)
    swapped = [one._replace(pictures=other.pictures), one._replace(pictures=one.pictures[::-1])]
    answers = answer_all(*loaded, [one, *swapped], 3, 24)
    assert len(set(answers)) == 3


def test_text_alone_needs_no_pictures(loaded):
    prompts = [question.prompt for question in QUESTIONS if not question.pictures]
    assert len(prompts) == 8
    together = answer_batch(*loaded, prompts, max_new_tokens=8)
    assert together == [answer_batch(*loaded, [prompt], [[]], max_new_tokens=8)[0] for prompt in prompts]
    model, tokenizer, _ = loaded
    assert together == answer_batch(model, tokenizer, None, prompts, max_new_tokens=8)


def test_beams_do_not_depend_on_the_batch(loaded):
    asked = QUESTIONS[:4]
    assert any(question.pictures for question in asked)

    def beams(questions):
        pictures = [question.pictures for question in questions]
        prompts = [question.prompt for question in questions]
        return answer_batch(*loaded, prompts, pictures, num_beams=3, max_new_tokens=6)

    assert beams(asked) == [beams([question])[0] for question in asked]


def test_an_answer_ends_before_a_stop_string(loaded):
    prompts = [question.prompt for question in QUESTIONS[:6]]
    pictures = [question.pictures for question in QUESTIONS[:6]]
    free = answer_batch(*loaded, prompts, pictures, max_new_tokens=12)
    stop = max(free, key=len).split()[1]
    stopped = answer_batch(*loaded, prompts, pictures, max_new_tokens=12, stop_strings=[stop], top_p=None)
    assert stopped == [answer.partition(stop)[0].strip() for answer in free]
    assert stopped != free


def test_sampling_follows_the_seed(loaded):
    question = QUESTIONS[0]

    def sampled(seed, **how):
        torch.manual_seed(seed)
        return answer_batch(*loaded, [question.prompt], [question.pictures], max_new_tokens=8, **how)

    hot = {"temperature": 2.0, "top_p": 0.95}
    assert sampled(0, **hot) == sampled(0, **hot)
    assert len({sampled(seed, **hot)[0] for seed in range(4)}) > 1
    assert sampled(0) == sampled(1) == sampled(2, top_p=0.5), "temperature 0 draws nothing"


def test_prompts_and_pictures_must_fit(loaded):
    picture = Image.new("RGB", (56, 56))
    with pytest.raises(ValueError, match="Prompt 2 of 2 has 2 <image> and 1 pictures; write <image> once"):
        answer_batch(*loaded, ["<image> a", "<image><image> b"], [[picture], [picture]])
    with pytest.raises(ValueError, match="2 prompts came with pictures for 1"):
        answer_batch(*loaded, ["a", "b"], [[]])
