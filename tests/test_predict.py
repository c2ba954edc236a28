"""`luma predict`: right labels for images of any kind, failures named, files whole."""

from __future__ import annotations

import csv
import errno
import fnmatch
import io
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from run_stand_in import weights_file

from luma_cli.catalogue.datasets import LabelClass, LabelTable, load_card
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import run
from luma_cli.errors import DataError, UsageError
from luma_cli.evaluate.inference import predict_labels
from luma_cli.evaluate.overlay import (
    PAPER,
    borders,
    count_pixels,
    draw_legend,
    draw_overlay,
    entries,
    fitted,
    font,
    legend_csv,
    palette_image,
    percent,
    text_width,
    write_picture,
)
from luma_cli.evaluate.predict import PredictSettings, demand_all, find_pictures, predict_files, read_upright
from luma_cli.head.segmenter import build

TABLE = LabelTable(
    (
        LabelClass("road", (7,), (128, 64, 128)),
        LabelClass("sky", (23,), (70, 130, 180)),
        LabelClass("tree", (21,), (107, 142, 35)),
    )
)


def photo(height: int = 40, width: int = 60) -> Image.Image:
    """Made-up pixels that are different everywhere."""
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def predicted(folder: Path, out: Path, **settings: Any) -> list[Any]:
    head = HeadConfig(num_queries=5, num_classes=TABLE.num_classes)
    pictures = find_pictures([str(folder)], out)
    return list(predict_files(build("test_vit", 32, head=head), TABLE, pictures, out, PredictSettings(**settings)))


class TestUpright:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_is_seen_as_pillow_sees_it(self, orientation: int, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo(3, 5).save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as image:
            expected = np.array(ImageOps.exif_transpose(image))
        assert np.array_equal(read_upright(tmp_path / "a.png"), expected)

    def test_a_strange_orientation_says_nothing(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 77
        photo(3, 5).save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(read_upright(tmp_path / "a.png"), np.array(photo(3, 5)))


def test_label_map_is_the_prediction_in_class_colours(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    (found,) = predicted(tmp_path, tmp_path / "out", raw=True, overlay=False)
    segmenter = build("test_vit", 32, head=HeadConfig(num_queries=5, num_classes=3))
    expected = predict_labels(segmenter, np.array(photo()))
    with Image.open(found.labels) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), expected)
        colours = np.array([each.colour for each in TABLE.classes], dtype=np.uint8)
        assert np.array_equal(np.array(image.convert("RGB")), colours[expected])
    with Image.open(found.raw) as image:
        assert np.array_equal(np.array(image), np.array([7, 23, 21], dtype=np.uint8)[expected])
    assert found.overlay is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a_raw.png"]
    assert found.pixels.sum() == 40 * 60


def test_images_of_any_kind_or_the_reason_why_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photo(33, 97).convert("L").save(tmp_path / "in" / "grey.png")
    photo(130, 35).convert("P").save(tmp_path / "in" / "palette.png")
    photo().convert("RGBA").save(tmp_path / "in" / "opaque.png")
    transparent = photo().convert("RGBA")
    transparent.putalpha(100)
    transparent.save(tmp_path / "in" / "transparent.png")
    Image.fromarray(np.zeros((40, 40), dtype=np.uint16)).save(tmp_path / "in" / "deep.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    found = {each.source.name: each for each in predicted(tmp_path / "in", tmp_path / "out")}
    good = {name for name, each in found.items() if not each.failure}
    assert good == {"grey.png", "palette.png", "opaque.png"}
    for name in found.keys() - good:
        assert str(tmp_path / "in" / name) in found[name].failure
        assert found[name].files == ()
    assert "transparent pixels" in found["transparent.png"].failure
    assert "16 bits" in found["deep.png"].failure
    for name in good:
        with Image.open(found[name].labels) as labels, Image.open(tmp_path / "in" / name) as image:
            assert labels.size == image.size
    with pytest.raises(DataError, match="3 of 6 images could not be predicted"):
        demand_all(list(found.values()))


def test_a_photograph_with_orientation_is_predicted_as_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(40, 60).save(tmp_path / "a.jpg", exif=exif)
    (found,) = predicted(tmp_path, tmp_path / "out")
    assert (found.height, found.width) == (60, 40)
    assert found.overlay.suffix == ".jpg"


def test_classes_of_another_dataset_are_refused(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    head = HeadConfig(num_queries=5, num_classes=2)
    pictures = find_pictures([str(tmp_path)], tmp_path / "out")
    with pytest.raises(UsageError, match="the head has 2 classes, the dataset 3"):
        predict_files(build("test_vit", 32, head=head), TABLE, pictures, tmp_path / "out")


def test_a_failed_write_leaves_the_old_picture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.png"
    photo(4, 4).save(target)
    before = target.read_bytes()

    def full(self: Image.Image, file: io.BufferedWriter, **_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"a\.png cannot be written: No space left on device"):
        write_picture(target, photo(8, 8))
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


class TestOverlay:
    LABELS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]], dtype=np.uint8)

    def test_borders_lie_where_classes_meet(self) -> None:
        thin = [[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 1, 1]]
        assert np.array_equal(borders(self.LABELS, 1), np.array(thin, dtype=bool))
        thick = [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
        assert np.array_equal(borders(self.LABELS, 2), np.array(thick, dtype=bool))
        assert not borders(np.zeros((3, 3), np.uint8), 3).any()

    @pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
    def test_colours_are_mixed_away_from_the_borders(self, opacity: float) -> None:
        labels = np.zeros((400, 400), dtype=np.uint8)
        labels[:, 200:] = 1
        image = np.array(photo(400, 400))
        drawn = np.array(draw_overlay(image, labels, TABLE, entries(TABLE, count_pixels(labels, 3)), opacity))
        expected = image[:, :190] * (1 - opacity) + np.array(TABLE.classes[0].colour) * opacity
        assert np.abs(drawn[:400, :190].astype(float) - expected).max() <= 1

    def test_a_small_image_is_enlarged_until_its_legend_can_be_read(self) -> None:
        labels = np.zeros((20, 30), dtype=np.uint8)
        drawn = draw_overlay(np.array(photo(20, 30)), labels, TABLE, entries(TABLE, count_pixels(labels, 3)))
        assert drawn.width == 390
        assert drawn.height > 260

    def test_its_legend_has_the_colours_of_present_classes_alone(self) -> None:
        labels = np.zeros((400, 400), dtype=np.uint8)
        labels[:40] = 2
        drawn = draw_overlay(np.array(photo(400, 400)), labels, TABLE, entries(TABLE, count_pixels(labels, 3)))
        below = {tuple(pixel) for pixel in np.array(drawn)[400:].reshape(-1, 3).tolist()}
        assert {TABLE.classes[0].colour, TABLE.classes[2].colour, PAPER} <= below
        assert TABLE.classes[1].colour not in below

    def test_many_classes_are_cut_short_and_counted(self) -> None:
        table = load_card("ade20k").table
        labels = (np.arange(400 * 400) % 150).astype(np.uint8).reshape(400, 400)
        drawn = draw_overlay(np.array(photo(400, 400)), labels, table, entries(table, count_pixels(labels, 150)))
        assert drawn.height < 540

    def test_a_palette_has_as_many_colours_as_classes(self) -> None:
        assert palette_image(self.LABELS, TABLE).getpalette()[:9] == [128, 64, 128, 70, 130, 180, 107, 142, 35]


class TestLegend:
    COUNTS = np.array([10, 0, 90], dtype=np.int64)

    def test_most_pixels_first_and_absent_last(self) -> None:
        found = entries(TABLE, self.COUNTS)
        assert [(each.name, each.index, each.share) for each in found] == [
            ("tree", 2, 0.9),
            ("road", 0, 0.1),
            ("sky", 1, 0.0),
        ]
        rows = list(csv.reader(io.StringIO(legend_csv(found))))
        assert rows[1] == ["2", "tree", "107", "142", "35", "90", "0.9"]
        assert len(rows) == 4

    def test_the_picture_grows_with_the_classes_seen(self) -> None:
        few, more = (draw_legend(entries(TABLE, np.array(counts)), "run, 1 image") for counts in ([1, 0, 0], [1, 1, 1]))
        assert more.height > few.height
        assert TABLE.classes[1].colour not in {colour for _, colour in few.getcolors(1 << 20)}

    @pytest.mark.parametrize(
        ("share", "text"), [(0.4321, "43 %"), (0.021, "2.1 %"), (0.0004, "< 0.1 %"), (0.0, "0.0 %"), (1.0, "100 %")]
    )
    def test_percent(self, share: float, text: str) -> None:
        assert percent(share) == text

    def test_long_names_are_cut(self) -> None:
        letters = font(20)
        cut = fitted("a name that is much too long for the place that it has", letters, 100)
        assert cut.endswith("...")
        assert text_width(cut, letters) <= 100


class TestCommand:
    def test_files_legend_and_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        weights = weights_file(tmp_path / "run", "cityscapes", 19)
        photo().save(tmp_path / "a.jpg")
        assert run(["predict", str(weights), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out"), "--json"]) == 0
        said = capsys.readouterr()
        answer = json.loads(said.out)
        assert [Path(file).name for file in answer["legend"]] == ["legend.png", "legend.json", "legend.csv"]
        assert Path(answer["images"][0]["labels"]).is_file()
        assert sum(each["share"] for each in answer["images"][0]["classes"]) == pytest.approx(1)
        legend = json.loads((tmp_path / "out" / "legend.json").read_text(encoding="utf-8"))
        assert (legend["num_images"], legend["num_pixels"], len(legend["classes"])) == (1, 2400, 19)
        assert "predicted 1 of 1" in said.err

    def test_one_bad_file_of_two(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        weights = weights_file(tmp_path / "run", "cityscapes", 19)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "bad.png").write_bytes(b"not an image")
        photo().save(tmp_path / "in" / "good.png")
        assert run(["predict", str(weights), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
        said = capsys.readouterr()
        assert [Path(line).name for line in said.out.splitlines()] == [
            "good.png",
            "good_overlay.png",
            "legend.png",
            "legend.json",
            "legend.csv",
        ]
        assert "bad.png: no JPEG" in said.err
        assert said.err.splitlines()[-1] == "luma: 1 of 2 images could not be predicted, named above"

    def test_nothing_found_is_a_usage_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in").mkdir()
        assert run(["predict", "latest", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
        assert "has no .bmp" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_opacity_out_of_range(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["predict", "latest", ".", "--out", str(tmp_path), "--opacity", "50"]) == 2
        assert "opacity is 50, expected 0" in capsys.readouterr().err

    def test_raw_only_is_what_the_cityscapes_evaluation_takes(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its rule: just one file below the folder for `CITY_SEQUENCE_FRAME*.png`, of values that it knows."""
        weights = weights_file(tmp_path / "run", "cityscapes", 19)
        for city in ("ulm", "jena"):
            (tmp_path / "val" / city).mkdir(parents=True)
            photo().save(tmp_path / "val" / city / f"{city}_000000_000019_leftImg8bit.png")
        out, asked = tmp_path / "out", ["predict", str(weights), str(tmp_path / "val"), "--recursive", "--raw-only"]
        assert run([*asked, "--out", str(out), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["legend"] == []
        assert [image["labels"] or image["overlay"] for image in answer["images"]] == [None, None]
        names = [path.name for path in out.rglob("*") if path.is_file()]
        known = {each.values[0] for each in load_card("cityscapes").table.classes}
        for city in ("ulm", "jena"):
            (name,) = fnmatch.filter(names, f"{city}_000000_000019*.png")
            with Image.open(out / city / name) as image:
                assert set(np.unique(np.array(image)).tolist()) <= known
        assert len(names) == 2


class TestNames:
    def test_a_name_too_long_for_a_suffix_is_cut_and_stays_its_own(self, tmp_path: Path) -> None:
        for end in ("y", "z"):
            photo().save(tmp_path / f"{'é' * 120}{end * 10}.png")
        found = predicted(tmp_path, tmp_path / "out", raw=True)
        assert [each.failure for each in found] == ["", ""]
        assert len({file for each in found for file in each.files}) == 6

    def test_an_image_whose_result_cannot_have_its_name_fails_alone(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for name in "ab":
            photo().save(tmp_path / "in" / f"{name}.png")
        (tmp_path / "out" / "a.png").mkdir(parents=True)
        bad, good = predicted(tmp_path / "in", tmp_path / "out")
        assert bad.failure.endswith("a.png cannot be written: Is a directory; free space or name another --out")
        assert good.labels.is_file()

    def test_an_argument_longer_than_a_name_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="does not exist"):
            find_pictures(["x" * 300], tmp_path)


def test_a_disk_that_fills_ends_in_an_error_not_in_half_a_jpeg(tmp_path: Path) -> None:
    photo(200, 300).save(tmp_path / "a.jpg")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"a_overlay\.jpg cannot be written: File too large"):
            predicted(tmp_path, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out").iterdir()) == []
