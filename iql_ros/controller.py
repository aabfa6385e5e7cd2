"""The control loop without a clock or ROS: payloads in, commands out.

The node, the simulator's lockstep loop and the tests drive this same object, so what passed
in simulation is what runs on the robot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from iql_ros.blackbox.ring import BlackBox
from iql_ros.bundles.format import Support
from iql_ros.contract import Contract
from iql_ros.control.acting import Acting
from iql_ros.control.command import Command
from iql_ros.control.fallback import Fallback
from iql_ros.control.inbox import Inbox
from iql_ros.control.judge import Judge, Look, Policy, halted
from iql_ros.control.memory import Memory
from iql_ros.control.outputs import Output
from iql_ros.control.status import Status
from iql_ros.envelope import Envelope
from iql_ros.payloads.messages import Encoding
from iql_ros.sampler import SECOND_NS, max_age_ns

__all__ = ["Command", "Controller", "Policy"]

Array = NDArray[np.float64]


class Controller:
    """One policy under one contract.

    Nothing is published before the policy has acted, so that a robot without sensors never
    moves; from then on every tick publishes a command, or the contract's fallback.
    """

    def __init__(
        self,
        contract: Contract,
        policy: Policy,
        types: Typestore,
        *,
        source: tuple[Typestore, Encoding] | None = None,
        support: Support | None = None,
        clock: Callable[[], float] = time.perf_counter,
        box: BlackBox | None = None,
    ) -> None:
        """Compiles readers and writers.

        Args:
            contract: of the robot.
            policy: (O,) float32 to (A,) float32.
            types: message definitions of all its topics, ROS 2.
            source: definitions and encoding of the payloads, where they come from a log that
                was written otherwise; by default CDR of `types`.
            support: where the training data lies, from the bundle.
            clock: seconds, read before and after each call of the policy.
            box: records all that happens, see `blackbox`.

        Raises:
            ContractError: a path does not fit its message type, or the contract wants a
                support check and there is no `support`.
        """
        self.contract = contract
        self.inputs = contract.subscriptions
        self._box = box
        self._inbox = Inbox(contract, *(source or (types, "cdr")))
        self._outputs = {alias: Output(contract, types, alias) for alias in contract.outputs}
        envelope = Envelope(contract)
        self._judge = Judge(contract, policy, envelope, support, clock)
        self._acting, self._fallback = Acting(contract, envelope), Fallback(contract)
        self._memory = Memory()
        self._longest_ns = _longest_ns(contract)

    # -- in ----------------------------------------------------------------------------

    def put(self, alias: str, arrival_ns: int, payload: bytes | memoryview) -> bool:
        """Takes one message of an input topic; never raises.

        Returns:
            Whether a tick is due now: the topic is the trigger and this is its n-th message.
        """
        if self._box is not None and alias in self.inputs:
            self._turn_page(arrival_ns)
            self._box.put(alias, arrival_ns, payload)
        self._hear(arrival_ns)
        is_whole = self._inbox.put(alias, arrival_ns, payload)
        if alias != self.contract.tick.trigger or not self._counts(alias, arrival_ns, is_whole):
            return False
        self._memory.triggers += 1
        return (self._memory.triggers - 1) % self.contract.tick.every == 0

    def _counts(self, trigger: str, arrival_ns: int, is_whole: bool) -> bool:
        """Whether a message of the trigger topic counts towards the next tick.

        One that lacks what is wanted is another publisher's, as of a gripper beside an arm, while
        whole ones come; in a log, too, only those count. Without them a tick says what is missing.
        """
        memory = self._memory
        if is_whole:
            memory.whole_ns = arrival_ns
            return True
        whole_ns = memory.whole_ns
        return whole_ns is None or arrival_ns - whole_ns > max_age_ns(self.contract, trigger)

    # -- out ---------------------------------------------------------------------------

    def tick(self, t_ns: int, *, speed: float = 1.0) -> Command:
        """Decides one command; never raises.

        Args:
            t_ns: now, on the clock that also gave the arrival times.
            speed: share of the way from rest (the safe action, or where the robot is measured
                to be) to the policy's action, 0 to 1; anything else counts as 0.
        """
        self._turn_page(t_ns)
        with np.errstate(all="ignore"):  # huge numbers overflow, and are looked at then
            command = self._tick(t_ns, speed)
        if self._box is not None:
            self._box.decided("tick", command, speed=speed)
        return command

    def overdue(self, t_ns: int) -> Command | None:
        """The fallback if the trigger topic has gone silent, otherwise None.

        A trigger-driven robot would else keep its last command for ever. Call it on a timer.
        """
        memory, trigger = self._memory, self.contract.tick.trigger
        if trigger is None or not memory.has_acted or memory.tick_ns is None:
            return None
        went_back, silent_ns = t_ns < memory.now_ns, t_ns - memory.tick_ns
        if silent_ns <= max_age_ns(self.contract, trigger) and not went_back:
            return None
        what = "the clock went back" if went_back else f"no tick for {silent_ns / SECOND_NS:.2f} s"
        detail = f"{what}: is {self.contract.topics[trigger].absolute} publishing?"
        self._turn_page(t_ns)
        fault = halted(memory) or (Status.STALE, detail)
        command = self._fall_back(t_ns, self._pass_time(t_ns), *fault)
        if self._box is not None:
            self._box.decided("overdue", command)
        return command

    def stop(self, t_ns: int) -> Command:
        """The safe command at once, if anything is being published; otherwise an empty one."""
        self._turn_page(t_ns)
        publishes = self._memory.previous is not None
        command = self._safe_at_once(t_ns, Status.WAITING, "stopped", publishes)
        if self._box is not None:
            self._box.decided("stop", command)
        return command

    # -- a person's word ---------------------------------------------------------------

    def halt(self, reason: str, t_ns: int) -> Command:
        """Latches the emergency stop; returns the safe command, to be published now.

        From then on every tick gives the safe action, whatever the contract's fallback is,
        until `release`. A restart does not release.
        """
        self._turn_page(t_ns)
        self._memory.halted = reason
        status, detail = Status.HALTED, f"emergency stop: {reason}"
        command = self._safe_at_once(t_ns, status, detail, self._memory.has_acted)
        if self._box is not None:
            self._box.decided("halt", command, reason=reason)
        return command

    def release(self) -> None:
        """Lets the policy act again, once all is sound.

        Ends an emergency stop, and a fallback whose recovery is `manual`.
        """
        if self._box is not None:
            self._box.note("release")
        self._memory.halted = None
        self._memory.released = True

    @property
    def halted(self) -> str | None:
        """Why the emergency stop is latched; None if it is not."""
        return self._memory.halted

    def restart(self) -> None:
        """Begins anew, as at activation: nothing is published until the policy acts.

        Messages stay, as a topic that speaks once (a latched goal) will not repeat itself, and
        so does an emergency stop.
        """
        if self._box is not None:
            self._box.note("restart")
        self._inbox.restart()
        self._memory = Memory(now_ns=self._memory.now_ns, halted=self._memory.halted)

    # -- the black box -----------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All that it remembers, in lists, dicts and arrays that no one writes to."""
        return {"memory": asdict(self._memory), "inbox": self._inbox.snapshot()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on as the controller that gave the snapshot would have."""
        self._memory = Memory(**snapshot["memory"])
        self._inbox.restore(snapshot["inbox"])

    def _turn_page(self, t_ns: int) -> None:
        if self._box is not None and self._box.is_page_full(t_ns):
            self._box.open_page(t_ns, self.snapshot())

    # -- one tick ----------------------------------------------------------------------

    def _tick(self, t_ns: int, speed: float) -> Command:
        memory = self._memory
        dt_s = self._pass_time(t_ns)
        memory.tick_ns = t_ns
        look = Look(self._inbox.sample(t_ns, memory.previous), dt_s)
        fault = self._judge.fault(t_ns, self._inbox, memory, look)
        if fault is not None:
            return self._fall_back(t_ns, dt_s, *fault, look)
        result = self._acting(t_ns, speed, look, memory)
        return self._publish(t_ns, result.status, result.detail, result.action, look)

    def _hear(self, t_ns: int) -> None:
        """Takes note of the time; where the clock went back, messages are unknown from now on."""
        memory = self._memory
        step_ns, memory.now_ns = t_ns - memory.now_ns, t_ns
        if step_ns < 0:
            self._inbox.clear()
            memory.triggers, memory.t_ns, memory.tick_ns = 0, None, t_ns
            memory.whole_ns = None
            memory.blend_ns += step_ns
            if memory.fallen_ns is not None:  # it has lasted as long as before
                memory.fallen_ns += step_ns

    def _pass_time(self, t_ns: int) -> float:
        """Seconds since the last decision, now that another is due; after a pause fewer.

        What was published last has been held meanwhile: where the clock was set ahead, or the
        process stood still, slew, ramp and blend go on from there and do not make up for it.
        """
        self._hear(t_ns)
        memory = self._memory
        since_ns, memory.t_ns = memory.t_ns, t_ns
        if since_ns is None:
            return 0.0
        dt_ns = min(t_ns - since_ns, self._longest_ns)
        memory.blend_ns += t_ns - since_ns - dt_ns
        return dt_ns / SECOND_NS

    # -- what is published -------------------------------------------------------------

    def _fall_back(
        self, t_ns: int, dt_s: float, status: Status, detail: str, look: Look | None = None
    ) -> Command:
        memory, safe = self._memory, self.contract.action_safe
        if status is not Status.RECOVERING:
            memory.sound, memory.released = 0, False
        if not memory.has_acted:
            return self._silent(t_ns, status, detail, look)
        if memory.fallen_ns is None:
            memory.fallen_ns, memory.fallen_from = t_ns, memory.previous
        by_person = status in (Status.HALTED, Status.DISABLED)
        if memory.fallen_from is None or (by_person and self.contract.safety.fallback == "hold"):
            memory.fallen_from = safe  # what a person has ended is not held
        action: Array | None = safe
        if status is not Status.HALTED:
            elapsed_s = max(0, t_ns - memory.fallen_ns) / SECOND_NS
            action = self._fallback(memory.fallen_from, memory.previous, elapsed_s, dt_s)
        if action is None:
            memory.previous = None
            return self._silent(t_ns, status, detail, look)
        return self._publish(t_ns, status, detail, action, look)

    def _safe_at_once(self, t_ns: int, status: Status, detail: str, publishes: bool) -> Command:
        memory = self._memory
        if not publishes:
            return self._silent(t_ns, status, detail, None)
        self._pass_time(t_ns)
        memory.fallen_ns, memory.fallen_from = t_ns, self.contract.action_safe
        memory.sound, memory.released = 0, False
        return self._publish(t_ns, status, detail, self.contract.action_safe, None)

    def _publish(
        self, t_ns: int, status: Status, detail: str, action: Array, look: Look | None
    ) -> Command:
        self._memory.previous, self._memory.has_acted = action, True
        payloads = {alias: output.write(t_ns, action) for alias, output in self._outputs.items()}
        return _command(t_ns, status, detail, action, payloads, look)

    def _silent(self, t_ns: int, status: Status, detail: str, look: Look | None) -> Command:
        return _command(t_ns, status, detail, self.contract.action_safe, {}, look)


def _longest_ns(contract: Contract) -> int:
    """Between two decisions: a late tick's two periods, or the silence that makes one overdue."""
    if contract.tick.trigger is not None:
        return max_age_ns(contract, contract.tick.trigger)
    assert contract.tick.rate_hz is not None
    return round(2 * SECOND_NS / contract.tick.rate_hz)


def _command(
    t_ns: int,
    status: Status,
    detail: str,
    action: Array,
    payloads: Mapping[str, bytes],
    look: Look | None,
) -> Command:
    if look is None:
        return Command(t_ns, status, detail, action, payloads, {})
    return Command(
        t_ns,
        status,
        detail,
        action,
        payloads,
        look.sample.ages_s,
        look.observation,
        look.proposed,
        look.policy_s,
        look.distance,
    )
