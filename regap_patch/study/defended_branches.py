"""The pieces of a study with defences: anchors and vectors of CMRM, and the answers of defended models.

    benchmark -> anchors -> fit -+
    stage 2 ----------------^----+-> defended, one for each stack

They are made by the commands that users have: `regap defense fit`, `regap eval run` and `regap eval judge`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .clone import module
from .defense_anchors import ANCHORS
from .defense_settings import CMRM, VECTORS, DefensesSetting, Stacked
from .piece_code import DEFENDED, study
from .protocol import Protocol
from .store import REPOSITORY, Node, plan_node

SCRIPT = "scripts/study/defended.sh"
RUN = "run"
_CODE = {
    "anchors": study("defense_anchors"),
    "fit": (*DEFENDED, "regap_patch/commands/defense_fit.py"),
    "defended": (*DEFENDED, "regap_patch/commands/judging.py", SCRIPT),
}


class Defended:
    """What a study asks of the defended models of one language model.

    Args:
        protocol: what is studied, with defences.
        asked: those defences.
        root: branch of the language model.
        llm: its seed.
        store: folder of all pieces.
    """

    def __init__(self, protocol: Protocol, asked: DefensesSetting, root: str, llm: int, store: Path) -> None:
        self._measures, self._asked = protocol.measures, asked
        self._root, self._llm, self._store = root, llm, store

    def _node(
        self, name: str, kind: str, needs: Sequence[Node], *, code: Sequence[str] = (), **recipe: object
    ) -> Node:
        part = "exploratory" if kind == "defended" else ""
        return plan_node(
            *(self._store, f"{self._root}/{name}", kind, recipe),
            code=(*_CODE[kind], *code),
            needs=needs,
            part=part,
            llm=self._llm,
        )

    def anchors(self, benchmark: Node) -> Node:
        """What vectors are fitted on; all arms share it."""
        node = self._node("anchors", "anchors", (benchmark,))
        flags = ("--benchmark", benchmark.output, "--output_path", node.output)
        return node.by(module("defense_anchors", *flags))

    def of(self, arm: str, checkpoint: Node, base: Node | None, benchmark: Node) -> Iterator[Node]:
        """Vectors where a stack needs them, and the run of every stack.

        Args:
            arm: name.
            checkpoint: whole model, or an adapter.
            base: the language model under an adapter.
            benchmark: what is asked.
        """
        under = [base] if base else []
        vectors = self._fit(arm, checkpoint, under, self.anchors(benchmark))
        if self._asked.fitted:
            yield vectors
        for stacked in self._asked.stacks:
            yield self._run(arm, stacked, [checkpoint, *under, benchmark], vectors)

    def _fit(self, arm: str, checkpoint: Node, under: Sequence[Node], anchors: Node) -> Node:
        batch = self._measures.batch
        node = self._node(f"{arm}/{CMRM}", "fit", (checkpoint, *under, anchors), defense=CMRM, batch=batch)
        words: list[object] = [sys.executable, "-m", "regap_patch.cli", "defense", "fit", CMRM]
        words += [checkpoint.output, "--anchors", anchors.output / ANCHORS, "--batch_size", batch]
        words += ["--device", "cpu", "--offline", "--output_path", node.output]
        if under:
            words += ["--model_args", f"base={under[0].output}"]
        return node.by(words)

    def _run(self, arm: str, stacked: Stacked, needs: list[Node], vectors: Node) -> Node:
        measures, modes = self._measures, self._asked.image_modes
        settings = stacked.settings() + ([f"{VECTORS}={vectors.output}"] if stacked.fitted else [])
        node = self._node(
            *(f"{arm}/defended/{stacked.name}", "defended", [*needs, *([vectors] if stacked.fitted else [])]),
            code=tuple(stacked.files()),
            defense=stacked.stack,
            args=list(stacked.args),
            image_modes=list(modes),
            batch=measures.batch,
            max_new_tokens=measures.max_new_tokens,
        )
        checkpoint, *under, benchmark = needs
        knobs: dict[str, object] = {"MODEL": checkpoint.output, "DATA": benchmark.output}
        knobs |= {"MODEL_BASE": under[0].output if under else ""}
        knobs |= {"DEFENSE": stacked.stack, "DEFENSE_ARGS": ",".join(settings)}
        knobs |= {"IMAGE_MODE": ",".join(modes), "BATCH_SIZE": measures.batch}
        knobs |= {"MAX_NEW_TOKENS": measures.max_new_tokens}
        knobs |= {"OUTPUT_DIR": node.output / RUN, "PYTHON": sys.executable}
        return node.by(("bash", REPOSITORY / SCRIPT), environment=knobs)
