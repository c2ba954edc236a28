"""`luma scaling`: the answer where results tell and where they do not, more compute, the pictures, bad input."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scaling_world as world

from luma_cli.accuracy.sightings import Effect, Prediction, Support
from luma_cli.accuracy.subjects import Subject
from luma_cli.advise.candidates import load as load_candidates
from luma_cli.advise.more_compute import more_compute, scaling
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import run
from luma_cli.report.plots import SUFFIXES, plot_scaling
from luma_cli.report.scaling import print_scaling
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.answer import scaling as fit_scaling
from luma_cli.scaling.law import PAPER
from luma_cli.to_json import to_json

START = "vit_b.dinov3@512"
SERIES = (("vit_s", "small"), ("vit_b", "base"), ("vit_l", "large"), ("vit_h_plus", "huge_plus"))
PARAMS = (21.6e6, 85.6e6, 303.1e6, 840.5e6)


@pytest.fixture(scope="module")
def shipped() -> Scaling:
    return scaling(database=Path("/nonexistent/luma.db"))


@pytest.fixture(scope="module")
def measured() -> Scaling:
    """16 own runs that follow the assumed law with 0.1 mIoU of noise."""
    random = np.random.default_rng(0)
    runs = [
        world.own_run(
            f"{card}.dinov3",
            f"vit_{word}_patch16_dinov3.lvd1689m",
            side,
            100 - world.error(params, (side / 16) ** 2) + 0.1 * random.normal(),
        )
        for (card, word), params in zip(SERIES, PARAMS, strict=True)
        for side in (224, 384, 640, 1024)
    ]
    return fit_scaling([], runs, "ade20k", START, HeadConfig())


def printed(answer: Scaling, **options: object) -> str:
    stream = io.StringIO()
    print_scaling(answer, file=stream, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def test_published_results_cannot_tell_and_the_paper_stands_in(shipped: Scaling) -> None:
    assert not shipped.measured
    assert shipped.split == PAPER
    assert "paper" in shipped.split_source
    assert shipped.exponents is not None
    assert shipped.exponents.a.tells
    assert not shipped.exponents.size.tells
    text = printed(shipped)
    assert "n: best size, N* ~ C^n\tcannot tell\t-\t0.83" in text
    assert "The paper (arXiv 2607.00687), not these results" in text
    assert "luma train vit_s.dinov3 --data ade20k --res 224" in text


def test_own_runs_tell(measured: Scaling) -> None:
    assert measured.measured
    assert measured.exponents is not None
    at = measured.at.elasticity
    truth = 0.83 / (at.p * 0.83 + at.q * 0.17)
    assert measured.exponents.size.low <= measured.split.size <= measured.exponents.size.high
    assert measured.split.size == pytest.approx(truth, abs=0.05)
    assert "These results: N* ~" in printed(measured)
    assert all(each.done for each in measured.designs[1].runs)
    assert measured.designs[1].missing == ()


def test_two_resolutions_are_refused_with_the_run_to_do_next(measured: Scaling) -> None:
    runs = [
        world.own_run("vit_b.dinov3", "vit_base_patch16_dinov3.lvd1689m", side, 50.0 + side / 100)
        for side in (512, 640)
    ]
    found = fit_scaling([], runs, "ade20k", START, HeadConfig())
    assert found.fit is None
    line = next(line for line in printed(found).splitlines() if line.startswith("# No law"))
    assert (
        "0 sizes within a level, expected at least 3; 2 resolutions within a level, expected at least 3; run next:"
        in line
    )
    assert "# luma train " in printed(found)
    assert json.dumps(to_json(found), allow_nan=False)


class Favourite:
    """Predicts more for larger models; says nothing about one of them."""

    scale_note = "on a made-up scale"

    def __init__(self, unsure: str = "") -> None:
        self.unsure = unsure

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        return [
            Prediction(
                miou := 40 + 5 * np.log10(each.params or 1e6) / 9 + (each.height or 0) / 1e5,
                (miou - 1, miou + 1),
                (miou - 2, miou + 2),
                (miou - 3, miou + 3),
                1.0,
                Support(0, 0, 1),
                extrapolated=bool(self.unsure) and self.unsure in each.backbone,
            )
            for each in subjects
        ]

    def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> np.ndarray:
        raise NotImplementedError

    def effects(self, subject: Subject) -> list[Effect]:
        raise NotImplementedError


def test_more_compute_is_never_exceeded_and_ties_are_cheap(shipped: Scaling) -> None:
    candidates = load_candidates("ade20k")
    found = more_compute(shipped, 10, candidates, Favourite())
    budget = 10 * shipped.at.model.macs
    assert [each.rests_on.partition(":")[0] for each in found.spendings] == [
        "exponents",
        "predicted accuracy, this series",
        "predicted accuracy, any backbone",
    ]
    assert all(shipped.at.model.macs < each.macs <= budget for each in found.spendings)
    assert found.spendings[1].name == "vit_h_plus.dinov3"
    assert found.spendings[1].resolution == 224  # others are within 0.3 mIoU, and dearer
    unsure = more_compute(shipped, 10, candidates, Favourite("huge_plus"))
    assert unsure.spendings[1].name != "vit_h_plus.dinov3"
    assert "10 times the compute of vit_b.dinov3 at 512 px" in printed(shipped, more=found)


def test_more_compute_that_buys_nothing_says_what_would(shipped: Scaling) -> None:
    found = more_compute(shipped, 1.01, load_candidates("ade20k"))
    assert found.spendings == ()
    assert found.cheapest is not None
    assert f"the cheapest larger one is {found.cheapest.label}" in printed(shipped, more=found)


def test_dearer_candidates_change_nothing(shipped: Scaling) -> None:
    candidates = load_candidates("ade20k")
    dear = replace(candidates[0], name="dear", macs=10**18)
    assert more_compute(shipped, 10, [*candidates, dear], Favourite()) == more_compute(
        shipped, 10, candidates, Favourite()
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_is_the_same_file_every_time(measured: Scaling, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    plot_scaling(measured, first)
    plot_scaling(measured, second)
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert len(content) > 5000


def test_text_of_a_picture_is_text_and_says_whose_exponents(shipped: Scaling, tmp_path: Path) -> None:
    plot_scaling(shipped, tmp_path / "shipped.svg")
    text = (tmp_path / "shipped.svg").read_text(encoding="utf-8")
    assert "backbone parameters (millions)</text>" in text
    assert "cannot determine how" in text
    assert "<dc:date>" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "vit_b"], 2, "NAME@PIXELS"),
        (["--from", "vit_b.dinov3@500"], 2, "expected one of 224"),
        (["--from", "nothing@512"], 2, "nothing"),
        (["--dataset", "nowhere"], 2, "expected one of ade20k, cityscapes"),
        (["--family", "round"], 2, "isotropic"),
        (["--pretraining", "none-such"], 2, "none-such"),
        (["--more", "1"], 2, "try --more 10"),
        (["--more", "nan"], 2, "try --more 10"),
        (["--runs", "10"], 2, "expected 9 or 16"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["scaling", *arguments, "--db", str(tmp_path / "luma.db")]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_no_own_runs_is_an_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["scaling", "--own-only", "--json", "--db", str(tmp_path / "luma.db")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1
    assert answer["points"] == []
    assert (
        answer["refusal"]
        == "0 sizes within a level, expected at least 3; 0 resolutions within a level, expected at least 3"
    )
    assert answer["next_run"].startswith("luma train ")
    assert answer["split"] == {"n": 0.83, "t": 0.2, "source": "the paper's (arXiv 2607.00687)"}


def test_plot_names_the_three_suffixes_and_the_extra(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ["--db", str(tmp_path / "luma.db")]
    assert run(["plot", "scaling", "--out", str(tmp_path / "plot.gif"), *store]) == 2
    assert "expected .png, .svg or .pdf" in capsys.readouterr().err
    assert run(["plot", "scaling", "--dataset", "cityscapes", "--out", str(tmp_path / "plot.png"), *store]) == 0
    assert "plot.png: " in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["plot", "scaling", "--out", str(tmp_path / "plot.svg"), *store]) == 1
    assert "pip install 'luma-seg[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "plot.svg").exists()
