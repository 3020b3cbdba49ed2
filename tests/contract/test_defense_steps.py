"""Prompt-level defences and ECSO on tiny models against their steps by hand: prompts, decisions, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import pytest
import torch
from PIL import Image

from regap_patch.commands.defended import DefendedTarget
from regap_patch.defenses import ecso, make_stack
from regap_patch.defenses.adashield import PROMPT as ADASHIELD
from regap_patch.defenses.self_reminder import PROMPT as REMINDER
from regap_patch.errors import EvaluationError, UnsupportedModelError
from regap_patch.hosts.huggingface import BLIP_2
from regap_patch.safety.target import Decoding, Question
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.tiny_hf_folder import make_hf_folder
from tests.unit.evaluation_items import noisy_picture

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
)
TOKENS = 6
LOUDER = 12  # weights as they are drawn say the same to any question
GREEDY = Decoding(max_new_tokens=TOKENS)
QUESTIONS = [
    Question("what is this ?", noisy_picture(20, 24, 0)),
    Question(
        "how many shapes are there in the picture , and which is the larger one ?", noisy_picture(24, 24, 1)
    ),
    Question("what is this ?"),
    Question("is it red ?", words="A white cup is on a shelf."),
    Question("what ?", noisy_picture(28, 24, 2)),
    Question("which colour has it ?", noisy_picture(32, 24, 3)),
]
SEEDS = list(range(len(QUESTIONS)))
KINDS = {"llava": LlavaTarget, "huggingface": HuggingFaceTarget}


@pytest.fixture(scope="module")
def targets(llava_folder, tiny, tmp_path_factory):
    folders = {
        "llava": llava_folder,
        "huggingface": make_hf_folder(tiny, tmp_path_factory.mktemp("hf") / "model"),
    }
    made = {name: make(LocalOptions(str(folders[name]), device="cpu")) for name, make in KINDS.items()}
    for target in made.values():
        target.fingerprint()
        with torch.no_grad():
            for name, weights in target.loaded()[0].named_parameters():
                if "_proj." in name and "vision" not in name:
                    weights.mul_(LOUDER)
    return made


pytestmark = pytest.mark.usefixtures("own_cache")


class ByHand:
    """Greedy answers, token by token: no cache, no padding, nothing of ours around the model."""

    def __init__(self, kind: str, target) -> None:
        self.kind, self.target = kind, target
        self.model, self.tokenizer = target.loaded()

    def say(self, text: str, picture: bytes | None) -> str:
        shown = "<image>\n" if picture is not None else ""
        image = None if picture is None else Image.open(BytesIO(picture)).convert("RGB")
        if self.kind == "llava":
            prompt = f"{SYSTEM}USER: {shown}{text} ASSISTANT:"
            pieces = [self.tokenizer(piece)["input_ids"] for piece in prompt.split("<image>")]
            ids = pieces[0] + ([-200, *pieces[1][1:]] if image else [])
            given = {}
            if image:
                made = self.target._image_processor.preprocess(image, return_tensors="pt")
                given = {"images": made["pixel_values"]}
        else:
            made = self.target.processor()(
                text=f"USER: {shown}{text} ASSISTANT:", images=image, return_tensors="pt"
            )
            ids = made.pop("input_ids")[0].tolist()
            given = {"pixel_values": made["pixel_values"]} if image else {}
        said: list[int] = []
        with torch.no_grad():
            while len(said) < TOKENS and self.tokenizer.eos_token_id not in said:
                logits = self.model(input_ids=torch.tensor([ids + said]), **given).logits
                said.append(int(logits[0, -1].argmax()))
        return self.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.fixture(scope="module", params=list(KINDS))
def by_hand(request, targets):
    return ByHand(request.param, targets[request.param])


def words(question: Question) -> str:
    return question.prompt if question.words is None else f"{question.words}\n{question.prompt}"


def answers(target, stack: str, questions: Sequence[Question] = QUESTIONS):
    defended = DefendedTarget(target, make_stack(stack))
    found = defended.answer(questions, GREEDY, SEEDS[: len(questions)])
    defended.stack.close()
    return found


def test_adashield_and_self_reminder(by_hand):
    expected = {
        "adashield_s": [words(one) + ADASHIELD.own + words(one) for one in QUESTIONS],
        "self_reminder": [REMINDER.own.replace("{}", words(one)) for one in QUESTIONS],
    }
    both = [text + ADASHIELD.own + text for text in expected["self_reminder"]]
    for stack, told in (*expected.items(), ("self_reminder+adashield_s", both)):
        found = answers(by_hand.target, stack)
        said = [by_hand.say(text, one.picture) for text, one in zip(told, QUESTIONS, strict=True)]
        assert len(set(said)) > 3, "answers differ"
        assert [reply.text for reply in found] == said
        for reply in found:
            assert all(notes["fired"] for notes in reply.trace["defenses"].values())


def ecso_by_hand(by_hand: ByHand, prompts: Sequence[str]) -> list[tuple[str, str | None, str | None]]:
    """What is said in the end, what the check said, and the caption."""
    found = []
    for question, prompt in zip(QUESTIONS, prompts, strict=True):
        said = by_hand.say(prompt, question.picture)
        if question.picture is None:
            found.append((said, None, None))
            continue
        first, second, third = ecso.CHECK.own.split("{}")
        check = by_hand.say(first + words(question) + second + said[:1927] + third, question.picture)
        if check.lower() not in ecso.YES:
            found.append((said, check, None))
            continue
        caption = by_hand.say(ecso.CAPTION.own.replace("{}", words(question)), question.picture)
        first, second, third = ecso.ANSWER.own.split("{}")
        found.append((by_hand.say(first + caption + second + prompt + third, None), check, caption))
    return found


def test_ecso_and_ecso_under_a_prompt(by_hand, monkeypatch):
    """Weights drawn at random never say yes: two of the four checks are taken for one, whatever they say."""
    for stack, prompts in (
        ("ecso", [words(one) for one in QUESTIONS]),
        ("ecso+self_reminder", [REMINDER.own.replace("{}", words(one)) for one in QUESTIONS]),
    ):
        monkeypatch.setattr(ecso, "YES", ("yes", "yes."))
        checks = [check for _, check, _ in ecso_by_hand(by_hand, prompts) if check is not None]
        plain = answers(by_hand.target, stack)
        assert not any(reply.trace["defenses"]["ecso"]["fired"] for reply in plain)
        assert len(set(checks)) > 1, "the checks differ"
        monkeypatch.setattr(ecso, "YES", (checks[0].lower(), checks[3].lower()))
        expected = ecso_by_hand(by_hand, prompts)
        fired = [caption is not None for _, _, caption in expected]
        assert 0 < sum(fired) < 4
        found = answers(by_hand.target, stack)
        assert [reply.text for reply in found] == [said for said, _, _ in expected]
        notes = [reply.trace["defenses"]["ecso"] for reply in found]
        assert [note["fired"] for note in notes] == fired
        assert [note.get("check") for note in notes] == [check for _, check, _ in expected]
        assert [note.get("caption") for note in notes] == [caption for _, _, caption in expected]
        steps = [1 if check is None else 4 if caption else 2 for _, check, caption in expected]
        assert [reply.trace["generations"] for reply in found] == steps


@pytest.mark.parametrize("stack", ["adashield_s", "self_reminder", "ecso", "adashield_s+ecso"])
def test_a_batch_answers_as_each_alone(by_hand, stack, monkeypatch):
    checks = [
        reply.trace["defenses"].get("ecso", {}).get("check") for reply in answers(by_hand.target, stack)
    ]
    monkeypatch.setattr(ecso, "YES", [check.lower() for check in checks[:2] if check is not None])
    together = answers(by_hand.target, stack)
    for question, reply in zip(QUESTIONS, together, strict=True):
        (alone,) = answers(by_hand.target, stack, [question])
        assert (alone.text, alone.num_tokens, alone.finish_reason) == (
            reply.text,
            reply.num_tokens,
            reply.finish_reason,
        )
        assert alone.trace == reply.trace
        assert alone.first_token_refusal_prob == pytest.approx(reply.first_token_refusal_prob, rel=1e-4)


def test_draws_follow_the_items_seed_in_every_step(by_hand, monkeypatch):
    drawn = Decoding(max_new_tokens=TOKENS, temperature=1.0, top_p=0.9)
    defended = DefendedTarget(by_hand.target, make_stack("adashield_s+ecso"))
    checks = [
        reply.trace["defenses"]["ecso"].get("check") for reply in defended.answer(QUESTIONS, drawn, SEEDS)
    ]
    monkeypatch.setattr(ecso, "YES", [check.lower() for check in checks[:2]])
    together = defended.answer(QUESTIONS, drawn, SEEDS)
    alone = [defended.answer([one], drawn, [seed])[0] for one, seed in zip(QUESTIONS, SEEDS, strict=True)]
    assert any(reply.trace["defenses"]["ecso"]["fired"] for reply in together)
    assert [(reply.text, reply.trace) for reply in together] == [(reply.text, reply.trace) for reply in alone]
    said = [(reply.text, reply.trace["defenses"]["ecso"].get("check")) for reply in together]
    assert all(text != check for text, check in said), "no step draws with the numbers of another"


def bits(by_hand: ByHand):
    """Answers, scores, weights and hooks of the bare target."""
    plain = by_hand.target.answer(QUESTIONS, GREEDY, SEEDS)
    made = by_hand.target.prefill([QUESTIONS[0], QUESTIONS[4]])
    with torch.no_grad():
        logits = by_hand.model(**made).logits
    hooks = [
        len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
        for part in by_hand.model.modules()
    ]
    state = {name: value.clone() for name, value in by_hand.model.state_dict().items()}
    return plain, logits, hooks, by_hand.model.training, state


def test_removed_without_trace_and_off_is_nothing(by_hand):
    plain, logits, hooks, training, state = bits(by_hand)
    for stack in ("adashield_s+self_reminder", "ecso"):
        answers(by_hand.target, stack)
    after = bits(by_hand)
    assert after[0] == plain
    assert torch.equal(after[1], logits)
    assert (after[2], after[3]) == (hooks, training)
    assert all(torch.equal(after[4][name], value) for name, value in state.items())


def test_prefill_is_what_generate_sees(by_hand):
    """Its last scores choose the first token, alone and in a batch, padded or not."""
    seeing = [QUESTIONS[number] for number in (0, 1, 4)]
    for batch in (seeing, [QUESTIONS[2], QUESTIONS[3]]):
        with torch.no_grad():
            first = by_hand.model(**by_hand.target.prefill(batch)).logits[:, -1].argmax(-1)
        for row, question in zip(first, batch, strict=True):
            alone = by_hand.target.new_ids([question], {}, 1)
            assert int(row) == alone[0][0]


def test_settings_and_words_are_in_the_fingerprint(by_hand, tmp_path):
    def fingerprint(stack: str, **settings: str):
        made = make_stack(stack, {name.replace("__", "."): value for name, value in settings.items()})
        return DefendedTarget(by_hand.target, made).fingerprint()

    own = tmp_path / "words.txt"
    own.write_text("Be kind.")
    bare = by_hand.target.fingerprint()
    base = fingerprint("adashield_s")
    assert {name: value for name, value in base.items() if name != "defenses"} == bare
    others = [
        fingerprint("adashield_s", adashield_s__place="after"),
        fingerprint("adashield_s", adashield_s__words=str(own)),
        fingerprint("adashield_s+ecso"),
        fingerprint("self_reminder"),
    ]
    assert all(other["defenses"] != base["defenses"] for other in others)
    assert fingerprint("adashield_s+ecso") == fingerprint("ecso+adashield_s"), "the order is the levels'"


def test_models_that_cannot_be_defended(by_hand, tiny, tmp_path):
    model = DefendedTarget(by_hand.target, make_stack("ecso"))._prepared()
    model.host = BLIP_2
    with pytest.raises(
        UnsupportedModelError, match=r"ecso compare with text alone, but Llava\w+ \(host blip_2\)"
    ):
        make_stack("ecso").prepare(model)
    folder = make_hf_folder(tiny, tmp_path / "model")
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    bare = DefendedTarget(
        HuggingFaceTarget(LocalOptions(str(folder), device="cpu")), make_stack("adashield_s")
    )
    with pytest.raises(EvaluationError, match=r"has no chat template: give one as text with \{text\}"):
        bare.fingerprint()
