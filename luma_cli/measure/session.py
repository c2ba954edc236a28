"""One configuration measured from building to the last number, inside a worker process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from luma_cli.errors import LumaError
from luma_cli.measure import attention
from luma_cli.measure.accelerator import Cpu, Cuda, is_out_of_memory
from luma_cli.measure.devices import torch_provenance
from luma_cli.measure.runner import Options, Result
from luma_cli.measure.steps import Findings, Steps
from luma_cli.measure.subject import Build, Subject
from luma_cli.store.records import Configuration, Status

# One image per step breaks BatchNorm where a layer sees a single pixel.
LEAST_TRAINING_BATCH = 2
LOSS = "mean square of all outputs, AdamW, all parameters trained"


class NotApplicable(Exception):
    """The configuration makes no sense for this backbone."""


def attempt(
    configuration: Configuration, options: Options, say: Callable[[str], None], build: Build | None = None
) -> Result:
    """Measure `configuration`; whatever happens becomes a result, with what was found before it happened.

    `say` is told each step; `build` stands in for the function that builds segmenters.
    """
    start = time.perf_counter()
    findings = Findings(say)
    status, reason = _guarded(configuration, options, findings, build)
    found = {each.name: getattr(findings, each.name) for each in fields(findings) if each.name != "say"}
    return Result(status, reason, seconds=time.perf_counter() - start, **found)


def _guarded(
    configuration: Configuration, options: Options, findings: Findings, build: Build | None
) -> tuple[Status, str]:
    """Status and reason of a measurement that fills `findings`."""
    try:
        _measure(configuration, options, findings, build)
    except NotApplicable as error:
        return "not_applicable", str(error)
    except LumaError as error:
        return "failed", str(error)
    except Exception as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if is_out_of_memory(error):
            return "oom", first_line
        return "failed", f"{type(error).__name__}: {first_line}"
    return "ok", ""


def _measure(configuration: Configuration, options: Options, findings: Findings, build: Build | None) -> None:
    """Every step in order; memory comes before anything that could leave memory behind."""
    accelerator = Cpu() if configuration.device == "cpu" else Cuda(options.uuid)
    findings.provenance |= torch_provenance(accelerator.torch_device)
    findings.say("building")
    findings.notes["fused_attention_level"] = attention.set_fused(configuration.attention)
    subject = Subject(configuration, accelerator.torch_device, build)
    findings.facts["ffn"] = subject.ffn
    if configuration.weights != "random":
        findings.notes["weights"] = subject.weights
    package = _flash_attn() if configuration.attention == "flash-attn" else None
    with torch.inference_mode(), package or contextlib.nullcontext():
        _first_forward(configuration, subject, accelerator, findings)
        if package is not None and package.num_redirected == 0:
            raise NotApplicable(f"flash-attn can take none of the {findings.notes['sdpa_calls']} attention calls")
        with attention.forced(configuration.attention):
            Steps(configuration, options, subject, accelerator, findings).run()
    if package is not None:
        findings.notes["flash_attn_calls"] = {"redirected": package.num_redirected, "passed": package.num_passed}
    if configuration.train_memory:
        del subject
        measure_training_memory(configuration, accelerator, findings, build)


def _flash_attn() -> attention.FlashAttn:
    """The flash-attn package's kernels for every attention call made under it."""
    try:
        return attention.FlashAttn(attention.load_kernel())
    except LumaError as error:
        raise NotApplicable(str(error)) from error


def _first_forward(configuration: Configuration, subject: Subject, accelerator: Cpu, findings: Findings) -> None:
    """The cold first call, watched: how often attention is called, and whether the backend can run all of it."""
    findings.say("first call")
    seen: list[str] = []
    refused: list[str] = []

    def look(call: attention.Attend) -> None:
        seen.append(call.describe())
        if configuration.attention in attention.BACKENDS and not refused:
            why = attention.refusal(call, configuration.attention)
            refused.extend([f"{call.describe()}: {why}"] if why else [])

    call = subject.caller(1, 1)
    start = time.perf_counter()
    with attention.AttentionWatch(look):
        call(0)
    accelerator.synchronize()
    findings.notes["first_call_seconds"] = time.perf_counter() - start
    findings.notes["sdpa_calls"] = len(seen)
    if configuration.attention not in ("auto", "unfused") and configuration.part != "head":
        _check_affected(configuration, subject, findings)
    if refused:
        raise NotApplicable(f"attention {configuration.attention} cannot run {refused[0]}")


def _check_affected(configuration: Configuration, subject: Subject, findings: Findings) -> None:
    """Refuse a backend for a backbone whose own blocks never call it; the head's one call does not count."""
    calls: list[attention.Attend] = []
    with attention.AttentionWatch(calls.append):
        subject.run_backbone()
    findings.notes["sdpa_calls_backbone"] = len(calls)
    if not calls:
        raise NotApplicable(f"{configuration.backbone} never calls scaled dot product attention")


def measure_training_memory(
    configuration: Configuration, accelerator: Cpu, findings: Findings, build: Build | None = None
) -> None:
    """Peak memory of training steps: a lower bound that every recipe with this batch and AdamW meets.

    Two steps of a fresh model on a surrogate loss; the peak is of the second, when the optimiser has its state.
    """
    findings.say("training memory")
    accelerator.release()
    subject = Subject(configuration, accelerator.torch_device, build)
    batch = max(LEAST_TRAINING_BATCH, configuration.batch)
    inputs = subject.inputs(batch, 1)[0]
    module = subject.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    # training EoMT supervises more predictions than inference makes, all under masked attention
    predicts_often = configuration.part == "all" and configuration.head.name == "eomt"
    supervised = subject.segmenter.predictions if predicts_often else module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        surrogate_loss(supervised(inputs)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    step()
    findings.add_peaks(accelerator.peaks(step), "_training")
    findings.notes["training_memory"] = {"batch": batch, "loss": LOSS}


def surrogate_loss(output: Any) -> Tensor:
    """Mean square of every tensor of the output, summed: it needs all activations and no labels."""
    if isinstance(output, tuple):
        return torch.stack([surrogate_loss(part) for part in output]).sum()
    mean: Tensor = output.float().square().mean()
    return mean
