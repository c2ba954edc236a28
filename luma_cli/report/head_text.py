"""A head in words, for captions."""

from __future__ import annotations

from luma_cli.catalogue.heads import HAS, HeadConfig


def head_text(head: HeadConfig, l2: int) -> str:
    """The head in words, options that differ from the default among them; l2: the blocks that queries meet."""
    has = HAS[head.name]
    said = [f"{head.num_queries} queries"] if "num_queries" in has else []
    said += [f"{head.num_classes} classes"] if "num_classes" in has else []
    said += [f"{l2} blocks"] if "l2" in has and l2 != 1 else []
    said += [f"tap {head.tap}"] if head.tap != "output" else []
    said += ["prefix tokens seen"] if head.prefix else []
    return ", ".join([f"head {head.name}", *said])
