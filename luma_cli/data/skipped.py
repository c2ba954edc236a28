"""The samples that training left out because their files cannot be used, and how many may be. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from luma_cli.errors import DataError


class Skipped:
    """Names of bad samples, each counted once however often an epoch meets it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were met."""
        return tuple(self._names)

    def add(self, names: Iterable[str]) -> tuple[str, ...]:
        """Count these; returns those that are new. Raises DataError when there are more than the limit."""
        new = tuple(dict.fromkeys(name for name in names if name not in self._names))
        self._names.update(dict.fromkeys(new))
        if len(self._names) > self.limit:
            raise DataError(
                f"{len(self._names)} bad samples, the last one {self.names[-1]}, but --skip-bad allows {self.limit}; "
                "see `luma data check`"
            )
        return new
