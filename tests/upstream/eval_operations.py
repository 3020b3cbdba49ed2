"""Scoring, as both packages named `llava` do it: the classes they share, and their programs."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import warnings
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
    warnings.filterwarnings("ignore", "'llava.eval.* found in sys.modules", RuntimeWarning)
    with mock.patch.object(sys, "argv", [module, *argv]), contextlib.redirect_stdout(out):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return out.getvalue()


def answers_on_cpu(*, module: str, argv: Sequence[str]) -> None:
    """Runs upstream's program that generates, in float32 and without the GPU that it asks for by name."""
    import torch

    from llava.model import builder

    load, to = builder.load_pretrained_model, torch.Tensor.to

    def load_on_cpu(*args: Any, **kwargs: Any) -> Any:
        tokenizer, model, image_processor, context_length = load(*args, device="cpu", **kwargs)
        return tokenizer, model.float(), image_processor, context_length

    def stay(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        for_gpu = kwargs.get("device") == "cuda"
        return tensor if for_gpu else to(tensor, *args, **kwargs)

    with (
        mock.patch.object(builder, "load_pretrained_model", load_on_cpu),
        mock.patch.object(torch.Tensor, "to", stay),
    ):
        printed(module=module, argv=argv)
