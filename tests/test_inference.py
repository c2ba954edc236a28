"""Predictions of whole models: against EoMT's steps one by one, for every head, whatever shares a forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadSample, Diverged, UsageError
from luma_cli.evaluate.inference import inference, look_at, predict_labels, predict_views, score_map
from luma_cli.head.segmenter import Segmenter, build

SIDE = 64


def image(height: int = 70, width: int = 110, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def model(head: str = "luma", backbone: str = "test_vit") -> Segmenter:
    """A tiny segmenter whose queries differ enough for several classes to be predicted."""
    return build(backbone, SIDE, head=HeadConfig(name=head, num_classes=6), seed=3)


def eomt_steps(segmenter: Segmenter, drawn: np.ndarray) -> Tensor:
    """Scores [C, H, W] by the steps of EoMT's evaluation, each at its full size."""
    height, width = drawn.shape[:2]
    factor = max(SIDE / height, SIDE / width)
    size = round(height * factor), round(width * factor)
    resized = torch.from_numpy(np.array(Image.fromarray(drawn).resize(size[::-1], Image.Resampling.BILINEAR)))
    normal = segmenter.backbone.normalisation
    pixels = ((resized / 255 - torch.tensor(normal.mean)) / torch.tensor(normal.std)).permute(2, 0, 1)
    along = 1 if size[0] > size[1] else 2
    count = -(-size[along - 1] // SIDE)
    overlap = (count * SIDE - size[along - 1]) / (count - 1) if count > 1 else 0
    total, seen = torch.zeros(6, *size), torch.zeros(size)
    for number in range(count):
        start = int(number * (SIDE - overlap))
        place = [slice(None), slice(None), slice(None)]
        place[along] = slice(start, start + SIDE)
        with torch.no_grad():
            output = segmenter(pixels[tuple(place)][None].contiguous())
        if len(output) == 2:
            masks = interpolate(output.mask_logits, (SIDE, SIDE), mode="bilinear")
            scores = torch.einsum("bqhw,bqc->bchw", masks.sigmoid(), output.class_logits.softmax(-1)[..., :-1])
        else:
            scores = interpolate(output.logits, (SIDE, SIDE), mode="bilinear")
        total[tuple(place)] += scores[0]
        seen[tuple(place[1:])] += 1
    return interpolate((total / seen)[None], (height, width), mode="bilinear")[0]


@pytest.mark.parametrize("head", ["luma", "eomt", "linear"])
@pytest.mark.parametrize("size", [(70, 110), (110, 70), (64, 64), (30, 41), (128, 256)])
def test_scores_are_those_of_eomts_steps(head, size):
    segmenter, drawn = model(head), image(*size)
    expected = eomt_steps(segmenter, drawn)
    torch.testing.assert_close(score_map(segmenter, drawn), expected, rtol=0, atol=2e-5)
    top = expected.topk(2, dim=0).values
    clear = ((top[0] - top[1]) > 1e-4).numpy()
    labels = predict_labels(segmenter, drawn)
    assert labels.shape == size
    assert clear.any()
    assert np.array_equal(labels[clear], expected.argmax(0).numpy()[clear])


def test_a_convolutional_backbone_and_a_resolution_of_ones_own():
    segmenter = model("luma", "test_convnext")
    assert predict_labels(segmenter, image()).shape == (70, 110)
    assert look_at(image(), 96)[0].plan.side == 96
    assert predict_labels(segmenter, image(), 96).shape == (70, 110)


def test_what_shares_a_forward_pass_changes_no_label():
    segmenter = model()
    images = [image(70, 110, 1), image(200, 64, 2), image(64, 64, 3)]
    alone = [predict_labels(segmenter, drawn) for drawn in images]
    for batch in (1, 2, 5, 16):
        with inference(segmenter):
            together = predict_views(segmenter, [look_at(drawn, SIDE) for drawn in images], torch.float32, batch)
        for one, other in zip(alone, together, strict=True):
            assert np.array_equal(one, other)


def test_the_checkpoints_own_normalisation_is_used():
    segmenter = model()
    before = score_map(segmenter, image())
    segmenter.backbone.normalisation = type(segmenter.backbone.normalisation)((0.1, 0.1, 0.1), (0.9, 0.9, 0.9), "test")
    assert not torch.allclose(before, score_map(segmenter, image()), atol=1e-3)


def test_augmentation_averages_views_and_mirrored_images_get_mirrored_labels():
    segmenter, drawn = model("linear"), image(64, 96)
    scores = score_map(segmenter, drawn, tta=True)
    mirrored = score_map(segmenter, np.ascontiguousarray(drawn[:, ::-1]), tta=True)
    torch.testing.assert_close(scores, mirrored.flip(2), rtol=0, atol=0.02)  # PIL resizes a mirrored image to +-1
    assert (scores - score_map(segmenter, drawn)).abs().max() > 0.05
    assert np.array_equal(predict_labels(segmenter, drawn, tta=True), scores.argmax(0).numpy())


def test_half_precision_stays_near_and_scores_stay_float32():
    segmenter, drawn = model(), image()
    exact, rough = score_map(segmenter, drawn), score_map(segmenter, drawn, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.2


def test_the_model_is_left_as_it_was():
    segmenter = model("eomt")
    segmenter.train()
    segmenter.backbone.eval()
    modes = [module.training for module in segmenter.modules()]
    torch.set_float32_matmul_precision("high")
    try:
        state = torch.get_rng_state()
        predict_labels(segmenter, image())
        with pytest.raises(BadSample):
            predict_labels(segmenter, image()[..., 0])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert [module.training for module in segmenter.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    segmenter(torch.zeros(1, 3, SIDE, SIDE)).mask_logits.sum().backward()


def test_logits_that_are_no_numbers_stop_the_evaluation():
    segmenter = model()
    with torch.no_grad():
        segmenter.head.classify.bias[2] = float("nan")
    with pytest.raises(Diverged, match="not finite"):
        predict_labels(segmenter, image())


def test_a_backbone_alone_predicts_nothing():
    with pytest.raises(UsageError, match="head 'none'"):
        predict_labels(build("test_vit", SIDE, head="none"), image())
