"""Talk with a model about a picture in the terminal; answers appear as they are made."""

from __future__ import annotations

import argparse
from typing import Any


def main(args: argparse.Namespace) -> None:
    """Load, then answer until an empty line or the end of the input.

    Args:
        args: of `parser`.
    """
    import torch
    from transformers import TextStreamer

    from llava.conversation import template_for
    from llava.mm_utils import get_model_name_from_path, load_image, place_images, process_images
    from llava.model.builder import load_pretrained_model

    picture = load_image(args.image_file)
    name = get_model_name_from_path(args.model_path)
    conversation = template_for(name, args.conv_mode)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, model, image_processor, _ = load_pretrained_model(
        args.model_path,
        args.model_base,
        name,
        args.load_8bit,
        args.load_4bit,
        device=device,
        torch_dtype=torch.float32 if device == "cpu" else None,  # half precision is slow there
    )
    images = process_images([picture], image_processor, model.config).to(model.device, model.dtype)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

    start_end = getattr(model.config, "mm_use_im_start_end", False)
    first = True
    while text := _ask(conversation.roles[0]):
        message = place_images(text, 1, start_end) if first else text
        first = False
        conversation.append_message(conversation.roles[0], message)
        conversation.append_message(conversation.roles[1], None)
        print(f"{conversation.roles[1]}: ", end="", flush=True)
        answer = _answer(conversation.get_prompt(), tokenizer, model, images, streamer, args)
        conversation.messages[-1][1] = answer
        if args.debug:
            print("\n", {"prompt": conversation.get_prompt(), "outputs": answer}, "\n")


def _ask(role: str) -> str:
    try:
        return input(f"{role}: ").strip()
    except EOFError:
        return ""


def _answer(
    prompt: str, tokenizer: Any, model: Any, images: Any, streamer: Any, args: argparse.Namespace
) -> str:
    """Generate; without special tokens, so that the next prompt has each separator once."""
    from llava.mm_utils import tokenizer_image_token

    output = model.generate(
        tokenizer_image_token(prompt, tokenizer, return_tensors="pt").unsqueeze(0),
        images=images,
        do_sample=args.temperature > 0,
        max_new_tokens=args.max_new_tokens,
        streamer=streamer,
        use_cache=True,
        **({"temperature": args.temperature} if args.temperature > 0 else {}),
    )
    return tokenizer.decode(output[0], skip_special_tokens=True).strip()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__)
    add = flags.add_argument
    add("--model-path", required=True, help="folder or hub name of a LLaVA, or of its stage 1")
    add("--model-base", default=None, help="language model under a stage 1")
    add("--image-file", required=True, help="file or address of a picture")
    add("--device", default=None, help="default: cuda where there is one, else cpu")
    add("--conv-mode", default=None, help="prompt template; default: what the model's name suggests")
    add("--temperature", type=float, default=0.2, help="0 for the likeliest answer")
    add("--max-new-tokens", type=int, default=512, help="longest answer")
    add("--load-8bit", action="store_true", help="quantised; needs bitsandbytes")
    add("--load-4bit", action="store_true", help="quantised; needs bitsandbytes")
    add("--debug", action="store_true", help="print the whole prompt after each turn")
    return flags


if __name__ == "__main__":
    main(parser().parse_args())
