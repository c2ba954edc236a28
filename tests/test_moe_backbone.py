"""A small Switch-ViT: queries go through router and experts on their own, and the patches' routing never notices."""

from __future__ import annotations

import torch
from tiny_backbones import spec
from torch import Tensor, nn
from torch.nn import functional as F

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import wrap
from luma_cli.backbone.selfcheck import check


class SwitchMlp(nn.Module):
    """Top-1 routing among experts with a capacity, a balancing loss and counts of routed and dropped tokens."""

    def __init__(self, width: int, num_experts: int, capacity_factor: float = 1.5) -> None:
        super().__init__()
        self.router = nn.Linear(width, num_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(num_experts)
        )
        self.capacity_factor = capacity_factor
        self.register_buffer("counts", torch.zeros(num_experts))
        self.num_dropped = 0
        self.internal_loss: Tensor | float = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten(0, -2)
        gates = self.router(flat).softmax(-1)
        gate, choice = gates.max(-1)
        capacity = int(self.capacity_factor * len(flat) / len(self.experts)) + 1
        result = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            routed = (choice == index).nonzero().flatten()
            self.counts[index] += len(routed)
            self.num_dropped += max(len(routed) - capacity, 0)
            kept = routed[:capacity]
            result = result.index_copy(0, kept, gate[kept, None] * expert(flat[kept]))
        if self.training:
            share = F.one_hot(choice, len(self.experts)).float().mean(0)
            self.internal_loss = self.internal_loss + len(self.experts) * (share * gates.mean(0)).sum()
        return result.reshape(tokens.shape)


class SwitchBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwitchMlp(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class SwitchViT(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.Sequential(SwitchBlock(width), SwitchBlock(width))

    def forward(self, images: Tensor) -> Tensor:
        grid = self.patch_embed(images)
        tokens = self.blocks(grid.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(grid.shape)


FFN = {
    "kind": "mixture of experts",
    "branch": ["norm2", "mlp"],
    "untouched": ["mlp.counts", "mlp.num_dropped", "mlp.internal_loss"],
}


def switch_vit() -> Backbone:
    torch.manual_seed(0)
    return wrap(SwitchViT(), spec("switch_vit", tap="blocks.-1", heads="attn.num_heads", ffn=FFN), 64)


def statistics(mlp: SwitchMlp) -> tuple[list[float], int, float]:
    return mlp.counts.tolist(), mlp.num_dropped, float(torch.as_tensor(mlp.internal_loss).detach())


def test_the_block_s_experts_serve_the_queries() -> None:
    backbone = switch_vit()
    assert (backbone.ffn_kind, backbone.num_heads) == ("mixture of experts", 2)
    assert check(backbone).status == "exact"


def test_queries_leave_the_patches_routing_unchanged() -> None:
    backbone = switch_vit().train()
    mlp = backbone.model.blocks[-1].mlp
    images, queries = torch.randn(2, 3, 64, 64), torch.randn(2, 50, 16)
    mlp.counts.zero_()
    mlp.internal_loss, mlp.num_dropped = 0.0, 0
    features = backbone(images)
    expected, loss = statistics(mlp), mlp.internal_loss
    result = backbone.query_ffn(queries)
    assert sum(expected[0]) == 2 * 64
    assert statistics(mlp) == expected
    assert mlp.internal_loss is loss  # still part of the graph
    (features.sum() + result.sum() + loss).backward()
    assert mlp.router.weight.grad is not None
    assert any(expert[0].weight.grad is not None for expert in mlp.experts)


def test_without_protection_the_counts_would_move() -> None:
    backbone = switch_vit()
    mlp = backbone.model.blocks[-1].mlp
    before = statistics(mlp)
    mlp(torch.randn(2, 5, 16))
    assert statistics(mlp) != before
