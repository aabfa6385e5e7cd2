"""What would the policy have done? A log's messages through the controller, tick by tick.

A controller's black box is lived again exactly: with its state, its faults, its timing.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from iql_ros.blackbox.recording import Recording
from iql_ros.blackbox.recording_file import is_recording, read_recording
from iql_ros.blackbox.replay import relive
from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.format import Support
from iql_ros.contract import Contract, require_same
from iql_ros.control.command import Command
from iql_ros.controller import Controller, Policy
from iql_ros.errors import BundleError, ContractError
from iql_ros.fields import FieldPlan
from iql_ros.policies import Opened, open_policy
from iql_ros.sampler import tick_offset
from iql_ros.wire import Encoding, make_types
from training.conversion.steps import commands
from training.conversion.topics import read_topics
from training.logs import Log, open_log
from training.replayed import Replayed, compare, plot, published

Array = NDArray[np.float64]


def replay(bundle_path: Path, log_path: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Replays a log through a bundle's controller; writes `replay.png`, `.npz` and `.json`.

    Args:
        bundle_path: folder of a bundle.
        log_path: a log with the contract's topics, or a controller's black box.
        out: folder to write.
        force: replace it.

    Returns:
        The content of `replay.json`: by action component, how policy and record compare.
    """
    if out.exists() and not force:
        raise BundleError(f"{out} exists: choose another --out or pass --force")
    bundle = load_bundle(bundle_path)
    if is_recording(log_path):
        replayed = run_box(bundle, read_recording(log_path), str(log_path))
    else:
        policy, support = open_policy(bundle).policy, bundle.manifest.support
        replayed = run_log(bundle.contract, policy, open_log(log_path), support)
    summary = {
        "bundle": bundle.digest,
        "log": log_path.name,
        "ticks": len(replayed.t_ns),
        "statuses": dict(Counter(replayed.statuses)),
        "actions": compare(bundle.contract, replayed),
    }
    if replayed.box is not None:
        summary["box"] = dict(replayed.box)
    draft = out.with_name(f".{out.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    np.savez(
        draft / "replay.npz",
        t_ns=replayed.t_ns,
        policy=replayed.policy,
        recorded=replayed.recorded,
        statuses=np.array(replayed.statuses),
    )
    (draft / "replay.json").write_text(json.dumps(summary, indent=2) + "\n")
    plot(bundle.contract, replayed, f"{bundle_path.name} on {log_path.name}", draft / "replay.png")
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    return summary


def run_log(
    contract: Contract, policy: Policy, log: Log, support: Support | None = None
) -> Replayed:
    """Feeds a log to a fresh controller, ticking as the contract says.

    Where the log lacks the topic of the enable switch, it counts as held.
    """
    enable = contract.safety.enable
    if enable is not None and contract.topics[enable.topic].absolute not in log.topics:
        held = contract.safety.model_copy(update={"enable": None})
        contract = contract.model_copy(update={"safety": held})
    aliases = contract.subscriptions
    known = [
        log.topics[contract.topics[a].absolute]
        for a in aliases
        if contract.topics[a].absolute in log.topics
    ]
    encoding = cast(Encoding, known[0].encoding if known else "cdr")
    embedded = {topic.msgtype: topic.definition for topic in known if topic.definition}
    definitions = {**contract.definitions, **embedded}
    controller = Controller(
        contract,
        policy,
        make_types(contract.definitions),
        source=(make_types(definitions, ros1=encoding == "ros1"), encoding),
        support=support,
    )
    messages = read_topics(log, contract, FieldPlan(contract, [*contract.fields]))
    decided = list(_drive(controller, _arrivals(log, contract)))
    t_ns = np.array([command.t_ns for command in decided], np.int64)
    proposed = [published(contract, command) for command in decided]
    until = np.concatenate([t_ns[1:], t_ns[-1:] + 1])
    recorded, _ = commands(contract, messages, until)
    return Replayed(t_ns, np.array(proposed), recorded, tuple(c.status.value for c in decided))


def run_box(bundle: Bundle, recording: Recording, what: str) -> Replayed:
    """Lives a black box again, see `iql_ros.blackbox.replay`.

    Args:
        bundle: of the policy, under the recording's contract.
        recording: of the box.
        what: its name, for errors.
    """
    contract, recorded_by = recording.contract, recording.about.get("bundle")
    then = "a bundle that it does not name" if recorded_by is None else f"bundle {recorded_by[:12]}"
    try:
        require_same(bundle.contract, contract, what)
    except ContractError as error:
        raise ContractError(
            f"{error}; {then} recorded it, and bundle {bundle.digest[:12]} cannot live its "
            f"decisions again: give a bundle of the box's contract"
        ) from None
    opened = _opened_as(bundle, recording.about.get("backend", "auto"))
    types = make_types(contract.definitions)
    relived = list(relive(recording, opened.policy, types, bundle.manifest.support))
    differing = [pair for pair in relived if not pair.is_same]
    box: dict[str, Any] = {
        "about": dict(recording.about),
        "backend": opened.backend,
        "same_bundle": recorded_by == bundle.digest,
        "decisions": len(relived),
        "identical": len(relived) - len(differing),
    }
    if not box["same_bundle"]:
        box["note"] = (
            f"{then} recorded this black box, but bundle {bundle.digest[:12]} decides now; their "
            f"contracts agree"
        )
    if differing:
        first, now = differing[0].then, differing[0].now
        box["first_difference"] = {
            "t_ns": first.t_ns,
            "then": [first.status.value, first.action.tolist()],
            "now": None if now is None else [now.status.value, now.action.tolist()],
        }
    return Replayed(
        np.array([pair.then.t_ns for pair in relived], np.int64),
        np.array([published(contract, pair.now) for pair in relived]),
        np.array([published(contract, pair.then) for pair in relived]),
        tuple(pair.then.status.value for pair in relived),
        box,
    )


def _opened_as(bundle: Bundle, backend: str) -> Opened:
    """The policy on the backend that the robot had, since another rounds otherwise; or on any."""
    try:
        return open_policy(bundle, backend)
    except BundleError:
        return open_policy(bundle)


def _arrivals(log: Log, contract: Contract) -> list[tuple[int, str, bytes]]:
    """Messages of the policy's topics as (arrival in ns, alias, payload), in order of arrival."""
    aliases = contract.subscriptions
    arrivals = [
        (int(t_ns), alias, bytes(block.payloads[i]))
        for block in log.blocks({contract.topics[alias].absolute for alias in aliases})
        for i, t_ns in enumerate(block.t_ns)
        for alias in aliases
        if contract.topics[alias].absolute == block.topic
    ]
    return sorted(arrivals, key=lambda arrival: arrival[0])


def _drive(controller: Controller, arrivals: Sequence[tuple[int, str, bytes]]) -> Iterator[Command]:
    """Ticks at every n-th message of the trigger, or at the rate from the first full view on."""
    rate_hz = controller.contract.tick.rate_hz
    missing = set(controller.inputs)
    start_ns, k = 0, 0
    for t_ns, alias, payload in arrivals:
        if rate_hz is not None and not missing:
            while (tick_ns := start_ns + tick_offset(k, rate_hz)) < t_ns:
                yield controller.tick(tick_ns)
                k += 1
        if controller.put(alias, t_ns, payload):
            yield controller.tick(t_ns)
        if alias in missing:
            missing.remove(alias)
            start_ns = t_ns
    if rate_hz is not None and not missing:
        yield controller.tick(start_ns + tick_offset(k, rate_hz))
