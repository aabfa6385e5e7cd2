"""One process's share of a run: block after block of updates, with what is kept of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from iql_ros.errors import IqlRosError
from training.learning.batch import unpack
from training.learning.checkpoint import Checkpoint, Origin, save_checkpoint
from training.learning.learner import BlockRunner, Learner
from training.learning.metrics import MetricsLog, Report
from training.learning.run import CHECKPOINT
from training.learning.store import Store


class DivergenceError(IqlRosError):
    """A loss became NaN or infinite."""


@dataclass(frozen=True)
class Session:
    """A run from a checkpoint to the end, or to an interrupt.

    Attributes:
        out: the run folder.
        origin: what the run was started from.
        learner: stands at the checkpoint.
        run_block: takes a block of updates, see `training.learning.learner.run_block`.
        store: packed transitions to train on.
        held_out: packed transitions to judge by.
    """

    out: Path
    origin: Origin
    learner: Learner
    run_block: BlockRunner
    store: Store
    held_out: Tensor | None

    def advance(
        self, checkpoint: Checkpoint, report: Report, interrupted: Callable[[], bool]
    ) -> int:
        """Trains on, block by block, and returns the step reached; it is saved."""
        config = self.origin.config
        step, newest = checkpoint.step, checkpoint.held_out
        with closing(MetricsLog(self.out, step)) as log:
            while step < config.steps and not interrupted():
                started = time.perf_counter()
                data, rows = self.store.draw(config, step // config.log_every)
                rows = rows[: config.steps - step]
                losses = self.run_block(data, rows, step)
                rate = len(rows) / (time.perf_counter() - started)
                self._refuse_divergence(losses, data, rows, step)
                step += len(rows)
                means = dict(zip(self.learner.loss_names, losses.mean(dim=0).tolist(), strict=True))
                log.write(step, {f"train/{name}": value for name, value in means.items()})
                log.write_rate(step, rate)
                last = step == config.steps
                if self.held_out is not None and (last or step % config.evaluate_every == 0):
                    newest = self._held_out_losses(self.held_out)
                    self.learner.adapt(newest)
                    log.write(step, {f"held_out/{name}": value for name, value in newest.items()})
                if not last and step % config.checkpoint_every == 0:
                    self._save(step, newest)
                report(step, means, rate)
            self._save(step, newest)
        return step

    def _save(self, step: int, held_out: dict[str, float]) -> None:
        checkpoint = checkpoint_of(step, self.origin, self.learner, held_out)
        save_checkpoint(self.out / CHECKPOINT, checkpoint)

    def _held_out_losses(self, held_out: Tensor) -> dict[str, float]:
        return self.learner.evaluate(unpack(held_out, self.learner.action_size))

    def _refuse_divergence(
        self, losses: Tensor, data: Tensor, rows: Tensor, first_step: int
    ) -> None:
        broken = ~losses.isfinite()
        if not broken.any():
            return
        i = int(broken.any(dim=1).int().argmax())
        name = self.learner.loss_names[int(broken[i].int().argmax())]
        dump = self.out / "diverged.npz"
        np.savez(
            dump,
            step=first_step + i,
            losses=losses[i].numpy(),
            rows=rows[i].numpy(),
            batch=data[rows[i].to(data.device)].cpu().numpy(),
        )
        raise DivergenceError(
            f"{name} is {losses[i][broken[i]][0].item()} at step {first_step + i}, a loss must be "
            f"finite; its batch lies in {dump}: check the data's scale, or lower learning_rate, "
            f"inverse_temperature or reward_scale"
        )


def checkpoint_of(
    step: int, origin: Origin, learner: Learner, held_out: dict[str, float]
) -> Checkpoint:
    """Returns the state of a run after `step` updates."""
    optimisers = {name: value.state_dict() for name, value in learner.optimisers.items()}
    generators = {name: value.get_state() for name, value in learner.generators.items()}
    return Checkpoint(step, origin, learner.state_dict(), optimisers, generators, held_out)
