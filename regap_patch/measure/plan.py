"""What MIR costs before it is run: operations and bytes, from the shapes alone.

Axes: K layers, D width, n rows of both modalities, L positions of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from regap_patch.errors import MeasureError


@dataclass(frozen=True)
class Shape:
    """A LLaVA v1.5: its language model and its tower.

    Attributes:
        layers: K.
        width: D.
        inner: width inside a layer's gated feed-forward part.
        tower_layers: of the ViT that run (the last is not needed).
        tower_width: of the ViT.
        image_tokens: patches of an image.
    """

    layers: int
    width: int
    inner: int
    tower_layers: int = 23
    tower_width: int = 1024
    image_tokens: int = 576

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer: four D x D and three D x inner matrices."""
        return 4 * self.width**2 + 3 * self.width * self.inner


SHAPES = {"7b": Shape(32, 4096, 11008), "13b": Shape(40, 5120, 13824)}
HALF, DOUBLE = 2, 8  # bytes of a number


@dataclass(frozen=True)
class Plan:
    """Operations (multiplications and additions) and bytes of one measurement.

    Attributes:
        forward: operations of the decoder's layers.
        tower: operations of the vision tower.
        covariances: operations of the symmetric products, all layers.
        roots: operations of the trace terms: Cholesky, triangular product, eigenvalues.
        errors: operations of the closed-form error bar on top.
        states: bytes that layer-major evaluation holds.
        stored: bytes that storing every state would hold.
        matrices: bytes of D x D matrices at work.
        layer: bytes of one layer's weights, all that `--offload` needs of the decoder.
        rows: image rows and text rows.
    """

    forward: int
    tower: int
    covariances: int
    roots: int
    errors: int
    states: int
    stored: int
    matrices: int
    layer: int
    rows: tuple[int, int]

    @property
    def share(self) -> float:
        """The metric's operations as a part of those of the forward passes."""
        return (self.covariances + self.roots) / (self.forward + self.tower)

    @property
    def share_with_errors(self) -> float:
        """The same with the error bar."""
        return (self.covariances + self.roots + self.errors) / (self.forward + self.tower)


def plan_mir(size: str, *, pairs: int = 100, text_tokens: int = 700, prompt_tokens: int = 35) -> Plan:
    """Count for a LLaVA v1.5 of this size.

    Args:
        size: a key of `SHAPES`.
        pairs: how many.
        text_tokens: of a text, on average.
        prompt_tokens: before the image, dropped from the rows.

    Raises:
        MeasureError: another size.
    """
    if size not in SHAPES:
        raise MeasureError(f"A plan for {size!r} was asked for: choose one of {', '.join(SHAPES)}.")
    shape = SHAPES[size]
    length = prompt_tokens + shape.image_tokens + text_tokens
    rows = (pairs * shape.image_tokens, pairs * text_tokens)
    total, depth, width = sum(rows), shape.layers, shape.width
    patches = shape.image_tokens + 1
    square = width * width
    return Plan(
        forward=pairs * depth * (2 * shape.layer_parameters * length + 4 * length**2 * width),
        tower=pairs
        * shape.tower_layers
        * (2 * 12 * shape.tower_width**2 * patches + 4 * patches**2 * shape.tower_width),
        covariances=depth * total * square,
        roots=depth * width * square * 3,  # 1/3 Cholesky + 4/3 product + 4/3 eigenvalues
        errors=depth * (2 * total * square + 9 * width * square),  # both maps, and eigenvectors
        states=pairs * length * width * HALF,
        stored=pairs * (depth + 1) * length * width * HALF,
        matrices=4 * square * DOUBLE,
        layer=shape.layer_parameters * HALF,
        rows=rows,
    )


def plan_table(size: str, *, pairs: int = 100, text_tokens: int = 700) -> str:
    """The plan as text."""
    found = plan_mir(size, pairs=pairs, text_tokens=text_tokens)
    lines = [
        f"LLaVA-1.5-{size}, {pairs} pairs, texts of {text_tokens} tokens: {found.rows[0]} image rows, "
        f"{found.rows[1]} text rows a layer",
        f"forward passes          {found.forward / 1e15:9.2f} PFLOP (+{found.tower / 1e15:.2f} in the tower)",
        f"covariances             {found.covariances / 1e12:9.1f} TFLOP",
        f"matrix roots            {found.roots / 1e12:9.1f} TFLOP",
        f"metric / forward        {found.share:9.1%}",
        f"  with error bars       {found.share_with_errors:9.1%}  (+{found.errors / 1e12:.1f} TFLOP)",
        f"states, layer by layer  {found.states / 1e9:9.2f} GB",
        f"states, all stored      {found.stored / 1e9:9.2f} GB ({found.stored / found.states:.0f} times)",
        f"matrices at work        {found.matrices / 1e9:9.2f} GB",
        f"one layer's weights     {found.layer / 1e9:9.2f} GB (with --offload all that is on the device of "
        f"the decoder)",
    ]
    return "\n".join(lines)
