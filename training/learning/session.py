"""One process's share of a run: block after block of updates, with what is kept of them.

Several runs that differ in nothing but their seed can advance together, on one learner that
holds all of their networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iql_ros.errors import IqlRosError
from training.learning.batch import unpack
from training.learning.checkpoint import Checkpoint, Origin, save_checkpoint
from training.learning.learner import BlockRunner, Learner
from training.learning.metrics import MetricsLog, Report
from training.learning.run import CHECKPOINT, CHECKPOINT_BEFORE
from training.learning.store import Store


class DivergenceError(IqlRosError):
    """A loss became NaN or infinite."""


@dataclass(frozen=True)
class Session:
    """A run that is being trained.

    Attributes:
        out: the run folder.
        origin: what the run was started from.
        learner: its networks, as they stand.
        store: packed transitions to train on.
        held_out: packed transitions to judge by.
        keeps_two: whether the checkpoint before the newest stays too.
    """

    out: Path
    origin: Origin
    learner: Learner
    store: Store
    held_out: Tensor | None
    keeps_two: bool = False

    def look(self, newest: dict[str, float]) -> dict[str, float]:
        """Returns the held-out losses, of which the learner hears too; `newest` without data."""
        if self.held_out is None:
            return newest
        losses = self.learner.evaluate(unpack(self.held_out, self.learner.action_size))
        self.learner.adapt(losses)
        return losses

    def save(self, step: int, held_out: dict[str, float]) -> None:
        """Writes the checkpoint after `step` updates."""
        if self.keeps_two:
            before = self.out / CHECKPOINT_BEFORE
            before.unlink(missing_ok=True)
            before.hardlink_to(self.out / CHECKPOINT)
        checkpoint = checkpoint_of(step, self.origin, self.learner, held_out)
        save_checkpoint(self.out / CHECKPOINT, checkpoint)

    def refuse_divergence(
        self, losses: Tensor, data: Tensor, rows: Tensor, first_step: int
    ) -> None:
        """Ends the run where a loss is not finite; the batch stays in its folder.

        Args:
            losses: of each update, (K, L).
            data: transitions, and which of them formed each batch, `rows` (K, B).
            first_step: updates taken before.
        """
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


def advance(
    sessions: Sequence[Session],
    run_block: BlockRunner,
    checkpoints: Sequence[Checkpoint],
    report: Report,
    interrupted: Callable[[], bool],
) -> int:
    """Trains on, block by block, and returns the step reached; it is saved.

    Args:
        sessions: S runs of one config but for the seed.
        run_block: takes a block of updates of all of them, see `training.learning.learner`.
        checkpoints: where each stands, all at the same step.
        report: hears of every block, with the losses' means over the runs.
        interrupted: asked before every block.
    """
    config, step = sessions[0].origin.config, checkpoints[0].step
    newest = [checkpoint.held_out for checkpoint in checkpoints]
    names, draw = sessions[0].learner.loss_names, _drawing(sessions)
    with ExitStack() as stack:
        logs = [stack.enter_context(closing(MetricsLog(s.out, step))) for s in sessions]
        while step < config.steps and not interrupted():
            started = time.perf_counter()
            data, rows = draw(step // config.log_every)
            rows = rows[: config.steps - step]
            losses = run_block(data, rows, step)
            rate = len(sessions) * len(rows) / (time.perf_counter() - started)
            # With one run neither has the axis of the runs.
            of_each = losses.view(len(rows), len(sessions), -1).unbind(1)
            rows_of_each = rows.view(len(rows), len(sessions), -1).unbind(1)
            for session, own_losses, own_rows in zip(sessions, of_each, rows_of_each, strict=True):
                session.refuse_divergence(own_losses, data, own_rows, step)
            step += len(rows)
            judged = step == config.steps or step % config.evaluate_every == 0
            for i, (session, log) in enumerate(zip(sessions, logs, strict=True)):
                means = of_each[i].mean(dim=0).tolist()
                log.write(step, {f"train/{n}": v for n, v in zip(names, means, strict=True)})
                log.write_rate(step, rate)
                if judged and session.held_out is not None:
                    newest[i] = session.look(newest[i])
                    log.write(step, {f"held_out/{n}": v for n, v in newest[i].items()})
                if step != config.steps and step % config.checkpoint_every == 0:
                    session.save(step, newest[i])
            means = losses.view(-1, len(names)).mean(dim=0).tolist()
            report(step, dict(zip(names, means, strict=True)), rate)
        for session, held_out in zip(sessions, newest, strict=True):
            session.save(step, held_out)
    return step


def _drawing(sessions: Sequence[Session]) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Returns what draws a block: its number to transitions, and rows (K, B) or (K, S, B)."""
    stores = [session.store for session in sessions]
    configs = [session.origin.config for session in sessions]
    if len(sessions) == 1:
        return lambda block: stores[0].draw(configs[0], block)
    # Each run has its own episodes and scale: their transitions lie one after another.
    in_memory = None
    if not any(store.shuffled for store in stores):
        in_memory = torch.cat([store.data for store in stores])

    def draw(block: int) -> tuple[Tensor, Tensor]:
        drawn = [store.draw(config, block) for store, config in zip(stores, configs, strict=True)]
        sizes = [len(data) for data, _ in drawn]
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        rows = torch.stack([r + start for (_, r), start in zip(drawn, starts, strict=True)], dim=1)
        data = torch.cat([data for data, _ in drawn]) if in_memory is None else in_memory
        return data, rows

    return draw


def checkpoint_of(
    step: int, origin: Origin, learner: Learner, held_out: dict[str, float]
) -> Checkpoint:
    """Returns the state of a run after `step` updates."""
    optimisers = {name: value.state_dict() for name, value in learner.optimisers.items()}
    generators = {name: value.get_state() for name, value in learner.generators.items()}
    return Checkpoint(step, origin, learner.state_dict(), optimisers, generators, held_out)
