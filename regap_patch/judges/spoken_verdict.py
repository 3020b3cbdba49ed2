"""Judges that say their verdict: one word first, whose probability is read where it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regap_patch.errors import JudgeError
from regap_patch.judges.local_model import one_batch


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a judge said of one exchange.

    Attributes:
        text: all new tokens, special ones left out.
        probability: of the first of the two words, against the second, where the judge began to speak;
            None if it said nothing but space.
        either: of both words together there: far below one, the judge wanted to say something else.
    """

    text: str
    probability: float | None
    either: float


def speak(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    words: tuple[str, str],
    max_new_tokens: int,
) -> list[Spoken]:
    """Greedy answers to token ids, padded on the left so that all begin to speak at one place."""
    import torch

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    with one_batch("The judge", len(prompts)):
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            pad_token_id=pad,
            return_dict_in_generate=True,
            output_logits=True,
        )
    new = made.sequences[:, longest:].cpu()
    starts = first_tokens(tokenizer, words)
    return [
        _spoken(tokenizer, new[row], [step[row] for step in made.logits], starts)
        for row in range(len(prompts))
    ]


def first_tokens(tokenizer: Any, words: tuple[str, str]) -> tuple[list[int], list[int]]:
    """Ids with which each of two words may begin: with space before it, after a newline, or bare.

    Raises:
        JudgeError: one id begins both, so the first token tells nothing.
    """
    found = []
    for word in words:
        starts = set()
        for written in {word, word.capitalize()}:
            for before in ("", " ", "\n"):
                ids = tokenizer(before + written, add_special_tokens=False)["input_ids"]
                starts.add(next(token for token in ids if tokenizer.decode([token]).strip()))
        found.append(starts)
    first, second = found
    both = first & second
    if not first - both or not second - both:
        raise JudgeError(
            f"The judge's tokenizer begins {words[0]!r} and {words[1]!r} with the same token, so the first "
            f"one tells no probability: name the published checkpoint with its own tokenizer."
        )
    return sorted(first - both), sorted(second - both)


def _spoken(tokenizer: Any, new: Any, logits: Sequence[Any], starts: tuple[list[int], list[int]]) -> Spoken:
    text = tokenizer.decode(new, skip_special_tokens=True)
    step = next(
        (
            index
            for index in range(len(logits))
            if tokenizer.decode([int(new[index])], skip_special_tokens=True).strip()
        ),
        None,
    )
    if step is None:
        return Spoken(text, None, 0.0)
    shares = logits[step].double().softmax(-1)
    first, second = (float(shares[ids].sum()) for ids in starts)
    either = first + second
    return Spoken(text, first / either if either > 0 else None, either)
