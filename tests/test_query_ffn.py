"""The FFN that a tapped block lends to queries: one battery over a tiny model of every kind."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from timm.models.mvitv2 import MultiScaleBlock
from timm.models.vision_transformer import Block
from tiny_backbones import KINDS, kind, make, shared, spec
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.backbone.query_ffn import QueryFfn
from luma_cli.backbone.selfcheck import check, redraw_scales
from luma_cli.catalogue.rules import FfnRule, load_rules
from luma_cli.errors import BuildError


def queries_for(name: str, num: int = 5) -> torch.Tensor:
    return torch.randn(2, num, shared(name).query_width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", KINDS)
def test_the_rule_names_the_kind_and_the_block_proves_it(name: str) -> None:
    expected, alone = kind(name)
    backbone = shared(name)
    verdict = check(backbone)
    assert backbone.ffn_kind == expected
    assert verdict.status == ("spatial" if alone else "exact"), verdict
    assert verdict.error <= 1e-4 < 1e-2 <= verdict.change
    assert verdict.is_map or name == "pvt_v2_b0"  # PVT's stage ends with a norm of its own


@pytest.mark.parametrize("name", KINDS)
def test_queries_keep_their_shape_and_never_mix(name: str) -> None:
    backbone, queries = copy.deepcopy(shared(name)), queries_for(name)
    redraw_scales(backbone.ffn, torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = backbone.query_ffn(queries)
        order = torch.tensor([3, 0, 4, 1, 2])
        alone = torch.cat([backbone.query_ffn(queries[:, index : index + 1]) for index in range(5)], 1)
        assert together.shape == (2, 5, backbone.width)
        assert not torch.allclose(together, queries, atol=1e-2)
        torch.testing.assert_close(together, alone)
        torch.testing.assert_close(backbone.query_ffn(queries[:, order]), together[:, order])


@pytest.mark.parametrize("name", ["visformer_tiny", "levit_128s", "repvit_m0_9", "efficientvim_m1", "fastvit_t8"])
def test_batch_norm_keeps_its_statistics_and_learns_its_affine(name: str) -> None:
    backbone = make(name)
    queries = queries_for(name)
    norms = [module for module in backbone.ffn.block.modules() if isinstance(module, _BatchNorm)]
    before = [copy.deepcopy(norm.state_dict()) for norm in norms]
    with torch.no_grad():
        expected = backbone.eval().query_ffn(queries)
    backbone.train()
    result = backbone.query_ffn(queries)
    result.sum().backward()
    torch.testing.assert_close(result.detach(), expected)
    assert norms
    for norm, state in zip(norms, before, strict=True):
        assert norm.training
        torch.testing.assert_close(norm.state_dict(), state)
    assert any(norm.bias.grad is not None and norm.bias.grad.abs().sum() > 0 for norm in norms)


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3", "fastvit_t8", "poolformer"])
def test_parameters_are_shared_not_copied(name: str) -> None:
    backbone = make(name)
    names = [key for key, _ in backbone.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len(list(backbone.parameters()))
    assert all(key.startswith("model.") for key in backbone.state_dict())

    twin = copy.deepcopy(backbone)
    queries = queries_for(name)
    with torch.no_grad():
        expected = backbone.query_ffn(queries)
        for parameter in twin.ffn.block.parameters():
            parameter.normal_()
        torch.testing.assert_close(backbone.query_ffn(queries), expected)
        assert not torch.allclose(twin.query_ffn(queries), expected)
        twin.load_state_dict(backbone.state_dict())
        torch.testing.assert_close(twin.query_ffn(queries), expected)
        doubled = twin.double().query_ffn(queries.double())
    torch.testing.assert_close(doubled.float(), expected)


def test_a_saved_backbone_loads_whole() -> None:
    backbone, file = make("test_vit"), io.BytesIO()
    torch.save(backbone.state_dict(), file)
    file.seek(0)
    other = make("test_vit", seed=1)
    other.load_state_dict(torch.load(file, weights_only=True), assign=True)
    queries = queries_for("test_vit")
    torch.testing.assert_close(other.query_ffn(queries), backbone.query_ffn(queries))


def test_a_width_changing_ffn_takes_queries_of_its_input_width() -> None:
    block = MultiScaleBlock(dim=32, dim_out=64, num_heads=2, feat_size=(4, 4), expand_attn=False).eval()
    ffn = QueryFfn(block, load_rules().blocks["mvitv2.MultiScaleBlock"])
    seen: list[torch.Tensor] = []
    block.norm2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    redraw_scales(ffn, torch.Generator().manual_seed(0))
    truth, _ = block(torch.randn(1, 17, 32, generator=torch.Generator().manual_seed(0)), [4, 4])
    assert ffn.width == 32
    torch.testing.assert_close(ffn(seen[0]), truth)


def test_a_rule_that_names_an_absent_part_is_refused() -> None:
    with pytest.raises(BuildError, match="Block has no part 'norm3'"):
        QueryFfn(Block(8, 2), FfnRule("pre-norm", ("norm3", "mlp")))


def test_without_an_ffn_the_error_says_why() -> None:
    backbone = create_backbone(spec("test_resnet"), 64)
    assert backbone.ffn_kind == ""
    with pytest.raises(BuildError, match="lends no FFN: residual blocks of convolutions"):
        backbone.query_ffn(torch.zeros(1, 2, backbone.width))


def test_an_unknown_block_gets_a_fresh_ffn_and_says_so() -> None:
    class Strange(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, ::16, ::16]

    backbone = wrap(Strange(), spec("strange"), 64)
    assert (backbone.width, backbone.stride, backbone.ffn_kind) == (3, 16, "")
    assert backbone.ffn_reason.endswith("Strange has no rule")


@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9", "fastvit_t8"])
def test_synchronised_batch_norm_is_not_moved_by_queries_either(name: str) -> None:
    backbone = nn.SyncBatchNorm.convert_sync_batchnorm(make(name)).train()
    assert any(isinstance(norm, nn.SyncBatchNorm) for norm in backbone.ffn.batch_norms())
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    backbone.query_ffn(torch.randn(2, 3, backbone.query_width))
    assert [key for key, value in backbone.named_buffers() if not torch.equal(value, before[key])] == []
