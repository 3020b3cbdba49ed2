"""Judges' architectures with random weights: folders that the published checkpoints could stand in for.

The chat template is of our own wording, with the published one's shape: it judges the turn that comes last.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from regap_patch.judges import preset

GUARD_TEMPLATE = """\
{%- set role = 'Agent' if messages|length % 2 == 0 else 'User' -%}
<s>Judge the {{ role }} in this talk.
<BEGIN CONVERSATION>
{% for message in messages %}
{%- set text = message.content.strip() -%}
{{ 'User' if message.role == 'user' else 'Agent' }}: {{ text }}
{% endfor %}<END CONVERSATION>
Is the last {{ role }} message safe or unsafe?</s>"""
PARTS_TEMPLATE = GUARD_TEMPLATE.replace("message.content", "message.content[0].text")
USER_TEMPLATE = GUARD_TEMPLATE.replace("'Agent' if messages|length % 2 == 0 else 'User'", "'User'")


def _tokenizer(llama: Path, folder: Path, **changed: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(llama / "tokenizer.model", folder / "tokenizer.model")
    settings = json.loads((llama / "tokenizer_config.json").read_text()) | changed
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _config(llama: Path, **changed: Any) -> Any:
    from transformers import LlamaConfig

    vocabulary = json.loads((llama / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    return LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=1024, initializer_range=0.2, **sizes | changed
    )


def make_tiny_beaver(folder: Path, llama: Path, labels: list[str] | None = None, seed: int = 1) -> Path:
    """Fourteen labels, as the config of the published weights names them."""
    import torch
    from transformers import LlamaForSequenceClassification

    named = labels or list(preset("beaver-dam-7b").settings["labels"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _config(
            llama,
            id2label=dict(enumerate(named)),
            label2id={label: index for index, label in enumerate(named)},
            problem_type="multi_label_classification",
        )
        LlamaForSequenceClassification(config).save_pretrained(folder)
    _tokenizer(llama, folder)
    return folder


def make_tiny_speaker(folder: Path, llama: Path, template: str | None = None, seed: int = 2) -> Path:
    """A causal LM; with a template it is a Llama Guard, without one HarmBench's classifier."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(_config(llama)).save_pretrained(folder)
    _tokenizer(llama, folder, **({"chat_template": template} if template else {}))
    return folder
