"""A real bundle, small and made without torch: a graph of numpy weights for a toy robot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from iql_ros.bundle import Bundle
from iql_ros.bundles.format import OPSET, Provenance, Support, graph_metadata
from iql_ros.bundles.golden import Golden
from iql_ros.bundles.writing import save_bundle
from iql_ros.contract import Contract

CONTRACT = Contract.model_validate(
    {
        "format": 1,
        "robot": "toy",
        "tick": {"rate_hz": 20},
        "topics": {
            "odom": {"topic": "/odom", "type": "nav_msgs/msg/Odometry", "max_age_s": 0.2},
            "cmd": {"topic": "/cmd", "type": "geometry_msgs/msg/Twist"},
        },
        "observations": [
            {
                "name": "position",
                "topic": "odom",
                "path": "pose.pose.position.{x,y,z}",
                "limits": [-5, 5],
            },
            {"name": "speed", "topic": "odom", "path": "twist.twist.linear.x"},
        ],
        "actions": [
            {"name": "vx", "topic": "cmd", "path": "linear.x", "limits": [-0.1, 0.3], "safe": 0},
            {"name": "wz", "topic": "cmd", "path": "angular.z", "limits": [-1, 1], "safe": 0},
        ],
        "reward": {"expression": "-position_x"},
    }
)

SUPPORT = Support(
    mean=(0.0,) * 4,
    precision=tuple(tuple(row) for row in np.eye(4).tolist()),
    threshold=4.0,
    alpha=0.05,
    false_alarm_bound=0.05,
    episodes=19,
    constant=(),
)

PROVENANCE = Provenance(
    dataset_digest="0" * 64, run="toy", algorithm="iql", seed=0, steps=1, versions={"onnx": "1"}
)


@dataclass(frozen=True)
class Mlp:
    """low + (tanh(W2 relu(W1 x)) + 1) half: 4 observations, 2 actions."""

    inner: NDArray[np.float32]
    outer: NDArray[np.float32]
    low: NDArray[np.float32]
    half: NDArray[np.float32]

    @classmethod
    def drawn(cls, seed: int, width: int = 16, contract: Contract = CONTRACT) -> Mlp:
        rng = np.random.default_rng(seed)
        low, high = contract.action_low, contract.action_high
        return cls(
            inner=rng.normal(size=(4, width)).astype(np.float32),
            outer=(rng.normal(size=(width, 2)) / width).astype(np.float32),
            low=low.astype(np.float32),
            half=((high - low) / 2).astype(np.float32),
        )

    def __call__(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        hidden = np.maximum(observations @ self.inner, 0)
        return self.low + (np.tanh(hidden @ self.outer) + 1) * self.half

    def graph(
        self,
        metadata: dict[str, str] | None = None,
        *,
        input_name: str = "observation",
        observations: int = 4,
    ) -> bytes:
        """The same as `policy.onnx`."""
        weights = {
            "inner": self.inner[:observations],
            "outer": self.outer,
            "low": self.low,
            "half": self.half,
            "one": np.ones(1, np.float32),
        }
        nodes = [
            helper.make_node("MatMul", [input_name, "inner"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "outer"], ["c"]),
            helper.make_node("Tanh", ["c"], ["d"]),
            helper.make_node("Add", ["d", "one"], ["e"]),
            helper.make_node("Mul", ["e", "half"], ["f"]),
            helper.make_node("Add", ["f", "low"], ["action"]),
        ]
        model = helper.make_model(
            helper.make_graph(
                nodes,
                "toy",
                [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, (1, observations))],
                [helper.make_tensor_value_info("action", TensorProto.FLOAT, (1, 2))],
                [numpy_helper.from_array(array, name) for name, array in weights.items()],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=10,
        )
        helper.set_model_props(model, graph_metadata(CONTRACT) if metadata is None else metadata)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def golden(self, pairs: int = 256) -> Golden:
        observations = np.random.default_rng(7).uniform(-5, 5, (pairs, 4)).astype(np.float32)
        return Golden(observations, self(observations))


def write_bundle(out: Path, mlp: Mlp | None = None, **changes: object) -> Bundle:
    """Writes and verifies the toy bundle, or one with other arguments of `save_bundle`."""
    mlp = Mlp.drawn(0) if mlp is None else mlp
    arguments = {
        "contract": CONTRACT,
        "policy": mlp.graph(),
        "golden": mlp.golden(),
        "provenance": PROVENANCE,
        "metrics": {"value_loss": 0.25},
        "support": SUPPORT,
    }
    return save_bundle(out, **{**arguments, **changes})
