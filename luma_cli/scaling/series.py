"""The sizes of one series with one pretraining, with the exact cost of each at every resolution of the cost table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadResolution, BuildError, UsageError
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.scaling.point import tokens_of

if TYPE_CHECKING:
    from luma_cli.catalogue.costs import BackboneFacts
    from luma_cli.catalogue.spec import BackboneSpec

SPELLING = "vit_b.dinov3@512"


@dataclass(frozen=True, slots=True)
class Model:
    """One backbone at one resolution with a head. params: of the backbone; macs: of the segmenter on one crop."""

    name: str
    resolution: int
    params: float
    macs: int
    public_weights: bool = True

    @property
    def tokens(self) -> float:
        """Image tokens, cells of 16 x 16 pixels."""
        return tokens_of(self.resolution, self.resolution)

    @property
    def label(self) -> str:
        """As it is typed, e.g. `vit_b.dinov3@512`."""
        return f"{self.name}@{self.resolution}"

    def train_line(self, dataset: str) -> str:
        """The command that trains it; a dataset of the user's own is named by its file."""
        data = dataset if dataset in DATASET_TITLES else f"{dataset}.toml"
        return f"luma train {self.name} --data {data} --res {self.resolution}"

    def to_json(self) -> dict[str, Any]:
        """Identity and exact cost."""
        return {
            "backbone": self.name,
            "resolution": self.resolution,
            "params": self.params,
            "tokens": self.tokens,
            "macs": self.macs,
        }


@dataclass(frozen=True, slots=True)
class Series:
    """Every size of a card with one objective, smallest first, at every resolution that is costed.

    name: of the series with its pretraining, e.g. `vit, dinov3`. sizes: names by backbone parameters, ascending.
    """

    name: str
    sizes: tuple[str, ...]
    models: Mapping[tuple[str, int], Model]

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions at which some size is costed, ascending."""
        return tuple(sorted({resolution for _, resolution in self.models}))

    def model(self, name: str, resolution: int) -> Model:
        """One of the models. Raises BadResolution, naming the sizes that are costed."""
        found = self.models.get((name, resolution))
        if found is None:
            costed = ", ".join(str(each) for size, each in sorted(self.models) if size == name)
            raise BadResolution(f"no cost of {name} is shipped at {resolution} px, expected one of {costed}")
        return found


def parse_model(text: str) -> tuple[str, int]:
    """Name and resolution of `vit_b.dinov3@512`. Raises UsageError for another form.

    >>> parse_model("vit_b.dinov3@512")
    ('vit_b.dinov3', 512)
    """
    name, _, resolution = text.strip().rpartition("@")
    if not name or not resolution.isdecimal():
        raise UsageError(f"{text!r} is no backbone with a resolution, expected NAME@PIXELS; try {SPELLING}")
    return name, int(resolution)


def load_series(name: str, head: HeadConfig) -> tuple[Series, str]:
    """The series of a backbone by any of its names, and the backbone's own name within it.

    Raises UnknownName for no backbone, UsageError for one that belongs to no card.
    """
    from luma_cli.catalogue.cards import load_cards, spec_of
    from luma_cli.catalogue.costs import load_costs
    from luma_cli.catalogue.names import resolve

    spec = resolve(name)
    card = load_cards().get(spec.card)
    if card is None:
        raise UsageError(f"{name} belongs to no card, so its other sizes are not known; try {SPELLING}")
    members = [
        spec_of(card, size, spec.pretraining)
        for size in card.sizes.values()
        if not spec.pretraining or spec.pretraining in size.pretraining
    ]
    objective = f", {spec.pretraining}" if spec.pretraining else ""
    return _series(f"{card.name}{objective}", members, load_costs(), head), card.spelling(spec.size, spec.pretraining)


def _series(
    name: str, members: Sequence[BackboneSpec], costs: Mapping[tuple[str, int], BackboneFacts], head: HeadConfig
) -> Series:
    models = {}
    for spec in members:
        for (architecture, resolution), facts in costs.items():
            if architecture == spec.architecture and facts.complete:
                model = _model(spec, facts, head)
                models.update({(spec.name, resolution): model} if model else {})
    largest = {size: model.params for (size, _), model in sorted(models.items())}
    return Series(name, tuple(sorted(largest, key=lambda size: (largest[size], size))), models)


def _model(spec: BackboneSpec, facts: BackboneFacts, head: HeadConfig) -> Model | None:
    """The model; None where the backbone does not take the head."""
    from luma_cli.catalogue.head_cost import head_macs

    try:
        macs = facts.macs + head_macs(facts, head)
    except BuildError:
        return None
    return Model(spec.name, facts.resolution, float(facts.params), macs, spec.public_weights)
