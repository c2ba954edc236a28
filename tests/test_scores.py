"""Scores by strips: equal to the whole map computed at once, bounded in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from luma_cli.catalogue.windows import plan_windows
from luma_cli.evaluate import inference
from luma_cli.evaluate.inference import Seen, WindowLogits


def random_view(height, width, side=32, queries=6, classes=5, scale=1.0, flipped=False, seed=0) -> Seen:
    generator = torch.Generator().manual_seed(seed)
    plan = plan_windows(height, width, side, scale)
    maps = 3 * torch.randn(plan.num_windows, side // 4, side // 4, queries, generator=generator)
    probabilities = torch.randn(plan.num_windows, queries, classes + 1, generator=generator).softmax(-1)[..., :-1]
    return Seen(plan, flipped, WindowLogits(maps, probabilities))


def whole(view: Seen) -> Tensor:
    """Scores [C, H, W] the plain way, every array at its full size."""
    plan, logits = view.plan, view.logits
    maps = interpolate(logits.maps.permute(0, 3, 1, 2), (plan.side, plan.side), mode="bilinear")
    windows = maps
    if logits.class_probabilities is not None:
        windows = torch.einsum("nkhw,nkc->nchw", maps.sigmoid(), logits.class_probabilities)
    shape = max(plan.resized_height, plan.side), max(plan.resized_width, plan.side)
    total, count = torch.zeros(logits.num_classes, *shape), torch.zeros(shape)
    for window, (top, left) in zip(windows, plan.corners, strict=True):
        total[:, top : top + plan.side, left : left + plan.side] += window
        count[top : top + plan.side, left : left + plan.side] += 1
    mean = (total / count)[:, : plan.resized_height, : plan.resized_width]
    mean = mean.flip(2) if view.flipped else mean
    return interpolate(mean[None], (plan.height, plan.width), mode="bilinear")[0]


SIZES = [(40, 90), (90, 40), (32, 32), (32, 51), (20, 33), (7, 19), (200, 310)]


@pytest.mark.parametrize("size", SIZES)
def test_strips_of_any_height_are_the_whole(size):
    view = random_view(*size)
    expected = whole(view)
    top = expected.topk(2, dim=0).values
    clear = ((top[0] - top[1]) > 1e-5).numpy()
    assert clear.mean() > 0.99
    for strip_bytes in (1, 20_000, 0):
        found = inference.whole_score_map([view], strip_bytes)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        labels = inference.label_map([view], strip_bytes)
        assert labels.dtype == torch.uint8
        assert np.array_equal(labels.numpy()[clear], expected.argmax(0).numpy()[clear])


@pytest.mark.parametrize("size", SIZES)
def test_logits_without_queries_are_resized_as_they_are(size):
    seen = random_view(*size, queries=5)
    view = Seen(seen.plan, False, WindowLogits(seen.logits.maps, None))
    torch.testing.assert_close(inference.whole_score_map([view], 1000), whole(view), rtol=0, atol=3e-5)


def test_views_are_turned_back_and_averaged():
    views = [random_view(40, 61, scale=s, flipped=f, seed=int(10 * s)) for s in (0.5, 1.0, 1.75) for f in (False, True)]
    expected = torch.stack([whole(view) for view in views]).mean(0)
    torch.testing.assert_close(inference.whole_score_map(views, 5000), expected, rtol=0, atol=1e-5)


def test_equal_scores_go_to_the_first_class():
    plan = plan_windows(32, 32, 32)
    maps = torch.zeros(1, 8, 8, 4)
    assert inference.label_map([Seen(plan, False, WindowLogits(maps, None))]).unique().tolist() == [0]
    maps[..., 2:] = 1
    assert inference.label_map([Seen(plan, False, WindowLogits(maps, None))]).unique().tolist() == [2]


def test_no_array_of_the_full_size_is_made(monkeypatch):
    """150 classes of 500 x 750 pixels are 225 MB; no strip may hold more than its bound."""
    view = random_view(500, 750, side=64, queries=20, classes=150)
    sizes = []
    for rows, part in inference.strips([view]):
        sizes.append(4 * part.numel())
        assert part.shape == (len(rows), 750, 150)
    assert max(sizes) <= inference.STRIP_BYTES_CPU
    assert sum(sizes) == 4 * 500 * 750 * 150
    assert max(4 * part.numel() for _, part in inference.strips([view], 1)) == 4 * 750 * 150
