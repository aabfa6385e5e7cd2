"""From the folder of a bundle to a policy that may act here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rosbags.typesys.store import Typestore

from iql_ros.blackbox.ring import BlackBox
from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.signing import require_signature
from iql_ros.contract import load_contract, require_same
from iql_ros.contracts.safety import check_speed
from iql_ros.controller import Controller
from iql_ros.errors import IqlRosError
from iql_ros.nodes.permission import Permission, ask
from iql_ros.nodes.settings import Settings, suffix_of
from iql_ros.nodes.types import installed_types
from iql_ros.policies import Opened, open_policy


@dataclass(frozen=True, eq=False)
class Loaded:
    """A verified bundle, its policy warmed up by the golden pairs, and its message types.

    Attributes:
        permission: whether it may be activated here.
    """

    bundle: Bundle
    opened: Opened
    types: Typestore
    permission: Permission


def load(settings: Settings, path: str, *, uses_sim_time: bool) -> Loaded:
    """Loads and verifies the bundle in folder `path`, and asks for its gate record.

    Raises:
        IqlRosError: it must not run here; says why.
    """
    if not path:
        raise IqlRosError("parameter 'bundle' is empty: give the folder of a policy bundle")
    bundle = load_bundle(path)
    if settings.public_key:
        require_signature(bundle, Path(settings.public_key))
    if settings.contract:
        require_same(load_contract(settings.contract), bundle.contract, path)
    check_speed(bundle.contract, settings.speed)
    opened = open_policy(bundle, settings.backend)
    permission = ask(bundle, settings, uses_sim_time=uses_sim_time)
    return Loaded(bundle, opened, installed_types(bundle.contract), permission)


def make_controller(loaded: Loaded, settings: Settings) -> tuple[Controller, BlackBox]:
    """A fresh controller with a fresh black box."""
    contract, bundle = loaded.bundle.contract, loaded.bundle
    box = BlackBox(
        contract,
        loaded.types,
        settings.black_box_s,
        about={"bundle": bundle.digest, "mode": settings.mode, "backend": loaded.opened.backend},
        suffix=suffix_of(settings),
    )
    support = bundle.manifest.support
    return Controller(contract, loaded.opened.policy, loaded.types, support=support, box=box), box
