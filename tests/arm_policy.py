"""A scripted policy of the arm, for tests of the gate: good, and without a training."""

from __future__ import annotations

import numpy as np

from benchmarks.planted_faults import Good, controller
from iql_ros.contract import load_contract
from iql_ros.contracts.safety import Safety
from iql_ros.controller import Controller
from sim.behaviour import Arm


def straight() -> Good:
    """Straight to the target; without the support check, which needs a bundle's statistics."""
    contract = load_contract("arm6").model_copy(update={"safety": Safety()})
    arm, q, offset = Arm(), contract.index("q"), contract.index("offset")

    def policy(observation):
        joints = observation[q].astype(float)
        goal = arm.position(joints) + observation[offset]
        return arm.towards(joints, goal, 0.4).astype(np.float32)

    return Good(contract, policy)


def straight_controller() -> Controller:
    """A function that a worker can be given."""
    return controller(straight)
