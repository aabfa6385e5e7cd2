"""Where the packed transitions of a run lie, and the rows that a block of updates draws.

In memory, rows are drawn from all transitions. On disk they lie shuffled once for all, so
that any stretch of the file is a random sample: a block reads one stretch in one go and
draws from that. Rows drawn one by one would cost a disk access each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.learning.config import TrainConfig
from training.learning.learner import draw_block

TRANSITIONS = "transitions.f32"  # in the run folder while it trains from disk

BUCKET_BYTES = 64 << 20  # what is shuffled at a time, in memory
STRETCH = 2  # rows read for each row drawn


@dataclass(frozen=True)
class Store:
    """Packed transitions.

    Attributes:
        data: (N, W) float32, see `training.learning.batch.pack`; it may be a mapped file.
        shuffled: whether it lies on disk, shuffled.
    """

    data: Tensor
    shuffled: bool = False

    def draw(self, config: TrainConfig, block: int) -> tuple[Tensor, Tensor]:
        """Returns the transitions that a block of updates sees, and which form each batch.

        Both follow from (seed, block) alone. Row numbers are int64, (log_every, batch_size).
        """
        total = len(self.data)
        if not self.shuffled:
            return self.data, draw_block(config, block, total)
        shape = config.log_every, config.batch_size
        rng = np.random.default_rng([config.seed, block])
        width = min(total, STRETCH * shape[0] * shape[1])
        start = int(rng.integers(total))
        wrapped = max(0, start + width - total)
        # Torch copies here, at the disk's speed for one long read.
        stretch = torch.cat([self.data[start : start + width], self.data[:wrapped]])
        return stretch, torch.from_numpy(rng.integers(width, size=shape))


def lies_on_disk(config: TrainConfig, rows: int, columns: int) -> bool:
    """Returns whether so many packed transitions of so many columns go to disk.

    `auto` looks at the machine's memory and not at what is free of it now: a resumed run
    must decide as before.
    """
    if config.data != "auto":
        return config.data == "disk"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 4 * rows * columns > memory // 4


def write_shuffled(path: Path, parts: Iterable[Tensor], rows: int, columns: int, seed: int) -> None:
    """Writes float32 transitions (n, columns) in random order; few are in memory at a time.

    Each goes to a bucket at random; then the buckets are shuffled, one after another. The
    file appears whole or not at all.
    """
    rng = np.random.default_rng(seed)
    count = -(-4 * rows * columns // BUCKET_BYTES)
    drafts = [path.with_name(f"{path.name}.{i}.tmp") for i in range(count)]
    whole = path.with_name(path.name + ".tmp")
    with ExitStack() as stack:
        for draft in (*drafts, whole):
            stack.callback(draft.unlink, missing_ok=True)
        with ExitStack() as writing:
            files = [writing.enter_context(draft.open("wb")) for draft in drafts]
            for part in parts:
                buckets = rng.integers(count, size=len(part))
                for i, file in enumerate(files):
                    file.write(part.numpy()[buckets == i].tobytes())
        with whole.open("wb") as file:
            for draft in drafts:
                bucket = np.fromfile(draft, np.float32).reshape(-1, columns)
                file.write(rng.permutation(bucket).tobytes())
                draft.unlink()
            file.flush()
            os.fsync(file.fileno())
        whole.replace(path)


def open_shuffled(path: Path, rows: int, columns: int) -> Store:
    """Maps a file that `write_shuffled` wrote."""
    # Shared, though nobody writes: a private mapping is reserved in memory at its full size.
    data = torch.from_file(str(path), shared=True, size=rows * columns, dtype=torch.float32)
    return Store(data.view(rows, columns), shuffled=True)
