"""Work that may go on beside the rest: on a GPU in a stream of its own, on a CPU in its turn.

The kernels of a small network leave most of a GPU idle; two that do not wait for one another
run at once. Within a CUDA graph the streams become branches of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Lane:
    """A second line of work; what uses its results must `join` first.

    Tensors that it reads must live until it has been joined, since their memory is given out
    again by the order of the main line.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Puts what is called within into the lane, after all that was asked for so far."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Lets the main line wait for what was put into the lane so far."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
