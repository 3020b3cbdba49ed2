"""CMRM against its steps taken one by one: the vectors, the hooked states, and every token."""

from __future__ import annotations

import json

import pytest
import torch

from regap_patch.cli import main
from regap_patch.defenses import Notes, make_stack
from regap_patch.defenses.anchors import read_anchors
from regap_patch.defenses.cmrm import Cmrm
from regap_patch.defenses.fit_cmrm import fit_cmrm
from regap_patch.errors import DefenseError
from regap_patch.safety.image_modes import SIDE
from regap_patch.safety.png import plain_png
from regap_patch.safety.target import Question
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.by_hand import Huggingface, Llava, greedy, length, states
from tests.contract.defended_targets import (
    PICTURES,
    QUESTIONS,
    STEPS,
    answers,
    defended,
    hooks,
    loaded,
    seen_scores,
    texts,
    turns_of,
)
from tests.contract.tiny_hf_folder import make_hf_folder
from tests.unit.evaluation_items import noisy_picture

KINDS = {
    "llava": (LlavaTarget, Llava),
    "huggingface": (HuggingFaceTarget, Huggingface),
    "llava_next": (HuggingFaceTarget, Huggingface),
}
ANCHORS = ["what is it ?", "how do I fold the red square here ?", "fold this blue thing", "is it a cup ?"]
SIZES = [(20, 24), (24, 20), (30, 24), (24, 24)]


def blank(width: int, height: int) -> bytes:
    return plain_png(width, height, (255, 255, 255))


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def folders(llava_folder, tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("hf")
    return {
        "llava": llava_folder,
        "huggingface": make_hf_folder(tiny, root / "llava"),
        "llava_next": make_hf_folder(tiny, root / "next", anyres=True),
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
def anchors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anchors")
    for number, size in enumerate(SIZES):
        (folder / f"{number}.png").write_bytes(noisy_picture(*size, number))
    lines = [
        {"uid": f"made/test/{number}", "text": text, "image": f"{number}.png"}
        for number, text in enumerate(ANCHORS)
    ]
    lines[3].pop("image")
    path = folder / "anchors.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def vectors(target, anchors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "cmrm"
    fit_cmrm(loaded(target), read_anchors(anchors), folder, batch_size=3)
    return folder


@pytest.fixture(scope="module")
def differences(hand):
    """(N, K, D), each anchor by itself."""
    sizes = [*SIZES[:3], (SIDE, SIDE)]
    return torch.stack(
        [
            states(hand, text, None) - states(hand, text, blank(*size))
            for text, size in zip(ANCHORS, sizes, strict=True)
        ]
    )


# ---- vectors


def test_the_mean_is_that_of_prompts_run_one_by_one(vectors, differences, hand):
    found = Cmrm(vectors)._fit().tensors(len(hand.layers))
    torch.testing.assert_close(found["mean"], differences.mean(0), rtol=0, atol=1e-6)
    assert found["mean"].norm(dim=-1).min() > 0.01, "a picture moves the states"


def test_the_component_is_numpys(vectors, differences, hand):
    import numpy

    found = Cmrm(vectors)._fit().tensors(len(hand.layers))["pca"].numpy()
    for layer in range(len(hand.layers)):
        rows = differences[:, layer].double().numpy()
        first = numpy.linalg.svd(rows)[2][0]
        mean = rows.mean(0)
        first *= numpy.sign(first @ mean) * numpy.linalg.norm(mean)
        numpy.testing.assert_allclose(found[layer], first, atol=2e-6)


def test_what_a_fit_says_about_itself(vectors, target, hand, anchors):
    about = json.loads((vectors / "fit.json").read_text())
    fingerprint = target.fingerprint()
    assert about["files"] == fingerprint["files"]
    assert (about["layers"], about["image"]) == (len(hand.layers), "blank")
    assert [item["uid"] for item in about["items"]] == [f"made/test/{number}" for number in range(4)]
    assert [item["text"] for item in about["items"]] == ANCHORS
    assert about["items"][3]["picture_sha256"] is None
    prompts = about["prompts"]
    assert prompts["beside_a_picture"]["text"].replace("<image>\n", "") == prompts["text_alone"]["text"]
    assert about["placeholder"] == "<image>\n"
    for side, picture in (("beside_a_picture", blank(*SIZES[0])), ("text_alone", None)):
        assert prompts[side]["positions"] == length(hand, ANCHORS[0], picture)
    layers = about["per_layer"]
    assert [layer["layer"] for layer in layers] == list(range(1, len(hand.layers) + 1))
    assert all(0 < layer["first_component"] <= 1 and 0 < layer["cosine_with_mean"] <= 1 for layer in layers)


# ---- hooked states


def hooked_states(target, hand, defense, question):
    """(K, D) where the next module takes them in, at the last position of the prompt."""
    seen = []
    takers = [*list(hand.layers)[1:], hand.norm]

    def look(module, args, kwargs):
        seen.append((args[0] if args else kwargs["hidden_states"])[0, -1].clone())

    model = loaded(target)
    defense.prepare(model)
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        real = target.new_ids

        def new_ids(*args):
            calls.append(args)
            handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in takers]
            try:
                return real(*args)
            finally:
                for handle in handles:
                    handle.remove()

        patch.setattr(target, "new_ids", new_ids)
        seen_scores(target, [defense], [question], model=model)
    assert len(calls) == 1
    return torch.stack(seen[: len(takers)])


@pytest.mark.parametrize("layer", [0, 1])
def test_on_the_blank_picture_itself_a_samples_vector_gives_the_state_of_the_text(target, hand, layer):
    text, picture = "how do I fold this ?", blank(24, 20)
    alone, beside = states(hand, text, None), states(hand, text, picture)
    assert (alone[layer] - beside[layer]).abs().max() > 1e-3
    defense = Cmrm(of="sample", layers=str(layer + 1), positions="last_prefill")
    found = hooked_states(target, hand, defense, Question(text, picture))
    torch.testing.assert_close(found[layer], alone[layer], rtol=0, atol=1e-6)
    if layer:
        torch.testing.assert_close(found[0], beside[0], rtol=0, atol=1e-6)


def test_shifts_of_several_layers_add_up_along_the_residual_stream(target, hand):
    """A second layer that writes nothing hands the first one's shift on, and then adds it once more."""
    text, picture = "how do I fold this ?", blank(24, 20)
    second = hand.layers[1]
    silent = [second.self_attn.o_proj.weight, second.mlp.down_proj.weight]
    before = [weight.detach().clone() for weight in silent]
    try:
        for weight in silent:
            weight.data.zero_()
        alone, beside = states(hand, text, None), states(hand, text, picture)
        vector = alone[0] - beside[0]
        torch.testing.assert_close(alone[1] - beside[1], vector)
        defense = Cmrm(of="sample", layers="all", positions="last_prefill")
        found = hooked_states(target, hand, defense, Question(text, picture))
        torch.testing.assert_close(found[0], alone[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(found[1], alone[1] + vector, rtol=0, atol=1e-6)
    finally:
        for weight, was in zip(silent, before, strict=True):
            weight.data.copy_(was)


# ---- every token


def moving(vectors, prompt: int, positions: str, numbers):
    """What CMRM does to the states (1, L, D) of a whole sequence."""

    def change(number, state):
        if number not in numbers:
            return state
        where = {
            "last_prefill": slice(prompt - 1, prompt),
            "all_prefill": slice(0, prompt),
            "all_steps": slice(0, None),
        }[positions]
        moved = state.clone()
        moved[:, where] += vectors[number]
        return moved

    return change


@pytest.mark.parametrize("positions", ["last_prefill", "all_prefill", "all_steps"])
@pytest.mark.parametrize("vector", ["mean", "pca"])
def test_each_token_is_the_references(target, hand, vectors, positions, vector):
    stored = 3.0 * Cmrm(vectors)._fit().tensors(len(hand.layers))[vector]
    defense = Cmrm(vectors, vector=vector, alpha=3.0, positions=positions)
    for question in (QUESTIONS[0], QUESTIONS[1]):
        prompt = length(hand, question.prompt, question.picture)
        change = moving(stored, prompt, positions, range(len(hand.layers)))
        expected = greedy(hand, [(question.prompt, question.picture)], STEPS, change=change)
        scores, traces = seen_scores(target, [defense], [question])
        assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
        torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=1e-6)
        assert traces[0]["defenses"]["cmrm"] == {"fired": True}
        plain = greedy(hand, [(question.prompt, question.picture)], STEPS)
        assert (plain.scores - expected.scores).abs().max() > 1e-2


def test_each_token_with_a_samples_own_vector(target, hand):
    question = QUESTIONS[1]
    width, height = 24, 24
    own = states(hand, question.prompt, None) - states(hand, question.prompt, blank(width, height))
    prompt = length(hand, question.prompt, question.picture)
    change = moving(own, prompt, "all_steps", [1])
    expected = greedy(hand, [(question.prompt, question.picture)], STEPS, change=change)
    scores, traces = seen_scores(target, [Cmrm(of="sample", layers="2")], QUESTIONS[1:2])
    assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
    torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=1e-6)
    assert traces[0]["defenses"]["cmrm"] == {"fired": True, "prefills": 2}


def test_the_cache_changes_nothing(target, vectors):
    real = target.new_ids

    def uncached(asked, given, most):
        return real(asked, {**given, "use_cache": False}, most)

    for positions in ("last_prefill", "all_prefill", "all_steps"):
        defense = Cmrm(vectors, alpha=3.0, positions=positions)
        with_cache, _ = seen_scores(target, [defense], QUESTIONS[:2])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, "new_ids", uncached)
            without, _ = seen_scores(target, [defense], QUESTIONS[:2])
        torch.testing.assert_close(with_cache, without, rtol=0, atol=1e-6)


# ---- manners


@pytest.fixture(params=["dataset", "sample"])
def defense(request, vectors):
    return Cmrm(vectors, alpha=3.0) if request.param == "dataset" else Cmrm(of="sample", image="noise")


def test_a_batch_answers_as_each_alone(target, defense):
    together = texts(defended(target, defense))
    assert together == [texts(defended(target, defense), [question])[0] for question in QUESTIONS]
    assert together != texts(target)


def test_text_alone_passes_with_every_bit(target, kind, defense):
    blind = [question for question in QUESTIONS if question.picture is None]
    expected, _ = seen_scores(target, [], blind)
    found, traces = seen_scores(target, [defense], blind)
    assert torch.equal(found, expected)
    assert [trace["defenses"]["cmrm"] for trace in traces] == [{"fired": False}] * 2
    if kind == "llava":  # one pass takes both kinds
        mixed = [QUESTIONS[2], QUESTIONS[0], QUESTIONS[3]]
        before, _ = seen_scores(target, [], mixed)
        after, _ = seen_scores(target, [defense], mixed)
        assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
        assert not torch.equal(after[:, 1], before[:, 1])


def test_off_and_taken_away_leave_no_trace(target, vectors, defense):
    before, count = answers(target), hooks(target)
    assert answers(defended(target, Cmrm(vectors, alpha=0.0))) == before
    assert answers(defended(target, defense)) != before
    assert hooks(target) == count
    assert answers(target) == before


def test_in_half_precision(kind, folders, target, vectors):
    half = KINDS[kind][0](LocalOptions(str(folders[kind]), device="cpu", dtype="bfloat16"))
    plain, _ = seen_scores(half, [], QUESTIONS[:2])
    found, _ = seen_scores(half, [Cmrm(vectors, alpha=3.0)], QUESTIONS[:2])
    whole, _ = seen_scores(target, [Cmrm(vectors, alpha=3.0)], QUESTIONS[:2])
    assert (found[0] - whole[0]).abs().max() < 0.05 < (found[0] - plain[0]).abs().max()


def test_an_error_within_leaves_no_hook(target, defense):
    count = hooks(target)
    model = loaded(target)
    defense.prepare(model)

    def fails(turns, **options):
        assert hooks(target) > count
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        defense.around(turns_of(QUESTIONS[:2]), fails, Notes(2))
    assert hooks(target) == count


def test_the_text_alone_has_neither_placeholder_nor_newline(kind, target):
    model = loaded(target)
    turn = turns_of([Question("is it red ?", PICTURES[0])])[0]
    ids = model.inputs([turn.showing(None)])
    expected = KINDS[kind][1](target).start("is it red ?", None)
    if kind == "llava":
        assert torch.equal(ids["inputs_embeds"], expected)
    else:
        assert torch.equal(ids["input_ids"], expected["input_ids"])


# ---- the command, and what does not belong


def test_a_template_that_keeps_the_newline_is_refused(folders, anchors, tmp_path):
    options = LocalOptions(str(folders["huggingface"]), device="cpu", template="U: <image> \n{text} A:")
    target = HuggingFaceTarget(options)
    with pytest.raises(DefenseError, match="the newline behind the picture stays in the prompt without one"):
        fit_cmrm(loaded(target), read_anchors(anchors), tmp_path / "made")
    with pytest.raises(DefenseError, match="the newline behind the picture stays in the prompt without one"):
        Cmrm(of="sample").prepare(loaded(target))
    assert not (tmp_path / "made").exists()


def test_the_command_writes_what_the_defence_reads(kind, folders, target, anchors, vectors, tmp_path, capsys):
    made = tmp_path / "made"
    command = ["defense", "fit", "cmrm", folders[kind], "--anchors", anchors, "--output_path", made]
    assert main([*map(str, command), "--device", "cpu", "--batch_size", "3"]) == 0
    said = capsys.readouterr().out
    assert f"--defense cmrm --defense_args cmrm.vectors={made}" in said
    assert "4 items" in said
    assert (made / "fit.safetensors").read_bytes() == (vectors / "fit.safetensors").read_bytes()
    stack = make_stack("cmrm", {"cmrm.vectors": str(made), "cmrm.alpha": "3"})
    fingerprint = stack.fingerprint(target.fingerprint())[0]
    assert fingerprint["image"] == "blank"
    assert (fingerprint["alpha"], fingerprint["of"], fingerprint["vector"]) == (3.0, "dataset", "mean")
    assert str(made) not in json.dumps(fingerprint)
    assert len(stack.fitted_on()["cmrm"]) == 4
    noise = [*map(str, command[:-1]), str(tmp_path / "noise"), "--image", "noise", "--device", "cpu"]
    assert main(noise) == 0
    stored = json.loads((tmp_path / "noise" / "fit.json").read_text())
    assert stored["image"] == "noise"
    assert stored["tensors"] != fingerprint["vectors"]
