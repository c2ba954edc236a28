"""`--res 512 1024` works wherever it stands."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from luma_cli.cli.options import ManyValued, complete_flags, repeat_flags


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--res 512 1024", "--res 512 --res 1024"),
        ("--res 512 1024 convnext_b", "--res 512 --res 1024 convnext_b"),
        ("convnext_b --res 512 1024 --json", "convnext_b --res 512 --res 1024 --json"),
        ("--res 512 --res 1024 vit_b", "--res 512 --res 1024 vit_b"),
        ("--res=512 1024 vit_b", "--res=512 --res 1024 vit_b"),
        ("--res 512 vit_b 1024", "--res 512 vit_b 1024"),
        ("--res -5 vit_b", "--res -5 vit_b"),
        ("--batch 4 --res 64 --batch 8", "--batch 4 --res 64 --batch 8"),
        ("--res 64 -- 128", "--res 64 -- 128"),
        ("vit_b", "vit_b"),
        ("--res", "--res"),
    ],
)
def test_flag_is_repeated_before_each_further_integer(given: str, expected: str) -> None:
    assert repeat_flags(given.split()) == expected.split()


def test_values_reach_the_command() -> None:
    app = typer.Typer()

    @app.command(cls=ManyValued)
    def show(names: list[str], res: list[int] = typer.Option([])) -> None:  # noqa: B008
        typer.echo(f"{names} {res}")

    result = CliRunner().invoke(app, ["--res", "512", "1024", "vit_b", "swin_t"])
    assert result.output == "['vit_b', 'swin_t'] [512, 1024]\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("vit_b --again", "vit_b --again all"),
        ("--again vit_b", "--again all vit_b"),
        ("--again failed vit_b", "--again failed vit_b"),
        ("vit_b --again --json", "vit_b --again all --json"),
        ("", ""),
    ],
)
def test_bare_again_means_all(given: str, expected: str) -> None:
    assert complete_flags(given.split()) == expected.split()


def test_a_line_without_any_argument_is_left_alone() -> None:
    assert complete_flags([]) == []
