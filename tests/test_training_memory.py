"""Memory of a training step as it is predicted, held against what autograd really keeps."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import run
from luma_cli.head.segmenter import build
from luma_cli.speed.memory import BASE, BYTES_A_PARAMETER, training_memory
from luma_cli.speed.quantity import Workload
from luma_cli.units import parse_budget


def kept_bytes(name: str, resolution: int, batch: int) -> int:
    """Bytes that a forward pass under 16-bit autocast keeps, each storage once, parameters and buffers aside."""
    segmenter = build(name, resolution, head=HeadConfig(), seed=0).train()
    own = {each.untyped_storage().data_ptr() for each in (*segmenter.parameters(), *segmenter.buffers())}
    seen: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # or its address could be taken by the next
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        output = segmenter(torch.zeros(batch, 3, resolution, resolution))
        sum(each.float().square().mean() for each in output)
    return sum(seen.values())


@pytest.mark.parametrize(("name", "family"), [("vit_tiny_patch16_224", "isotropic"), ("resnet18", "convolutional")])
def test_what_grows_with_the_batch_is_within_the_interval(name: str, family: str) -> None:
    resolution = 224
    params = sum(each.numel() for each in build(name, resolution, head=HeadConfig(), device="meta").parameters())
    load = Workload(architecture=name, resolution=resolution, family=family, params=params)
    small, large = training_memory(load, 8), training_memory(load, 16)
    assert small is not None
    assert large is not None
    real = (kept_bytes(name, resolution, 2) - kept_bytes(name, resolution, 1)) * 8
    assert large.low - small.low < real < large.high - small.high


def test_weights_and_their_optimiser_do_not_grow_with_the_batch() -> None:
    load = Workload(architecture="resnet18", resolution=224, params=10_000_000)
    one, two = training_memory(load, 1), training_memory(load, 2)
    assert one is not None
    assert two is not None
    fixed = 2 * one.value - two.value
    assert fixed == pytest.approx(BYTES_A_PARAMETER * 10_000_000 + BASE)
    assert training_memory(Workload(architecture="resnet18", resolution=224), 1) is None


@pytest.mark.parametrize("text", ["8GiB-train", "8 GiB train", "8gib-train"])
def test_a_budget_of_training_memory(text: str) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.limit) == ("training_bytes", 8 * 2**30)


@pytest.mark.usefixtures("fitted")
def test_recommend_answers_it_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "--budget", "8GiB-train", "--train-batch", "2", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "GiB train" in out
    assert "one pass of 2 crops" in out
    assert run(["recommend", "--budget", "200gflops", "--train-batch", "2"]) == 2
    assert "--train-batch applies to a budget of training memory alone" in capsys.readouterr().err
