"""LUMA's head against EoMT's on one and the same backbone: `python benchmarks/heads.py [--threads N] [--pairs N]`.

The backbone is transformers' own EoMT encoder, so both sides run the same modules up to the head; EoMT's
`attn_mask_probs` are zeroed, as at their initial 1 a fresh model runs masked attention even in eval. Calls are
interleaved, and the ratio of each pair (EoMT time / LUMA time) gives the median with its 95% interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import EomtConfig, EomtForUniversalSegmentation

from luma_cli.head.config import HeadConfig
from luma_cli.head.luma import LumaHead
from luma_cli.head.mask_module import Prediction
from luma_cli.head.plan import Tap, plan_head

TARGET_RATIO = 0.98
Z_95 = 1.959964
WIDTH, PATCH, NUM_HEADS, NUM_QUERIES, NUM_CLASSES = 768, 16, 12, 100, 150  # ViT-B on ADE20K


class EomtEncoder(nn.Module):
    """The encoder of an EoMT model without its queries, lending its last block's FFN and its final norm."""

    def __init__(self, eomt: EomtForUniversalSegmentation) -> None:
        super().__init__()
        self.eomt = eomt

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> map [B, D, H / 16, W / 16] of the last block."""
        tokens = self.eomt.embeddings(images)
        for layer in self.eomt.layers:
            tokens = layer(tokens)
        patches = tokens[:, self.eomt.embeddings.num_prefix_tokens :]
        features: Tensor = patches.transpose(1, 2).unflatten(2, self.eomt.grid_size)
        return features

    def query_ffn(self, queries: Tensor) -> Tensor:
        """The last block's residual FFN, [B, K, D] -> [B, K, D]."""
        last = self.eomt.layers[-1]
        update: Tensor = last.layer_scale2(last.mlp(last.norm2(queries)))  # type: ignore[operator]
        return queries + update

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        """The final norm, [B, N, D] -> [B, N, D]."""
        normed: Tensor = self.eomt.layernorm(tokens)
        return normed


class LumaOnEomt(nn.Module):
    """The LUMA head on EoMT's encoder."""

    def __init__(self, eomt: EomtForUniversalSegmentation, config: HeadConfig) -> None:
        super().__init__()
        self.encoder = EomtEncoder(eomt)
        tap = Tap(WIDTH, PATCH, NUM_HEADS, has_ffn=True, has_final_norm=True)
        self.head = LumaHead(plan_head(tap, config), config)

    def forward(self, images: Tensor) -> Prediction:
        """Images [B, 3, H, W] -> class and mask logits."""
        mask_size = (images.shape[2] // 4, images.shape[3] // 4)
        prediction: Prediction = self.head(self.encoder(images), mask_size, self.encoder)
        return prediction


def main() -> int:
    """Print one JSON line; 1 when the whole interval lies below the target."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    eomt, luma = _models(options.layers, options.image_size)
    images = [torch.randn(1, 3, options.image_size, options.image_size, device=options.device) for _ in range(3)]
    eomt, luma = eomt.to(options.device), luma.to(options.device)
    _check_shapes(eomt, luma, images[0])
    ratios = _ratios(eomt, luma, images, options.pairs)
    low, high = _interval(ratios)
    result = {"eomt_over_luma": statistics.median(ratios), "ci_low": low, "ci_high": high, "pairs": len(ratios)}
    print(json.dumps({**result, "target": TARGET_RATIO, "device": options.device, "threads": options.threads}))
    return 0 if high >= TARGET_RATIO else 1


def _models(num_layers: int, image_size: int) -> tuple[nn.Module, nn.Module]:
    """EoMT ViT-B with 100 queries, 150 classes and 3 joint blocks, and LUMA of the same sizes on its encoder."""
    config = EomtConfig(
        hidden_size=WIDTH,
        num_hidden_layers=num_layers,
        num_attention_heads=NUM_HEADS,
        image_size=image_size,
        patch_size=PATCH,
        num_queries=NUM_QUERIES,
        num_blocks=3,
    )
    config.num_labels = NUM_CLASSES
    eomt = EomtForUniversalSegmentation(config)
    eomt.train(False)
    eomt.attn_mask_probs.zero_()
    return eomt, LumaOnEomt(eomt, HeadConfig(num_queries=NUM_QUERIES, num_classes=NUM_CLASSES)).eval()


def _check_shapes(eomt: nn.Module, luma: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        theirs, ours = eomt(images), luma(images)
    expected = (theirs.class_queries_logits.shape, theirs.masks_queries_logits.shape)
    if (ours.class_logits.shape, ours.mask_logits.shape) != expected:
        raise SystemExit(f"shapes differ: {expected} against {ours.class_logits.shape}, {ours.mask_logits.shape}")


def _ratios(eomt: nn.Module, luma: nn.Module, images: list[Tensor], pairs: int) -> list[float]:
    """EoMT seconds over LUMA seconds per pair, the order within a pair alternating, after two warm-up pairs."""
    ratios = []
    with torch.inference_mode():
        for index in range(pairs + 2):
            batch = images[index % len(images)]
            order: list[Callable[[Tensor], object]] = [eomt, luma] if index % 2 else [luma, eomt]
            seconds = {call: _seconds(call, batch) for call in order}
            ratios.append(seconds[eomt] / seconds[luma])
    return ratios[2:]


def _seconds(call: Callable[[Tensor], object], images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _interval(values: list[float]) -> tuple[float, float]:
    """95% interval of the median from order statistics (normal approximation of the binomial)."""
    ordered, half = sorted(values), Z_95 * len(values) ** 0.5 / 2
    low = max(0, int(len(values) / 2 - half))
    return ordered[low], ordered[min(len(values) - 1, int(len(values) / 2 + half))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--layers", type=int, default=12, help="blocks of the backbone; 12 is ViT-B")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
