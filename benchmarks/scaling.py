"""How well exponents come back from simulated runs: the table of docs/understand/scaling.md.

    python benchmarks/scaling.py [--simulations 200]

Worlds: err = E + A (N/N0)^-a + B (T/T0)^-b with the paper's a/b = 0.205 (n = 0.83 where C = k N T), normal noise.
Regret: mIoU lost at 2, 5, 10 and 50 times the compute of the smallest run, by choosing the fitted law's best model of a
fine grid instead of the true best.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from luma_cli.scaling.bootstrap import bootstrap
from luma_cli.scaling.law import PLAIN, Law, Point, fit, split, tokens_of
from luma_cli.scaling.series import ASSUMED

SIZES = {3: (22e6, 86e6, 303e6), 4: (22e6, 86e6, 303e6, 840e6), 5: (22e6, 86e6, 303e6, 840e6, 6.7e9)}
SIDES = {3: (256, 512, 1024), 4: (224, 384, 640, 1024), 5: (224, 320, 448, 640, 1024)}
WORLDS = {
    "as assumed (a 0.17, b 0.83)": ASSUMED,
    "flatter (a 0.12, b 0.59)": replace(ASSUMED, a=0.12, b=0.59),
    "steeper (a 0.30, b 1.46)": replace(ASSUMED, a=0.30, b=1.46, by_size=10.0, by_tokens=3.0),
}
REFITS = 100
FACTORS = (2, 5, 10, 50)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One simulation: error of n, whether its 90% interval covers, and whether it is printed; regret in mIoU."""

    miss: float
    covers: bool
    tells: bool
    regret: float


def simulate(shape: Law, side: int, noise: float, seed: int) -> Outcome:
    random = np.random.default_rng(seed)
    grid = [(params, tokens_of(px, px)) for params in SIZES[side] for px in SIDES[side]]
    points = [
        Point(f"{index}", "simulated", params, tokens, 100 - shape.error(params, tokens) - noise * random.normal())
        for index, (params, tokens) in enumerate(grid)
    ]
    fitted = fit(points)
    found = bootstrap(fitted, PLAIN, REFITS, seed=seed)
    truth = split(shape.a, shape.b, PLAIN).size
    lost = []
    for factor in FACTORS:
        budget = factor * grid[0][0] * grid[0][1]
        models = [(budget / tokens, tokens) for tokens in np.geomspace(tokens_of(128, 128), tokens_of(2048, 2048), 60)]
        chosen = min(models, key=lambda model: fitted.law.error(*model))
        lost.append(shape.error(*chosen) - min(shape.error(*model) for model in models))
    return Outcome(
        abs(found.size.value - truth),
        found.size.low <= truth <= found.size.high,
        found.size.tells,
        float(np.mean(lost)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    count = parser.parse_args().simulations
    print(
        "| world | runs | noise, mIoU | error of n, median | 90th percentile | 90% interval covers | printed | regret |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, shape in WORLDS.items():
        for side in SIZES:
            for noise in (0.2, 0.4):
                found = [simulate(shape, side, noise, seed) for seed in range(count)]
                misses = [each.miss for each in found]
                print(
                    f"| {name} | {side**2} | {noise:g} | {np.median(misses):.3f} | {np.quantile(misses, 0.9):.3f} | "
                    f"{np.mean([each.covers for each in found]):.2f} | {np.mean([each.tells for each in found]):.2f} | "
                    f"{np.mean([each.regret for each in found]):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
