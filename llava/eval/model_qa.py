"""Ask a language model without eyes: `question_id, text` a line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from llava.eval.command_line import InputError, run
from llava.eval.generation import Speaker, add_own_flags, ask_all
from llava.eval.questions import Question, read_questions


def load_language_model(args: argparse.Namespace) -> Speaker:
    """The language model of `--model-name`.

    Raises:
        InputError: it cannot be loaded.
    """
    import torch

    from llava.model.builder import load_pretrained_model
    from llava.model.prompt_batch import pad_left
    from llava.tokenization import text_to_ids

    try:
        tokenizer, model, image_processor, _ = load_pretrained_model(
            args.model_path, device=args.device, torch_dtype=getattr(torch, args.dtype)
        )
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error

    def answer(prompts: Sequence[str], pictures: object, *, temperature: float, **lengths: Any) -> list[str]:
        rows = [torch.tensor(text_to_ids(prompt, tokenizer), device=model.device) for prompt in prompts]
        ids, mask = pad_left(rows)
        sampling = (
            {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        )
        output = model.generate(ids, attention_mask=mask, **sampling, **lengths)
        # Generation repeats every id of the prompt; that of a LLaVA, which may be asked too, repeats none.
        repeated = ids.shape[1] if image_processor is None else 0
        texts = tokenizer.batch_decode(output[:, repeated:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    return Speaker(answer, False, str(model.device))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--model-name", dest="model_path", default="facebook/opt-350m", help="folder or hub name")
    add("--question-file", default="tables/question.jsonl", help="JSON lines")
    add("--answers-file", default="answer.jsonl", help="JSON lines to write, or to go on with")
    add("--conv-mode", default="vicuna_v1", help="prompt template")
    add("--temperature", type=float, default=0.7, help="0 for the likeliest answer")
    add("--max_new_tokens", type=int, default=1024, help="longest answer")
    add_own_flags(flags)
    flags.set_defaults(model_base=None, top_p=None, num_beams=1, num_chunks=1, chunk_idx=0)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Read, ask, write."""
    args = parser().parse_args(argv)
    questions = read_questions(args.question_file, "")
    seeing: list[Question] = [question for question in questions if question.pictures]
    if seeing:
        raise InputError(
            f"{len(seeing)} questions of '{args.question_file}' have a picture, which a language model "
            "cannot see; use model_vqa for them."
        )
    ask_all(args, questions, load_language_model)


if __name__ == "__main__":
    run(main)
