"""The picture of a front: labels overlap nothing, files are the same every time, every axis and rate can be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_cli.cli.app import run
from luma_cli.errors import LumaError
from luma_cli.report.plots import BandStep, Box, Dot, FrontPicture, draw_front, place, plot_front, style

FRAME = Box(0, 0, 1000, 700)
PIXEL = st.floats(0, 1000)


def dot(label: str, cost: float, miou: float) -> Dot:
    return Dot(label, cost, miou, miou - 1.5, miou + 1.5)


PICTURE = FrontPicture(
    title="ADE20K: front",
    axis="GFLOPs",
    front=(dot("small@224", 5.0, 41.0), dot("base@512", 120.0, 55.0), dot("large@640", 650.0, 60.0)),
    beside=(dot("other@512", 110.0, 54.0),),
    cloud=((10.0, 30.0), (300.0, 50.0)),
    own=(Dot("own: base@512", 120.0, 53.0, 53.0, 53.0),),
    band=(BandStep(5.0, 40.0, 41.5, 43.0), BandStep(120.0, 54.0, 55.2, 57.0), BandStep(650.0, 59.0, 60.1, 62.0)),
    caption=("ADE20K val, on a made-up scale.", "GFLOPs: exact."),
)


@settings(max_examples=50)
@given(st.lists(st.tuples(PIXEL, st.floats(0, 700)), max_size=14), st.floats(20, 300))
def test_labels_cover_neither_each_other_nor_a_point(anchors: list[tuple[float, float]], width: float) -> None:
    avoid = [Box(200, 200, 500, 300)]
    found = [box for box in place(anchors, [(width, 18.0)] * len(anchors), FRAME, avoid) if box is not None]
    for index, box in enumerate(found):
        assert box.within(FRAME)
        assert not any(box.meets(other) for other in [*found[:index], *avoid])
        assert not any(box.left < x < box.right and box.bottom < y < box.top for x, y in anchors)


def test_one_point_in_the_open_is_labelled() -> None:
    assert place([(500, 400)], [(200, 18)], FRAME) != [None]
    assert place([(500, 400)], [(2000, 18)], FRAME) == [None]


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_a_picture_is_the_same_file_every_time(tmp_path: Path, suffix: str) -> None:
    for name in ("first", "second"):
        plot_front(PICTURE, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_the_picture_says_what_it_stands_on(tmp_path: Path) -> None:
    plot_front(PICTURE, tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text(encoding="utf-8")
    for said in ("on a made-up scale", "mIoU (%)", "GFLOPs", "large@640", "own: base@512", "may be on it", "own run"):
        assert said in text


def test_rates_run_from_right_to_left_and_bare_fronts_are_drawn() -> None:
    with style():
        left, right = draw_front(replace(PICTURE, is_rate=True)).axes[0].get_xlim()
        assert left > right
        bare = replace(PICTURE, beside=(), cloud=(), own=(), band=(), caption=())
        left, right = draw_front(bare).axes[0].get_xlim()
        assert left < 5.0 < 650.0 < right


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LumaError, match="choose another --out"):
        plot_front(PICTURE, tmp_path / "file" / "front.svg")


def test_style_gives_the_callers_settings_back() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with style():
        assert matplotlib.rcParams["font.size"] == 7.0
    assert dict(matplotlib.rcParams) == before


def test_shipped_front_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, store = tmp_path / "front.svg", str(tmp_path / "luma.db")
    arguments = ["plot", "front", "--family", "isotropic", "--res", "512", "--out", str(out), "--db", store]
    assert run(arguments) == 0
    assert "front of" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert "ADE20K, head LUMA: learned front over GFLOPs" in text
    assert "no LUMA run seen" in text
