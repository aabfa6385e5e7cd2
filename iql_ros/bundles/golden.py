"""Golden pairs: observations with the actions that the trainer computed for them.

They are the proof that travels with a policy. Whatever runs it, on whatever machine, must
give these actions again before it may give any other.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iql_ros.contract import Contract
from iql_ros.contracts.choices import nearest_choice
from iql_ros.errors import BundleError

MIN_PAIRS = 256
# Share of each action's range. Two float32 runtimes differ by 7e-7 of it on recorded states,
# and by 5e-5 where the limits lie 5000 spreads away (measured up to 512x3, 200 inputs). A wrong
# weight, normaliser or order of components shows as 1e-2 and more.
TOLERANCE = 1e-4

Policy = Callable[[NDArray[Any]], NDArray[np.float32]]
"""One step: observation (O,) float32 or float64, SI units, to action (A,) float32, SI units.

An observation with a value that is not finite in float32 gives NaN in every component.
"""


@dataclass(frozen=True, eq=False)
class Golden:
    """Pairs of one policy: `observations` (G, O) and `actions` (G, A), float32, SI units."""

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]


@dataclass(frozen=True)
class Verification:
    """What a verified policy has shown.

    Attributes:
        digest: of the bundle.
        pairs: golden pairs compared.
        worst_error: largest difference, as a share of the action's range.
        worst_action: name of the component it occurred in.
        tolerance: largest difference allowed, same unit.
    """

    digest: str
    pairs: int
    worst_error: float
    worst_action: str
    tolerance: float


def pack_golden(golden: Golden) -> bytes:
    """The bytes of `golden.npz`; the same pairs give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, observations=golden.observations, actions=golden.actions)
    return buffer.getvalue()


def unpack_golden(data: bytes, contract: Contract, where: str) -> Golden:
    """Reads and checks what `pack_golden` wrote. Raises BundleError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if sorted(members) != ["actions.npy", "observations.npy"]:
                raise BundleError(
                    f"{where} holds {sorted(members)!s:.200}, must hold observations and actions"
                )
            for member in members.values():
                if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
                    raise BundleError(f"{where}: {member.filename} must be stored uncompressed")
            observations = _read_array(archive.read("observations.npy"))
            actions = _read_array(archive.read("actions.npy"))
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{where} cannot be read ({error}): export the bundle again") from None
    golden = Golden(observations, actions)
    _check_golden(golden, contract, where)
    return golden


def _read_array(data: bytes) -> NDArray[np.float32]:
    """A read-only view of a .npy file, refused before anything is unpickled or allocated."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy version is {version}, must be (1, 0)")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.dtype("<f4") or is_fortran or len(shape) != 2:
        raise ValueError(f"array is {dtype} {shape}, must be two-dimensional float32 in C order")
    return np.frombuffer(data, dtype="<f4", offset=stream.tell()).reshape(shape)


def _check_golden(golden: Golden, contract: Contract, where: str) -> None:
    pairs = len(golden.observations)
    if pairs < MIN_PAIRS:
        raise BundleError(f"{where} holds {pairs} pairs, at least {MIN_PAIRS} are needed")
    for name, array, size in (
        ("observations", golden.observations, contract.observation_size),
        ("actions", golden.actions, contract.action_size),
    ):
        if array.shape != (pairs, size):
            raise BundleError(
                f"{where}: {name} has shape {array.shape}, the contract asks for {(pairs, size)}"
            )
        if not np.isfinite(array).all():
            raise BundleError(f"{where}: {name} holds NaN or infinity, must be finite")
    _check_limits(golden.actions, contract, where)


def check_policy(
    policy: Policy, golden: Golden, contract: Contract, digest: str, tolerance: float = TOLERANCE
) -> Verification:
    """Runs `policy` on every golden pair, and on observations that it must refuse.

    Raises:
        BundleError: an action differs, leaves the contract's limits, or an observation with
            NaN or infinity got one.
    """
    try:
        actions = np.stack([policy(observation) for observation in golden.observations])
    except Exception as error:  # whatever a runtime raises, the bundle must not be used
        raise BundleError(f"policy fails on a golden pair ({error}): export it again") from error
    if actions.shape != golden.actions.shape or not np.isfinite(actions).all():
        raise BundleError(
            f"policy gives actions of shape {actions.shape} with "
            f"{np.count_nonzero(~np.isfinite(actions))} values that are not finite, "
            f"golden ones have shape {golden.actions.shape}: export the bundle again"
        )
    _check_limits(actions, contract, "policy")
    deviation = np.abs(actions.astype(np.float64) - golden.actions)
    deviation /= contract.action_high - contract.action_low
    pair, component = np.unravel_index(deviation.argmax(), deviation.shape)
    worst = float(deviation[pair, component])
    name = contract.action_names[component]
    if worst > tolerance:
        raise BundleError(
            f"action {name!r} of golden pair {pair} is {actions[pair, component]}, the trainer "
            f"computed {golden.actions[pair, component]}: off by {worst:.1e} of its range, "
            f"tolerance {tolerance:.0e}; this backend does not run the policy that was trained"
        )
    _check_refusals(policy, golden.observations[0], contract)
    return Verification(digest, len(actions), worst, name, tolerance)


def _check_limits(actions: NDArray[np.float32], contract: Contract, where: str) -> None:
    # low + 0.5 (tanh + 1) (high - low), and the limits themselves, are rounded to float32.
    slack = 5e-7 * np.maximum(np.abs(contract.action_low), np.abs(contract.action_high))
    outside = (actions < contract.action_low - slack) | (actions > contract.action_high + slack)
    if outside.any():
        pair, component = np.argwhere(outside)[0]
        low, high = contract.action_low[component], contract.action_high[component]
        raise BundleError(
            f"{where}: action {contract.action_names[component]!r} of golden pair {pair} is "
            f"{actions[pair, component]}, the contract's limits are [{low}, {high}]: "
            f"export the bundle with the contract it was trained for"
        )
    if contract.choices is not None:
        _, is_choice = nearest_choice(actions, contract.choices)
        if not is_choice.all():
            pair = int(np.argmin(is_choice[:, 0]))
            raise BundleError(
                f"{where}: action {contract.action_names[0]!r} of golden pair {pair} is "
                f"{actions[pair, 0]}, the contract's choices are {contract.choices.tolist()}: "
                f"export the bundle with the contract it was trained for, in full precision"
            )


def _check_refusals(policy: Policy, observation: NDArray[np.float32], contract: Contract) -> None:
    for value in (np.nan, np.inf, -np.inf):
        for component, name in enumerate(contract.observation_names):
            broken = observation.copy()
            broken[component] = value
            action = policy(broken)
            if not np.isnan(action).all():
                raise BundleError(
                    f"policy answers observation {name!r} = {value} with the action {action}: "
                    f"it must refuse with NaN; this backend is not safe to use"
                )
