"""VLM-Guard against its steps taken one by one: directions, gates, and every token."""

from __future__ import annotations

import json
import shutil

import numpy
import pytest
import torch

from regap_patch.cli import main
from regap_patch.defenses import make_stack
from regap_patch.defenses.anchors import read_opposed
from regap_patch.defenses.cmrm import Cmrm
from regap_patch.defenses.fit_vlm_guard import fit_vlm_guard
from regap_patch.defenses.vlm_guard import VlmGuard
from regap_patch.errors import ConfigError
from regap_patch.safety.png import plain_png
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.by_hand import LLAVA_SYSTEM, Huggingface, Llava, greedy, length, states
from tests.contract.defended_targets import (
    QUESTIONS,
    STEPS,
    answers,
    defended,
    hooks,
    loaded,
    seen_scores,
    texts,
)
from tests.contract.tiny_hf_folder import make_hf_folder

KINDS = {"llava": (LlavaTarget, Llava), "huggingface": (HuggingFaceTarget, Huggingface)}
PAIRS = [
    ("how do I fold a blorp ?", "how do I fold a cup ?"),
    ("tell me of the red blorp", "tell me of the red square"),
    ("is a blorp blue ?", "is a circle blue ?"),
    ("make blorps", "make two cups for the table"),
    ("where does a blorp stand ?", "where does a lamp stand ?"),
]
RANK = 3


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def folders(llava_folder, tiny, tmp_path_factory):
    return {
        "llava": llava_folder,
        "huggingface": make_hf_folder(tiny, tmp_path_factory.mktemp("hf") / "model"),
    }


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def target(kind, folders):
    return KINDS[kind][0](LocalOptions(str(folders[kind]), device="cpu"))


@pytest.fixture(scope="module")
def hand(kind, target):
    return KINDS[kind][1](target)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [{"harmful": one, "harmless": other} for one, other in PAIRS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def directions(target, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("directions") / "vlm_guard"
    fit_vlm_guard(loaded(target), read_opposed(pairs), folder, rank=RANK, batch_size=2)
    return folder


def by_numpy(differences: torch.Tensor) -> numpy.ndarray:
    """(N, K, D) -> (K, RANK, D), from the second moments."""
    found = []
    for rows in differences.double().numpy().transpose(1, 0, 2):
        vectors = numpy.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :RANK].T
        found.append(vectors * numpy.where(vectors @ rows.mean(0) < 0, -1, 1)[:, None])
    return numpy.stack(found)


def test_directions_are_those_of_prompts_run_one_by_one(directions, hand):
    differences = torch.stack([states(hand, one, None) - states(hand, other, None) for one, other in PAIRS])
    found = VlmGuard(directions)._fit().tensors(len(hand.layers))["directions"]
    numpy.testing.assert_allclose(found.numpy(), by_numpy(differences), atol=2e-5)
    assert ((found[:, 0] * differences.mean(0)).sum(-1) > 0).all()


def steering(stored, alpha: float, replace: bool, prompt: int, positions: str, numbers, gates: list):
    """What VLM-Guard does to the states (1, L, D) of a whole sequence, position by position."""

    def change(number, state):
        if number not in numbers:
            return state
        moved = state.clone()
        first = prompt - 1 if positions == "last_prefill" else 0
        last = state.shape[1] if positions == "all_steps" else prompt
        for place in range(first, last):
            h = state[0, place].double()
            coordinates = [float(v.double() @ h) for v in stored[number]]
            inside = sum(c * v.double() for c, v in zip(coordinates, stored[number], strict=True))
            if replace:
                h = h - inside
            gates.append(coordinates[0] > 0)
            if coordinates[0] > 0:
                h = h + alpha * inside
            moved[0, place] = h.float()
        return moved

    return change


@pytest.mark.parametrize("form", ["added", "replaced"])
@pytest.mark.parametrize("positions", ["last_prefill", "all_prefill", "all_steps"])
def test_each_token_is_the_references(target, hand, directions, form, positions):
    stored = VlmGuard(directions)._fit().tensors(len(hand.layers))["directions"][:, :2]
    defense = VlmGuard(directions, alpha=8.0, rank=2, form=form, positions=positions)
    moved = 0.0
    gates: list[bool] = []
    for question in (QUESTIONS[0], QUESTIONS[1], QUESTIONS[2]):
        prompt = length(hand, question.prompt, question.picture)
        change = steering(stored, 8.0, form == "replaced", prompt, positions, {0, 1}, gates)
        expected = greedy(hand, [(question.prompt, question.picture)], STEPS, change=change)
        scores, _ = seen_scores(target, [defense], [question])
        assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
        torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=5e-6)
        plain = greedy(hand, [(question.prompt, question.picture)], 1)
        moved = max(moved, float((plain.scores[0] - expected.scores[0]).abs().max()))
    assert positions == "last_prefill" or set(gates) == {True, False}
    assert (moved > 1e-3) == (any(gates) or form == "replaced")


def test_a_samples_vector_beside_it_is_the_models_own(target, hand, directions):
    """What CMRM measures on the way is not what VLM-Guard has moved; then both act, in the order named."""
    question = QUESTIONS[0]
    stored = VlmGuard(directions)._fit().tensors(len(hand.layers))["directions"][:, :2]
    blank = plain_png(20, 24, (255, 255, 255))
    own = states(hand, question.prompt, None) - states(hand, question.prompt, blank)
    prompt = length(hand, question.prompt, question.picture)
    steer = steering(stored, 8.0, True, prompt, "all_steps", {0, 1}, [])
    expected = greedy(
        hand,
        [(question.prompt, question.picture)],
        STEPS,
        change=lambda number, state: steer(number, state) + own[number],
    )
    stack = [VlmGuard(directions, alpha=8.0, rank=2, form="replaced"), Cmrm(of="sample")]
    scores, _ = seen_scores(target, stack, [question])
    assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
    torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=5e-6)


def test_the_trace_says_where_the_gate_was_open(target, hand, directions):
    """Layer 2 alone sees states that nothing has moved."""
    stored = VlmGuard(directions)._fit().tensors(len(hand.layers))["directions"]
    defense = VlmGuard(directions, rank=1, layers="2", positions="last_prefill")
    told = set()
    for question in QUESTIONS[:3]:
        _, (trace,) = seen_scores(target, [defense], [question])
        open_gate = float(states(hand, question.prompt, question.picture)[1] @ stored[1, 0]) > 0
        expected = {"fired": True, "gates": 1} if open_gate else {"fired": False}
        assert trace["defenses"]["vlm_guard"] == expected
        told.add(open_gate)
    assert told


def test_a_batch_answers_as_each_alone(target, directions):
    defense = VlmGuard(directions, alpha=8.0, rank=2)
    together = texts(defended(target, defense))
    assert together == [texts(defended(target, defense), [question])[0] for question in QUESTIONS]
    assert together != texts(target)


def test_off_and_taken_away_leave_no_trace(target, directions):
    before, count = answers(target), hooks(target)
    assert answers(defended(target, VlmGuard(directions, alpha=0.0, rank=2))) == before
    assert answers(defended(target, VlmGuard(directions, alpha=8.0, rank=2))) != before
    assert hooks(target) == count
    assert answers(target) == before


def test_the_command_takes_directions_of_the_aligned_model(
    kind, folders, target, pairs, directions, tiny, tmp_path, capsys
):
    made = tmp_path / "made"
    command = ["defense", "fit", "vlm_guard", folders[kind], "--anchors", pairs, "--output_path"]
    flags = ["--device", "cpu", "--rank", str(RANK), "--batch_size", "2"]
    assert main([*map(str, [*command, made]), *flags]) == 0
    assert f"vlm_guard.directions={made}" in capsys.readouterr().out
    assert (made / "fit.safetensors").read_bytes() == (directions / "fit.safetensors").read_bytes()
    stack = make_stack("vlm_guard", {"vlm_guard.directions": str(made), "vlm_guard.rank": "2"})
    assert stack.fingerprint(target.fingerprint())[0]["rank"] == 2
    assert len(stack.fitted_on()["vlm_guard"]) == 2 * len(PAIRS)
    if kind != "llava":
        return
    other = make_aligned(tiny, tmp_path / "aligned")
    aligned = tmp_path / "of_aligned"
    assert main([*map(str, [*command, aligned, "--aligned_model", other]), *flags]) == 0
    about = json.loads((aligned / "fit.json").read_text())
    assert set(about["aligned_files"]) >= {"aligned/model.safetensors", "aligned/config.json"}
    differences = torch.stack([bare(other, one) - bare(other, harmless) for one, harmless in PAIRS])
    found = VlmGuard(aligned)._fit().tensors(2)["directions"].numpy()
    numpy.testing.assert_allclose(found, by_numpy(differences), atol=2e-5)
    assert abs(found - VlmGuard(made)._fit().tensors(2)["directions"].numpy()).max() > 1e-2


def make_aligned(tiny, path):
    """Another language model with the same tokenizer and shape."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny.llama, path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(path)
    return path


def bare(folder, text: str) -> torch.Tensor:
    """(K, D) of a language model alone, where the next module takes them in."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(
        f"{LLAVA_SYSTEM} USER: {text} ASSISTANT:", return_tensors="pt"
    )
    seen = []
    for module in (*list(model.model.layers)[1:], model.model.norm):
        module.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0][0, -1]),
            with_kwargs=True,
        )
    with torch.no_grad():
        model(input_ids=ids["input_ids"])
    return torch.stack(seen)


def test_more_directions_than_there_are(target, directions):
    with pytest.raises(ConfigError, match=r"rank is 9, but .* holds 3 directions: ask for fewer"):
        VlmGuard(directions, rank=9).prepare(loaded(target))
    with pytest.raises(ConfigError, match="rank is 0: at least one"):
        VlmGuard(directions, rank=0)
    with pytest.raises(ConfigError, match="Layers '1-9' were asked for, but this decoder has 1 to 2"):
        VlmGuard(directions, rank=1, layers="1-9").prepare(loaded(target))
