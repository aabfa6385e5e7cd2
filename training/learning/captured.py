"""The fast update on a GPU: captured once as a CUDA graph, then replayed without Python.

An update is some hundred kernels of a few microseconds each, less than it takes to launch
them one by one. All that differs between two updates lies on the device: the rows of the
block's batches, the schedules' values, and the number of the update within the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from training.learning.batch import unpack
from training.learning.fast import FastIql

AT_ONCE = 10  # updates in a graph: launching one takes 20 us of the device's time
WARM_UP = 3  # updates before a capture, as torch asks for; they are undone


class CapturedUpdates:
    """Takes blocks of updates of a `FastIql`.

    On a CPU it takes the same steps and captures nothing, so that they can be tested there.
    """

    def __init__(self, learner: FastIql) -> None:
        self._learner = learner
        flat = learner.value.flat
        self._device, self._dtype = flat.device, flat.dtype
        self._rate = torch.zeros((), dtype=torch.float32, device=self._device)
        learner.optimisers["actor_and_critic"].param_groups[0]["lr"] = self._rate
        self._at = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._data = self._rows = self._schedule = self._losses = torch.empty(0)
        # By whether actor and critics train too, and updates; they hold for the tensors above.
        self._graphs: dict[tuple[bool, int], torch.cuda.CUDAGraph] = {}

    def run(self, data: Tensor, rows: Tensor, first_step: int) -> Tensor:
        """Takes one update for each row of `rows`; see `training.learning.learner.run_block`.

        Args:
            data: packed transitions; those on the device are used where they lie.
            rows: (K, B), or (K, S, B) for S members.
            first_step: updates taken before.

        Returns:
            Losses, (K, 3) or (K, S, 3), on the CPU.
        """
        self._place(data, rows, first_step)
        of_value_alone = self._learner.config.value_warm_up - first_step
        split = min(max(of_value_alone, 0), len(rows))
        for train_all, count in ((False, split), (True, len(rows) - split)):
            for updates in (*[AT_ONCE] * (count // AT_ONCE), *[1] * (count % AT_ONCE)):
                self._advance(train_all, updates)
        losses = self._losses[: len(rows)].cpu()
        return losses[:, 0] if rows.ndim == 2 else losses

    def _place(self, data: Tensor, rows: Tensor, first_step: int) -> None:
        """Brings a block's inputs to where the graphs look for them."""
        learner = self._learner
        if self._rows.shape[1:] != rows.shape[1:] or len(self._rows) < len(rows):
            self._graphs.clear()
            count = len(rows)
            members = len(learner.members)
            self._rows = torch.zeros(rows.shape, dtype=torch.int64, device=self._device)
            self._schedule = torch.zeros(count, 2, dtype=self._dtype, device=self._device)
            self._losses = torch.zeros(count, members, 3, dtype=self._dtype, device=self._device)
        in_place = data.device == self._device
        if data.shape != self._data.shape or (in_place and data is not self._data):
            self._graphs.clear()
            self._data = data.to(self._device)
        if not in_place:
            self._data.copy_(data)
        self._rows[: len(rows)].copy_(rows)
        schedule = [learner.rate_and_expectile(first_step + i) for i in range(len(rows))]
        self._schedule[: len(rows)].copy_(torch.tensor(schedule, dtype=self._dtype))
        self._at.zero_()

    def _advance(self, train_all: bool, updates: int) -> None:
        if self._device.type != "cuda":
            for _ in range(updates):
                self._update(train_all)
            return
        if (train_all, updates) not in self._graphs:
            self._graphs[train_all, updates] = self._capture(train_all, updates)
        self._graphs[train_all, updates].replay()

    def _update(self, train_all: bool) -> None:
        """Takes one update, of which no number passes through Python."""
        learner = self._learner
        rows = self._rows.index_select(0, self._at)[0]
        batch = self._data.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        rate, expectile = self._schedule.index_select(0, self._at)[0]
        self._rate.copy_(rate)
        losses = learner.step(unpack(batch, learner.action_size), expectile, train_all=train_all)
        self._losses.index_copy_(0, self._at, losses[None])
        self._at.add_(1)

    def _capture(self, train_all: bool, updates: int) -> torch.cuda.CUDAGraph:
        before = [tensor.clone() for tensor in self._changing()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._at.zero_()
                self._update(train_all)
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(self._changing(), before, strict=True):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # records only, takes no step
            for _ in range(updates):
                self._update(train_all)
        return graph

    @torch.no_grad()
    def _changing(self) -> Iterator[Tensor]:
        """Yields every tensor that an update leaves different."""
        learner = self._learner
        yield from (self._at, self._losses)
        for stack in (learner.value, learner.actor, learner.critic, learner.target_critic):
            yield stack.flat.detach()
        for optimiser in learner.optimisers.values():
            for state in optimiser.state.values():
                yield from state.values()
        led = learner.members[0].led_expectile
        if led is not None:
            yield from led.buffers()
