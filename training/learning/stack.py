"""Networks of one architecture, stacked: all parameters in one flat tensor, backward by hand.

The optimiser then takes one step on one tensor, a Polyak average is one interpolation, and
no Python runs for each parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from training.learning.products import (
    affine,
    bias_gradient,
    input_gradient,
    weight_gradient,
)


@dataclass(frozen=True)
class Layers:
    """Weights (in, out) and biases (1, out) of one network, or (G, in, out) and (G, 1, out)."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def of(self, network: int) -> Layers:
        """Returns the layers of one network of a stack."""
        return Layers(
            tuple(weight[network] for weight in self.weights),
            tuple(bias[network] for bias in self.biases),
        )


@dataclass(frozen=True)
class Pass:
    """A forward pass and what its way back needs.

    Attributes:
        output: (G, B, out), in the parameters' precision.
        inputs: of every layer, for each product's worth of networks.
    """

    output: Tensor
    inputs: list[list[Tensor]]


class Stack:
    """G multilayer perceptrons with ReLU between the layers.

    Attributes:
        flat, gradient: every parameter, (P,), and its `grad`, which `backward` fills.
        layers: views into `flat`.
        extra, extra_gradient: (G, extra), parameters at the end of `flat` that belong to no
            layer, and their place in its `grad`; whoever uses them fills that.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        count: int,
        like: Tensor,
        *,
        extra: int = 0,
        products: torch.dtype,
        apart: bool,
    ) -> None:
        """Makes a stack of zeros.

        Args:
            sizes: widths from the input to the output.
            count: G.
            like: gives the parameters' precision and device.
            extra: parameters of each network beside its layers.
            products: precision of the hidden layers' matrix products; the output layer, the
                gradients' sums and the parameters keep that of `like`.
            apart: multiply network by network, as a CPU likes it, or all at once.
        """
        weights = [(count, i, o) for i, o in pairwise(sizes)]
        shapes = [*weights, *((count, 1, o) for o in sizes[1:]), (count, extra)]
        values = like.new_zeros(sum(map(prod, shapes)))
        self._shapes = shapes
        self.flat = nn.Parameter(values)
        self.gradient = self.flat.grad = torch.zeros_like(values)
        self.layers, self.extra = _views(values, shapes)
        gradients, self.extra_gradient = _views(self.gradient, shapes)
        self._products = products
        self._rounded = None if products == like.dtype else values.to(products)
        rounded = self.layers if self._rounded is None else _views(self._rounded, shapes)[0]
        self._apart = apart
        whole = _Net(self.layers, rounded, gradients)
        self._nets = [whole.of(i) for i in range(count)] if apart else [whole]

    def forward(self, x: Tensor) -> Pass:
        """Returns the pass of x, (G, B, sizes[0])."""
        if self._rounded is not None:
            self._rounded.copy_(self.flat.data)
        x = x.to(self._products)
        passes = [net.forward(part) for net, part in zip(self._nets, self._parts(x), strict=True)]
        inputs = [net_inputs for _, net_inputs in passes]
        if len(passes) > 1:
            return Pass(torch.stack([output for output, _ in passes]), inputs)
        return Pass(passes[0][0].view(len(x), x.shape[1], -1), inputs)

    def backward(self, through: Pass, dy: Tensor) -> None:
        """Sets the layers' part of `flat.grad`, given the gradient of a pass's output."""
        for net, inputs, part in zip(self._nets, through.inputs, self._parts(dy), strict=True):
            net.backward(inputs, part)

    def of_member(self, values: Tensor, number: int, members: int) -> list[Tensor]:
        """Returns views of a member's part of `values`, in the order of a stack of its own.

        Args:
            values: (P,), laid out as `flat`.
            number: of the member.
            members: S; the G networks are those of member 0, 1, ... again and again.
        """
        layers, extra = _views(values, self._shapes)
        whole = (*layers.weights, *layers.biases, extra)
        return [view.unflatten(0, (-1, members))[:, number] for view in whole]

    def _parts(self, x: Tensor) -> Tensor | list[Tensor]:
        return x if self._apart else [x]


@dataclass(frozen=True)
class _Net:
    """What is multiplied at once: one network, or all of a stack.

    Attributes:
        layers: in the parameters' precision, for the output layer.
        rounded: in that of the products, for the hidden layers.
        gradients: where the layers' gradients go.
    """

    layers: Layers
    rounded: Layers
    gradients: Layers

    def of(self, network: int) -> _Net:
        return _Net(*(part.of(network) for part in (self.layers, self.rounded, self.gradients)))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the output, and every layer's input."""
        inputs = [x]
        for weight, bias in zip(self.rounded.weights[:-1], self.rounded.biases[:-1], strict=True):
            inputs.append(affine(inputs[-1], weight, bias, relu=True))
        weight, bias = self.layers.weights[-1], self.layers.biases[-1]
        inputs[-1] = inputs[-1].to(weight.dtype)
        return affine(inputs[-1], weight, bias, relu=False), inputs

    def backward(self, inputs: list[Tensor], dy: Tensor) -> None:
        """Sets the gradients, given the inputs of every layer and the output's gradient."""
        weights = (*self.rounded.weights[:-1], self.layers.weights[-1])
        for i in reversed(range(len(weights))):
            weight_gradient(inputs[i], dy, self.gradients.weights[i])
            bias_gradient(dy, self.gradients.biases[i])
            if i > 0:
                dx = input_gradient(dy, weights[i])
                # The gradient where the ReLU let something through, 0 elsewhere.
                dy = torch.ops.aten.threshold_backward(dx, inputs[i], 0).to(weights[i - 1].dtype)


def _views(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[Layers, Tensor]:
    parts = flat.split([prod(shape) for shape in shapes])
    *views, extra = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
    half = len(views) // 2
    return Layers(tuple(views[:half]), tuple(views[half:])), extra
