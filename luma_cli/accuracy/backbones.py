"""Architecture, series, family, year and size of a backbone in any spelling, as far as they are known.

Sizes come from `profiles/params.csv` (counted on timm's models without classifier), then
`profiles/reference/backbone_params.csv` (as in their papers), then the size word in the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from luma_cli import files
from luma_cli.catalogue.spec import Family

SizeOrigin = Literal["counted", "published", "by its size word", ""]

_QUALIFIER = re.compile(r"\s*\(.*\)\s*$")
_WORDS = {"ti": "tiny", "t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant", "xl": "xlarge"}
_VIT = re.compile(r"(?<![a-z])vit_?(tiny|small|base|large|huge|giant|ti|[tsblhg])(?=_|\d|$)")
# Millions of parameters that a size word usually means, for plain ViTs and for everything else.
_VIT_SIZES = {"tiny": 5.5, "small": 21.7, "base": 85.8, "large": 303.3, "huge": 630.8, "giant": 1136.0}
_SIZES = {
    **{"pico": 9.0, "nano": 15.0, "xxs": 6.0, "xs": 12.0, "micro": 12.5, "mini": 20.0, "tiny": 27.0, "small": 48.0},
    **{"medium": 50.0, "base": 87.0, "large": 198.0, "xlarge": 350.0, "huge": 650.0, "giant": 1100.0},
    **{"b0": 3.5, "b1": 13.5, "b2": 25.0, "b3": 45.0, "b4": 62.0, "b5": 85.0},
}
_DETAIL = re.compile(r"_(patch\d+|window\d+|\d\d\d)$")
# `.ms_in22k` and `.dinov3`, but not the sizes in `repvit_m1.1` and `one_peace_1.5b`.
_TAG = re.compile(r"\.[a-z].*$", re.IGNORECASE)
_TRAINER = re.compile(r"(?:open_?clip|clip|dinov[23]|dino|mae|ibot|siglip2?)_")
_COUNT = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)([mb])(?=_|$)")


@dataclass(frozen=True, slots=True)
class Lineage:
    """A series of backbones. year: when it was published. arxiv: its paper."""

    name: str
    family: Family
    year: int
    arxiv: str


@dataclass(frozen=True, slots=True)
class KnownBackbone:
    """What a name says. lineage: None when the series is not known. params: without classifier, None when not known."""

    architecture: str
    lineage: Lineage | None = None
    params: float | None = None
    size_origin: SizeOrigin = ""


@cache
def recognise(name: str) -> KnownBackbone:
    """The backbone that a published or typed name means; qualifiers in brackets and tags are ignored.

    >>> recognise("Swin-T").architecture, recognise("mit_b2").params
    ('swin_tiny_patch4_window7_224', 24200000.0)
    """
    plain = _untrained(normalised(name))
    series = _lineage(plain)
    for spelling in _spellings(plain):
        if (architecture := _in_timm(spelling)) is not None:
            return KnownBackbone(architecture, _finer(series, architecture), float(_counted()[architecture]), "counted")
        if (millions := _published().get(spelling)) is not None:
            return KnownBackbone(spelling, series, millions * 1e6, "published")
    if (match := _VIT.search(plain)) is not None and (series is None or series.name == "vit"):
        return KnownBackbone(plain, series, _VIT_SIZES[_WORDS.get(match[1], match[1])] * 1e6, "published")
    params = _by_word(plain, series)
    return KnownBackbone(plain, series, params, "by its size word" if params else "")


def normalised(name: str) -> str:
    """Lower case, words joined by underscores, without qualifier in brackets, timm's tag and the folder of a hub."""
    last = name.rpartition("/")[2] if ":" in name else name
    bare = _TAG.sub("", _QUALIFIER.sub("", last).strip())
    return bare if bare in _counted() else re.sub(r"[\s\-/]+", "_", bare.lower()).strip("_")


def _untrained(plain: str) -> str:
    """Without the trainer's name before that of a series: `dinov3_convnext_base`, but not `dinov2_vit_l_14`."""
    rest = _TRAINER.sub("", plain, count=1)
    series = _lineage(rest) if _TRAINER.match(plain) else None
    return rest if series is not None and series.name != "vit" else plain


def _finer(series: Lineage | None, architecture: str) -> Lineage | None:
    """The architecture's own series where the name was that of a wider one: `EVA-02-L` begins like `eva`."""
    found = _lineage(architecture)
    return found if series is None or (found is not None and series.name == "vit") else series


def lineages() -> tuple[Lineage, ...]:
    """Every known series."""
    return tuple(dict.fromkeys(_prefixes().values()))


def _lineage(plain: str) -> Lineage | None:
    """The series with the longest prefix that ends where a word or a number ends."""
    for end in range(len(plain), 0, -1):
        if not plain[end : end + 1].isalpha() and plain[:end] in _prefixes():
            return _prefixes()[plain[:end]]
    return _prefixes()["vit"] if _VIT.search(plain) else None


def _spellings(plain: str) -> Iterator[str]:
    """The name, with the usual prefix of its series, and with letters of size spelled out or shortened."""
    yield plain
    joined = re.sub(r"([a-z])_(\d)", r"\1\2", re.sub(r"_d(8|16|32)$", "", plain))  # ResNet-50, resnet50_v1c, -D8
    forms = [
        plain,
        joined,
        re.sub(r"_v1([a-d])$", r"\1", joined),
        re.sub(r"^r(\d+)$", r"resnet\1", joined),
        plain.replace(".", "_").replace("+", "_plus"),
        *(first + plain[len(other) :] for other, first in _synonyms() if plain.startswith(other)),
    ]
    shorter = {word: letter for letter, word in _WORDS.items()}
    for form in dict.fromkeys(forms):
        yield form
        for table in (_WORDS, shorter):
            parts = [table.get(part, part) for part in form.split("_")]
            yield "_".join([form.split("_")[0], *parts[1:]])


def _in_timm(spelling: str) -> str | None:
    """That architecture, or the plainest one that only adds patch, window and image size."""
    return spelling if spelling in _counted() else _shortened().get(spelling)


@cache
def _shortened() -> Mapping[str, str]:
    """Architecture by its name without patch, window and image size or width in percent.

    Patches of 16 and the full width come first, then the shortest name.
    """
    table: dict[str, str] = {}
    names = sorted(_counted(), key=lambda name: ("patch16" not in name, not name.endswith("_100"), len(name), name))
    for name in names:
        short = name
        while (cut := _DETAIL.sub("", short)) != short:
            short = cut
            table.setdefault(short, name)
    return table


def _by_word(plain: str, series: Lineage | None) -> float | None:
    if (count := _COUNT.search(plain)) is not None and series is not None:
        return float(count[1]) * (1e6 if count[2] == "m" else 1e9)
    words = [_WORDS.get(part, part) for part in plain.split("_")[1:]]
    sizes = _VIT_SIZES if series is not None and series.family == "isotropic" else _SIZES
    found = [sizes[word] for word in words if word in sizes]
    return found[0] * 1e6 if found else None


@cache
def _prefixes() -> Mapping[str, Lineage]:
    table = {}
    for row in files.read_csv(files.root() / "profiles" / "reference" / "lineages.csv"):
        series = Lineage(row["lineage"], _family(row["family"]), int(row["year"]), row["arxiv"])
        table.update(dict.fromkeys(row["prefixes"].split(), series))
    return table


def _family(text: str) -> Family:
    known: dict[str, Family] = {
        "isotropic": "isotropic",
        "hierarchical": "hierarchical",
        "convolutional": "convolutional",
        "hybrid": "hybrid",
        "moe": "moe",
    }
    return known.get(text, "unknown")


@cache
def _synonyms() -> tuple[tuple[str, str], ...]:
    """Further prefix -> first prefix, for series that are spelled in several ways."""
    rows = files.read_csv(files.root() / "profiles" / "reference" / "lineages.csv")
    lists = [row["prefixes"].split() for row in rows if row["lineage"] != "vit"]
    return tuple((other, names[0]) for names in lists for other in names[1:])


@cache
def _counted() -> Mapping[str, int]:
    rows = files.read_csv(files.root() / "profiles" / "params.csv")
    return {row["architecture"]: int(row["params"]) for row in rows}


@cache
def _published() -> Mapping[str, float]:
    rows = files.read_csv(files.root() / "profiles" / "reference" / "backbone_params.csv")
    return {row["backbone"]: float(row["params_m"]) for row in rows}
