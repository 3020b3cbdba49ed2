"""Scoring, as both packages named `llava` do it: through the classes they share and through their programs."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from collections.abc import Sequence
from typing import Any
from unittest import mock


def normalised(*, answers: Sequence[str]) -> list[str]:
    """Each answer as `EvalAIAnswerProcessor` leaves it, all by one processor."""
    from llava.eval.m4c_evaluator import EvalAIAnswerProcessor

    process = EvalAIAnswerProcessor()
    return [process(answer) for answer in answers]


def soft_accuracies(*, entries: Sequence[dict[str, Any]]) -> list[float]:
    """TextVQA's accuracy of each `{"pred_answer", "gt_answers"}` by itself."""
    from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator

    evaluator = TextVQAAccuracyEvaluator()
    return [float(evaluator.eval_pred_list([entry])) for entry in entries]


def exact_accuracies(*, entries: Sequence[dict[str, Any]]) -> list[float]:
    """ST-VQA's accuracy, of each by itself."""
    from llava.eval.m4c_evaluator import STVQAAccuracyEvaluator

    evaluator = STVQAAccuracyEvaluator()
    return [float(evaluator.eval_pred_list([entry])) for entry in entries]


def questions_in_prompts(*, prompts: Sequence[str]) -> list[str]:
    """What `eval_textvqa` joins on."""
    from llava.eval.eval_textvqa import prompt_processor

    return [prompt_processor(prompt) for prompt in prompts]


def printed(*, module: str, argv: Sequence[str]) -> str:
    """What a program of the package prints."""
    out = io.StringIO()
    with mock.patch.object(sys, "argv", [module, *argv]), contextlib.redirect_stdout(out):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return out.getvalue()


def answers_on_cpu(*, module: str, argv: Sequence[str]) -> None:
    """Runs a program that generates; upstream asks for a GPU and half precision wherever it runs."""
    import torch

    with (
        mock.patch.object(torch.Tensor, "cuda", lambda tensor, *args, **kwargs: tensor),
        mock.patch.object(torch.nn.Module, "cuda", lambda module, *args, **kwargs: module),
    ):
        printed(module=module, argv=argv)
