"""One architecture as the index has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """One architecture, of timm or our own.

    cls: the model class as `module.Class`, the key of the rule table.
    tags: tag -> licence, only those with weights to fetch.
    default_tag: what timm takes for the bare name, empty when it has no weights. input_size: pixels of its default
    configuration, 0 when it has none.
    """

    architecture: str
    module: str
    cls: str
    tags: Mapping[str, str] = field(default_factory=dict)
    default_tag: str = ""
    input_size: int = 0
