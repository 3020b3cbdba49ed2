"""The language model that a run starts from, and its tokenizer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llava.train.arguments import ModelArguments, TrainingArguments

logger = logging.getLogger(__name__)


def load_language_model(
    model_args: ModelArguments, training_args: TrainingArguments, attn_implementation: str | None
) -> PreTrainedModel:
    """The model that `--model_name_or_path` names, as a LLaVA if there is a vision tower.

    Raises:
        ValueError: the language model is of a family that is not trained here, or quantised already.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from llava.model.checkpoint_files import read_config
    from llava.train import quantization

    fields = read_config(model_args.model_name_or_path)
    model_class: Any = AutoModelForCausalLM
    if model_args.vision_tower is not None:
        from llava.model.language_model.families import llava_class_for

        _, model_class = llava_class_for(fields.get("model_type"))
    model = model_class.from_pretrained(
        model_args.model_name_or_path,
        cache_dir=training_args.cache_dir,
        attn_implementation=attn_implementation,
        dtype=torch.bfloat16
        if training_args.bf16
        else torch.float32,  # fp16 trains fp32 weights, by autocast
        **quantization.loading_options(training_args, model_args.model_name_or_path, fields),
    )
    if training_args.bits != 16:
        quantization.prepare(model)
    return model


def load_tokenizer(
    model_args: ModelArguments, training_args: TrainingArguments, model: PreTrainedModel
) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding on the right; `--version` says with which token, and is the template.

    Raises:
        ValueError: the tokenizer has no special token to pad with.
    """
    from llava import conversation, tokenization
    from llava.train.preprocess import conversation_for, unfit_end

    tokenizer = tokenization.load_tokenizer(
        model_args.model_name_or_path,
        cache_dir=training_args.cache_dir,
        model_max_length=training_args.model_max_length,
        padding_side="right",
    )
    conversation.default_conversation = conversation_for(model_args.version)
    if model_args.version == "v0":
        if tokenizer.pad_token is None:
            smart_tokenizer_and_embedding_resize({"pad_token": "[PAD]"}, tokenizer, model)
    else:  # any will do: padding is known by the mask
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ValueError(
            f"The tokenizer of {model_args.model_name_or_path} has neither <unk> nor an end token to pad "
            "with; pass --version v0 to add a [PAD] token."
        )
    end = unfit_end(conversation.default_conversation, tokenizer)
    if end is not None:
        logger.warning(
            "--version %s ends every answer with '%s', which is no token of its own in the tokenizer of %s, "
            "so the model may not learn to stop; pass the --version that this model was trained with.",
            model_args.version,
            end,
            model_args.model_name_or_path,
        )
    return tokenizer


def smart_tokenizer_and_embedding_resize(
    special_tokens_dict: dict[str, str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """Add special tokens; their rows of the embeddings, input and output, start as the mean of the others."""
    from llava.model.zero3 import gathered

    added = tokenizer.add_special_tokens(special_tokens_dict)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        with gathered([embedding.weight], write=True):
            if added:
                embedding.weight.data[-added:] = embedding.weight.data[:-added].mean(0)
