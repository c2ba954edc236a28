"""Exact cost of a segmenter: from the shipped table, else from the cache, else counted once in a process of its own.

Importing this file loads no torch, and neither does a cost that the table or the cache holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from luma_cli.catalogue.costs import BackboneFacts, load_costs
from luma_cli.catalogue.head_cost import (
    eomt_plan_from_facts,
    head_macs,
    head_params,
    knows_blocks,
    knows_joint_blocks,
    plan_from_facts,
)
from luma_cli.catalogue.heads import HeadConfig, needs_blocks
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.rules import check_resolution, load_rules
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BadResolution, BuildError, MeasureError, UsageError
from luma_cli.measure import cost_cache
from luma_cli.measure.count_request import Answer, CountRequest, Refusal, answer_from_json, requests_to_json
from luma_cli.measure.imports import combined_hash, find
from luma_cli.units import FlopConvention, gflops, gmacs

Source = Literal["table", "cache", "counted"]
Counter = Callable[[Sequence[CountRequest], Sequence[str]], list[Answer]]
_COUNT_SECONDS = 600.0  # a card's whole size at six resolutions takes under ten


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds and parameters of one segmenter on one square image of `resolution` pixels.

    The query pass through a reused FFN belongs to `head_macs`; that FFN's parameters belong to `backbone_params`.
    backbone_active_params: those of the backbone that one token meets, fewer only in a mixture of experts.
    activations: elements put out by the backbone's convolutions, linear layers and matrix products.
    l2: blocks that queries meet, 0 of a head without queries.
    complete: whether every operator was understood; if not, `macs` is a lower bound, to be shown with `>=`.
    """

    backbone: str
    architecture: str
    resolution: int
    head: HeadConfig
    backbone_macs: int
    head_macs: int
    backbone_params: int
    backbone_active_params: int
    head_params: int
    activations: int
    width: int
    stride: int
    num_tokens: int
    ffn: Literal["reused", "fresh", "none"]
    l2: int
    complete: bool
    unknown_ops: tuple[str, ...]
    timm: str
    source: Source

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole segmenter."""
        return self.backbone_macs + self.head_macs

    @property
    def params(self) -> int:
        """Parameters of the whole segmenter, shared ones once."""
        return self.backbone_params + self.head_params

    @property
    def active_params(self) -> int:
        """Parameters of the whole segmenter that one token or query meets; `params` but for a mixture of experts."""
        return self.backbone_active_params + self.head_params

    @property
    def gmacs(self) -> float:
        """Multiply-adds of the whole segmenter in units of 10^9."""
        return gmacs(self.macs)

    def gflops(self, convention: FlopConvention = "mac") -> float:
        """GFLOPs of the whole segmenter under `convention`."""
        return gflops(self.macs, convention)

    def as_facts(self) -> dict[str, Any]:
        """The numbers under the names that a stored profile has for them."""
        names = ("macs", "params", "backbone_macs", "head_macs", "backbone_params", "head_params")
        shape = ("active_params", "activations", "width", "stride", "num_tokens", "ffn", "l2")
        facts = {name: getattr(self, name) for name in (*names, *shape)}
        tap = self.head.tap if self.head.name == "luma" else None
        return {**facts, "tap": tap, "flops_complete": self.complete, "unknown_ops": list(self.unknown_ops)}


@dataclass(frozen=True, slots=True)
class CostSources:
    """Where facts may come from: the shipped table, a cache folder, and what counts the rest."""

    table: Mapping[tuple[str, int], BackboneFacts] = field(default_factory=load_costs)
    cache: Path = field(default_factory=cost_cache.cache_folder)
    counter: Counter | None = None


def cost(
    name: str | BackboneSpec,
    resolution: int = 512,
    head: HeadConfig = HeadConfig(),  # noqa: B008  (frozen)
    *,
    imports: Sequence[str] = (),
    sources: CostSources | None = None,
) -> Cost:
    """The cost of `name` with `head` on one image of `resolution` x `resolution` pixels.

    `imports` are modules or files that register own backbones. Raises UnknownName, BadResolution, BuildError or
    MeasureError.

    >>> cost("vit_base_patch16_224", 512, HeadConfig(name="none")).macs  # doctest: +SKIP
    107027122176
    """
    answer = costs([(name, resolution)], head, imports=imports, sources=sources)[0]
    if isinstance(answer, Refusal):
        raise answer.error()
    return answer


def costs(
    wanted: Sequence[tuple[str | BackboneSpec, int]],
    head: HeadConfig = HeadConfig(),  # noqa: B008  (frozen)
    *,
    imports: Sequence[str] = (),
    sources: CostSources | None = None,
) -> list[Cost | Refusal]:
    """Costs in the order wanted, with one counting process for all that neither table nor cache holds.

    A backbone or resolution that cannot be counted is a Refusal, so that one of them does not hide the others.
    """
    sources = sources or CostSources()
    imports_hash = combined_hash([find(item) for item in imports])
    requests = [CountRequest(_spec(name, bool(imports)), resolution) for name, resolution in wanted]
    found = {index: _look_up(request, imports_hash, sources, head) for index, request in enumerate(requests)}
    missing = [index for index, hit in found.items() if hit is None]
    if missing:
        counter = sources.counter or count_in_process
        answers = counter([requests[index] for index in missing], imports)
        for index, answer in zip(missing, answers, strict=True):
            found[index] = (answer, "counted")
            if isinstance(answer, BackboneFacts):
                cost_cache.write(sources.cache, requests[index], imports_hash, answer)
    return [_cost(request, hit, head) for request, hit in zip(requests, found.values(), strict=True) if hit]


def count_in_process(requests: Sequence[CountRequest], imports: Sequence[str] = ()) -> list[Answer]:
    """Count in a fresh process, offline. Raises MeasureError with the last line of its stderr when it dies."""
    command = [sys.executable, "-P", "-m", "luma_cli.measure.count_worker"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command,
            input=requests_to_json(requests, imports) + "\n",
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_COUNT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasureError(f"counting took over {_COUNT_SECONDS:.0f} s and was stopped; ask for fewer") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != len(requests):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasureError(f"the counting process ended with code {done.returncode}: {last}")
    return [answer_from_json(line) for line in lines]


def cost_from_facts(spec: BackboneSpec, facts: BackboneFacts, head: HeadConfig, source: Source = "table") -> Cost:
    """The cost of `head` on a backbone whose facts are known. Raises BuildError for a head that cannot be built."""
    return Cost(
        backbone=spec.name,
        architecture=facts.architecture,
        resolution=facts.resolution,
        head=head,
        backbone_macs=facts.macs,
        head_macs=head_macs(facts, head),
        backbone_params=facts.params,
        backbone_active_params=facts.met_params,
        head_params=head_params(facts, head),
        activations=facts.activations,
        width=facts.width,
        stride=facts.stride,
        num_tokens=facts.num_tokens,
        ffn=plan_from_facts(facts, head).ffn if head.name == "luma" else "none",
        l2=_num_blocks(facts, head),
        complete=facts.complete,
        unknown_ops=tuple(facts.unknown_ops.split()),
        timm=facts.timm,
        source=source,
    )


def _num_blocks(facts: BackboneFacts, head: HeadConfig) -> int:
    """Blocks that queries meet: EoMT's own number follows from the depth."""
    if head.name == "eomt":
        return eomt_plan_from_facts(facts, head).num_joint
    return head.l2 if head.name == "luma" else 0


def _spec(name: str | BackboneSpec, imported: bool) -> BackboneSpec:
    if isinstance(name, BackboneSpec):
        return name
    if not isinstance(name, str):
        raise UsageError(f"cost() takes a name, got {type(name).__name__}; for a module use segmenter_cost(build(...))")
    return resolve(name, imported=imported)


def _look_up(
    request: CountRequest, imports_hash: str, sources: CostSources, head: HeadConfig
) -> tuple[Answer, Source] | None:
    """Facts from the table, if it was made with the installed timm, else from the cache; a refusal by the rules.

    Facts that do not say what the head needs are counted again.
    """
    covered = not imports_hash and _is_as_shipped(request.spec)
    row = sources.table.get((request.spec.architecture, request.resolution)) if covered else None
    if row is not None and row.timm == version("timm") and _suffices(row, head):
        return row, "table"
    kept = cost_cache.read(sources.cache, request, imports_hash)
    if kept is not None and _suffices(kept, head):
        return kept, "cache"
    refusal = _misfit(request)
    return None if refusal is None else (refusal, "table")


def _suffices(facts: BackboneFacts, head: HeadConfig) -> bool:
    if head.name == "luma":
        return knows_blocks(facts) or not needs_blocks(head)
    return head.name != "eomt" or knows_joint_blocks(facts)


def _misfit(request: CountRequest) -> Refusal | None:
    """A size that the rule table already refuses, without building anything."""
    spec = request.spec
    entry = load_index().get(spec.architecture) if spec.source == "timm" else None
    if entry is None:
        return None
    rule = load_rules().model_rule(entry.module, entry.cls, spec.architecture, spec.rule)
    try:
        check_resolution(spec.name, request.resolution, rule, spec.architecture)
    except BadResolution as error:
        return Refusal("BadResolution", str(error))
    return None


def _is_as_shipped(spec: BackboneSpec) -> bool:
    """Whether `spec` is the model that the table counted under its architecture.

    A folder's `config.json` may state other constructor arguments, and a rule of one's own another model or tap.
    """
    return spec.source != "local-dir" and (not spec.rule or spec.rule == resolve(spec.architecture).rule)


def _cost(request: CountRequest, hit: tuple[Answer, Source], head: HeadConfig) -> Cost | Refusal:
    facts, source = hit
    if isinstance(facts, Refusal):
        return facts
    try:
        return cost_from_facts(request.spec, facts, head, source)
    except BuildError as error:
        return Refusal(type(error).__name__, str(error))
