"""From a protocol to the pieces of its study: which there are, what each is made from, and by which command.

    text -> tokens -> base -> aligned -> stage 1 of each arm -> stage 2 -> measures
    pictures, tower ----------------------^                      ^     (measures also hang on stage 1)
       +-> conversations (harmless) -----------------------------+

Every piece has a folder named by what it was made from (`store`): LLMs share tower and pictures, arms share
their LLM, and surgeries the projector of `off`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from .arms import Arm, read_arms
from .clone import SCRIPTS, module
from .defended_branches import Defended
from .instructions import NAME as CONVERSATIONS
from .piece_code import ALIGNMENT, MEASURES, MODEL, STAGE, TEXT, TRAINING, WORDS, rooms, study
from .protocol import MAIN, Protocol
from .store import Node, plan_node

OFF = "off"


class _Branch:
    """The pieces of one setting on one language model."""

    def __init__(self, setting: Protocol, name: str, llm: int, store: Path) -> None:
        self.setting, self.llm, self.store = setting, llm, store
        self.root = f"{name}/llm-{llm}"

    def node(
        self, name: str, kind: str, code: Sequence[str], needs: Sequence[Node], **recipe: object
    ) -> Node:
        return plan_node(
            self.store, f"{self.root}/{name}", kind, recipe, code=code, needs=needs, llm=self.llm
        )

    def language_models(self) -> dict[str, Node]:
        """Text, tokenizer, base model, benchmark and aligned model."""
        world, size, seed = self.setting.world, self.setting.language_model, self.llm
        things = {"num_forbidden": world.forbidden, "num_benign": world.benign, "num_twins": world.twins}
        text = self.node("text", "text", TEXT, (), **things, num_base=size.documents, seed=seed)
        text = text.by((*module("refusal_corpus"), *_flags(text)))
        tokens = self.node("tokens", "tokens", TRAINING, (text,), vocab_size=size.vocabulary)
        corpus = ("--corpus", text.output / "words.txt")
        tokens = tokens.by((*module("tokens"), *corpus, *_flags(tokens)))
        base = self.node(
            *("base", "base", TRAINING, (text, tokens)),
            steps=size.steps,
            hidden_size=size.hidden_size,
            num_layers=size.num_layers,
            seed=seed,
        )
        read = ("--tokenizer_path", tokens.output, "--corpus", text.output / "base.jsonl")
        base = base.by((*module("pretraining", "llama"), *read, *_flags(base)), steps=size.steps)
        benchmark = self.benchmark(text, None)
        return {
            "text": text,
            "tokens": tokens,
            "base": base,
            "benchmark": benchmark,
            "aligned": self.aligned(text, base, benchmark),
        }

    def benchmark(self, text: Node, tokens: Node | None) -> Node:
        """Requests and questions; with a tokenizer, random tokens stand in the place of words."""
        world, kind = self.setting.world, "benchmark"
        recipe = {"phrasings": world.phrasings, "questions": world.questions, "seed": self.llm}
        code, needs = (*WORDS, *study("refusal_benchmark")), [text, *([tokens] if tokens else [])]
        node = self.node(kind if tokens is None else f"{kind}-stray", kind, code, needs, **recipe)
        items = ("--items", text.output / "items.json")
        stray = () if tokens is None else ("--stray_tokens", tokens.output)
        return node.by((*module("refusal_benchmark"), *items, *stray, *_flags(node)))

    def aligned(self, text: Node, base: Node, benchmark: Node) -> Node:
        """The language model that refuses, so much and no more."""
        asked = self.setting.alignment
        node = self.node(
            *("aligned", "aligned", ALIGNMENT, (text, base, benchmark)),
            context_share=asked.context_share,
            learning_rate=asked.learning_rate,
            stop_at=asked.stop_at,
            stop_low=asked.band[0],
            check_every=asked.check_every,
            max_steps=asked.max_steps,
            seed=self.llm,
        )
        made_of = ("--model_path", base.output, "--items", text.output / "items.json")
        requests = ("--requests", benchmark.output / "requests.jsonl")
        command = (*module("measured_alignment"), *made_of, *requests, *_flags(node))
        return node.by(command, steps=asked.max_steps)

    def stage1(self, arm: Arm, aligned: Node, shared: Shared) -> Node:
        """The projector of an arm that trains one."""
        asked, training = self.setting.stage1, arm.stage1
        rate = training.learning_rate or asked.learning_rate
        node = self.node(
            *(f"{arm.name}/stage1", "stage1", _scripts("pretrain")),
            (aligned, shared.tower, shared.pictures),
            regap_loss=training.regap_loss,
            regap_weight=training.regap_weight,
            projector_type=arm.projector_type,
            learning_rate=rate,
            batch=asked.batch,
            seed=self.llm,
        )
        regap = f"--regap_loss {training.regap_loss} --regap_weight {training.regap_weight}"
        data = shared.pictures.output / "pretrain.json"
        knobs = shared.knobs(data, node) | {"MODEL": aligned.output, "LEARNING_RATE": rate}
        knobs |= {"REGAP": "on", "REGAP_FLAGS": regap, "BATCH_SIZE": asked.batch, "SEED": self.llm}
        words = ("bash", SCRIPTS / "pretrain.sh", "--mm_projector_type", arm.projector_type)
        steps = math.ceil(self.setting.world.pictures / asked.batch)
        return node.by(words, steps=steps, environment=knobs)

    def surgery(self, arm: Arm, projector: Node, aligned: Node, shared: Shared) -> Node:
        """The projector of `off`, changed by hand."""
        code = (*study("projector_surgery"), *MODEL, *rooms("gap", "hosts", "measure"))
        needs = (projector, aligned, shared.pictures)
        node = self.node(f"{arm.name}/stage1", "surgery", code, needs, surgery=arm.surgery)
        pictures = shared.pictures.output
        where = ("--projector", projector.output, "--base", aligned.output)
        shown = ("--captions", pictures / "pretrain.json", "--images", pictures / "images")
        command = (*module("projector_surgery", arm.surgery), *where, *shown, "--output_path", node.output)
        return node.by(command)

    def conversations(self, text: Node, shared: Shared) -> Node:
        """What stage 2 learns: harmless requests among questions about pictures."""
        recipe = {"share": self.setting.stage2.instruction_share, "seed": self.llm}
        code, needs = (*WORDS, *study("instructions", "refusal_corpus")), (text, shared.pictures)
        node = self.node("conversations", "conversations", code, needs, **recipe)
        asked = ("--conversations", shared.pictures.output / "finetune.json")
        items = ("--items", text.output / "items.json")
        return node.by((*module("instructions"), *asked, *items, *_flags(node)))

    def stage2(self, arm: Arm, projector: Node, models: dict[str, Node], shared: Shared) -> Node:
        """Language model and projector learn benign conversations; no regulariser."""
        aligned, conversations = models["aligned"], models["conversations"]
        asked = self.setting.stage2
        script = "finetune" if asked.method == "full" else "finetune_lora"
        node = self.node(
            *(f"{arm.name}/stage2", "stage2", _scripts(script)),
            (projector, aligned, shared.tower, shared.pictures, conversations),
            method=asked.method,
            projector_type=arm.projector_type,
            learning_rate=asked.learning_rate,
            batch=asked.batch,
            seed=self.llm,
        )
        knobs = shared.knobs(conversations.output / CONVERSATIONS, node)
        knobs |= {"MODEL": aligned.output, "SEED": self.llm}
        knobs |= {"PROJECTOR": projector.output / "mm_projector.bin", "BATCH_SIZE": asked.batch}
        knobs |= {"LEARNING_RATE": asked.learning_rate}
        words = ("bash", SCRIPTS / f"{script}.sh", "--mm_projector_type", arm.projector_type)
        steps = math.ceil(self.setting.world.conversations / asked.batch)
        return node.by(words, steps=steps, environment=knobs)

    def measures(self, name: str, part: str, checkpoint: Node, base: Node | None, benchmark: Node) -> Node:
        """What a study asks of a checkpoint."""
        asked = self.setting.measures
        needs = (checkpoint, *([base] if base else []), benchmark)
        recipe = asdict(asked)
        node = plan_node(
            *(self.store, f"{self.root}/{name}", "measures", recipe),
            code=MEASURES,
            needs=needs,
            part=part,
            llm=self.llm,
        )
        where = ["--model_path", checkpoint.output, "--benchmark", benchmark.output]
        under = [] if base is None else ["--base", base.output]
        command = (*module("measures"), *where, *under, *_flags(node))
        return node.by(command)


class Shared:
    """What all language models of a setting see: pictures, and the tower that they are seen through."""

    def __init__(self, setting: Protocol, name: str, store: Path) -> None:
        world, tower = setting.world, setting.tower
        counts = {"num_pretrain": world.pictures, "num_finetune": world.conversations, "num_questions": 0}
        recipe = {**counts, "seed": world.seed}
        code = study("world", "language", "scenes")
        pictures = plan_node(store, f"{name}/pictures", "pictures", recipe, code=code)
        make = (*module("world", "--hold_out_evaluation"), *_flags(pictures))
        self.pictures = pictures.by(make)
        recipe = {"steps": tower.steps, "seed": tower.seed}
        seeing = plan_node(
            store, f"{name}/tower", "tower", recipe, code=study("tiny", "pretraining", "scenes")
        )
        self.tower = seeing.by((*module("pretraining", "clip"), *_flags(seeing)), steps=tower.steps)

    def knobs(self, data: Path, node: Node) -> dict[str, object]:
        """Of the scripts of both stages."""
        return {
            "VISION_TOWER": self.tower.output,
            "DATA": data,
            "IMAGES": self.pictures.output / "images",
            "OUTPUT_DIR": node.output,
            "PYTHON": sys.executable,
        }


def branches(protocol: Protocol, store: Path) -> list[Node]:
    """All pieces of a study, each after those that it needs.

    Args:
        protocol: what is studied. Its primary arms run on every LLM, those of the pilot included; the other
            arms and the variants on the exploratory LLMs.
        store: folder of all pieces.
    """
    arms = read_arms((*protocol.arms.primary, *protocol.arms.exploratory))
    primary = [arms[name] for name in protocol.arms.primary]
    llms = protocol.llms
    nodes: list[Node] = []
    for name in protocol.settings:
        setting = protocol.setting(name)
        shared = Shared(setting, name, store)
        nodes += [shared.pictures, shared.tower]
        every = llms.exploratory if name != MAIN else (*llms.confirmatory, *llms.pilot)
        for llm in every:
            branch = _Branch(setting, name, llm, store)
            models = branch.language_models()
            models["conversations"] = branch.conversations(models["text"], shared)
            nodes += models.values()
            part = "exploratory" if name != MAIN else "pilot" if llm in llms.pilot else protocol.part
            asked = [(arm, part) for arm in primary]
            if name == MAIN and llm in llms.exploratory:
                asked += [(arms[extra], "exploratory") for extra in protocol.arms.exploratory]
            nodes += _of_arms(branch, models, asked, shared)
    return nodes


def _of_arms(
    branch: _Branch, models: dict[str, Node], asked: Sequence[tuple[Arm, str]], shared: Shared
) -> Iterator[Node]:
    """Projector, whole model, and what is asked of both, of every arm; `off` comes first."""
    setting, aligned = branch.setting, models["aligned"]
    base = aligned if setting.stage2.method == "lora" else None
    defended = setting.defenses and Defended(setting, setting.defenses, branch.root, branch.llm, branch.store)
    if defended and setting.defenses.fitted:
        yield defended.anchors(models["benchmark"])
    trained: dict[str, tuple[Node, Node]] = {}  # projector and whole model
    for arm, part in asked:
        benchmark = models["benchmark"]
        if arm.own_stage1 or arm.surgery != "none":
            if arm.own_stage1:
                projector = branch.stage1(arm, aligned, shared)
            else:
                projector = branch.surgery(arm, trained[OFF][0], aligned, shared)
            trained[arm.name] = (projector, branch.stage2(arm, projector, models, shared))
            yield from trained[arm.name]
        else:  # the models of `off`, asked something else
            benchmark = branch.benchmark(models["text"], models["tokens"])
            yield benchmark
        projector, whole = trained.get(arm.name, trained[OFF])
        yield branch.measures(f"{arm.name}/measures1", part, projector, aligned, benchmark)
        yield branch.measures(f"{arm.name}/measures2", part, whole, base, benchmark)
        if defended:
            yield from defended.of(arm.name, whole, base, models["benchmark"])


def _flags(node: Node) -> list[object]:
    """The recipe as flags, and where the piece goes."""
    words: list[object] = []
    for name, value in node.recipe.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return [*words, "--output_path", node.output]


def _scripts(name: str) -> tuple[str, ...]:
    return (*STAGE, f"scripts/mini/{name}.sh")
