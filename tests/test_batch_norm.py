"""BatchNorm at small batches: which policy is chosen, and that frozen statistics rest through the whole training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.recipes import BatchNorm
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadRecipe
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.train.batch_norm import BatchNormChoice, apply, batch_norms, choose, train_mode
from luma_cli.train.memory import enable

SMALL = HeadConfig(num_queries=5, num_classes=3)
FFN_WITH_BATCH_NORM = {"embed_dim": 32, "depth": (1, 1, 1)}


def made(name: str, head: HeadName = "luma", **arguments: object) -> Segmenter:
    spec = BackboneSpec(name, name, name, rule={"arguments": arguments} if arguments else {})
    config = HeadConfig(name=head, num_classes=3) if head == "linear" else SMALL
    return Segmenter(create_backbone(spec, 64), config)


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers() if "running" in name}


@pytest.fixture(scope="module")
def resnet() -> Segmenter:
    return made("test_resnet")


@pytest.mark.parametrize(
    ("policy", "num_processes", "images", "device", "choice"),
    [
        ("auto", 1, 8, "cpu", "train"),
        ("auto", 1, 7, "cuda", "frozen"),
        ("auto", 2, 2, "cuda", "sync"),
        ("auto", 2, 8, "cpu", "train"),
        ("auto", 2, 4, "cpu", "frozen"),
        ("sync", 1, 16, "cuda", "train"),
        ("sync", 4, 2, "cuda", "sync"),
        ("train", 1, 2, "cpu", "train"),
        ("frozen", 1, 16, "cpu", "frozen"),
    ],
)
def test_choice(
    resnet: Segmenter, policy: BatchNorm, num_processes: int, images: int, device: str, choice: str
) -> None:
    found = choose(resnet, policy, num_processes=num_processes, images_per_pass=images, device_type=device)
    assert found.choice == choice
    assert str(found).startswith(f"{choice}: ")


def test_sync_without_gpus_is_refused(resnet: Segmenter) -> None:
    with pytest.raises(BadRecipe, match="type --set batch_norm=train"):
        choose(resnet, "sync", num_processes=2, images_per_pass=8, device_type="cpu")


def test_a_model_without_batch_norm_has_nothing_to_choose() -> None:
    segmenter = build("test_vit", 64, head=SMALL, device="meta")
    assert choose(segmenter, "sync", num_processes=2, images_per_pass=1, device_type="cpu").choice == "none"


@pytest.mark.parametrize("choice", ["train", "frozen"])
def test_statistics_move_only_where_they_are_learnt(choice: str) -> None:
    segmenter = made("test_resnet")
    before = statistics(segmenter.backbone)
    assert before
    for _ in range(2):
        segmenter.eval()  # an evaluation in between
        train_mode(segmenter, BatchNormChoice(choice, ""))
        segmenter(torch.randn(4, 3, 64, 64))
    moved = [name for name, value in statistics(segmenter.backbone).items() if not torch.equal(value, before[name])]
    assert bool(moved) == (choice == "train")
    assert segmenter.training
    norm = next(batch_norms(segmenter.backbone))
    assert norm.weight.requires_grad


def test_a_head_s_own_batch_norm_always_learns() -> None:
    segmenter = made("test_resnet", "linear")
    train_mode(segmenter, BatchNormChoice("frozen", ""))
    assert segmenter.head.norm.training
    assert not any(norm.training for norm in batch_norms(segmenter.backbone))


def test_queries_never_move_the_statistics_of_the_ffn_that_they_borrow() -> None:
    segmenter = made("visformer_tiny", **FFN_WITH_BATCH_NORM)
    assert segmenter.ffn == "reused"
    train_mode(segmenter, BatchNormChoice("train", ""))
    queries = torch.randn(2, 5, segmenter.backbone.query_width)
    before = statistics(segmenter)
    segmenter.backbone.query_ffn(queries)
    assert all(torch.equal(value, before[name]) for name, value in statistics(segmenter).items())
    assert all(norm.training for norm in batch_norms(segmenter.backbone))


def test_synchronised_ones_are_put_where_the_ffn_finds_them() -> None:
    segmenter = made("visformer_tiny", **FFN_WITH_BATCH_NORM)
    names = set(segmenter.state_dict())
    count = len(list(batch_norms(segmenter)))
    apply(segmenter, BatchNormChoice("sync", ""))
    norms = list(batch_norms(segmenter))
    assert len(norms) == count
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert set(segmenter.state_dict()) == names
    assert any(isinstance(norm, nn.SyncBatchNorm) for norm in segmenter.backbone.ffn.batch_norms())
    assert segmenter.eval()(torch.randn(1, 3, 64, 64)).mask_logits.shape == (1, 5, 16, 16)


def test_synchronised_ones_count_once_where_activations_are_forgotten_and_keep_the_optimiser_s_parameters() -> None:
    segmenter = made("test_resnet")
    parameters = list(map(id, segmenter.parameters()))
    enable(segmenter)
    apply(segmenter, BatchNormChoice("sync", ""))
    norms = list(batch_norms(segmenter.backbone))
    assert all(isinstance(norm, nn.SyncBatchNorm) and "forward" in vars(norm) for norm in norms)
    assert list(map(id, segmenter.parameters())) == parameters
