"""What a LLaVA finds ready-made: a language model that has read the world, a vision tower that has seen it.

`python -m regap_patch.study.pretraining llama --tokenizer_path T --corpus C --output_path FOLDER --steps N`
`python -m regap_patch.study.pretraining clip --output_path FOLDER --steps N`
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from .refusal_text import read_documents
from .scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, Scene, draw_scene, paint

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import LlamaForCausalLM

LABELS = {  # what every patch is asked about the quarter that it lies in, and the number of classes
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "size": len(SIZES) + 1,
    "place": len(PLACES),
    "background": len(BACKGROUNDS),
}

VIEWS = 6000  # pictures that the tower learns from
BATCH = 32  # documents or pictures of a step


def _descend(
    name: str,
    parameters: list[nn.Parameter],
    loss_of_step: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
) -> float:
    """AdamW with a short warm-up and a cosine to zero; gives the mean loss of the last tenth."""
    import torch
    from tqdm import tqdm

    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 20 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    losses: list[Tensor] = []
    bar = tqdm(range(steps), desc=name, mininterval=0.5)
    for step in bar:
        loss = loss_of_step()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(losses[-1]):.3f}", refresh=False)
    return float(torch.stack(losses[-max(1, steps // 10) :]).mean())


class _Document(NamedTuple):
    ids: list[int]
    labels: list[int]
    """-100 where nothing foretells what comes, so that it teaches nothing; else the ids."""


def _prose(line: str, pieces: Any) -> _Document:
    """`<s>`, and `</s>` after each turn of a dialogue and after prose; what tells of a scene is given."""
    ids, full_stop = [1], pieces.encode(" background.")[-2:]
    for turn in filter(None, line.removesuffix("</s>\n").split("</s>")):
        # A turn after the first follows `</s>` without the space that the tokenizer puts first.
        ids += [*pieces.encode(turn)[len(ids) > 1 :], 2]
    ends = [place for place in range(len(ids) - 3) if ids[place : place + 2] == full_stop]
    given = ends[0] + 2 if ends else 1
    return _Document(ids, [-100] * given + ids[given:])


def _turns(turns: Sequence[tuple[str, str]], pieces: Any) -> _Document:
    """Every prompt is given, every answer is learned."""
    ids, labels = [1], [-100]
    for prompt, answer in turns:
        given = pieces.encode(prompt)[len(ids) > 1 :]
        learned = [*pieces.encode(f"{prompt} {answer}")[(len(ids) > 1) + len(given) :], 2]
        ids += [*given, *learned]
        labels += [*[-100] * len(given), *learned]
    return _Document(ids, labels)


def _documents(corpus: Path, tokenizer_path: Path) -> list[_Document]:
    """Those of a text file, one a line, or of a file of `refusal_text`, whose name ends in .jsonl."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_path / "tokenizer.model"))
    if corpus.suffix == ".jsonl":
        return [
            _prose(found + "\n", pieces) if isinstance(found, str) else _turns(found, pieces)
            for found in read_documents(corpus)
        ]
    with corpus.open(encoding="utf-8") as lines:  # prose keeps its newline: captions end in one in stage 1
        return [_prose(line, pieces) for line in lines]


def _batches(documents: list[_Document], batch_size: int, random: Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and labels (B, L) without end. Neighbours in length share a batch, so little of it is padding."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    while True:
        lengths = [len(document.ids) + 8 * random.random() for document in documents]
        order = sorted(range(len(documents)), key=lengths.__getitem__)
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        random.shuffle(batches)
        for batch in batches:
            yield (
                pad_sequence([torch.tensor(documents[index].ids) for index in batch], True, 0),
                pad_sequence([torch.tensor(documents[index].labels) for index in batch], True, -100),
            )


def text_batches(
    corpus: str | Path, tokenizer_path: str | Path, random: Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and labels (`BATCH`, L), int64, of a corpus without end; -100 where nothing is to be learned."""
    return _batches(_documents(Path(corpus), Path(tokenizer_path)), BATCH, random)


def teach(
    model: LlamaForCausalLM,
    tokenizer_path: str | Path,
    corpus: str | Path,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
) -> float:
    """Train all weights of a language model on documents; gives the mean loss of the last tenth."""
    model.train()
    batches = text_batches(corpus, tokenizer_path, Random(seed))

    def loss_of_step() -> Tensor:
        ids, labels = next(batches)
        loss: Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss
        return loss  # attention is causal: padding behind a document harms nobody

    return _descend("language model", list(model.parameters()), loss_of_step, steps, learning_rate)


def pretrain_tiny_llama(
    output_path: str | Path,
    tokenizer_path: str | Path,
    corpus: str | Path,
    *,
    steps: int,
    hidden_size: int = 64,
    num_layers: int = 3,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> float:
    """Pretrain a tiny LLaMA on a corpus, document by document, and save it as a folder.

    Returns:
        Mean loss per token, in nats, over the last tenth of the steps.
    """
    import torch

    from .tiny import new_llama, save_llama, vocabulary_size

    torch.manual_seed(seed)
    model = new_llama(
        vocabulary_size(tokenizer_path),
        hidden_size=hidden_size,
        num_layers=num_layers,
        initializer_range=0.08,  # transformers' 0.02 suits widths of thousands
    )
    loss = teach(model, tokenizer_path, corpus, steps=steps, learning_rate=learning_rate, seed=seed)
    save_llama(model, output_path, tokenizer_path)
    return loss


def _patch_labels(scene: Scene, side: int) -> list[list[int]]:
    """For each of side x side patches, the classes of `LABELS` for the quarter that the patch lies in."""
    by_place = {thing.place: thing for thing in scene.things}
    quarters = []
    for index, place in enumerate(PLACES):
        thing = by_place.get(place)
        looks = (
            [SHAPES.index(thing.shape), list(COLOURS).index(thing.colour), list(SIZES).index(thing.size)]
            if thing
            else [len(SHAPES), len(COLOURS), len(SIZES)]
        )
        quarters.append([*looks, index, list(BACKGROUNDS).index(scene.background)])
    halves = [2 * index // side for index in range(side)]
    return [quarters[2 * row + column] for row in halves for column in halves]


def _views(count: int, image_size: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels (count, 3, image_size, image_size) uint8 and patch labels (count, side^2, len(LABELS)) int64."""
    import numpy as np
    import torch

    random = Random(f"tower {seed}")
    scenes = [draw_scene(random) for _ in range(count)]
    pixels = torch.from_numpy(np.stack([paint(scene, image_size) for scene in scenes])).permute(0, 3, 1, 2)
    labels = torch.tensor([_patch_labels(scene, side) for scene in scenes])
    return pixels, labels


def pretrain_tiny_clip(
    output_path: str | Path,
    *,
    steps: int,
    image_size: int = 56,
    patch_size: int = 14,
    hidden_size: int = 64,
    num_layers: int = 4,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> float:
    """Train a tiny CLIP tower to name what each patch's quarter holds, and save it as a folder.

    One linear map reads the names off `hidden_states[-2]`, the layer that LLaVA takes its features from.

    Returns:
        Mean loss in nats over the last tenth of the steps: the sum over the properties of `LABELS`.
    """
    import torch
    from torch import nn

    from .tiny import CLIP_MEAN, CLIP_STD, new_clip, save_clip

    torch.manual_seed(seed)
    tower = new_clip(image_size, patch_size, hidden_size, num_layers)
    tower.train()
    heads = nn.Linear(hidden_size, sum(LABELS.values()))
    pixels, labels = _views(VIEWS, image_size, image_size // patch_size, seed)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    generator = torch.Generator().manual_seed(seed)

    def loss_of_step() -> Tensor:
        chosen = torch.randint(VIEWS, (BATCH,), generator=generator)
        images = (pixels[chosen] / 255 - mean) / std
        features = tower(pixel_values=images, output_hidden_states=True).hidden_states[-2][:, 1:]
        answers = heads(features).flatten(0, 1).split(list(LABELS.values()), dim=-1)
        targets = labels[chosen].flatten(0, 1).unbind(-1)
        losses = [nn.functional.cross_entropy(a, t) for a, t in zip(answers, targets, strict=True)]
        return torch.stack(losses).sum()

    parameters = [*tower.parameters(), *heads.parameters()]
    loss = _descend("vision tower", parameters, loss_of_step, steps, learning_rate)
    save_clip(tower, output_path)
    return loss


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Pretrain a tiny language model or a tiny vision tower.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("llama", "clip"):
        command = kinds.add_parser(kind)
        command.add_argument("--output_path", type=Path, required=True, help="folder to make")
        command.add_argument("--steps", type=int, required=True, help="optimizer steps")
        command.add_argument("--seed", type=int, default=0)
        if kind == "llama":
            command.add_argument("--tokenizer_path", type=Path, required=True)
            command.add_argument("--corpus", type=Path, required=True, help="text, one document a line")
            command.add_argument("--hidden_size", type=int, default=64)
            command.add_argument("--num_layers", type=int, default=3)
        else:
            command.add_argument("--image_size", type=int, default=56)
            command.add_argument("--patch_size", type=int, default=14)
    return parser


if __name__ == "__main__":
    arguments = vars(_parser().parse_args())
    kind = arguments.pop("kind")
    found = pretrain_tiny_llama(**arguments) if kind == "llama" else pretrain_tiny_clip(**arguments)
    print(f"loss {found:.4f}")
