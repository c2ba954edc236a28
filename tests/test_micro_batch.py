"""The largest pass that fits memory, with memory that runs out where the test says."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.errors import RunError
from luma_cli.head.segmenter import build
from luma_cli.train.memory import HOST_SHARE, by_prediction, by_trying, find, ladder, rehearsal

MIB = 2**20


@dataclass
class Step:
    """A step that needs more memory than there is beyond `most` images, and remembers what it was asked."""

    most: int
    error: type[BaseException] = torch.OutOfMemoryError
    asked: list[int] = field(default_factory=list)

    def __call__(self, num_images: int) -> None:
        self.asked.append(num_images)
        if num_images > self.most:
            raise self.error("CUDA out of memory")


@dataclass
class Host:
    """RAM of which a step takes `fixed` bytes and `per_image` for every image."""

    fixed: int
    per_image: int
    available: int
    now: int = 0

    def step(self, num_images: int) -> None:
        self.now = self.fixed + self.per_image * num_images

    def reset_peak(self) -> bool:
        self.now = 0
        return True

    def peak_bytes(self) -> int:
        return self.now

    def resident_bytes(self) -> int:
        return self.fixed

    def available_bytes(self) -> int:
        return self.available


@given(num_images=st.integers(1, 64), least=st.integers(1, 8))
def test_ladder_has_the_largest_pass_of_every_number_of_passes(num_images: int, least: int) -> None:
    sizes = ladder(num_images, least)
    assert sizes[0] == num_images
    assert sizes == sorted(set(sizes), reverse=True)
    assert min(sizes) >= min(least, num_images)
    for size in sizes:  # no smaller size needs as few passes
        assert -(-num_images // (size - 1)) > -(-num_images // size) if size > 1 else True


@pytest.mark.parametrize(("num_images", "most"), [(16, 16), (16, 15), (16, 7), (7, 4), (5, 1), (1, 1)])
def test_trying_finds_the_largest_pass_that_fits(num_images: int, most: int) -> None:
    found = by_trying(Step(most), num_images)
    assert found.num_images == max(size for size in ladder(num_images) if size <= most)
    assert found.num_passes * found.num_images >= num_images > (found.num_passes - 1) * found.num_images


def test_trying_says_what_it_tried_and_takes_a_second_step() -> None:
    step = Step(4)
    assert (
        str(by_trying(step, 16))
        == "4 x 4 images (tried 16: out of memory, 8: out of memory, 6: out of memory, 4: fits)"
    )
    assert step.asked == [16, 8, 6, 4, 4]


def test_a_second_step_that_does_not_fit_counts() -> None:
    asked: list[int] = []

    def step(num_images: int) -> None:  # the optimiser's state, made by the first step, takes what 8 images need
        asked.append(num_images)
        if num_images > (8 if len(asked) == 1 else 4):
            raise torch.OutOfMemoryError("out of memory")

    assert by_trying(step, 8).num_images == 4


def test_nothing_fits() -> None:
    with pytest.raises(RunError, match="a step of 1 image does not fit into memory; try --grad-checkpoint"):
        by_trying(Step(0), 4)
    with pytest.raises(RunError, match="a step of 2 images does not fit"):
        by_trying(Step(1), 4, least=2)
    with pytest.raises(RunError, match="a step of 1 image does not fit"):
        by_prediction(Step(0, MemoryError), 4)


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(ValueError, match="memory"):
        by_trying(Step(0, ValueError), 4)
    with pytest.raises(RuntimeError, match="illegal"):
        by_trying(lambda _: (_ for _ in ()).throw(RuntimeError("an illegal memory access")), 4)


@given(available=st.integers(0, 100), per_image=st.integers(1, 10))
def test_prediction_keeps_to_a_share_of_what_can_be_had(available: int, per_image: int) -> None:
    host = Host(100 * MIB, per_image * MIB, available * MIB)
    found = by_prediction(host.step, 16, memory=host)
    fitting = [size for size in ladder(16) if per_image * size <= HOST_SHARE * available]
    assert found.num_images == max(fitting, default=1)
    assert found == by_prediction(host.step, 16, memory=host)


def test_prediction_names_what_it_measured() -> None:
    host = Host(100 * MIB, 10 * MIB, 64 * MIB)
    assert str(by_prediction(host.step, 16, memory=host)) == "4 x 4 images (tried 1: 110 MiB, 2: 120 MiB)"


def test_two_images_that_do_not_fit_leave_one() -> None:
    host = Host(0, MIB, 100 * MIB)
    assert by_prediction(Step(1, MemoryError), 8, memory=host).num_images == 1


def test_real_steps_on_the_host_leave_everything_as_it_was() -> None:
    segmenter = build("test_convnext", 64)
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=1.0)
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    state = torch.get_rng_state()

    def step(num_images: int) -> None:
        segmenter.train()
        prediction = segmenter(torch.randn(num_images, 3, 64, 64))
        (prediction.class_logits.square().mean() + prediction.mask_logits.square().mean()).backward()
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.step()

    with rehearsal(segmenter, optimizer):
        found = find(step, 4, "cpu")
    assert found.num_images == 4
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert all(parameter.grad is None for parameter in segmenter.parameters())
    assert not any(part.training for part in segmenter.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_no_rehearsal_once_the_training_runs() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(1)
    optimizer.step()
    with pytest.raises(RunError, match="before the first step"), rehearsal(torch.nn.Module(), optimizer):
        pass
