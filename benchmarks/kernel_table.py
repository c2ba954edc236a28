"""Make `profiles/kernels.csv`: kernels that one forward pass of each backbone launches, counted on the meta device.

    python benchmarks/kernel_table.py [OUT.csv]

One row per architecture of `profiles/costs.csv`, at the smallest size that it takes: the number does not depend on the
size but for a few window paddings. Views launch nothing, and a composite operator counts as one. `fused`: products,
attention, reductions and resampling alone, as a compiler fuses element-wise operators into these.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from luma_cli import files
from luma_cli.catalogue.costs import load_costs
from luma_cli.errors import LumaError
from luma_cli.head.segmenter import build
from luma_cli.measure.count import count

OUT = Path(__file__).parent.parent / "profiles" / "kernels.csv"
# Operators that move no data: views, and bookkeeping on the host.
_FREE = """
    alias as_strided broadcast_to chunk detach diagonal expand expand_as flatten movedim mH mT narrow numpy_T permute
    real imag reshape reshape_as select slice split split_with_sizes squeeze swapaxes swapdims t tensor_split transpose
    unbind unflatten unsqueeze view view_as view_as_complex view_as_real _conj _reshape_alias _unsafe_view resolve_conj
    dropout empty empty_like empty_strided new_empty lift_fresh sym_size size stride numel dim is_contiguous
    _has_compatible_shallow_copy_type"""
# Without multiply-adds, and kernels of their own in a compiled program all the same.
_REDUCTIONS = """
    layer_norm native_layer_norm rms_norm group_norm native_group_norm instance_norm normalize softmax _softmax
    log_softmax mean sum amax std var_mean linalg_vector_norm adaptive_avg_pool1d adaptive_avg_pool2d avg_pool2d
    _adaptive_avg_pool2d max_pool2d max_pool2d_with_indices adaptive_max_pool2d scatter topk sort
    upsample_nearest2d"""


def kernels(name: str, resolution: int, head: str = "none") -> tuple[int, int]:
    """Kernels of one forward pass of a segmenter, or of the backbone alone, eager and fused."""
    segmenter = build(name, resolution, head=head, device="meta")  # type: ignore[arg-type]
    counted = count(segmenter, torch.empty(1, 3, resolution, resolution, device="meta"))
    calls = {operator.rpartition(".")[2]: (operator, number) for operator, number in counted.ops_seen.items()}
    eager = sum(number for name, (_, number) in calls.items() if name not in _FREE.split())
    fused = sum(
        number for name, (full, number) in calls.items() if full in counted.by_op or name in _REDUCTIONS.split()
    )
    return eager, fused


def main(arguments: Sequence[str]) -> int:
    """Write the table; 1 when an architecture could not be counted."""
    smallest = {name: min(side for each, side in load_costs() if each == name) for name, _ in load_costs()}
    text, failed = io.StringIO(newline=""), 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("architecture", "kernels", "fused"))
    for name, side in sorted(smallest.items()):
        try:
            writer.writerow((name, *kernels(name, side)))
        except LumaError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
    files.write_text(Path(arguments[0]) if arguments else OUT, text.getvalue())
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
