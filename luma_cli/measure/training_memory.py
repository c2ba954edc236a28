"""Peak memory of training steps: a lower bound that every recipe with this batch and AdamW meets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from luma_cli.measure.accelerator import Accelerator
from luma_cli.measure.findings import Findings
from luma_cli.measure.subject import Build, Subject
from luma_cli.store.records import Configuration

# One image per step breaks BatchNorm where a layer sees a single pixel.
LEAST_BATCH = 2
LOSS = "mean square of all outputs, AdamW, all parameters trained"


def measure_training_memory(
    configuration: Configuration, accelerator: Accelerator, findings: Findings, build: Build
) -> None:
    """Two steps of a fresh model on a surrogate loss; the peak is of the second, when the optimiser has its state."""
    findings.say("training memory")
    accelerator.release()
    subject = Subject(configuration, accelerator.torch_device, build)
    batch = max(LEAST_BATCH, configuration.batch)
    inputs = subject.inputs(batch, 1)[0]
    module = subject.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    supervised = subject.segmenter.predictions if _predicts_often(configuration) else module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        surrogate_loss(supervised(inputs)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    step()
    findings.add_peaks(accelerator.peaks(step), "_training")
    findings.notes["training_memory"] = {"batch": batch, "loss": LOSS}


def _predicts_often(configuration: Configuration) -> bool:
    """Whether training supervises more predictions than inference makes: EoMT's, all under masked attention."""
    return configuration.part == "all" and configuration.head.name == "eomt"


def surrogate_loss(output: Any) -> Tensor:
    """Mean square of every tensor of the output, summed: it needs all activations and no labels."""
    if isinstance(output, tuple):
        return torch.stack([surrogate_loss(part) for part in output]).sum()
    mean: Tensor = output.float().square().mean()
    return mean
