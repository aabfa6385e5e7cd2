"""A bundle like those of training, of any depth, made of numpy weights: no torch on a target."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from iql_ros.bundle import Bundle
from iql_ros.bundles.format import OPSET, graph_metadata
from iql_ros.bundles.golden import Golden
from tests.small_bundle import CONTRACT, write_bundle

Array = NDArray[np.float32]


def write_deep_bundle(out: Path, hidden: Sequence[int] = (256, 256), seed: int = 0) -> Bundle:
    """Normaliser, ReLU layers, tanh, scaling: the shape of what `iql-ros export` writes."""
    rng = np.random.default_rng(seed)
    sizes = [CONTRACT.observation_size, *hidden, CONTRACT.action_size]
    weights = [
        (rng.normal(size=pair) * np.sqrt(2 / pair[0])).astype(np.float32)
        for pair in pairwise(sizes)
    ]
    low, high = (limit.astype(np.float32) for limit in (CONTRACT.action_low, CONTRACT.action_high))
    mean, std = np.float32(0.5) * np.ones(sizes[0], np.float32), np.full(sizes[0], 2, np.float32)
    observations = rng.uniform(-5, 5, (256, sizes[0])).astype(np.float32)
    return write_bundle(
        out,
        policy=_graph(weights, mean, std, low, high),
        golden=Golden(observations, _act(observations, weights, mean, std, low, high)),
    )


def _act(x: Array, weights: list[Array], mean: Array, std: Array, low: Array, high: Array) -> Array:
    x = (x - mean) / std
    for weight in weights[:-1]:
        x = np.maximum(x @ weight, 0)
    return low + (np.tanh(x @ weights[-1]) + np.float32(1)) * ((high - low) / np.float32(2))


def _graph(weights: list[Array], mean: Array, std: Array, low: Array, high: Array) -> bytes:
    constants = {"mean": mean, "std": std, "low": low, "half": (high - low) / np.float32(2)}
    constants["one"] = np.ones(1, np.float32)
    nodes = [
        helper.make_node("Sub", ["observation", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["x0"]),
    ]
    for i, weight in enumerate(weights):
        constants[f"w{i}"] = np.ascontiguousarray(weight.T)
        constants[f"b{i}"] = np.zeros(weight.shape[1], np.float32)
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"w{i}", f"b{i}"], [f"y{i}"], transB=1))
        last = i == len(weights) - 1
        nodes.append(helper.make_node("Tanh" if last else "Relu", [f"y{i}"], [f"x{i + 1}"]))
    nodes += [
        helper.make_node("Add", [f"x{len(weights)}", "one"], ["raised"]),
        helper.make_node("Mul", ["raised", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "low"], ["action"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "deep",
            [helper.make_tensor_value_info("observation", TensorProto.FLOAT, (1, mean.size))],
            [helper.make_tensor_value_info("action", TensorProto.FLOAT, (1, low.size))],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    helper.set_model_props(model, graph_metadata(CONTRACT))
    return bytes(model.SerializeToString())
