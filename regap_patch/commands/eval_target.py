"""From `--model` and `--model_args` to what is asked."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from regap_patch.errors import ConfigError

KINDS = ("llava", "huggingface", "endpoint")
LOCAL_ARGS = ("pretrained", "base", "conv_mode", "device", "dtype", "attn_implementation", "openers")
ENDPOINT_ARGS = ("base_url", "model", "timeout", "retries", "api_key_variable")
TARGETS = {"llava": "LlavaTarget", "huggingface": "HuggingFaceTarget"}


def target_of(arguments: argparse.Namespace) -> tuple[Any, Any, str]:
    """The target, the same in float32 for the parity gate (None if there is no such), and its name.

    Raises:
        ConfigError: flags that name none, or contradict each other.
    """
    kind, name = _kind(arguments.model)
    known = ENDPOINT_ARGS if kind == "endpoint" else LOCAL_ARGS
    given = pairs(arguments.model_args, "--model_args", known)
    if kind == "endpoint":
        return _endpoint(given, arguments.offline), None, given["model"]
    if name is not None:
        given["pretrained"] = name
    if "pretrained" not in given:
        raise ConfigError(f"--model {kind} needs --model_args pretrained=FOLDER_OR_HUB_NAME.")
    from dataclasses import replace
    from importlib import import_module

    from regap_patch.safety.targets.local import LocalOptions

    openers = {"openers": tuple(given["openers"].split("|"))} if given.get("openers") else {}
    options = LocalOptions(
        given["pretrained"],
        base=given.get("base"),
        template=arguments.conv_mode or given.get("conv_mode"),
        device=arguments.device or given.get("device"),
        dtype=arguments.dtype or given.get("dtype"),
        attention=given.get("attn_implementation", "sdpa"),
        **openers,
    )
    kind = kind or _kind_of_folder(options.pretrained)
    make = getattr(import_module(f"regap_patch.safety.targets.{kind}"), TARGETS[kind])
    target = make(options)
    reference = target if target.dtype == "float32" else make(replace(options, dtype="float32"))
    return target, None if arguments.no_parity else reference, options.pretrained


def _kind(model: str | None) -> tuple[str, str | None]:
    """Kind of target, "" if the checkpoint is to say it, and the checkpoint, if that is what was named."""
    if model is None:
        raise ConfigError(f"No model was named: give --model a checkpoint, or one of {', '.join(KINDS)}.")
    return (model, None) if model in KINDS else ("", model)


def _kind_of_folder(path: str) -> str:
    import json

    from regap_patch.errors import EvaluationError
    from regap_patch.safety.weights import folder_of

    folder = folder_of(path)
    names = [name for name in ("config.json", "adapter_config.json") if (folder / name).is_file()]
    if not names:
        raise EvaluationError(
            f"{path} was to be asked, but holds no config.json: name the folder of a checkpoint that was "
            f"saved completely."
        )
    fields = json.loads((folder / names[0]).read_text(encoding="utf-8"))
    return "huggingface" if "vision_config" in fields else "llava"


def _endpoint(given: Mapping[str, str], offline: bool) -> Any:
    from regap_patch.safety.targets.endpoint import EndpointOptions, EndpointTarget

    missing = [name for name in ("base_url", "model") if name not in given]
    if missing:
        raise ConfigError(
            f"--model endpoint needs --model_args {','.join(f'{name}=...' for name in missing)}."
        )
    try:
        numbers = {
            name: kind(given[name]) for name, kind in (("timeout", float), ("retries", int)) if name in given
        }
    except ValueError as error:
        raise ConfigError(f"--model_args holds a number that is none: {error}.") from error
    variable = {"key_variable": given["api_key_variable"]} if "api_key_variable" in given else {}
    options: dict[str, Any] = {**numbers, **variable, "offline": offline}
    return EndpointTarget(EndpointOptions(given["base_url"], given["model"], **options))


def pairs(text: str, flag: str, known: Mapping[str, Any] | tuple[str, ...]) -> dict[str, str]:
    """`name=value,name=value` as a mapping.

    Raises:
        ConfigError: a part without "=", or a name that nobody reads.
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise ConfigError(
                f"{flag} holds {part!r}, but name=value is expected, with one of the names "
                f"{', '.join(known)}."
            )
        found[name] = value
    return found
