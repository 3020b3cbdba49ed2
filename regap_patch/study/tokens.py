"""A SentencePiece tokenizer made as LLaMA's was, in files that old and new transformers read.

`python -m regap_patch.study.tokens --corpus TEXT --output_path FOLDER`
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def _sentences(corpus: Path) -> Iterator[str]:
    """The corpus as the trainer reads it: without `</s>`, which is no text, and with `USER` glued to a stop.

    So `USER` is one piece after `</s>`, and two (a space and itself) at the start of a text: as in LLaMA's
    own vocabulary, a property that LLaVA's label arithmetic leans on.
    """
    with corpus.open(encoding="utf-8") as lines:
        for line in lines:
            for part in line.rstrip("\n").split("</s>"):
                if part:
                    yield re.sub(r"(^| )USER:", ".USER:", part)


def train_tokenizer(corpus: str | Path, output_path: str | Path, vocab_size: int = 640) -> Path:
    """Train a byte-pair tokenizer with byte fallback; `<unk>` 0, `<s>` 1, `</s>` 2, no pad token, as LLaMA.

    Args:
        corpus: UTF-8 text, one document a line.
        output_path: folder for `tokenizer.model` and two JSON files.
        vocab_size: number of pieces; 259 of them are bytes and control symbols.

    Raises:
        ValueError: the corpus is too small for so many pieces.
    """
    import sentencepiece

    output_path = Path(output_path)
    output_path.mkdir(parents=True, exist_ok=True)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(Path(corpus)),
            model_prefix=str(output_path / "tokenizer"),
            vocab_size=vocab_size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"A tokenizer of {vocab_size} pieces was asked for, but {corpus} gives fewer ({error}): "
            "ask for fewer, or give more text."
        ) from error
    (output_path / "tokenizer.vocab").unlink()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": 2048,
        "padding_side": "right",
        "sp_model_kwargs": {},
        **special,
    }
    (output_path / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (output_path / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    return output_path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a tokenizer.")
    parser.add_argument("--corpus", type=Path, required=True, help="text, one document a line")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    parser.add_argument("--vocab_size", type=int, default=640)
    train_tokenizer(**vars(parser.parse_args()))
