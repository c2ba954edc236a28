"""What a reader of an exported file must know: preprocessing, classes, outputs, where it comes from. No torch.

It stands inside every file: `metadata_props` of ONNX, the header of safetensors, an extra file of torch.export.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from luma_cli.catalogue.datasets import LabelTable

SCHEMA = 1
# The one key under which other tools' metadata does not collide with ours.
KEY = "luma"


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """The model, and how images are brought to it and its outputs are read.

    resolution: side of the square input in pixels. mean, std: of red, green, blue, for values from 0 to 1; the graph
    takes images that are normalised already. batch: images per call, 0 for any number. classes: names and colours in
    the order of the indices, None when no dataset is known. outputs: name and shape of each, as text.
    """

    backbone: str
    head: str
    num_classes: int
    resolution: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batch: int = 1
    classes: LabelTable | None = None
    outputs: tuple[tuple[str, str], ...] = ()
    run_id: str = ""
    step: int = 0
    weights_sha256: str = ""
    version: str = ""

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": SCHEMA,
            "backbone": self.backbone,
            "head": self.head,
            "input": {
                "name": "images",
                "shape": [self.batch or "batch", 3, self.resolution, self.resolution],
                "channels": "RGB",
                "values": "(image / 255 - mean) / std",
                "mean": list(self.mean),
                "std": list(self.std),
            },
            "outputs": [{"name": name, "shape": shape} for name, shape in self.outputs],
            "num_classes": self.num_classes,
            "classes": self._classes(),
            "run_id": self.run_id or None,
            "step": self.step or None,
            "weights_sha256": self.weights_sha256 or None,
            "luma": self.version,
        }

    def to_text(self) -> str:
        """`to_json` as one line, for a file's metadata."""
        return json.dumps(self.to_json(), allow_nan=False)

    def _classes(self) -> list[dict[str, Any]] | None:
        if self.classes is None:
            return None
        return [
            {"index": index, "name": each.name, "values": list(each.values), "colour": list(each.colour)}
            for index, each in enumerate(self.classes.classes)
        ]
