"""A small training that checkpoints after every step, in a process of its own, so that tests can kill it."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import torch
from run_samples import small_model, state_of, train_step

from luma_cli.train.checkpoint import load_checkpoint, restore_random_state, save_checkpoint
from luma_cli.train.checkpoints import latest_sound
from luma_cli.train.run_folder import resumed

# Names that are found without the folder of the tests: the server does not look there.
PRELOAD = ["torch._dynamo", "luma_cli.train.checkpoint"]


def train(path: Path, num_steps: int, told: Connection) -> None:
    """Trains the run in `path` from its latest checkpoint to `num_steps`; sends (step, loss) once a step is kept."""
    torch.set_num_threads(1)
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    with resumed(path) as folder:
        start = 0
        if folder.pointed("latest"):
            state = load_checkpoint(latest_sound(folder).path)
            model.load_state_dict(dict(state.model))
            optimizer.load_state_dict(dict(state.optimizer))
            restore_random_state(state.random, 0, "cpu")
            start = state.step
        for step in range(start + 1, num_steps + 1):
            loss = train_step(model, optimizer)
            save_checkpoint(folder, state_of(model, optimizer, step), keep=2, best=step % 5 == 0)
            told.send((step, loss))
    told.send("end")
