"""Measuring what an answer would like to know before it is relied on: asked for, or offered on a terminal."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from luma_cli.errors import NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation
    from luma_cli.catalogue.heads import HeadName

# Enough rows of an answer to find five architectures and sizes among them.
_WIDE = 20


@dataclass(frozen=True, slots=True)
class Session:
    """A question that may be asked again after something was measured.

    ask: the question, taking `top` and `with_reasons`. device: as the user named it, None for none.
    """

    ask: Callable[..., Recommendation]
    dataset: str
    head: HeadName
    device: str | None
    database: Path | None

    def first(self, top: int, with_reasons: bool, may_ask: bool) -> Recommendation:
        """The answer; where nothing is known of the device, on a terminal, after measuring if the user agrees."""
        try:
            return self.ask(top=top, with_reasons=with_reasons)
        except NothingMeasured as nothing:
            if not (may_ask and self._is_here() and _agrees(f"{nothing}\nmeasure {nothing.name} here now?")):
                raise
        self.measure()
        return self.ask(top=top, with_reasons=with_reasons)

    def measure(self) -> None:
        """Measure the most promising candidates here, before that the anchor where nothing is known of the device."""
        from luma_cli.advise.shortlist import shortlist

        here(self.device)
        try:
            found = self.ask(top=_WIDE)
        except NothingMeasured as nothing:
            self._profile([(nothing.name, nothing.resolution)])
            found = self.ask(top=_WIDE)
        wanted = shortlist(found)
        if not wanted:
            print("luma: --measure has nothing to measure: no budget asks for more than is known", file=sys.stderr)
        self._profile((each.name, each.resolution) for each in wanted)

    def offers(self) -> bool:
        """Whether there is something to measure here and the user, on a terminal, wants it now."""
        from luma_cli.advise.shortlist import shortlist

        if not (_is_terminal() and self._is_here()):
            return False
        wanted = shortlist(self.ask(top=_WIDE))
        names = ", ".join(each.label for each in wanted)
        return bool(wanted) and _agrees(f"measure {names} here, a minute or more each, and answer again?")

    def _is_here(self) -> bool:
        return self.device is None or _is_local(self.device)

    def _profile(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Profile each name at its size with the question's head and classes, as `luma profile` does, and keep it."""
        from luma_cli.advise.candidates import num_classes
        from luma_cli.catalogue.heads import HeadConfig
        from luma_cli.measure.api import profile
        from luma_cli.measure.sweep import Settings
        from luma_cli.report.progress import Progress

        by_resolution: dict[int, list[str]] = defaultdict(list)
        for name, resolution in wanted:
            by_resolution[resolution].append(name)
        head = HeadConfig(name=self.head, num_classes=num_classes(self.dataset))
        settings = Settings(device=here(self.device))
        with Progress(sys.stderr) as progress:
            for resolution, names in by_resolution.items():
                profile(names, resolution, head=head, settings=settings, database=self.database, on_event=progress)


def here(device: str | None) -> str:
    """The device of this machine that is to be measured. Raises UsageError for a name that is of another machine."""
    if device is None:
        return "auto"
    if not _is_local(device):
        raise UsageError(f"--measure measures this machine, but --device {device!r} names a model; try --device cuda")
    return device


def _is_local(device: str) -> bool:
    return device.partition(":")[0] in ("cpu", "cuda")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def _agrees(question: str) -> bool:
    return _is_terminal() and typer.confirm(question, default=False, err=True)
