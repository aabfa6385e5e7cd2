"""A dataset small enough to see through: a point on a plane that is pushed to the origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from training.datasets.dataset import write_dataset

Columns = dict[str, NDArray[np.generic]]

LIMIT = 0.5  # m/s


def point_contract(limit: float = LIMIT) -> Contract:
    """The point's contract: position in, velocity out, within +-limit."""
    pose = {"topic": "/pose", "type": "geometry_msgs/msg/Point", "max_age_s": 0.1}
    push = {"topic": "/push", "type": "geometry_msgs/msg/Vector3"}
    return Contract.model_validate(
        {
            "format": 1,
            "robot": "point",
            "tick": {"rate_hz": 10},
            "topics": {"pose": pose, "push": push},
            "observations": [{"name": "p", "topic": "pose", "path": "{x,y,z}", "unit": "m"}],
            "actions": [
                {
                    "name": "v",
                    "topic": "push",
                    "path": "{x,y}",
                    "limits": [-limit, limit],
                    "safe": 0.0,
                }
            ],
            "reward": {"expression": "-abs(p_x) - abs(p_y)"},
        }
    )


def point_columns(episodes: int = 12, steps: int = 25, seed: int = 0) -> Columns:
    """Episodes that steer to the origin; the third observation is always 0."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-1, 1, size=(episodes, 2))
    seen, actions = [], []
    for _ in range(steps):
        action = np.clip(-place + rng.normal(0, 0.05, place.shape), -LIMIT, LIMIT)
        seen.append(place)
        actions.append(action)
        place = place + 0.1 * action
    path = np.stack([*seen, place], axis=1).astype(np.float32)
    path = np.concatenate([path, np.zeros_like(path[..., :1])], axis=2)
    after = path[:, 1:].reshape(-1, 3)
    timeouts = np.zeros((episodes, steps), dtype=bool)
    timeouts[:, -1] = True
    return {
        "observations": path[:, :-1].reshape(-1, 3),
        "next_observations": after,
        "actions": np.stack(actions, axis=1).astype(np.float32).reshape(-1, 2),
        "rewards": -np.abs(after).sum(axis=1),
        "terminals": np.zeros(episodes * steps, dtype=bool),
        "timeouts": timeouts.reshape(-1),
    }


def write_point_dataset(
    path: Path, columns: Columns | None = None, contract: Contract | None = None
) -> Path:
    """Writes the point's dataset with its contract, as convert would."""
    contract = contract or point_contract()
    attributes = {
        "format": 1,
        "contract": contract.canonical_json(),
        "contract_digest": contract.digest(),
    }
    write_dataset(path, columns or point_columns(), infos={}, attributes=attributes)
    return path
