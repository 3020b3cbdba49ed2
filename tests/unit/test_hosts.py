"""Which rows belong to which sample, on small examples written out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from regap_patch import ReGapConfig, apply_regap
from regap_patch.errors import PatchStateError, UnknownHostError
from regap_patch.hosts.huggingface import BLIP_2, HF_LLAVA, placeholder_slots
from regap_patch.hosts.llava_next import LLAVA_NEXT
from regap_patch.hosts.text import text_rows_mask
from tests.unit.no_waiting import NoWaiting
from tests.unit.toy_llava import batch, toy

IMAGE, P = 9, 3
MODEL = SimpleNamespace(config=SimpleNamespace(image_token_index=IMAGE))


def slots(*rows: list[int], images: int, model: object = MODEL, **arguments: object):
    """`1` in a row stands for an image."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    with NoWaiting():
        return placeholder_slots(model, {"input_ids": ids, **arguments}, torch.randn(images, P, 4))


@pytest.mark.parametrize("tokens", [1, P], ids=["one placeholder an image", "one a row"])
def test_images_go_to_the_samples_with_their_placeholders(tokens: int):
    shown = [IMAGE] * tokens
    found = slots([5, *shown, 6], [7], [*shown, *shown, 8, *shown], [4, *shown], images=5)
    assert found.sample.tolist() == [0, 2, 2, 2, 3]
    assert found.real.tolist() == [True] * 5


def test_images_that_nobody_shows_belong_to_nobody():
    assert slots([5], [6], images=2).real.tolist() == [False, False]
    assert slots([5], [6], images=0).image.shape == (0, P, 4)


def test_without_a_placeholder_in_the_config_each_sample_has_its_image():
    found = slots([5], [6], images=2, model=SimpleNamespace(config=SimpleNamespace()))
    assert found.sample is None
    assert found.real.tolist() == [True, True]


def test_towers_that_join_images_are_refused():
    with pytest.raises(PatchStateError, match="Pixtral"):
        slots([IMAGE], images=1, image_sizes=torch.tensor([[28, 28]]))


def test_blip_of_old_transformers_ignores_a_placeholder_in_the_config():
    ids = torch.tensor([[5], [6]])
    found = BLIP_2.slots(MODEL, {"input_ids": ids}, torch.randn(2, P, 4))
    assert found.sample is None
    assert BLIP_2.image_token(MODEL) is None
    new = SimpleNamespace(**vars(MODEL), get_placeholder_mask=None)
    assert BLIP_2.image_token(new) == IMAGE
    assert not BLIP_2.slots(new, {"input_ids": ids}, torch.randn(2, P, 4)).real.any()


def test_families_that_share_attribute_names_are_told_apart():
    """Mllama's projector has the same name as LLaVA's, but its image rows never stand beside words."""
    model = nn.Module()
    model.multi_modal_projector = nn.Linear(2, 2)
    model.config = SimpleNamespace(model_type="mllama")
    with pytest.raises(UnknownHostError, match=r"hf_llava looked for .* in a model of type llava;"):
        apply_regap(model)
    model.config.model_type = "llava"
    assert HF_LLAVA.find_projector(model) is model.multi_modal_projector
    assert LLAVA_NEXT.find_projector(model) is None


def test_only_the_plain_template_loses_its_newline():
    ids = torch.tensor([[1, IMAGE, 5, 6, 13], [1, IMAGE, 4, 6, 13]])
    labels = torch.tensor([[-100, -100, 5, 6, 13], [-100, -100, -100, 6, 13]])
    how = {"image_id": IMAGE, "end_ids": (1, 2)}
    plain = text_rows_mask(ids, labels, None, **how, plain_newline=True)
    assert plain.tolist() == [[False, False, True, True, False], [False, False, False, True, True]]
    assert text_rows_mask(ids, labels, None, **how).tolist()[0] == [False, False, True, True, True]


def test_a_bias_shift_zeroes_the_gap_of_a_whole_corpus():
    """In closed form: the projector's last bias moved by mean text - mean image, over all samples."""
    model = toy()
    patch = apply_regap(model, ReGapConfig(weight=0))

    def corpus():
        """Mean image row and mean text row of 40 samples, and the mean gap and spread of a single one."""
        image, text, stats, rows = [], [], [], []
        handle = model.model.mm_projector.register_forward_hook(lambda m, args, out: rows.append(out))
        for seed in range(10):
            data = batch(seed, kind="mixed")
            model(**data)
            found = patch.host.rows(model, data, rows[-1].detach())
            image.append(found.image[found.image_mask].double())
            text.append(found.text[found.text_mask & found.valid()[:, None]].double())
            stats.append(patch.last.floats())
        handle.remove()
        gaps = [{key: value[key] for key in ("centroid_l2", "image_trace")} for value in stats]
        return torch.cat(image).mean(0), torch.cat(text).mean(0), gaps

    image, text, before = corpus()
    assert (text - image).norm() > 0.1
    model.model.mm_projector[2].bias.data += (text - image).float()
    image, text, after = corpus()
    assert (text - image).norm() < 1e-6
    for old, new in zip(before, after, strict=True):
        assert new["image_trace"] == pytest.approx(old["image_trace"], rel=1e-4)
        assert new["centroid_l2"] > 0.01, "no one shift suits every sample"
