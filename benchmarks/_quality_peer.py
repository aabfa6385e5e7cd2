"""One trial of d3rlpy's IQL; runs in the peers' Python, not in the project's.

    python -m benchmarks._quality_peer DATASET POLICY STEPS SEED REWARD_SCALE

The settings are d3rlpy's own for locomotion, with observations standardised as ours are and
the cosine of the actor's learning rate as long as the run. POLICY becomes a TorchScript
module: SI observations (B, O) to actions (B, A).
"""

from __future__ import annotations

import sys

import d3rlpy  # type: ignore[import-not-found]
import h5py
import torch
from d3rlpy.optimizers import (  # type: ignore[import-not-found]
    AdamFactory,
    CosineAnnealingLRFactory,
)
from d3rlpy.preprocessing import (  # type: ignore[import-not-found]
    MultiplyRewardScaler,
    StandardObservationScaler,
)

COLUMNS = ("observations", "actions", "rewards", "terminals", "timeouts")


def main() -> None:
    dataset, policy = sys.argv[1:3]
    steps, seed, reward_scale = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    torch.set_num_threads(1)
    d3rlpy.seed(seed)
    with h5py.File(dataset) as file:
        columns = {name: file[name][()] for name in COLUMNS}
    columns["terminals"] = columns["terminals"].astype("f4")
    columns["timeouts"] = columns["timeouts"].astype("f4")
    learner = d3rlpy.algos.IQLConfig(
        actor_optim_factory=AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(steps)),
        batch_size=256,
        expectile=0.7,
        weight_temp=3.0,
        max_weight=100.0,
        observation_scaler=StandardObservationScaler(),
        reward_scaler=MultiplyRewardScaler(reward_scale),
    ).create(device="cpu")
    learner.fit(
        d3rlpy.dataset.MDPDataset(**columns),
        n_steps=steps,
        n_steps_per_epoch=min(steps, 1000),
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    learner.save_policy(policy)


if __name__ == "__main__":
    main()
