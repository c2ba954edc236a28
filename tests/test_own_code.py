"""`--import`: located and hashed without running, run where models are built, faults told in one line."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from luma_cli.catalogue.imports import own_code, run
from luma_cli.errors import LumaError, UsageError

TRAP = "raise AssertionError('this must not run')\n"


def test_a_file_is_hashed_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(TRAP, encoding="utf-8")
    code = own_code(str(path))
    assert code.files == (path,)
    assert code.sha256 == hashlib.sha256(TRAP.encode()).hexdigest()


def test_a_module_is_the_same_code_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "luma_test_single.py"
    path.write_text(TRAP, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert own_code("luma_test_single").sha256 == own_code(str(path)).sha256
    assert "luma_test_single" not in sys.modules


def test_a_package_counts_with_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "luma_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import net\n", encoding="utf-8")
    (package / "net.py").write_text("WIDTH = 8\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = own_code("luma_test_package")
    assert [path.name for path in before.files] == ["__init__.py", "net.py"]
    (package / "net.py").write_text("WIDTH = 16\n", encoding="utf-8")
    after = own_code("luma_test_package")
    (package / "net.py").rename(package / "other.py")
    assert len({before.sha256, after.sha256, own_code("luma_test_package").sha256}) == 3


def test_a_file_runs_once_and_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "luma_test_beside.py").write_text("WIDTH = 8\n", encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text("import luma_test_beside\nwidth = luma_test_beside.WIDTH\nruns = []\n", encoding="utf-8")
    module = run(str(path))
    module.runs.append(1)
    assert module.width == 8
    assert run(str(path)).runs == [1]


def test_a_folder_beside_the_file_hides_nobody_elses_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(TRAP, encoding="utf-8")
    (tmp_path / "mine.py").write_text("import json\nhere = json.dumps(1)\n", encoding="utf-8")
    assert run(str(tmp_path / "mine.py")).here == "1"


def test_a_model_registered_by_a_file_can_be_created_in_that_process(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom timm.models import register_model\n\n"
        "@register_model\ndef luma_test_own(pretrained=False, **kwargs):\n    return torch.nn.Conv2d(3, 8, 16, 16)\n",
        encoding="utf-8",
    )
    program = (
        "import sys\nfrom luma_cli.catalogue.imports import run\nrun(sys.argv[1])\n"
        "import timm\nprint(type(timm.create_model('luma_test_own')).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mine.py")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "Conv2d", done.stderr


@pytest.mark.parametrize("target", ["nowhere.py", "folder/", "no_such_module_at_all", "json.no_such", "", ".x"])
def test_what_does_not_exist_is_told_in_one_line(target: str) -> None:
    with pytest.raises(UsageError, match=r"--import .*expected a file ending in .py or the name of") as caught:
        own_code(target)
    assert "\n" not in str(caught.value)


def test_code_that_fails_says_how_and_may_run_again(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(LumaError, match="ZeroDivisionError: division by zero"):
        run(str(path))
    path.write_text("fine = True\n", encoding="utf-8")
    assert run(str(path)).fine
