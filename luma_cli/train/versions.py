"""Versions of what computes a run: when they differ, a resumed run may differ in the last bits. No torch."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from luma_cli.version import __version__


def versions() -> dict[str, str]:
    """Versions of luma, torch and timm, without importing them."""
    return {"luma": __version__, **{name: importlib.metadata.version(name) for name in ("torch", "timm")}}


def changed_versions(saved: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each version that differs, both named.

    >>> changed_versions({"torch": "2.14.0"}, {"torch": "2.15.0"})
    ('torch was 2.14.0 and is 2.15.0',)
    """
    names = [name for name in now if saved.get(name) != now[name]]
    return tuple(f"{name} was {saved.get(name, 'unknown')} and is {now[name]}" for name in names)
