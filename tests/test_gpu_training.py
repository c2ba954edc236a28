"""Training and evaluation on a CUDA device; run by benchmarks/gpu.py, skipped elsewhere."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from drawn_data import drawn
from run_samples import curve

from luma_cli.store.database import open_read
from luma_cli.store.runs import evaluations
from luma_cli.train import loop as events
from luma_cli.train.config import Given, Settings
from luma_cli.train.run import Outcome, train_run

pytestmark = pytest.mark.gpu
NUM_STEPS = 8


@pytest.fixture(autouse=True)
def cuda() -> Any:
    """Torch with a CUDA device, or the test is skipped."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.cuda


def run(
    out: Path, *changes: str, device: str = "cuda", resume: str = "", on_event: Any = lambda event: None
) -> Outcome:
    usual = (f"steps={NUM_STEPS}", "epochs=0", "batch=4", "warmup_head_steps=1", "warmup_backbone_steps=1")
    asked = Given(
        backbone="test_vit",
        data="ade20k",
        root=str(drawn()),
        resolution=64,
        recipe="smoke",
        changes=(*usual, *changes),
        head={"num_queries": 12},
    )
    settings = Settings(device=device, out=out, checkpoint_steps=1, num_workers=2, resume=resume)
    return train_run(Given() if resume else asked, settings, on_event)


def losses(run_id: str) -> list[float]:
    with closing(open_read()) as connection:
        return [value for _, value in curve(connection, run_id, "train/loss")]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_run_in_every_number_format(tmp_path: Path, dtype: str) -> None:
    found = run(tmp_path / dtype, f"dtype={dtype}")
    assert found.status == "finished"
    assert losses(found.run_id)[-1] < losses(found.run_id)[0]
    with closing(open_read()) as connection:
        (score,) = evaluations(connection, found.run_id)
    assert score.num_images == 3
    assert score.miou_percent is not None


def test_a_resumed_run_goes_on_within_rounding(tmp_path: Path) -> None:
    class Crash(Exception):
        pass

    def crash(event: events.Event) -> None:
        if isinstance(event, events.Stepped) and event.step == 4:
            raise Crash

    whole = run(tmp_path / "whole", "dtype=fp32")
    with pytest.raises(Crash):
        run(tmp_path / "part", "dtype=fp32", on_event=crash)
    part = run(tmp_path / "part", resume=str(tmp_path / "part"))
    assert losses(part.run_id) == pytest.approx(losses(whole.run_id), rel=1e-3)


def test_the_micro_batch_is_searched_and_leaves_memory_free(tmp_path: Path, cuda: Any) -> None:
    found: list[events.Started] = []
    run(tmp_path / "run", on_event=lambda event: found.append(event) if isinstance(event, events.Started) else None)
    assert "fits" in found[0].facts["passes"]
