"""Talk with a model about pictures in the terminal; answers appear as they are made.

A line `/image FILE`, or several files separated by --sep, adds pictures to the next question;
`<image-placeholder>` in the question says where each belongs (default: in front).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MORE_PICTURES = "/image "


class Chat:
    """A conversation with a model, and the pictures that were shown in it.

    Args:
        model: a LLaVA, in evaluation mode.
        tokenizer: of the model.
        image_processor: of the model.
        conversation: an empty one, of the model's template.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, conversation: Any) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.conversation = conversation
        self.pictures: list[Image] = []

    def say(self, text: str, pictures: list[Image], **generation: Any) -> str:
        """Ask; question, pictures and answer are part of the conversation from then on.

        Args:
            text: question; `<image-placeholder>` says where a picture belongs.
            pictures: shown with it.
            generation: of `answer_batch`.

        Raises:
            ValueError: the question has another number of placeholders than pictures; it is not asked.
        """
        from llava.eval.answering import answer_batch
        from llava.mm_utils import place_images

        said = self.conversation.copy()
        start_end = getattr(self.model.config, "mm_use_im_start_end", False)
        said.append_message(said.roles[0], place_images(text, len(pictures), start_end))
        said.append_message(said.roles[1], None)
        shown = [*self.pictures, *pictures]
        (answer,) = answer_batch(
            self.model, self.tokenizer, self.image_processor, [said.get_prompt()], [shown], **generation
        )
        said.messages[-1][1] = answer
        self.conversation, self.pictures = said, shown
        return answer


def main(args: argparse.Namespace) -> None:
    """Load, then answer until an empty line or the end of the input.

    Args:
        args: of `parser`.
    """
    from transformers import TextStreamer

    waiting = _pictures(args.image_file, args.sep)
    chat = _load(args)
    streamer = TextStreamer(chat.tokenizer, skip_prompt=True, skip_special_tokens=True)
    user, assistant = chat.conversation.roles
    while text := _ask(user):
        try:
            if text.startswith(MORE_PICTURES):
                waiting += _pictures(text.removeprefix(MORE_PICTURES), args.sep)
                continue
            print(f"{assistant}: ", end="", flush=True)
            answer = chat.say(
                text,
                waiting,
                temperature=args.temperature,
                max_new_tokens=args.max_new_tokens,
                streamer=streamer,
            )
            waiting = []
        except (ValueError, OSError) as error:  # of this line; the conversation goes on
            print(error)
            continue
        if args.debug:
            print("\n", {"prompt": chat.conversation.get_prompt(), "outputs": answer}, "\n")


def _load(args: argparse.Namespace) -> Chat:
    import torch

    from llava.conversation import template_of
    from llava.mm_utils import get_model_name_from_path
    from llava.model.builder import load_pretrained_model

    name = get_model_name_from_path(args.model_path)
    conversation = template_of(args.model_path, args.conv_mode)
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
    if image_processor is None:
        raise ValueError(f"'{args.model_path}' is a plain language model, which sees nothing; pass a LLaVA.")
    return Chat(model, tokenizer, image_processor, conversation)


def _pictures(files: str, sep: str) -> list[Image]:
    from llava.mm_utils import load_image

    return [load_image(file.strip()) for file in files.split(sep)]


def _ask(role: str) -> str:
    try:
        return input(f"{role}: ").strip()
    except EOFError:
        return ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = flags.add_argument
    add("--model-path", required=True, help="folder or hub name of a LLaVA, or of its stage 1")
    add("--model-base", default=None, help="language model under a stage 1")
    add("--image-file", required=True, help="file or address of a picture, or several separated by --sep")
    add("--sep", default=",", help="separates pictures")
    add("--device", default=None, help="default: cuda where there is one, else cpu")
    add(
        "--conv-mode",
        default=None,
        help="prompt template; default: that of the training, or what the name suggests",
    )
    add("--temperature", type=float, default=0.2, help="0 for the likeliest answer")
    add("--max-new-tokens", type=int, default=512, help="longest answer")
    add("--load-8bit", action="store_true", help="quantised; needs bitsandbytes")
    add("--load-4bit", action="store_true", help="quantised; needs bitsandbytes")
    add("--debug", action="store_true", help="print the whole prompt after each turn")
    return flags


if __name__ == "__main__":
    from llava.eval.command_line import run

    run(lambda: main(parser().parse_args()), FileNotFoundError, ValueError)
