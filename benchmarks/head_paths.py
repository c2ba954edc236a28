"""Ways to compute one and the same LUMA head, in turns: `python benchmarks/head_paths.py [--width W] [--device D]`.

Every path has the published head's weights and must give its numbers to 1e-4; the ratio shipped / path, with its 95%
interval, says whether it is worth having. The published path is the one that ships: maps channels-last in memory, one
matrix for keys and values, queries projected once per call whatever the batch. `--dtype bfloat16` and `--compile` time
the same paths there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from luma_cli.catalogue.heads import HeadConfig, Tap, plan_head
from luma_cli.head.luma import FreshFfn, LumaHead
from luma_cli.head.parts import HeadOutput, ScaleBlock

TOLERANCE = 1e-4
Z_95 = 1.959964
PATCH = 16
# The path that ships, and another way to the same numbers.
PAIRS = (
    ("published", "contiguous"),
    ("published", "matrix_product"),
    ("published", "folded_norm"),
    ("ffn_apart", "ffn_together"),
)


class Block(nn.Module):
    """The two things that a head borrows: a residual FFN and a norm, as a ViT's last block and final norm are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = FreshFfn(width)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def query_ffn(self, queries: Tensor) -> Tensor:
        """[B, K, D] -> [B, K, D]."""
        fed: Tensor = self.ffn(queries)
        return fed

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        normed: Tensor = self.norm(tokens)
        return normed


class Paths:
    """The head of one width at one size, and the paths to its numbers; each takes features [B, D, h, w]."""

    def __init__(self, width: int, resolution: int) -> None:
        torch.manual_seed(0)
        tap = Tap(width, PATCH, width // 64, has_ffn=True, has_final_norm=True)
        config = HeadConfig()
        self.block = Block(width)
        self.head = LumaHead(plan_head(tap, config), config)
        self.mask_size = (resolution // 4, resolution // 4)
        self._distinct_norms()

    def _distinct_norms(self) -> None:
        """Norms as after training: at their initial ones and zeros a path that forgets them would look right."""
        for module in (*self.head.modules(), *self.block.modules()):
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)

    def modules(self) -> nn.ModuleList:
        """Everything with weights."""
        return nn.ModuleList([self.head, self.block])

    def published(self, features: Tensor) -> HeadOutput:
        """The head as it ships."""
        prediction: HeadOutput = self.head(features, self.mask_size, self.block)
        return prediction

    def contiguous(self, features: Tensor) -> HeadOutput:
        """Maps in NCHW memory before every doubling, as EoMT's code has them."""
        return self._with(features, lambda pixels: self._upscaled(pixels, lambda block, x: block(x.contiguous())))

    def matrix_product(self, features: Tensor) -> HeadOutput:
        """The transposed convolution as one matrix product and a shuffle of its four results per pixel."""
        return self._with(features, lambda pixels: self._upscaled(pixels, _scale_by_product))

    def folded_norm(self, features: Tensor) -> HeadOutput:
        """The last norm inside the mask product: its weight and bias go to the K queries, its mean and deviation to
        one number each per pixel, so that no normed map of W channels is written.
        """
        *first, last = self.head.upscale

        def upscaled(pixels: Tensor) -> Tensor:
            for block in first:
                pixels = block(pixels)
            return last.smooth(gelu(last.enlarge(pixels)))  # type: ignore[no-any-return, operator]

        return self._with(features, upscaled, last.norm)  # type: ignore[arg-type]

    def ffn_apart(self, features: Tensor) -> Tensor:
        """The block's FFN on its patches, then once more on the queries: what a black-box backbone allows."""
        patches, queries = self._both(features)
        return torch.cat([self.block.query_ffn(queries), self.block.query_ffn(patches)], dim=1)

    def ffn_together(self, features: Tensor) -> Tensor:
        """The block's FFN on patches and queries in one batch: needs a way into the block."""
        patches, queries = self._both(features)
        return self.block.query_ffn(torch.cat([queries, patches], dim=1))

    def _both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        patches = features.flatten(2).transpose(1, 2)
        return patches, self.head.queries.weight.expand(len(features), -1, -1)

    def _upscaled(self, pixels: Tensor, scale: Callable[[ScaleBlock, Tensor], Tensor]) -> Tensor:
        for block in self.head.upscale:
            pixels = scale(block, pixels)  # type: ignore[arg-type]
        return pixels

    def _with(
        self, features: Tensor, upscaled: Callable[[Tensor], Tensor], norm: nn.LayerNorm | None = None
    ) -> HeadOutput:
        """The published steps around another way from the normed patches to the masks."""
        tokens = features.flatten(2).transpose(1, 2)
        queries = self.block.query_ffn(self.head.attention(self.head.queries.weight, tokens))
        queries, tokens = self.block.norm_tokens(queries), self.block.norm_tokens(tokens)
        pixels = upscaled(tokens.view(len(features), *features.shape[2:], -1).permute(0, 3, 1, 2))
        embedded = self.head.mask(queries)
        masks = embedded @ pixels.flatten(2) if norm is None else _product_with_norm(embedded, pixels, norm)
        return HeadOutput(self.head.classify(queries), masks.view(*embedded.shape[:2], *pixels.shape[2:]))


def _scale_by_product(block: ScaleBlock, pixels: Tensor) -> Tensor:
    batch, width, rows, columns = pixels.shape
    weight = block.enlarge.weight.permute(2, 3, 1, 0).reshape(4 * width, width)
    bias = torch.zeros(width) if block.enlarge.bias is None else block.enlarge.bias
    fours = linear(pixels.permute(0, 2, 3, 1), weight).view(batch, rows, columns, 2, 2, width)
    enlarged = fours.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * rows, 2 * columns, width) + bias
    normed: Tensor = block.norm(block.smooth(gelu(enlarged.permute(0, 3, 1, 2))).permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)


def _product_with_norm(embedded: Tensor, pixels: Tensor, norm: nn.LayerNorm) -> Tensor:
    flat = pixels.permute(0, 2, 3, 1).flatten(1, 2)
    variance, mean = torch.var_mean(flat, -1, unbiased=False)
    weighted = embedded * norm.weight
    centred = weighted @ flat.transpose(1, 2) - weighted.sum(-1, keepdim=True) * mean[:, None]
    return centred * torch.rsqrt(variance + norm.eps)[:, None] + (embedded @ norm.bias)[..., None]


def main() -> int:
    """Print one JSON line per path; 1 when one gives other numbers than the published path."""
    options = _options()
    torch.set_num_threads(options.threads)
    paths = Paths(options.width, options.resolution)
    paths.modules().to(device=options.device, dtype=getattr(torch, options.dtype)).eval()
    side = options.resolution // PATCH
    features = torch.randn(
        options.batch, options.width, side, side, device=options.device, dtype=getattr(torch, options.dtype)
    )
    wrong = False
    with torch.inference_mode():
        for reference, name in PAIRS:
            calls = [getattr(paths, reference), getattr(paths, name)]
            if options.compile:
                calls = [torch.compile(call, dynamic=False) for call in calls]
            difference = _difference(calls[1](features), calls[0](features))
            wrong |= options.dtype == "float32" and difference > TOLERANCE
            row = _compare(calls[0], calls[1], features, options.pairs)
            print(json.dumps({"path": name, **row, "difference": difference, **_facts(options)}), flush=True)
    return int(wrong)


def _difference(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Largest difference of a value, relative to the largest one."""
    pairs = list(zip(found, expected, strict=True))
    scale = max(float(other.abs().max()) for _, other in pairs)
    return max(float((one - other).abs().max()) for one, other in pairs) / scale


def _compare(
    published: Callable[[Tensor], object], path: Callable[[Tensor], object], features: Tensor, pairs: int
) -> dict[str, float]:
    """Published seconds over the path's, in turns, after two warm-up pairs: median and its 95% interval."""
    ratios, seconds = [], []
    for index in range(pairs + 2):
        order = (published, path) if index % 2 else (path, published)
        took = {call: _seconds(call, features) for call in order}
        ratios.append(took[published] / took[path])
        seconds.append(took[published])
    ordered, half = sorted(ratios[2:]), Z_95 * pairs**0.5 / 2
    low, high = max(0, int(pairs / 2 - half)), min(pairs - 1, int(pairs / 2 + half))
    return {
        "ratio": statistics.median(ordered),
        "ci_low": ordered[low],
        "ci_high": ordered[high],
        "shipped_ms": 1e3 * statistics.median(seconds[2:]),
    }


def _seconds(call: Callable[[Tensor], object], features: Tensor) -> float:
    if features.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call(features)
    if features.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _facts(options: argparse.Namespace) -> dict[str, object]:
    names = ("width", "resolution", "batch", "dtype", "compile", "device", "threads")
    return {name: getattr(options, name) for name in names}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
