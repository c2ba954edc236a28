"""Devices by specification: peak rates, memory bandwidth, memory and power, from a shipped table or the user's file.

    find_device("jetson orin").bandwidth   # bytes per second
    read_spec(Path("mine.toml"))

A file of one's own is TOML with the columns of `profiles/reference/devices.csv` as keys, in the same units:

    name = "my card"
    fp16_tflops = 100      # dense, with accumulation in float32
    bandwidth_gbs = 500
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from luma_cli import files
from luma_cli.errors import BadCard, UnknownName, UsageError

# Key of a specification: its unit, and the range of what was ever built.
_UNITS: dict[str, tuple[str, float, float]] = {
    "fp16_tflops": ("10^12 FLOP/s, dense", 0.1, 20_000),
    "fp32_tflops": ("10^12 FLOP/s", 0.05, 2_000),
    "bandwidth_gbs": ("10^9 bytes/s", 5, 50_000),
    "memory_gb": ("10^9 bytes", 0.5, 2_000),
    "tdp_w": ("watts", 1, 5_000),
}
_NEEDED = ("name", "fp16_tflops", "bandwidth_gbs")
_KEYS = ("name", *_UNITS)
_IDLE = frozenset(("nvidia", "geforce", "tesla", "gpu", "graphics"))


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device. fp16, fp32: peak FLOP/s, dense, fp16 with accumulation in float32. bandwidth: bytes per second.

    memory: bytes. tdp: watts. None where not known. source: where the figures are from.
    """

    name: str
    fp16: float
    bandwidth: float
    fp32: float | None = None
    memory: float | None = None
    tdp: float | None = None
    aliases: tuple[str, ...] = ()
    source: str = ""

    @property
    def figures(self) -> str:
        """The two figures that predictions rest on, in words."""
        return f"{self.fp16 / 1e12:g} TFLOP/s fp16, {self.bandwidth / 1e9:,.0f} GB/s"


@cache
def load_devices() -> tuple[DeviceSpec, ...]:
    """The shipped table, by name. Raises BadCard for another file."""
    path = files.root() / "profiles" / "reference" / "devices.csv"
    return tuple(
        _device(f"{path}: row {number}", {name: text for name, text in row.items() if text})
        for number, row in enumerate(files.read_csv(path), 1)
    )


def is_address(device: str) -> bool:
    """Whether this names a device of this machine, as torch does: `cpu`, `cuda`, `cuda:1`."""
    return device.lower().partition(":")[0] in ("cpu", "cuda")


def find_device(name: str) -> DeviceSpec | None:
    """The device of this name or alias, however its words are written; None for none."""
    wanted = _spelled(name)
    for each in load_devices():
        if wanted and wanted in {_spelled(spelling) for spelling in (each.name, *each.aliases)}:
            return each
    return None


def _spelled(name: str) -> str:
    """Words in order without maker and spaces: `NVIDIA GeForce RTX 4090` is `rtx4090`."""
    return "".join(word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in _IDLE)


def unknown(name: str, others: tuple[str, ...] = ()) -> UnknownName:
    """The error for a device that nobody knows. others: names of measured devices."""
    names = [*dict.fromkeys([*others, *(each.name for each in load_devices())])]
    spellings = {_spelled(text): each.name for each in load_devices() for text in (each.name, *each.aliases)}
    spellings |= {_spelled(each): each for each in others}
    near = [spellings[text] for text in get_close_matches(_spelled(name), list(spellings), 6, 0.5)]
    listed = [*dict.fromkeys(near)][:3] or names[:3]
    return UnknownName(
        f"no device {name[:60]!r}; nearest: {', '.join(listed)}; give its figures with --device-spec FILE.toml, or run "
        "luma profile vit_s.dinov3 on that machine"
    )


def read_spec(path: Path) -> DeviceSpec:
    """The specification in a TOML file. Raises UsageError that names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path} cannot be read: {reason}; expected TOML with {', '.join(_NEEDED)}") from error
    try:
        return _device(str(path), tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}; expected lines such as bandwidth_gbs = 500") from error
    except BadCard as error:
        raise UsageError(str(error)) from error


def _device(where: str, values: dict[str, Any], text: str = "") -> DeviceSpec:
    """The specification in `values`. Raises BadCard. text: the file, for the number of a wrong line."""

    def at(key: str) -> str:
        lines = (number for number, line in enumerate(text.splitlines(), 1) if re.match(rf"\s*[\"']?{key}\b", line))
        number = next(lines, 0)
        return f"{where}, line {number}" if number else where

    numbers = {}
    if text and (others := [key for key in values if key not in _KEYS]):
        near = get_close_matches(others[0], _KEYS, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(_KEYS)}"
        raise BadCard(f"{at(others[0])}: {others[0]} is no key of a device; {hint}")
    if missing := [key for key in _NEEDED if values.get(key) in (None, "")]:
        unit = f" ({_UNITS[missing[0]][0]})" if missing[0] in _UNITS else ' (e.g. "my card")'
        raise BadCard(f"{where}: {missing[0]} is missing; add {missing[0]} = ...{unit}")
    for key, (unit, least, most) in _UNITS.items():
        given = values.get(key)
        if given is None:
            continue
        try:
            value = float(given) if not isinstance(given, bool) else float("nan")
        except (TypeError, ValueError):
            value = float("nan")
        if not (isfinite(value) and least <= value <= most):
            raise BadCard(f"{at(key)}: {key} is {given!r}, expected a number in {unit}, from {least:g} to {most:g}")
        numbers[key] = value
    return DeviceSpec(
        str(values["name"]),
        numbers["fp16_tflops"] * 1e12,
        numbers["bandwidth_gbs"] * 1e9,
        numbers["fp32_tflops"] * 1e12 if "fp32_tflops" in numbers else None,
        numbers["memory_gb"] * 1e9 if "memory_gb" in numbers else None,
        numbers.get("tdp_w"),
        tuple(filter(None, str(values.get("aliases", "")).split(";"))),
        str(values.get("source", where)),
    )
