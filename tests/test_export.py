"""An exported file computes what the segmenter computes, says what it needs, or is not there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_stand_in import weights_file as weights_file_of_a_run
from safetensors.torch import load_file, save_file
from torch import nn

from luma_cli.catalogue.datasets import LabelClass, LabelTable
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.cli.app import run
from luma_cli.errors import BuildError, UsageError
from luma_cli.export import export as exporting
from luma_cli.export.check import Agreement, Graph, agreements, demand, random_images
from luma_cli.export.export import KEY, Format, export
from luma_cli.head.segmenter import Segmenter, build

HEADS: tuple[HeadName, ...] = ("luma", "eomt", "linear")
MISSING = [name for name in exporting.PACKAGES if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed")
TABLE = LabelTable((LabelClass("road", (7,), (128, 64, 128)), LabelClass("sky, ☁", (23,), (70, 130, 180))))


def segmenter(head: HeadName = "luma", name: str = "test_vit") -> Segmenter:
    queries = {} if head == "linear" else {"num_queries": 7}
    return build(name, 32, head=HeadConfig(name=head, num_classes=2, **queries))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("head", ["luma", "linear"])
def test_torch_export_takes_any_batch_and_says_what_it_needs(head: HeadName, tmp_path: Path) -> None:
    made = export(segmenter(head), tmp_path / "m.pt2", "torch-export", batch=0, classes=TABLE, run_id="run-1", step=7)
    assert all(each.relative < 1e-6 and each.scale > 0 for each in made.agreements)
    run = exporting.load_traced(made.files[0])
    assert [len(run(random_images(batch, 32))[0]) for batch in (1, 4)] == [1, 4]
    extra = {f"{KEY}.json": ""}
    torch.export.load(made.files[0], extra_files=extra)
    inside, beside = json.loads(extra[f"{KEY}.json"]), json.loads((tmp_path / "m.pt2.json").read_text())
    assert inside == beside
    assert inside["input"]["shape"] == ["batch", 3, 32, 32]
    assert inside["classes"][1] == {"index": 1, "name": "sky, ☁", "values": [23], "colour": [70, 130, 180]}
    assert (inside["run_id"], inside["step"], inside["head"]) == ("run-1", 7, head)


@needs_onnx
@pytest.mark.parametrize(("name", "batch"), [("test_vit", 0), ("test_convnext", 1)])
def test_onnx_agrees_in_onnxruntime_and_carries_its_facts(name: str, batch: int, tmp_path: Path, capfd: Any) -> None:
    import onnx

    made = export(segmenter(name=name), tmp_path / "m.onnx", "onnx", batch=batch, classes=TABLE)
    assert leftovers(tmp_path) == ["m.onnx"]
    assert all(each.relative < 1e-5 and each.scale > 0 for each in made.agreements)
    model = onnx.load(made.files[0])
    facts = json.loads({each.key: each.value for each in model.metadata_props}[KEY])
    assert [each.name for each in model.graph.input] == [facts["input"]["name"]]
    assert [each.name for each in model.graph.output] == [each["name"] for each in facts["outputs"]]
    assert facts["input"]["mean"] == list(segmenter(name=name).backbone.normalisation.mean)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


@needs_onnx
def test_onnx_of_scores_per_pixel(tmp_path: Path) -> None:
    made = export(segmenter(), tmp_path / "m.onnx", scores=True)
    found = exporting.load_onnx(made.files[0])(random_images(1, 32))
    assert tuple(found[0].shape) == (1, 2, 32, 32)
    assert made.agreements[0].relative < 1e-5


@pytest.mark.parametrize("head", HEADS)
def test_safetensors_hold_every_weight_once(head: HeadName, tmp_path: Path) -> None:
    from safetensors import safe_open

    model = segmenter(head)
    made = export(model, tmp_path / "m.safetensors", "safetensors", classes=TABLE)
    (tmp_path / "any").touch()
    assert made.files[0].stat().st_mode == (tmp_path / "any").stat().st_mode
    with safe_open(made.files[0], "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert json.loads(file.metadata()[KEY])["num_classes"] == 2
    fresh = build("test_vit", 32, head=model.config, seed=1)
    fresh.load_state_dict(load_file(made.files[0]))
    images = random_images(2, 32)
    with torch.inference_mode():
        assert torch.equal(fresh(images)[0], model(images)[0])


def test_convnext_runs_with_the_files_weights(tmp_path: Path) -> None:
    """Its FFN is reused by reference and scaled by a bare parameter: both must come from the file."""
    model = segmenter(name="test_convnext")
    made = export(model, tmp_path / "m.safetensors", "safetensors")
    other = build("test_convnext", 32, head=model.config, seed=1)
    graph = Graph(other)
    expected = Graph(model)(random_images(1, 32))
    for wanted, got in zip(expected, exporting.load_weights(made.files[0], graph)(random_images(1, 32)), strict=True):
        assert torch.equal(wanted, got)


def test_scores_are_a_sum_over_queries() -> None:
    model = segmenter()
    images = random_images(2, 32)
    with torch.inference_mode():
        classes, masks = model(images)
        scores = Graph(model, scores=True)(images)[0]
        masks = nn.functional.interpolate(masks, (32, 32), mode="bilinear", align_corners=False).sigmoid()
        classes = classes.softmax(-1)
        expected = sum(masks[:, q, None] * classes[:, q, :2, None, None] for q in range(7))
    assert scores == pytest.approx(expected, abs=1e-5)


def test_a_segmenter_in_half_precision_and_training_stays_as_it_is(tmp_path: Path) -> None:
    model = segmenter().to(torch.bfloat16).train()
    made = export(model, tmp_path / "m.safetensors", "safetensors")
    assert model.training
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in load_file(made.files[0]).values()} == {torch.float32}


class TestDisagreement:
    """Faults in the written file: it is refused, and what was there before stays."""

    def test_is_refused_and_leaves_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        load = exporting.load_traced

        def shifted(path: Path) -> Any:
            run = load(path)
            return lambda images: (run(images)[0], run(images)[1] * 1.001)

        monkeypatch.setattr(exporting, "load_traced", shifted)
        (tmp_path / "m.pt2").write_text("old")
        with pytest.raises(
            BuildError, match=r"mask_logits of the exported file differs from torch by .* at most 0.0001"
        ):
            export(segmenter(), tmp_path / "m.pt2", "torch-export", overwrite=True)
        assert leftovers(tmp_path) == ["m.pt2"]
        assert (tmp_path / "m.pt2").read_text() == "old"

    def test_a_flipped_weight_is_found(self, tmp_path: Path) -> None:
        model = segmenter()
        made = export(model, tmp_path / "m.safetensors", "safetensors")
        state = load_file(made.files[0])
        state["head.attention.out.weight"] = -state["head.attention.out.weight"]
        save_file(state, made.files[0])
        graph = Graph(model)
        with pytest.raises(BuildError, match="differs from torch"):
            demand(agreements(graph, exporting.load_weights(made.files[0], graph), [1], 32), 1e-4)

    def test_not_a_number_never_agrees(self) -> None:
        for found in (Agreement("x", float("inf"), 1.0), Agreement("x", float("inf"), float("inf"))):
            with pytest.raises(BuildError, match="differs"):
                demand([found], 1e-4)

    def test_another_shape_is_named(self) -> None:
        graph = Graph(segmenter())
        with pytest.raises(BuildError, match=r"gives \(1, 7, 3\) for \(1, 3, 32, 32\)"):
            agreements(graph, lambda images: graph(images)[:1], [1], 32)


class TestRefusals:
    def test_an_existing_file(self, tmp_path: Path) -> None:
        (tmp_path / "m.pt2").write_text("mine")
        with pytest.raises(UsageError, match="exists; give another --out, or --force"):
            export(segmenter(), tmp_path / "m.pt2", "torch-export")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is a folder"):
            export(segmenter(), tmp_path, "torch-export")

    def test_no_head(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="without a head"):
            export(build("test_vit", 32, head="none"), tmp_path / "m.pt2", "torch-export")

    def test_a_size_that_the_model_does_not_take(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="was built for 32 px and does not take 40 px"):
            export(segmenter(), tmp_path / "m.pt2", "torch-export", resolution=40)

    def test_another_number_of_classes(self, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="the head has 150 classes, the dataset 2"):
            export(build("test_vit", 32), tmp_path / "m.pt2", "torch-export", classes=TABLE)

    @pytest.mark.parametrize("form", ["onnx"])
    def test_missing_packages_name_the_extra(
        self, form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else True)
        with pytest.raises(BuildError, match=r"--format onnx needs onnxscript; try: pip install 'luma-seg\[export\]'"):
            export(segmenter(), tmp_path / "m.onnx", form)
        assert leftovers(tmp_path) == []


class TestCommand:
    def test_a_run_becomes_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        weights = weights_file_of_a_run(tmp_path / "run", "cityscapes", 19)
        out = tmp_path / "m.safetensors"
        assert run(["export", str(weights), "--format", "safetensors", "--out", str(out), "--json"]) == 0
        said = capsys.readouterr()
        answer = json.loads(said.out)
        assert answer["files"] == [str(out)]
        assert answer["facts"]["classes"][0]["name"] == "road"
        assert [each["max_abs_difference"] for each in answer["check"]["outputs"]] == [0.0, 0.0]
        assert "output class_logits" in said.err

    @pytest.mark.parametrize("batch", ["0", "many", "²"])
    def test_a_strange_batch(self, batch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["export", "latest", "--batch", batch]) == 2
        assert "expected a number from 1 on, or dynamic" in capsys.readouterr().err
