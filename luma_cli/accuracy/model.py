"""`load_model(evidence)`: the learned model for a body of evidence, fitted once and kept in the cache folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from luma_cli import atomic
from luma_cli.accuracy.calibration import Calibration, calibrate
from luma_cli.accuracy.components import Components, components_path, load_components
from luma_cli.accuracy.fit import Fit, fit
from luma_cli.accuracy.learned import LearnedModel, Posterior
from luma_cli.accuracy.observations import observe
from luma_cli.accuracy.regret import Regret, left_out_regrets
from luma_cli.accuracy.sightings import Sighting, Sightings
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.table import evidence_hash

# Raised with every change of the model that would give other numbers from the same evidence.
_VERSION = 1
_KEPT = 4


def load_model(evidence: Sequence[Evidence] | None = None, cache: Path | None = None) -> LearnedModel:
    """The model learned from `evidence`, the shipped rows when None.

    cache: folder of earlier fits, the user's cache folder when None. A fit is kept by the hash of the evidence, of the
    shipped components and of luma's version of the model; a folder that cannot be written to is no error.
    """
    rows = load_reference() if evidence is None else evidence
    key = _key(rows)
    folder = cache or _cache_folder()
    if (kept := _read(folder, key)) is not None:
        return kept
    model = learn(rows)
    _keep(folder, key, model)
    return model


def learn(rows: Sequence[Evidence], components: Components | None = None) -> LearnedModel:
    """Fits the rows, without a cache."""
    known = components or load_components()
    return from_fit(fit(observe(rows, known.sensitivity), known))


def from_fit(fitted: Fit) -> LearnedModel:
    """The model of a fit, its intervals calibrated on rows left out."""
    observed = fitted.observations
    sightings = [
        Sighting.of(subject, row_id, provenance)
        for subject, row_id, provenance in zip(observed.subjects, observed.ids, observed.provenances, strict=True)
    ]
    return LearnedModel(
        Posterior(observed.position, fitted.effects(), fitted.draws().T),
        fitted.components,
        calibrate(fitted),
        Sightings(sightings),
        observed.usual_data,
        left_out_regrets(fitted, observed.percent(observed.log_error)),
    )


def _key(rows: Sequence[Evidence]) -> str:
    import hashlib

    components = components_path().read_bytes()
    text = f"{_VERSION} {evidence_hash(rows)} {hashlib.sha256(components).hexdigest()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("luma", appauthor=False)) / "accuracy"


def _read(folder: Path, key: str) -> LearnedModel | None:
    """The kept model; None when there is none or it cannot be read whole."""
    import numpy as np

    try:
        state = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        draws = np.load(folder / f"{key}.npy", mmap_mode="r")
        return _decoded(state, draws)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decoded(state: dict[str, Any], draws: Any) -> LearnedModel:
    import numpy as np

    keys = {(group, level): index for index, (group, level) in enumerate(state["keys"])}
    if len(draws) != len(keys):
        raise ValueError("draws of another fit")
    return LearnedModel(
        Posterior(keys, np.array(state["mean"]), draws),
        Components(**state["components"]),
        Calibration({name: tuple(widths) for name, widths in state["widths"].items()}),
        Sightings([Sighting(*row) for row in state["sightings"]]),
        state["usual_data"],
        {d: {name: Regret(*each) for name, each in table.items()} for d, table in state["regrets"].items()},
    )


def _keep(folder: Path, key: str, model: LearnedModel) -> None:
    """Writes the draws, then the rest, so that a description never lies there without its draws."""
    import io

    import numpy as np

    components = model.components
    state = {
        "keys": list(model.posterior.keys),
        "mean": model.posterior.mean.tolist(),
        "components": {
            "effects": dict(components.effects),
            "noises": dict(components.noises),
            "sensitivity": dict(components.sensitivity),
        },
        "widths": model.calibration.widths,
        "sightings": [astuple(row) for row in model.sightings.rows],
        "usual_data": model.usual_data,
        "regrets": {d: {name: astuple(each) for name, each in table.items()} for d, table in model.regrets.items()},
    }
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(model.posterior.draws))
    try:
        atomic.write_bytes(folder / f"{key}.npy", buffer.getvalue())
        atomic.write_text(folder / f"{key}.json", json.dumps(state))
        _forget(folder)
    except OSError:
        return


def _forget(folder: Path) -> None:
    """Removes all but the latest fits."""
    kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]
    for path in kept:
        path.unlink(missing_ok=True)
        path.with_suffix(".npy").unlink(missing_ok=True)
