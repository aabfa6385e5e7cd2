"""From a training run to a verified bundle: the graph, the golden pairs, the support."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

import iql_ros
from iql_ros.bundles.format import OPSET, Noise, Provenance, Tensor, graph_metadata, io_of
from iql_ros.bundles.golden import MIN_PAIRS, TOLERANCE, Golden
from iql_ros.bundles.noise import noise_rows
from iql_ros.bundles.writing import save_bundle
from iql_ros.contract import Contract
from iql_ros.errors import DatasetError
from training.datasets.dataset import Dataset, load_dataset
from training.learning.networks import DeployedPolicy
from training.learning.preparing import split_run
from training.learning.run import Run, load_run
from training.support import fit_support

# Held-out states are at least half of the least number of pairs, however many extremes.
MIN_STATES = MIN_PAIRS // 2
# Shifts of observations, as a share of their size; a float32 rounding is 6e-8.
STEADY = 1e-5
STEADY_TRIALS = 8


def export_run(
    run_dir: str | Path,
    out: str | Path,
    *,
    dataset: str | Path | None = None,
    samples: int | None = None,
    stochastic: bool = False,
    force: bool = False,
) -> Path:
    """Writes the policy of a run as a bundle, which is verified before it gets its name.

    Args:
        run_dir: folder of a training run.
        out: folder to create.
        dataset: the run's dataset, if it no longer lies where it was.
        samples: how many actions the policy chooses from, if not as many as its config says.
        stochastic: the policy draws its actions, from noise that is its graph's second input.
        force: replace the bundle that is there.

    Returns:
        The folder of the bundle.

    Raises:
        RunError: there is no run.
        DatasetError: the dataset is missing, is not the run's, or has no contract.
        ConfigError: samples are asked of a policy that has none, or chance of a deterministic one.
        BundleError: `out` exists, or the bundle fails its verification.
    """
    run = load_run(Path(run_dir), samples=samples, stochastic=stochastic)
    data = _dataset_of(run, dataset)
    if run.contract is None:
        raise DatasetError(
            f"{run.path} was trained on {run.dataset_path}, which has no contract: a bundle needs "
            f"one, so convert logs with `iql-ros convert` and train on the result"
        )
    training, held_out = split_run(data, run.config)
    states = (training if held_out is None else held_out).observations
    noise = noise_of(run.policy, run.config.seed)
    bundle = save_bundle(
        out,
        contract=run.contract,
        policy=export_graph(run.policy, run.contract, noise),
        golden=golden_pairs(
            run.policy, _golden_observations(run, run.contract, states, noise), noise
        ),
        provenance=Provenance(
            dataset_digest=run.dataset_digest,
            run=run.path.resolve().name,
            algorithm=run.config.algorithm,
            seed=run.config.seed,
            steps=run.step,
            versions={
                "iql_ros": iql_ros.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": str(torch.__version__),
                "onnx": onnx.__version__,
            },
        ),
        metrics=run.metrics,
        # Episodes that the policy has learnt from would promise too much.
        support=None if held_out is None else fit_support(training, held_out),
        noise=noise,
        force=force,
    )
    return bundle.path


def noise_of(policy: DeployedPolicy, seed: int) -> Noise | None:
    """The noise that a policy takes, or None if it draws nothing."""
    size = getattr(policy.acting, "noise_size", None)
    return None if size is None else Noise(shape=(1, int(size)), seed=seed)


def export_graph(policy: torch.nn.Module, contract: Contract, noise: Noise | None = None) -> bytes:
    """The ONNX graph of `policy`, (1, O) to (1, A), which names its contract.

    Args:
        policy: SI observation (B, O) float32, and noise (B, K) if it draws, to SI action (B, A).
        contract: gives sizes, names and digest.
        noise: what the policy takes besides.
    """
    io = io_of(contract, noise)
    inputs: list[Tensor | Noise] = [io.input] if noise is None else [io.input, noise]
    with _quiet():
        program = torch.onnx.export(
            policy.eval(),
            tuple(torch.zeros(one.shape) for one in inputs),
            input_names=[one.name for one in inputs],
            output_names=[io.output.name],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # None only where the exporter writes a file itself
    model = program.model_proto
    _strip(model)
    onnx.helper.set_model_props(model, graph_metadata(contract))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def golden_observations(
    contract: Contract, states: NDArray[np.float32], pairs: int = MIN_PAIRS
) -> NDArray[np.float32]:
    """Observations to compare on, (G, O): the origin, the extremes, and recorded states.

    The extremes are every component at either end, alone (the others at their mean) and all
    together. An end is the contract's limit, or where there is none the states' own.

    Args:
        states: recorded, best held out, (N, O).
        pairs: how many there are to be at least.
    """
    low = np.where(np.isfinite(contract.observation_low), contract.observation_low, states.min(0))
    high = np.where(
        np.isfinite(contract.observation_high), contract.observation_high, states.max(0)
    )
    mean = states.mean(axis=0, dtype=np.float64)
    alone = np.eye(len(mean), dtype=bool)
    extremes = np.vstack(
        [np.zeros_like(mean), low, high, np.where(alone, low, mean), np.where(alone, high, mean)]
    )
    count = max(MIN_STATES, pairs - len(extremes))
    rows = np.linspace(0, len(states) - 1, count).round().astype(np.int64)
    return np.vstack([extremes, states[rows]]).astype(np.float32)


def golden_pairs(
    policy: torch.nn.Module, observations: NDArray[np.float32], noise: Noise | None = None
) -> Golden:
    """The actions of `policy` for observations (G, O), as the trainer computes them."""
    with torch.no_grad():
        actions = policy.eval()(torch.from_numpy(observations), *_rows(noise, observations))
    return Golden(observations, actions.numpy().astype(np.float32))


def steady(
    policy: torch.nn.Module,
    observations: NDArray[np.float32],
    contract: Contract,
    noise: Noise | None = None,
) -> NDArray[np.bool_]:
    """At which observations (G, O) a change of a rounding's size leaves the action as it is.

    A policy that chooses may be in two minds. Which of two choices of equal worth it takes is
    then decided by the last bit, in which no two runtimes agree.
    """
    rng = np.random.default_rng(0)
    scale = STEADY * np.maximum(np.abs(observations), observations.std(axis=0))
    most = TOLERANCE * (contract.action_high - contract.action_low)
    calm = np.ones(len(observations), np.bool_)
    drawn = _rows(noise, observations)
    with torch.no_grad():
        actions = policy.eval()(torch.tensor(observations), *drawn).numpy()
        for _ in range(STEADY_TRIALS):
            moved = observations + scale * rng.uniform(-1, 1, observations.shape)
            others = policy(torch.from_numpy(moved.astype(np.float32)), *drawn).numpy()
            calm &= (np.abs(others - actions) <= most).all(axis=1)
    return calm


def _rows(noise: Noise | None, observations: NDArray[np.float32]) -> list[torch.Tensor]:
    """The policy's further arguments for observations (G, O)."""
    return [] if noise is None else [torch.from_numpy(noise_rows(noise, observations))]


def _golden_observations(
    run: Run, contract: Contract, states: NDArray[np.float32], noise: Noise | None
) -> NDArray[np.float32]:
    """Those to compare on; of a policy that chooses, only where the choice is clear."""
    if contract.choices is None and run.config.extraction != "sampled":
        return golden_observations(contract, states)
    observations = golden_observations(contract, states, 2 * MIN_PAIRS)
    calm = steady(run.policy, observations, contract, noise)
    if calm.sum() < MIN_PAIRS:
        raise DatasetError(
            f"the policy of {run.path} chooses clearly at only {calm.sum()} of {len(calm)} "
            f"states, {MIN_PAIRS} are needed to verify it on another machine: train longer"
        )
    return observations[calm]


def _dataset_of(run: Run, given: str | Path | None) -> Dataset:
    path = Path(run.dataset_path if given is None else given)
    if not path.exists():
        raise DatasetError(
            f"dataset {path} of run {run.path} does not exist: give its new place with --dataset"
        )
    dataset = load_dataset(path)
    if dataset.digest != run.dataset_digest:
        raise DatasetError(
            f"{path} has digest {dataset.digest[:16]}…, run {run.path} was trained on "
            f"{run.dataset_digest[:16]}…: give that dataset, or train anew"
        )
    return dataset


def _strip(model: onnx.ModelProto) -> None:
    """Removes the exporter's notes: they hold source paths of the machine that exported."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter says about itself: missing torchvision, its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
