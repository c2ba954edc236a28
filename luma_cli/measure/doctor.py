"""Checks of the environment and of one backbone: what works, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BuildError, LumaError
from luma_cli.measure.nvml import NvmlMissing, load_nvml
from luma_cli.store import database as databases
from luma_cli.store import inspection

if TYPE_CHECKING:
    from luma_cli.backbone.backbone import Backbone
    from luma_cli.catalogue.spec import BackboneSpec


Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `ok`, `note` (works, but something is missing) or `fail`."""

    name: str
    verdict: Verdict
    detail: str


def check_environment(database: Path | None = None) -> list[Check]:
    """Packages, device, attention backends, NVML, database and hub, in that order."""
    checks = [_torch(), _torchvision()]
    if all(check.verdict == "ok" for check in checks):  # the others import torch, or need it
        index = load_index()
        checks += [
            _package("timm", "backbones"),
            Check("timm index", "note" if index.stale else "ok", index.stale or f"of timm {index.version}"),
            _package("fvcore", "--by-module"),
            _cuda(),
            _attention(),
            _package("flash_attn", "--attention flash-attn (extra `flash`)", missing="note"),
            _nvml(),
        ]
    return [*checks, _database(database), _hub()]


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", "fail", f"does not import: {_first_line(error)}; reinstall torch")
    return Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")


def _torchvision() -> Check:
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:  # a CUDA torchvision beside a CPU torch fails at import
        repair = "reinstall both: pip install --force-reinstall torch torchvision"
        return Check("torchvision", "fail", f"does not match torch: {_first_line(error)}; {repair}")
    return Check("torchvision", "ok", torchvision.__version__)


def _package(name: str, purpose: str, missing: Verdict = "fail") -> Check:
    """Whether a package is installed, from its metadata."""
    try:
        return Check(name, "ok", f"{importlib.metadata.version(name)}, for {purpose}")
    except importlib.metadata.PackageNotFoundError:
        return Check(name, missing, f"not installed; needed for {purpose}")


def _cuda() -> Check:
    import torch

    built = torch.version.cuda
    if not torch.cuda.is_available():
        return Check("cuda", "note", f"no CUDA device (torch built for CUDA {built}); profiles run on the CPU")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return Check("cuda", "ok", f"CUDA {built}, cuDNN {cudnn}: {', '.join(names)}")


def _attention() -> Check:
    """The scaled-dot-product attention backends that torch has switched on."""
    import torch

    if not torch.cuda.is_available():
        return Check("attention", "note", "math and the CPU flash kernel only; flash, efficient and cudnn need CUDA")
    switches = {"flash": "flash", "efficient": "mem_efficient", "cudnn": "cudnn", "math": "math"}
    enabled = [name for name, own in switches.items() if getattr(torch.backends.cuda, f"{own}_sdp_enabled")()]
    return Check("attention", "ok", "enabled: " + ", ".join(enabled))


def _nvml() -> Check:
    try:
        nvml = load_nvml()
        return Check("nvml", "ok", f"driver {nvml.driver()}, {len(nvml.uuids())} GPUs")
    except NvmlMissing as error:
        return Check("nvml", "note", f"{error}: clocks, throttling and energy are not recorded")


def _database(path: Path | None) -> Check:
    """Whether the database opens and is intact; nothing is created."""
    where = databases.path(path)
    if not where.exists():
        return Check("database", "ok", f"{where} (does not exist yet; the first profile creates it)")
    try:
        problems = inspection.check(where).problems
    except LumaError as error:
        return Check("database", "fail", str(error))
    return Check("database", "fail" if problems else "ok", "; ".join([str(where), *problems]))


def _hub() -> Check:
    """Whether a pretrained weight could be downloaded; nothing is contacted."""
    if os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "yes", "on", "TRUE", "ON", "YES"}:
        return Check("hub", "note", "HF_HUB_OFFLINE is set: pretrained weights from the cache or --weights FILE only")
    return Check("hub", "ok", "online; profile and cost never contact it")


def check_backbone(spec: BackboneSpec, resolution: int, head: HeadConfig | None = None) -> list[Check]:
    """Layout, FFN self-check, whether the head attaches, and shapes on meta beside those of a real forward."""
    from luma_cli.backbone.create import create_backbone

    head = head or HeadConfig()
    backbone = create_backbone(spec, resolution)
    attached = _head(backbone, head)
    detail = f"{backbone.width} channels, stride {backbone.stride}, {len(backbone.pruned)} unused modules pruned"
    checks = [Check("layout", "ok", detail), _ffn(backbone), attached]
    return [*checks, _shapes(spec, resolution, head)] if attached.verdict == "ok" else checks


def _head(backbone: Backbone, head: HeadConfig) -> Check:
    """Whether the head can be built on this backbone, with its blocks and parameters."""
    import torch

    from luma_cli.backbone.backbone import meta_twin
    from luma_cli.head.segmenter import Segmenter
    from luma_cli.measure.facts import segmenter_cost

    try:
        with torch.device("meta"):
            counted = segmenter_cost(Segmenter(meta_twin(backbone), head))
    except BuildError as error:
        return Check("head", "fail", str(error))
    blocks = f", queries meet {counted.l2} block{'s' if counted.l2 > 1 else ''}" if counted.l2 else ""
    return Check("head", "ok", f"{head.name} attaches: {counted.head_params / 1e6:.3g} M parameters{blocks}")


def _ffn(backbone: Backbone) -> Check:
    from luma_cli.backbone.selfcheck import check

    if not backbone.ffn_kind:
        return Check("ffn", "note", f"fresh: {backbone.ffn_reason}")
    verdict = check(backbone)
    found = f"{backbone.ffn_kind}, {verdict.status}: relative error {verdict.error:.1e}, change {verdict.change:.2g}"
    return Check("ffn", "ok" if verdict.passed else "fail", "; ".join(filter(None, (found, verdict.reason))))


def _shapes(spec: BackboneSpec, resolution: int, head: HeadConfig) -> Check:
    """Whether the outputs that are counted have the shapes of those that are computed."""
    import torch

    from luma_cli.head.segmenter import build

    shapes = []
    for device in ("meta", "cpu"):
        segmenter = build(spec, resolution, head=head, device=device).eval()
        with torch.inference_mode():
            output = segmenter(torch.zeros(1, 3, resolution, resolution, device=device))
        parts = {"map": output} if isinstance(output, torch.Tensor) else output._asdict()
        shapes.append({name.removesuffix("_logits"): list(part.shape) for name, part in parts.items()})
    meta, real = shapes
    if meta != real:
        return Check("shapes", "fail", f"counted as {meta}, runs as {real}")
    named = ", ".join(f"{name} {shape}" for name, shape in real.items())
    return Check("shapes", "ok", f"{named}, the same when counted and when run")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
