"""The record of the simulation gate, `gate.json`: what held, how surely, and of what.

The gate writes it, the controller asks for it. It holds no time and no path, so the same seed
gives the same bytes. It names by hash all that the result rests on; what the robot has of that
is compared here, what only the workstation has (scenarios, world) is there to be read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from iql_ros import __version__
from iql_ros.bundles.format import (
    GATE_FILE,
    POLICY_FILE,
    Digest,
    Model,
    seal,
    unseal,
)
from iql_ros.errors import BundleError

if TYPE_CHECKING:
    from iql_ros.bundle import Bundle

Verdict = Literal["passed", "failed"]


class Criterion(Model):
    """One thing that had to hold in a scenario: `judged` against `bound`."""

    name: str = Field(min_length=1, description="such as success rate")
    rule: Literal["at_least", "at_most"]
    bound: float
    judged: float = Field(description="what is compared: a figure, or the interval's worse end")
    unit: str = ""
    count: int | None = Field(default=None, ge=0, description="how often it happened")
    of: int | None = Field(default=None, ge=1, description="in so many trials")
    interval: tuple[float, float] | None = Field(
        default=None, description="95 % interval of the rate: its worse end is what is judged"
    )
    passed: bool

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        holds = self.judged >= self.bound if self.rule == "at_least" else self.judged <= self.bound
        if self.passed is not holds:
            raise ValueError(f"passed is {self.passed}, but {self.judged:g} {self.must_be()}")
        if self.count is not None and self.of is not None and self.count > self.of:
            raise ValueError(f"count is {self.count} of {self.of}")
        if self.interval is not None:
            low, high = self.interval
            if low > high or self.judged != (low if self.rule == "at_least" else high):
                raise ValueError(f"judged is {self.judged:g}, no worse end of {low:g} to {high:g}")
        return self

    def must_be(self) -> str:
        """The rule in words."""
        return f"must be at {'least' if self.rule == 'at_least' else 'most'} {self.bound:g}"

    def in_words(self) -> str:
        """The figure, what it comes from, and the rule."""
        basis = []
        if self.count is not None:
            basis.append(f"{self.count:,}" + (f" of {self.of:,}" if self.of is not None else ""))
        if self.interval is not None:
            basis.append(f"95 % interval {self.interval[0]:.3f} to {self.interval[1]:.3f}")
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.name} {self.judged:.4g}{unit}"
        return text + (f" ({', '.join(basis)})" if basis else "") + f", {self.must_be()}{unit}"


class ScenarioRecord(Model):
    """What one scenario has shown."""

    name: str = Field(min_length=1)
    episodes: int = Field(ge=1, description="number of episodes, which are numbered from 0")
    failing: tuple[int, ...] = Field(description="numbers of the episodes that did not succeed")
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @property
    def passed(self) -> bool:
        """Whether every criterion holds."""
        return all(criterion.passed for criterion in self.criteria)


class Named(Model):
    """Something by its name, and by the hash of its content."""

    name: str = Field(min_length=1)
    sha256: Digest


class Bindings(Model):
    """All that the result rests on."""

    policy: Digest = Field(description="SHA-256 of policy.onnx")
    contract: Digest = Field(description="the contract's digest")
    envelope: Digest = Field(description="of limits, slew, safety block and support statistics")
    suite: Named = Field(description="the scenarios and what must hold in them")
    world: Named = Field(description="the simulated robot: model, world file, adapter")
    software: dict[str, str] = Field(description="versions of iql_ros and what computes beneath")
    backend: str = Field(description="what ran the policy")

    @model_validator(mode="after")
    def _names_this_software(self) -> Self:
        if "iql_ros" not in self.software:
            raise ValueError("software must give the version of iql_ros")
        return self


class GateRecord(Model):
    """The content of `gate.json`, its seal apart."""

    format: Literal[1] = 1
    bundle_digest: Digest = Field(description="digest of bundle.json")
    verdict: Verdict
    seed: int = Field(ge=0)
    bound_to: Bindings
    scenarios: tuple[ScenarioRecord, ...] = Field(min_length=1, description="the whole suite")

    @model_validator(mode="after")
    def _verdict_follows(self) -> Self:
        names = [scenario.name for scenario in self.scenarios]
        if len(set(names)) != len(names):
            raise ValueError(f"scenarios are named {names}: each must have a name of its own")
        if self.verdict != verdict_of(self.scenarios):
            raise ValueError(f"verdict is {self.verdict}, but its criteria say otherwise")
        return self

    @property
    def episodes(self) -> int:
        """Of all scenarios."""
        return sum(scenario.episodes for scenario in self.scenarios)


def verdict_of(scenarios: tuple[ScenarioRecord, ...]) -> Verdict:
    """Passed only if every criterion of every scenario holds."""
    return "passed" if all(scenario.passed for scenario in scenarios) else "failed"


def envelope_digest(bundle: Bundle) -> str:
    """SHA-256 of what bounds the policy: limits, slew, safety block, support statistics."""
    contract, support = bundle.contract.canonical(), bundle.manifest.support
    keys = ("name", "limits", "slew", "safe", "choices", "measured_by")
    envelope = {
        "actions": [{key: action.get(key) for key in keys} for action in contract["actions"]],
        "safety": contract.get("safety"),
        "support": None if support is None else support.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(envelope, sort_keys=True).encode()).hexdigest()


def bind(
    bundle: Bundle, *, suite: Named, world: Named, software: dict[str, str], backend: str
) -> Bindings:
    """The bindings of a gate that runs `bundle` with this version of iql_ros."""
    return Bindings(
        policy=bundle.manifest.files[POLICY_FILE].sha256,
        contract=bundle.contract.digest(),
        envelope=envelope_digest(bundle),
        suite=suite,
        world=world,
        software={"iql_ros": __version__, **software},
        backend=backend,
    )


def write_gate(bundle: Bundle, record: GateRecord) -> Path:
    """Puts `record` into the bundle's folder, in place of one that is there.

    Raises:
        BundleError: the record is of another bundle.
    """
    difference = next(differences(bundle, record), None)
    if difference is not None:
        raise BundleError(f"{bundle.path}: this gate record does not belong there: {difference}")
    # Beside the folder, not in it: a node that loads meanwhile would refuse an unknown file.
    draft = bundle.path.absolute().with_name(f".{bundle.path.absolute().name}.{os.getpid()}.gate")
    draft.write_bytes(seal(record.model_dump(mode="json")))
    return draft.replace(bundle.path / GATE_FILE)


def parse_gate(data: bytes, where: str) -> tuple[str, GateRecord]:
    """The digest and the content of a `gate.json`.

    Raises:
        BundleError: it was altered, or is no gate record of this format.
    """
    digest, document = unseal(data, where, remedy="remove it and run `iql-ros gate` again")
    try:
        return digest, GateRecord.model_validate_json(json.dumps(document))
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:10]
        ]
        raise BundleError("\n".join([*lines, "remove it and run `iql-ros gate` again"])) from None


def why_not(bundle: Bundle, record: GateRecord | None) -> str | None:
    """Why a bundle may not move a robot, as far as the gate is concerned; None if it may.

    Args:
        record: `bundle.gate`.
    """
    path = bundle.path
    if record is None:
        return f"{path} has not passed in simulation (no {GATE_FILE}): run `iql-ros gate {path}`"
    difference = next(differences(bundle, record), None)
    if difference is not None:
        return (
            f"{path / GATE_FILE} is bound to other things: {difference}: run `iql-ros gate` again"
        )
    failures = [(s.name, c) for s in record.scenarios for c in s.criteria if not c.passed]
    if not failures:
        return None
    name, criterion = failures[0]
    more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"{path} failed in simulation: scenario '{name}': {criterion.in_words()}{more}"


def differences(bundle: Bundle, record: GateRecord) -> Iterator[str]:
    """What the gate ran that `bundle`, or the software here, is not; the root cause first."""
    bound = record.bound_to
    ours = {
        f"the policy ({POLICY_FILE})": (bundle.manifest.files[POLICY_FILE].sha256, bound.policy),
        "the contract": (bundle.contract.digest(), bound.contract),
        "the envelope (limits, slew, safety, support)": (envelope_digest(bundle), bound.envelope),
        "the bundle": (bundle.digest, record.bundle_digest),
    }
    for what, (here, there) in ours.items():
        if here != there:
            yield f"{what} is {here[:12]}…, the gate ran {there[:12]}…"
    if bound.software["iql_ros"] != __version__:
        yield f"iql_ros is {__version__}, the gate ran {bound.software['iql_ros']}"
