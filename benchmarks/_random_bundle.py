"""A bundle of random weights: what the benchmarks that only run a policy need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from iql_ros.bundle import Bundle
from iql_ros.bundles.format import Provenance, Support
from iql_ros.bundles.writing import save_bundle
from iql_ros.contract import Contract
from training.export import export_graph, golden_observations, golden_pairs
from training.learning.config import TrainConfig
from training.learning.learner import create_learner
from training.learning.networks import DeployedPolicy


def write_random_bundle(
    out: Path, contract: Contract, config: TrainConfig, support: Support | None = None
) -> tuple[Bundle, DeployedPolicy]:
    """Writes the bundle of an untrained policy; returns it, and the policy in torch."""
    size = contract.observation_size
    learner = create_learner(config, size, contract.action_size)
    limits = contract.action_low, contract.action_high
    acting = learner.deployed()
    _give_biases(acting)
    policy = DeployedPolicy(acting, np.zeros(size), np.ones(size), *limits).eval()
    states = np.random.default_rng(0).normal(size=(1000, size)).astype(np.float32)
    bundle = save_bundle(
        out,
        contract=contract,
        policy=export_graph(policy, contract),
        golden=golden_pairs(policy, golden_observations(contract, states)),
        provenance=Provenance(
            dataset_digest=None, run="bench", algorithm="iql", seed=0, steps=0, versions={}
        ),
        metrics={},
        support=support,
    )
    return bundle, policy


def _give_biases(acting: nn.Module) -> None:
    """Small ones: zeros, as before training, the exporter would leave out of the graph."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in acting.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=rng))
