"""What may be asked for, and what can be refused before anything starts. Imports no torch."""

from __future__ import annotations

from luma_cli.errors import UsageError
from luma_cli.store.records import Configuration

DTYPES = ("float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "flash", "efficient", "cudnn", "math", "unfused", "flash-attn")
COMPILES = ("none", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
LAYOUTS = ("auto", "on", "off")
PARTS = ("all", "backbone", "head")

_CUDA_ONLY = ("flash", "efficient", "cudnn", "flash-attn")
_HALF_ONLY = ("flash", "cudnn", "flash-attn")


def check(configuration: Configuration) -> None:
    """Raise UsageError, naming the option and its values, for a choice that does not exist."""
    for option, value, known in (
        ("--dtype", configuration.dtype, DTYPES),
        ("--attention", configuration.attention, ATTENTIONS),
        ("--compile", configuration.compile, COMPILES),
        ("--channels-last", configuration.channels_last, LAYOUTS),
        ("--part", configuration.part, PARTS),
    ):
        if value not in known:
            raise UsageError(f"{option} {value} is unknown, expected one of: {', '.join(known)}")
    if configuration.batch < 0:
        raise UsageError(f"--batch {configuration.batch} is out of range, expected auto or at least 1; try --batch 1")
    if configuration.part == "head" and configuration.head.name == "none":
        raise UsageError("--part head with --head none leaves nothing to measure; try --head luma")
    if configuration.part == "head" and configuration.head.name == "eomt":
        raise UsageError("--part head cannot be told from the backbone with --head eomt; try --part all or --head luma")


def never_applicable(configuration: Configuration) -> str:
    """Why this configuration can never run, whatever the backbone; empty when it may."""
    attention, device, dtype = configuration.attention, configuration.device, configuration.dtype
    if attention in _CUDA_ONLY and not device.startswith("cuda"):
        return f"attention {attention} runs on CUDA only, device is {device}"
    if attention in _HALF_ONLY and dtype not in ("bfloat16", "float16"):
        return f"attention {attention} takes float16 or bfloat16 only, dtype is {dtype}"
    if attention == "flash-attn" and configuration.compile != "none":
        return "attention flash-attn replaces calls in eager mode only, compile is " + configuration.compile
    return ""
