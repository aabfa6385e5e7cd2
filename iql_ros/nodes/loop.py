"""The controller with everything around it that needs no ROS: locks, counts, black box.

Messages, ticks and a person's orders come from different threads; here they meet.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from iql_ros.contract import Contract, require_same
from iql_ros.control.command import Command
from iql_ros.control.outputs import Output
from iql_ros.control.status import Status
from iql_ros.errors import BundleError
from iql_ros.nodes.boxes import Boxes
from iql_ros.nodes.changes import Changes
from iql_ros.nodes.diagnostics import Account
from iql_ros.nodes.incumbent import Incumbent
from iql_ros.nodes.loading import Loaded, make_controller
from iql_ros.nodes.realtime import CalmCollector
from iql_ros.nodes.recorder import Recorder
from iql_ros.nodes.settings import Settings, suffix_of
from iql_ros.nodes.watchdog import Watchdog

NO_FAULT = frozenset({Status.WAITING, Status.DISABLED, Status.RECOVERING, Status.HALTED})
Publish = Callable[[Mapping[str, bytes]], None]


class Loop:
    """Runs one loaded bundle.

    Attributes:
        loaded, previous: the bundle that runs, and the one that `rollback` would bring back.
        speed: share of the way to the policy's command, 0 to 1.
        active: whether it publishes, as soon as it may begin.
        may_begin: whether it may; once true it is not asked again.
        is_ticking: whether it has begun.
        latest: the last command; None before the first since activation.
        ticked_s: when that was, on the steady clock.
        incumbent: in shadow mode, the comparison with what moves the robot.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: Settings,
        now_ns: Callable[[], int],
        publish: Publish,
        logger: Any,
        boxes: Boxes | None,
        *,
        recorder: Recorder | None = None,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        """Does nothing before `start`.

        Args:
            loaded: what to run.
            settings: of the node.
            now_ns: the clock that gives arrival and tick times.
            publish: sends payloads by topic alias.
            logger: with info, warning and error.
            boxes: where recordings of faults go; None to keep none.
            recorder: takes all that comes in and goes out; None to record nothing.
            may_begin: no tick before this is true.
        """
        self._settings, self._now_ns, self._log, self._boxes = settings, now_ns, logger, boxes
        self._publish_raw, self.recorder = publish, recorder
        self.loaded = loaded
        self.previous: Loaded | None = None
        self.contract: Contract = loaded.bundle.contract
        self._controller, self._box = make_controller(loaded, settings)
        topics, suffix = self.contract.topics, suffix_of(settings)
        self._names = {alias: topic.absolute for alias, topic in topics.items()}
        # A topic that several aliases read comes once for each of them, and is recorded once.
        inputs = reversed(self.contract.subscriptions)
        self._recorded = frozenset({self._names[alias]: alias for alias in inputs}.values())
        self._spoken = {a: topics[a].absolute + suffix for a in self.contract.outputs}
        self._safe = [(a, Output(self.contract, loaded.types, a)) for a in self.contract.outputs]
        self._lock = threading.Lock()
        self.speed = settings.speed
        self.active = False
        self.may_begin = may_begin
        self.is_ticking = False
        self.latest: Command | None = None
        self.ticked_s = 0.0
        self._has_published = False
        self._changes = Changes(logger)
        self.account = Account(self.contract.subscriptions)
        self.collector = CalmCollector()
        self.incumbent = (
            Incumbent(self.contract, loaded.types) if settings.mode == "shadow" else None
        )
        self._watchdog = Watchdog(settings.watchdog_s, self._bite)

    # -- life --------------------------------------------------------------------------

    def start(self) -> None:
        """From now on ticks publish."""
        self._warn(self.loaded)
        with self._lock:
            self._controller.restart()
            self.account = self.account.anew()
            self.latest = None
            self.active, self.is_ticking = True, False
        self.collector.begin()

    def stop(self) -> bool:
        """Publishes the safe command and ends; whether there was anything to make safe."""
        if not self.active:
            return False
        self.collector.end()
        if not self._enter():  # a tick hangs: the watchdog has published the safe command
            self.active = False
            return True
        try:
            command = self._controller.stop(self._now_ns())
            self._send(command)
            self.active = False
            return bool(command.payloads)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Lets its threads go, when it has stopped."""
        self._watchdog.stop()

    def keep(self, why: str) -> None:
        """Has the black box written."""
        if self._boxes is not None and self._enter():
            try:
                self._boxes.keep(why, self._box)
            finally:
                self._lock.release()

    # -- messages and ticks ------------------------------------------------------------

    def receive(self, alias: str, payload: bytes) -> None:
        """Takes a message; ticks if it is the trigger's turn."""
        start_ns = time.perf_counter_ns()
        if not self._enter():
            return
        is_due = False
        try:
            now_ns = self._now_ns()
            self.account.received[alias] += 1
            is_due = self._controller.put(alias, now_ns, payload) and self._ticks()
            if is_due:
                self._decide(now_ns)
                self.account.latency_us.add((time.perf_counter_ns() - start_ns) / 1e3)
            if alias in self._recorded:
                self._record(alias, now_ns, payload)
        finally:
            self._lock.release()
        if is_due:
            self.collector.after_tick()

    def receive_incumbent(self, alias: str, payload: bytes) -> None:
        """Takes a command of the incumbent's, in shadow mode."""
        if self.incumbent is not None and self._enter():
            try:
                now_ns = self._now_ns()
                self.incumbent.put(alias, now_ns, payload)
                self._record(alias, now_ns, payload)
            finally:
                self._lock.release()

    def overhear(self, alias: str, payload: bytes) -> None:
        """Takes a message that only the recorder wants."""
        if self._enter():
            try:
                self._record(alias, self._now_ns(), payload)
            finally:
                self._lock.release()

    def tick(self, lateness_ns: int = 0) -> None:
        """One tick of the clock, that came `lateness_ns` after its deadline."""
        start_ns = time.perf_counter_ns()
        if not self._enter():
            return
        try:
            if not self._ticks():
                return
            self._decide(self._now_ns())
            self.account.latency_us.add((time.perf_counter_ns() - start_ns) / 1e3)
            self.account.lateness_us.add(lateness_ns / 1e3)
        finally:
            self._lock.release()
        self.collector.after_tick()

    def _ticks(self) -> bool:
        self.is_ticking = self.active and (self.is_ticking or self.may_begin())
        return self.is_ticking

    def check_overdue(self) -> None:
        """Sends the fallback if the trigger has gone silent; for a timer."""
        if not self._enter():
            return
        try:
            command = self._controller.overdue(self._now_ns()) if self.active else None
            if command is not None:
                self._send(command)
        finally:
            self._lock.release()

    def _enter(self) -> bool:
        """Takes the lock; False if a tick hangs, so that the rest of the node stays alive."""
        if self._lock.acquire(blocking=False):
            return True
        limit_s = 0.0 if self._watchdog.has_bitten else 2 * self._settings.watchdog_s
        return self._lock.acquire(timeout=limit_s)

    def _decide(self, now_ns: int) -> None:
        try:
            self._decide_one(now_ns)
        except Exception:  # a bug of ours must leave neither a dead thread nor the last command
            self._watchdog.end()
            self._log.error(traceback.format_exc())
            command = self._controller.halt("a tick raised, see the log", self._now_ns())
            self._publish(command.payloads)

    def _decide_one(self, now_ns: int) -> None:
        self._watchdog.begin()
        command = self._controller.tick(now_ns, speed=self.speed)
        if self._watchdog.end():
            reason = f"a tick took longer than {self._settings.watchdog_s:g} s"
            command = self._controller.halt(reason, self._now_ns())
        self._send(command)
        if self.incumbent is not None:
            self.incumbent.compare(now_ns, command.action if command.status.acts else None)

    def _bite(self, taken_s: float) -> None:
        """From the watchdog's thread, while a tick holds the lock."""
        if self._has_published and self.active:
            now_ns, safe = self._now_ns(), self.contract.action_safe
            self._publish({alias: output.write(now_ns, safe) for alias, output in self._safe})
        self._log.error(f"a tick has not ended for {taken_s:.2f} s: safe command, emergency stop")

    # -- a person's word ---------------------------------------------------------------

    def halt(self, reason: str) -> None:
        """Latches the emergency stop; the safe command goes out at once."""
        if not self._enter():
            return  # the watchdog has done so
        try:
            command = self._controller.halt(reason, self._now_ns())
            if self.active:
                self._send(command)
        finally:
            self._lock.release()

    def release(self) -> bool:
        """Lets the policy act again, once all is sound; False while a tick hangs."""
        if not self._enter():
            return False
        try:
            self._controller.release()
        finally:
            self._lock.release()
        return True

    @property
    def halted(self) -> str | None:
        """Why the emergency stop is latched; None if it is not."""
        return self._controller.halted

    # -- another bundle ----------------------------------------------------------------

    def swap(self, loaded: Loaded) -> None:
        """Goes on with another bundle of the same contract, between two ticks.

        Messages, the last command (so slew holds across the swap), and latches stay. The one
        before is kept for `rollback`. The black box begins anew: a recording has one policy.

        Raises:
            ContractError: its contract is another one; names the first difference.
            BundleError: the gate speaks against it, and nobody has overruled that.
        """
        require_same(self.contract, loaded.bundle.contract, str(loaded.bundle.path))
        if loaded.permission.refusal is not None:
            raise BundleError(loaded.permission.refusal)
        controller, box = make_controller(loaded, self._settings)
        with self._lock:
            controller.restore(self._controller.snapshot())
            self._controller, self._box = controller, box
            self.previous, self.loaded = self.loaded, loaded
        self._warn(loaded)

    def _warn(self, loaded: Loaded) -> None:
        if loaded.permission.warning is not None:
            self._log.warning(loaded.permission.warning)

    # -- out ---------------------------------------------------------------------------

    def _send(self, command: Command) -> None:
        self._publish(command.payloads)
        if self.recorder is not None:
            for alias, payload in command.payloads.items():
                self.recorder.put(self._spoken[alias], command.t_ns, payload)
        self.account.add(command)
        before, now = self.latest, command.status
        self.latest, self.ticked_s = command, time.monotonic()
        had_acted = before is not None and before.status.acts
        self._changes.tell(before, command)
        if self._boxes is None:
            return
        if now is Status.HALTED and (before is None or before.status is not now):
            self._boxes.keep("emergency-stop", self._box)
        elif had_acted and not now.acts and now not in NO_FAULT:
            self._boxes.keep(f"fault-{now.value.replace(' ', '-')}", self._box, is_fault=True)

    def _record(self, alias: str, t_ns: int, payload: bytes) -> None:
        if self.recorder is not None:
            self.recorder.put(self._names[alias], t_ns, payload)

    def _publish(self, payloads: Mapping[str, bytes]) -> None:
        if not payloads:
            return
        try:
            self._publish_raw(payloads)
            self._has_published = True
        except Exception as error:  # must not end the thread that ticks
            self._log.error(f"a command could not be published: {error!r}")
