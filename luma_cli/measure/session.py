"""One configuration measured from building to the last number, inside a worker process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from luma_cli.errors import LumaError
from luma_cli.measure import attention, flash_attn, imports
from luma_cli.measure.accelerator import Accelerator, Cpu, Cuda, is_out_of_memory
from luma_cli.measure.findings import Findings
from luma_cli.measure.messages import Options, Result
from luma_cli.measure.provenance import torch_provenance
from luma_cli.measure.steps import Steps
from luma_cli.measure.subject import Build, Subject, default_build
from luma_cli.measure.training_memory import measure_training_memory
from luma_cli.store.records import Configuration, Status

Say = Callable[[str], None]


class NotApplicable(Exception):
    """The configuration makes no sense for this backbone."""


def prepare(options: Options) -> str:
    """Set up the process once: threads, and one's own backbones. Returns why that failed, empty when it did not."""
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    for item in options.imports:
        try:
            imports.load(item)
        except Exception as error:
            return f"--import {item.target} raised {type(error).__name__}: {_first_line(error)}"
    return ""


def attempt_all(
    configurations: Sequence[Configuration], options: Options, say: Callable[[int, str], None]
) -> Iterator[Result]:
    """Prepare the process, then measure one configuration after the other; `say` gets its index and the step."""
    start = time.perf_counter()
    failure = prepare(options)
    for index, configuration in enumerate(configurations):
        if failure:
            yield Result("failed", failure, seconds=time.perf_counter() - start)
        else:
            yield attempt(configuration, options, partial(say, index))


def attempt(configuration: Configuration, options: Options, say: Say, build: Build | None = None) -> Result:
    """Measure `configuration`; whatever happens becomes a result, with what was found before it happened."""
    start = time.perf_counter()
    findings = Findings(say)
    status, reason = _guarded(configuration, options, findings, build)
    return Result(
        status,
        reason,
        findings.batch,
        findings.facts,
        findings.metrics,
        findings.notes,
        findings.provenance,
        time.perf_counter() - start,
    )


def _guarded(
    configuration: Configuration, options: Options, findings: Findings, build: Build | None
) -> tuple[Status, str]:
    """Status and reason of a measurement that fills `findings`."""
    try:
        _measure(configuration, options, findings, build or default_build())
    except NotApplicable as error:
        return "not_applicable", str(error)
    except LumaError as error:
        return "failed", str(error)
    except Exception as error:
        if is_out_of_memory(error):
            return "oom", _first_line(error)
        return "failed", f"{type(error).__name__}: {_first_line(error)}"
    return "ok", ""


def _first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _measure(configuration: Configuration, options: Options, findings: Findings, build: Build) -> None:
    """Every step in order; memory comes before anything that could leave memory behind."""
    accelerator: Accelerator = Cpu() if configuration.device == "cpu" else Cuda(options.uuid)
    findings.provenance |= torch_provenance(accelerator.torch_device)
    findings.say("building")
    findings.notes["fused_attention_level"] = attention.set_fused(configuration.attention)
    subject = Subject(configuration, accelerator.torch_device, build)
    findings.facts["ffn"] = subject.ffn
    if configuration.weights != "random":
        findings.notes["weights"] = subject.weights
    with torch.inference_mode(), _package(configuration, findings) as package:
        _first_forward(configuration, subject, accelerator, findings)
        if package is not None and package.num_redirected == 0:
            raise NotApplicable(f"flash-attn can take none of the {findings.notes['sdpa_calls']} attention calls")
        with attention.forced(configuration.attention):
            Steps(configuration, options, subject, accelerator, findings).run()
    if configuration.train_memory:
        del subject
        measure_training_memory(configuration, accelerator, findings, build)


@contextlib.contextmanager
def _package(configuration: Configuration, findings: Findings) -> Iterator[flash_attn.FlashAttn | None]:
    """The flash-attn package's kernels for every attention call inside, where they were asked for."""
    if configuration.attention != "flash-attn":
        yield None
        return
    try:
        mode = flash_attn.FlashAttn(flash_attn.load_kernel())
    except LumaError as error:
        raise NotApplicable(str(error)) from error
    with mode:
        yield mode
    findings.notes["flash_attn_calls"] = {"redirected": mode.num_redirected, "passed": mode.num_passed}


def _first_forward(
    configuration: Configuration, subject: Subject, accelerator: Accelerator, findings: Findings
) -> None:
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
    if configuration.attention not in ("auto", "unfused"):
        _check_affected(configuration, subject, findings)
    if refused:
        raise NotApplicable(f"attention {configuration.attention} cannot run {refused[0]}")


def _check_affected(configuration: Configuration, subject: Subject, findings: Findings) -> None:
    """Refuse a backend for a backbone whose own blocks never call it; the head's one call does not count."""
    if configuration.part == "head":
        return
    calls: list[attention.Attend] = []
    with attention.AttentionWatch(calls.append):
        subject.run_backbone()
    findings.notes["sdpa_calls_backbone"] = len(calls)
    if not calls:
        raise NotApplicable(f"{configuration.backbone} never calls scaled dot product attention")
