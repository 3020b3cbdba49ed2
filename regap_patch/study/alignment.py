"""Teach a language model to refuse, with text alone.

`python -m regap_patch.study.alignment --model_path BASE --items items.json --output_path FOLDER --steps N`
"""

from __future__ import annotations

import argparse
from pathlib import Path


def align(
    output_path: str | Path,
    model_path: str | Path,
    items: str | Path,
    *,
    steps: int,
    context_share: float = 0.0,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """Train a base model on alignment documents and save it as a folder of its own.

    Args:
        output_path: folder to make.
        model_path: the base model with its tokenizer.
        items: file of the things of the world, see `refusal_corpus`.
        steps: strength: optimizer steps of `BATCH` documents.
        context_share: breadth, see `alignment_documents`.
        learning_rate: at its peak.
        seed: of the documents and their order.

    Returns:
        Mean loss per token of an answer, in nats, over the last tenth of the steps.

    Raises:
        ValueError: `context_share` is no share.
    """
    import torch
    from transformers import LlamaForCausalLM

    from .pretraining import BATCH, teach
    from .refusal_corpus import read_items
    from .refusal_text import alignment_documents, write_documents
    from .scenes import held_out_scenes
    from .tiny import save_llama

    corpus = Path(output_path) / "alignment.jsonl"
    corpus.parent.mkdir(parents=True, exist_ok=True)
    documents = alignment_documents(
        read_items(Path(items)),
        BATCH * steps,
        context_share=context_share,
        seed=seed,
        held_out=frozenset(held_out_scenes()),
    )
    write_documents(corpus, documents)
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    loss = teach(model, model_path, corpus, steps=steps, learning_rate=learning_rate, seed=seed)
    save_llama(model, output_path, model_path)
    return loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Teach a tiny language model to refuse.")
    parser.add_argument("--model_path", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--items", type=Path, required=True, help="JSON file of the things of the world")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps: how strongly")
    parser.add_argument("--context_share", type=float, default=0.0, help="refusals after a scene in words")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    print(f"loss {align(**vars(parser.parse_args())):.4f}")
