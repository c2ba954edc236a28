"""The scores of the user's own runs that a recommendation reads, as light tuples: many times faster than records."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from luma_cli.store.database import file_of
from luma_cli.store.faults import translated

# Of several evaluations of a run under one protocol the one after most steps, and of these the latest: no step is
# picked by the split that it is judged on. Whether boundaries were scored too does not touch the mIoU.
_QUERY = """
SELECT r.run_id, r.status, r.backbone, r.timm_name, r.pretraining, r.weights, r.resolution, r.head, r.dataset, r.recipe,
    r.seed, json_extract(r.config, '$.head'), json_extract(r.config, '$.recipe'), json_extract(r.facts, '$.params'),
    r.started_at, e.step, e.data, e.split, e.resolution, e.protocol, e.num_images, e.num_skipped, e.miou_percent,
    e.windows_per_image, e.macs_per_image
FROM evaluation e JOIN run r USING (run_id)
WHERE e.miou_percent IS NOT NULL AND e.evaluation_id = (
    SELECT l.evaluation_id FROM evaluation l
    WHERE l.run_id = e.run_id AND l.data = e.data AND l.split = e.split
        AND json_remove(l.protocol, '$.boundary_ratio') = json_remove(e.protocol, '$.boundary_ratio')
    ORDER BY l.step DESC, l.evaluated_unix_seconds DESC, l.hash DESC LIMIT 1
)
ORDER BY r.started_unix_seconds, r.run_id, e.data, e.split, e.protocol
"""


class ScoredRun(NamedTuple):
    """A run and one of its scores, the columns of `run` and `evaluation`.

    head_settings, recipe_settings, protocol: JSON text. params: of the whole segmenter, None when the run does not say.
    window: side in pixels.
    """

    run_id: str
    status: str
    backbone: str
    timm_name: str
    pretraining: str
    weights: str
    resolution: int
    head: str
    dataset: str
    recipe: str
    seed: int
    head_settings: str
    recipe_settings: str
    params: int | None
    started_at: str
    step: int
    data: str
    split: str
    window: int
    protocol: str
    num_images: int
    num_skipped: int
    miou_percent: float
    windows_per_image: float
    macs_per_image: float | None


def scored_runs(connection: sqlite3.Connection | None) -> list[ScoredRun]:
    """The score of every run after its last evaluated step, one for each data, split and protocol; oldest run first.

    Empty without a database.
    """
    if connection is None:
        return []
    with translated(file_of(connection)):
        return list(map(ScoredRun._make, connection.execute(_QUERY)))
