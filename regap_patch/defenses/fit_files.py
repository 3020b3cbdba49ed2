"""What was fitted to one model, in a folder: tensors, and a JSON that says to which, from what and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regap_patch.defenses.protocol import FittedItem
from regap_patch.errors import DefenseError
from regap_patch.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from regap_patch.defenses.protocol import Model

SCHEMA = 1
JSON, TENSORS = "fit.json", "fit.safetensors"


@dataclass(frozen=True)
class Fit:
    """A folder's content.

    Attributes:
        folder: where it lies.
        about: the JSON.
    """

    folder: Path
    about: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tensors."""
        return str(self.about["tensors"])

    def fitted_on(self) -> list[FittedItem]:
        """Items that an evaluation leaves out."""
        return [FittedItem(**item) for item in self.about["items"]]

    def check(self, target: Mapping[str, Any]) -> None:
        """That it was fitted to this target.

        Raises:
            DefenseError: another model, or another template.
        """
        theirs, ours = self.about["files"], target.get("files")
        if theirs != ours:
            differing = sorted(name for name in theirs if (ours or {}).get(name) != theirs[name])
            named = ", ".join(differing[:3]) or "more files here"
            raise DefenseError(
                f"{self.folder} was fitted to another model ({named}): fit one to this checkpoint with "
                f"`regap defense fit {self.about['defense']}`."
            )
        if self.about["template_sha256"] != template_hash(target):
            raise DefenseError(
                f"{self.folder} was fitted with another template ({self.about['template']!r}, here "
                f"{target.get('template')!r}): ask with that one, or fit with this one."
            )

    def tensors(self, layers: int) -> dict[str, Tensor]:
        """By name, for a decoder of this many layers.

        Raises:
            DefenseError: of another number of layers, or changed since they were fitted.
        """
        if self.about["layers"] != layers:
            raise DefenseError(
                f"{self.folder} was fitted to a decoder of {self.about['layers']} layers, but this one has "
                f"{layers}: fit one to this checkpoint with `regap defense fit {self.about['defense']}`."
            )
        from safetensors.torch import load

        try:
            data = (self.folder / TENSORS).read_bytes()
        except OSError as error:
            raise DefenseError(f"{self.folder} holds no {TENSORS}: fit it again.") from error
        if hashlib.sha256(data).hexdigest() != self.fingerprint:
            raise DefenseError(f"{self.folder / TENSORS} changed since it was fitted: fit it again.")
        found: dict[str, Tensor] = load(data)
        return found


def read_fit(folder: Path, defense: str) -> Fit:
    """A folder that `regap defense fit` has left.

    Raises:
        DefenseError: there is none, or it is another defence's.
    """
    try:
        about = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DefenseError(
            f"{defense} was to take its vectors from {folder}, but no {JSON} can be read there "
            f"({type(error).__name__}): name a folder that `regap defense fit {defense}` has left."
        ) from error
    if about.get("schema") != SCHEMA or about.get("defense") != defense:
        raise DefenseError(
            f"{folder} was fitted for {about.get('defense')!r} (schema {about.get('schema')}), but {defense} "
            f"(schema {SCHEMA}) was asked for: name a folder that `regap defense fit {defense}` has left."
        )
    return Fit(folder, about)


def write_fit(
    folder: Path,
    defense: str,
    model: Model,
    tensors: Mapping[str, Tensor],
    items: Sequence[FittedItem],
    more: Mapping[str, Any],
) -> Fit:
    """Write a folder: the tensors first, and the JSON, without which it is none, last.

    Args:
        folder: made if it is not there.
        defense: name.
        model: to which it was fitted.
        tensors: (K, ...) each.
        items: on which.
        more: how, and what there is to say about it; plain JSON values.
    """
    from safetensors.torch import save

    data = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    about = {
        "schema": SCHEMA,
        "defense": defense,
        "regap": __version__,
        "class": type(model.module).__name__,
        "host": None if model.host is None else model.host.name,
        **{name: model.fingerprint.get(name) for name in ("files", "template", "dtype", "attention")},
        "template_sha256": template_hash(model.fingerprint),
        "layers": len(next(iter(tensors.values()))),
        **more,
        "items": [asdict(item) for item in items],
        "tensors": hashlib.sha256(data).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    for name, content in ((TENSORS, data), (JSON, text.encode())):
        unfinished = folder / f".{name}"
        unfinished.write_bytes(content)
        unfinished.replace(folder / name)
    return Fit(folder, about)


def template_hash(target: Mapping[str, Any]) -> str:
    """SHA-256 of what the template makes of a question with a picture."""
    return hashlib.sha256(str(target.get("template_text")).encode()).hexdigest()
