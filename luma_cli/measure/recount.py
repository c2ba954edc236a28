"""Costs counted anew: every backbone is built with its head on the meta device, and the closed form must agree.

Neither the shipped table nor the cache is read or written. Two processes of one thread share the work. Importing this
file loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import LumaError, MeasureError
from luma_cli.measure.cost import Cost
from luma_cli.measure.count_request import Refusal

NUM_WORKERS = 2


def recount(
    wanted: Sequence[tuple[BackboneSpec, int]],
    head: HeadConfig,
    *,
    imports: Sequence[str] = (),
    on_count: Callable[[], None] = lambda: None,
    num_workers: int = NUM_WORKERS,
) -> list[Cost | Refusal]:
    """A counted cost of every backbone at every resolution wanted, or why there is none; `on_count` after each.

    Raises MeasureError when a worker process dies.
    """
    found: list[Cost | Refusal] = []
    with ProcessPoolExecutor(
        min(num_workers, max(1, len(wanted))), get_context("spawn"), initializer=_prepare, initargs=(tuple(imports),)
    ) as pool:
        pending = [pool.submit(count_one, spec, resolution, head) for spec, resolution in wanted]
        try:
            for job in pending:
                found.append(job.result())
                on_count()
        except BrokenProcessPool as error:
            raise MeasureError(f"a counting process died after {len(found)} of {len(wanted)} counts") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving early, nothing more is begun
    return found


def count_one(spec: BackboneSpec, resolution: int, head: HeadConfig) -> Cost | Refusal:
    """The counted cost of one segmenter. A count from which the closed form differs is a refusal that says both."""
    from luma_cli.catalogue.head_cost import head_macs, head_params
    from luma_cli.head.segmenter import build
    from luma_cli.measure.count import Count
    from luma_cli.measure.facts import backbone_facts
    from luma_cli.measure.segmenter_cost import segmenter_cost

    try:
        segmenter = build(spec, resolution, head=head, device="meta")
        counted = segmenter_cost(segmenter)
        known = Count(counted.backbone_macs, counted.activations, unknown_ops=counted.unknown_ops)
        facts = backbone_facts(segmenter.backbone, known)
        formula = head_macs(facts, head), head_params(facts, head)
    except LumaError as error:
        return Refusal(type(error).__name__, str(error))
    except Exception as error:  # a backbone that fails in its own code must not hide the others
        text = str(error).strip().splitlines() or ["no message"]
        named = f"{spec.name} at {resolution}"
        return Refusal("MeasureError", f"{named} could not be counted: {type(error).__name__}: {text[0]}")
    return checked(counted, formula)


def checked(counted: Cost, formula: tuple[int, int]) -> Cost | Refusal:
    """`counted`, unless the closed form gives its head other multiply-adds or parameters."""
    if formula == (counted.head_macs, counted.head_params):
        return counted
    return Refusal(
        "MeasureError",
        f"{counted.backbone} at {counted.resolution}: the closed form gives the head {formula[0]} multiply-adds and "
        f"{formula[1]} parameters, counted were {counted.head_macs} and {counted.head_params}",
    )


def _prepare(imports: tuple[str, ...]) -> None:
    """Set up a worker: one thread, no network, one's own backbones."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from luma_cli.measure.imports import find, load

    torch.set_num_threads(1)
    for name in imports:
        load(find(name))
