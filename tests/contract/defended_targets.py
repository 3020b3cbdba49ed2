"""Targets with a stack around them, and what is seen of their generation."""

from __future__ import annotations

import torch

from regap_patch.commands.defended import DefendedTarget, Generation, LoadedModel
from regap_patch.defenses import Stack, Turn
from regap_patch.safety.target import Decoding, Question
from tests.unit.evaluation_items import noisy_picture

PICTURES = [noisy_picture(20 + 4 * number, 24, number) for number in range(3)]
QUESTIONS = [
    Question("what is this ?", PICTURES[0]),
    Question("how many shapes are there in the picture , and which is the larger one ?", PICTURES[1]),
    Question("what is this ?"),
    Question("is it red ?", words="A white cup is on a shelf."),
    Question("what ?", PICTURES[2]),
]
STEPS = 6
GREEDY = Decoding(max_new_tokens=STEPS)


class Scores:
    """A processor that keeps what every step was drawn from."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids, scores):
        self.steps.append(scores.float().clone())
        return scores


def loaded(target) -> LoadedModel:
    return LoadedModel(target, target.fingerprint())


def turns_of(questions) -> list[Turn]:
    return [
        Turn(number, asked.text, asked.text, asked.picture, number) for number, asked in enumerate(questions)
    ]


def seen_scores(target, defenses, questions, *, model=None, decoding=GREEDY):
    """Scores (steps, B, V) that a stack's answers to questions of one pass are drawn from, and its traces."""
    model = model or loaded(target)
    stack = Stack(defenses)
    stack.prepare(model)
    seen = Scores()
    inner = Generation(target, decoding)

    def generate(turns, *, processors=(), max_new_tokens=None):
        return inner(turns, processors=[*processors, seen], max_new_tokens=max_new_tokens)

    answered = stack.answer(turns_of(questions), model, generate)
    stack.close()
    return torch.stack(seen.steps), answered.traces


def defended(target, *defenses) -> DefendedTarget:
    return DefendedTarget(target, Stack(defenses))


def answers(target, questions=QUESTIONS, decoding=GREEDY):
    """Text, tokens and the first one's share of refusal; a question's seed goes with its words."""
    replies = target.answer(questions, decoding, [len(asked.text) for asked in questions])
    return [(reply.text, reply.num_tokens, reply.first_token_refusal_prob) for reply in replies]


def texts(target, questions=QUESTIONS, decoding=GREEDY) -> list[str]:
    return [text for text, _, _ in answers(target, questions, decoding)]


def hooks(target) -> int:
    model, _ = target.loaded()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
