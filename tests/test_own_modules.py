"""One's own modules: what their forward may give, whose rule they take, and that the page about them is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from forked_luma import Forked
from torch import Tensor, nn

from luma_cli.errors import BuildError
from luma_cli.head.segmenter import build

PAGE = Path(__file__).resolve().parent.parent / "docs" / "use" / "own_modules.md"


class Own(nn.Module):
    """A stem, and a last step that decides what comes out."""

    def __init__(self, last):
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 16, 16)
        self.last = last

    def forward(self, images: Tensor) -> object:
        return self.last(self.stem(images))


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (lambda x: x.permute(0, 2, 3, 1), r"gives \[2, 4, 4, 48\], .*looks like \[B, H, W, D\]: add \.permute"),
        (lambda x: x[:, :, :-1], r"gives \[2, 48, 3, 4\], which is not square"),
        (lambda x: [x, x], r"gives a list of 2 maps \[1, 48, 4, 4\], \[1, 48, 4, 4\]; give one of them"),
        (lambda x: {"out": x}, "gives a dict with out"),
        (lambda x: None, "gives None"),
        (lambda x: x.mean((2, 3)), r"gives \[1, 48\], which look like class scores"),
        (lambda x: x.mean(0, keepdim=True), r"gives \[1, 48, 4, 4\] for two images"),
        (lambda x: torch.cat([x, x]), r"gives \[2, 48, 4, 4\] for one image"),
        (lambda x: x * torch.nan, "gives NaN or infinite values"),
    ],
)
def test_what_is_no_map_is_refused_by_what_it_is(last, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        build(Own(last), 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [torchvision.models.resnet18, torchvision.models.convnext_tiny])
def test_a_class_takes_the_rule_of_its_own_module_alone(make) -> None:
    """timm has `resnet.ResNet` and `convnext.ConvNeXt` too, whose rules would name parts that these lack."""
    with pytest.raises(BuildError, match="which look like class scores"):
        build(make(), 64)


def test_a_model_of_timm_keeps_its_rule() -> None:
    assert build(timm.create_model("test_vit", img_size=64, num_classes=0), 64).ffn == "reused"


def doctor(name: str, file: Path) -> tuple[int, str]:
    """Exit code and output of `luma doctor` in a process of its own: what the file registers with timm ends with it."""
    asked = Forked(["doctor", name, "--import", str(file), "--res", "64"], file.with_suffix(".log"))
    return asked.wait(), asked.said()


def test_the_page_about_own_modules_is_true(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "tiny.py").write_text(blocks[0])
    code, said = doctor("tiny", tmp_path / "tiny.py")
    assert (code, "luma attaches" in said) == (0, True), said
    names: dict[str, object] = {}
    exec(blocks[0].partition("@register_model")[0] + blocks[1], names)  # the page's own code
    assert names["segmenter"](torch.zeros(1, 3, 64, 64)).mask_logits.shape == (1, 100, 16, 16)


def test_values_that_are_read_while_building_are_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "reads.py"
    file.write_text(
        "import torch\nfrom timm.models import register_model\nfrom torch import nn\n"
        "class Reads(nn.Sequential):\n    def __init__(self):\n"
        "        width = int(torch.tensor(64).item())\n        super().__init__(nn.Conv2d(3, width, 16, 16))\n"
        "class Branches(nn.Sequential):\n"
        "    def forward(self, x):\n        y = super().forward(x)\n        return y if float(y.mean()) > 0 else -y\n"
        "@register_model\ndef reads(pretrained=False, **more):\n    return Reads()\n"
        "@register_model\ndef branches(pretrained=False, **more):\n    return Branches(nn.Conv2d(3, 64, 16, 16))\n"
    )
    code, said = doctor("reads", file)
    assert code == 0, said
    code, said = doctor("branches", file)
    assert (code, "its forward must not branch on them" in said) == (1, True), said
