"""`load_model(evidence)`: the learned model for a body of evidence, fitted once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import astuple, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luma_cli import files
from luma_cli.accuracy.calibration import Calibration, calibrate
from luma_cli.accuracy.components import Components, load_components
from luma_cli.accuracy.fit import Fit, fit, without_slips
from luma_cli.accuracy.learned import LearnedModel
from luma_cli.accuracy.observations import observe
from luma_cli.accuracy.regret import Regret, left_out_regrets
from luma_cli.accuracy.sightings import Sighting, Sightings
from luma_cli.accuracy.sums import Posterior
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.table import evidence_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_sighting = attrgetter(*(each.name for each in fields(Sighting)))
_KEPT = 4
_WRITING_SECONDS = 600  # the description of draws follows within this time, or never
# What the numbers come from beside the evidence: variances, sizes and series of backbones.
_TABLES = ("accuracy.toml", "params.csv", "reference/backbone_params.csv", "reference/lineages.csv")


def load_model(evidence: Sequence[Evidence] | None = None, cache: Path | None = None) -> LearnedModel:
    """The model learned from `evidence`, the shipped rows when None.

    cache: folder of earlier fits, the user's cache folder when None. A fit is kept by the hash of the evidence, of the
    shipped tables and of this package's code. A folder that cannot be written to is no error, and whatever is damaged
    there is fitted again.
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
    return from_fit(without_slips(fit(observe(rows, known.sensitivity), known)))


def from_fit(fitted: Fit) -> LearnedModel:
    """The model of a fit, its intervals calibrated on rows left out."""
    observed = fitted.observations
    sightings = [Sighting.of(*row) for row in observed.rows]
    return LearnedModel(
        Posterior(observed.position, fitted.effects(), fitted.draws().T),
        fitted.components,
        calibrate(fitted),
        Sightings(sightings),
        observed.usual_data,
        left_out_regrets(fitted, observed.percent(observed.log_error)),
    )


def _key(rows: Sequence[Evidence]) -> str:
    """Same key, same numbers: a change of the model's code asks for a new fit like one of the evidence."""
    digest = hashlib.sha256(evidence_hash(rows).encode())
    profiles = files.root() / "profiles"
    for path in (*(profiles / name for name in _TABLES), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("luma", appauthor=False)) / "accuracy"


def _read(folder: Path, key: str) -> LearnedModel | None:
    """The kept model; None when there is none or it cannot be read whole."""
    try:
        state = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        return _decoded(state, _read_draws(folder / f"{key}.f32", state["num_draws"], state["checksum"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _read_draws(path: Path, num_draws: int, checksum: int) -> NDArray[np.float32]:
    """Draws [p, num_draws], mapped from the file. Raises OSError or ValueError when it is missing or damaged."""
    import numpy as np

    numbers = np.memmap(path, dtype="<f4", mode="r") if path.stat().st_size else np.zeros(0, dtype="<f4")
    if zlib.crc32(numbers.data) != checksum:
        raise ValueError(f"{path} is damaged")
    return numbers.reshape(-1, num_draws)


def _decoded(state: dict[str, Any], draws: NDArray[np.float32]) -> LearnedModel:
    import numpy as np

    keys = {(group, level): index for index, (group, level) in enumerate(state["keys"])}
    if not len(draws) == len(state["mean"]) == len(keys):
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
    import numpy as np

    components = model.components
    draws = np.ascontiguousarray(model.posterior.draws, dtype="<f4")
    state = {
        "keys": list(model.posterior.keys),
        "mean": model.posterior.mean.tolist(),
        "components": {
            "effects": dict(components.effects),
            "noises": dict(components.noises),
            "sensitivity": dict(components.sensitivity),
        },
        "widths": model.calibration.widths,
        "sightings": [_sighting(row) for row in model.sightings.rows],
        "usual_data": model.usual_data,
        "num_draws": model.posterior.draws.shape[1],
        "checksum": zlib.crc32(draws.data),
        "regrets": {d: {name: astuple(each) for name, each in table.items()} for d, table in model.regrets.items()},
    }
    try:
        files.write_bytes(folder / f"{key}.f32", draws.tobytes())
        files.write_text(folder / f"{key}.json", json.dumps(state))
        _forget(folder)
    except OSError:
        return


def _forget(folder: Path) -> None:
    """Removes all but the latest fits, and draws that a killed process left without a description."""
    described = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in described[_KEPT:]:
        path.unlink(missing_ok=True)
    kept = {path.stem for path in described[:_KEPT]}
    for path in folder.glob("*.f32"):
        if path.stem not in kept and time.time() - path.stat().st_mtime > _WRITING_SECONDS:
            path.unlink(missing_ok=True)
