"""The numbers of a run for TensorBoard, which is optional (`pip install "luma-seg[log]"`)."""

from __future__ import annotations

from pathlib import Path

from luma_cli.errors import UsageError


class TensorBoard:
    """A Sink of MetricLog that writes event files into `folder`; a run resumed from `step` hides later events."""

    def __init__(self, folder: Path, resumed_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError('--tensorboard needs TensorBoard: pip install "luma-seg[log]", or leave it out') from error
        purge = None if resumed_step is None else resumed_step + 1
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge)

    def add(self, step: int, name: str, value: float) -> None:
        """Takes one number."""
        self._writer.add_scalar(name, value, global_step=step)

    def flush(self) -> None:
        """Brings the events to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
