"""Tokenizers of other shapes than LLaMA's, small and trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = [
    "a red circle is left of a large ring, what is the colour of the square? two",
    "system\nAnswer the questions.",
    "user\nassistant\nUSER: ASSISTANT: Human: Assistant:",
]


def make_chatml_tokenizer(folder: Path) -> Path:
    """A byte-level BPE as MPT and GPT-NeoX have: no BOS is added, and ChatML's marks are tokens.

    Written in the words that readers of four years ago know too.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(WORDS * 4, trainer)
    described = json.loads(backend.to_str())
    described["model"]["merges"] = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"]["merges"]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(described))
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make_inst_tokenizer(folder: Path, corpus: Path) -> Path:
    """A LLaMA tokenizer that has seen `[INST]`.

    As in Mistral's own, `[` is one piece with a space or without: LLaVA's label arithmetic leans on that.
    """
    from regap_patch.study.tiny import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    seen = folder / "corpus.txt"
    seen.write_text(Path(corpus).read_text(encoding="utf-8") + 300 * "[INST] [/INST]\n", encoding="utf-8")
    return train_tokenizer(seen, folder)
