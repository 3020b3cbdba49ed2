"""Generated training samples in LLaVA's format, ordinary and awkward, to compare ids and label masks on.

A sample's id names its kind: `v1-eos_in_question-003`. A kind is a function of a random generator to turns.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

# fmt: off
WORDS = ["the", "a", "red", "large", "small", "circle", "square", "ring", "left", "of", "is", "what", "two"]
UNICODE = ["café", "日本語の文", "Привет", "😀👍🏽", "e\u0301", "ﬁne", "→½", "שלום", "\u00a0", "a\u200bb"]
PUNCTUATION = ["3.14", "1,000", "(see)", "- yes!", "a/b", '"so"', "it's", "50%", "x=y", "C:\\tmp", "?!"]
# fmt: on
Turns = list[tuple[str, str]]


def words(random: Random, low: int = 1, high: int = 10, extra: list[str] | None = None) -> str:
    pool = WORDS + 2 * (extra or [])
    return " ".join(random.choice(pool) for _ in range(random.randint(low, high)))


def exchange(random: Random, turns: int, extra: list[str] | None = None) -> Turns:
    """Questions and answers in turn."""
    pairs = [
        (("human", words(random, 2, 12, extra)), ("gpt", words(random, 1, 8, extra))) for _ in range(turns)
    ]
    return [turn for pair in pairs for turn in pair]


def changed(turns: Turns, pattern: str) -> Turns:
    return [(who, pattern.format(text)) for who, text in turns]


def with_image(turns: Turns) -> Turns:
    return [("human", "<image>\n" + turns[0][1]), *turns[1:]]


def said(turns: Turns, index: int, text: str) -> Turns:
    """The turns with another text in one of them."""
    return [(who, text if number == index else old) for number, (who, old) in enumerate(turns)]


Kinds = dict[str, tuple[int, Callable[[Random], Turns]]]

V1_KINDS: Kinds = {
    "single_image": (24, lambda r: with_image(exchange(r, 1))),
    "single_text": (16, lambda r: exchange(r, 1)),
    "multi_image": (40, lambda r: with_image(exchange(r, r.randint(2, 5)))),
    "multi_text": (30, lambda r: exchange(r, r.randint(2, 5))),
    "unicode_image": (12, lambda r: with_image(exchange(r, r.randint(1, 3), UNICODE))),
    "unicode_text": (10, lambda r: exchange(r, r.randint(1, 3), UNICODE)),
    "punctuation": (8, lambda r: with_image(exchange(r, r.randint(1, 3), PUNCTUATION))),
    "image_in_the_middle": (4, lambda r: said(exchange(r, 2), 0, f"{words(r)} <image> {words(r)}")),
    "image_at_the_end": (4, lambda r: said(exchange(r, 2), 0, f"{words(r)}\n<image>")),
    "image_in_second_question": (4, lambda r: said(exchange(r, 3), 2, f"<image>\n{words(r)}")),
    "image_twice": (4, lambda r: said(exchange(r, 2), 0, f"<image>\n<image> {words(r)}")),
    "image_alone": (4, lambda r: said(exchange(r, 2), 0, "<image>")),
    "text_right_after_image": (6, lambda r: said(exchange(r, r.randint(1, 2)), 0, f"<image> {words(r)}")),
    "text_joined_to_image": (4, lambda r: said(exchange(r, 2), 0, f"<image>{words(r)}")),
    "trailing_spaces": (8, lambda r: with_image(changed(exchange(r, 2), "{}" + r.choice([" ", "  "])))),
    "leading_spaces": (6, lambda r: changed(exchange(r, 2), r.choice([" ", "  "]) + "{}")),
    "newlines_and_tabs": (6, lambda r: with_image(changed(exchange(r, 2), "\n{}\n\n\t- red"))),
    "spaces_inside": (4, lambda r: changed(exchange(r, 2), "{}   a  ring")),
    "role_words": (6, lambda r: with_image(changed(exchange(r, 2), "USER {} ASSISTANT"))),
    "leading_gpt": (6, lambda r: [("gpt", words(r)), *exchange(r, r.randint(1, 2))]),
    "empty_question": (4, lambda r: said(exchange(r, 2), 2 * r.randint(0, 1), "")),
    "bos_in_question": (2, lambda r: said(exchange(r, 2), 2, f"{words(r)}<s>{words(r)}")),
    "eos_in_question": (4, lambda r: said(with_image(exchange(r, 2)), 2, f"{words(r)}</s>{words(r)}")),
    "marker_in_answer": (3, lambda r: said(with_image(exchange(r, 2)), 1, f"{words(r)} ASSISTANT: red")),
    "unknown_in_question": (3, lambda r: said(with_image(exchange(r, 2)), 2, f"{words(r)}<unk>{words(r)}")),
    "empty_answer": (3, lambda r: said(with_image(exchange(r, 2)), 3, "")),
    "longer_than_allowed": (3, lambda r: exchange(r, 40)),
}  # fmt: skip

PLAIN_KINDS: Kinds = {
    "caption": (30, lambda r: [("human", "<image>"), ("gpt", words(r, 2, 20))]),
    "instruction": (8, lambda r: [("human", f"{words(r)}\n<image>"), ("gpt", words(r, 2, 20))]),
    "unicode": (12, lambda r: [("human", "<image>"), ("gpt", words(r, 2, 12, UNICODE))]),
    "punctuation": (6, lambda r: [("human", "<image>"), ("gpt", words(r, 2, 12, PUNCTUATION))]),
    "trailing_spaces": (4, lambda r: [("human", "<image>"), ("gpt", words(r) + r.choice([" ", "  "]))]),
    "leading_space": (4, lambda r: [("human", "<image>"), ("gpt", " " + words(r))]),
    "leading_newline": (4, lambda r: [("human", "<image>"), ("gpt", "\n" + words(r))]),
    "eos_in_caption": (3, lambda r: [("human", "<image>"), ("gpt", f"{words(r)}</s>{words(r)}")]),
}


def dialogue_kinds(end: str, marker: str, division: int = 2) -> Kinds:
    """The kinds of `v1`, fewer of each, for a template with another end of an answer and another marker."""
    kinds = V1_KINDS | {
        "eos_in_question": (4, lambda r: said(with_image(exchange(r, 2)), 2, f"{words(r)}{end}{words(r)}")),
        "marker_in_answer": (3, lambda r: said(with_image(exchange(r, 2)), 1, f"{words(r)}{marker}red")),
    }
    return {kind: (max(1, count // division), make) for kind, (count, make) in kinds.items()}


_LLAMA = dialogue_kinds("</s>", " [/INST] ")
_CHATML = dialogue_kinds("<|im_end|>", "<|im_end|><|im_start|>assistant\n")
_V0 = dialogue_kinds("###", "\n### Assistant: ")
KINDS = {
    "v1": V1_KINDS,
    "plain": PLAIN_KINDS,
    "llava_v1": dialogue_kinds("</s>", " ASSISTANT: ", 4),
    "v1_mmtag": dialogue_kinds("</s>", " ASSISTANT: "),
    "llama_2": _LLAMA,
    "llava_llama_2": dialogue_kinds("</s>", " [/INST] ", 4),
    "mistral_instruct": _LLAMA,
    "chatml_direct": _CHATML,
    "mpt": _CHATML,
    "default": dialogue_kinds("###", "\n### Assistant: ", 4),
    "llava_v0": _V0,
    "v0_mmtag": _V0,
}


def make_samples(version: str, image: str, seed: int = 0) -> list[dict[str, Any]]:
    """The samples of one template; those that speak of an image all show the file `image`."""
    samples = []
    for kind, (count, make) in KINDS[version].items():
        for number in range(count):
            turns = make(Random(f"{seed} {version} {kind} {number}"))
            sample = {
                "id": f"{version}-{kind}-{number:03d}",
                "conversations": [{"from": who, "value": text} for who, text in turns],
            }
            if any("<image>" in text for _, text in turns):
                sample["image"] = image
            samples.append(sample)
    return samples
