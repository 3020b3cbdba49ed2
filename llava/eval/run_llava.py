"""Ask a model one question about one or several pictures."""

from __future__ import annotations

import argparse
from typing import Any


def eval_model(args: Any) -> str:
    """Load the model, print its answer, and return it.

    Args:
        args: any object with the attributes `model_path, model_base, query, conv_mode, image_file, sep,
            temperature, top_p, num_beams, max_new_tokens`; `image_file` holds several pictures separated by
            `sep`, and `<image-placeholder>` in the query says where they belong (default: in front).
            Optional: `device`.
    """
    import torch

    from llava.conversation import template_of
    from llava.eval.answering import answer_batch
    from llava.mm_utils import get_model_name_from_path, load_image, place_images
    from llava.model.builder import load_pretrained_model

    device = getattr(args, "device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
    pictures = [load_image(file) for file in args.image_file.split(args.sep)]
    name = get_model_name_from_path(args.model_path)
    conversation = template_of(args.model_path, args.conv_mode)
    tokenizer, model, image_processor, _ = load_pretrained_model(
        args.model_path,
        args.model_base,
        name,
        device=device,
        torch_dtype=torch.float32 if device == "cpu" else None,  # half precision is slow there
    )

    query = place_images(args.query, len(pictures), getattr(model.config, "mm_use_im_start_end", False))
    conversation.append_message(conversation.roles[0], query)
    conversation.append_message(conversation.roles[1], None)
    (answer,) = answer_batch(
        model,
        tokenizer,
        image_processor,
        [conversation.get_prompt()],
        [pictures],
        temperature=args.temperature,
        top_p=args.top_p,
        num_beams=args.num_beams,
        max_new_tokens=args.max_new_tokens,
    )
    print(answer)
    return answer


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--model-path", required=True, help="folder or hub name of a LLaVA, or of its stage 1")
    add("--model-base", default=None, help="language model under a stage 1")
    add("--image-file", required=True, help="file or address of a picture, or several separated by --sep")
    add("--query", required=True, help="question; <image-placeholder> says where a picture belongs")
    add(
        "--conv-mode",
        default=None,
        help="prompt template; default: that of the training, or what the name suggests",
    )
    add("--sep", default=",", help="separates pictures in --image-file")
    add("--temperature", type=float, default=0.2, help="0 for the likeliest answer")
    add(
        "--top_p", type=float, default=None, help="sample from the likeliest tokens of this total probability"
    )
    add("--num_beams", type=int, default=1, help="width of beam search")
    add("--max_new_tokens", type=int, default=512, help="longest answer")
    add("--device", default=None, help="default: cuda where there is one, else cpu")
    return flags


def main() -> None:
    """The command."""
    eval_model(parser().parse_args())


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(main, FileNotFoundError, ValueError)
