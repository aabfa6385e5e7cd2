"""`iql-ros verify` and `iql-ros sign`: what a bundle can prove, and who let it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iql_ros.bundle import load_bundle
from iql_ros.bundles.gate_record import why_not
from iql_ros.bundles.signing import require_signature, sign_bundle
from iql_ros.contract import load_contract, require_same
from iql_ros.policies import BACKENDS, open_policy
from iql_ros.verbs.terminal import out_console

BundleArgument = Annotated[Path, typer.Argument(help="folder of a bundle")]


def verify_command(
    bundle: BundleArgument,
    contract: Annotated[
        str | None,
        typer.Option("--contract", "-c", help="refuse if it was made by another contract"),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="public key (PEM): refuse what it has not signed")
    ] = None,
    backend: Annotated[
        str, typer.Option(help=f"auto, {', '.join(BACKENDS)}: what has to run it as trained")
    ] = "onnx",
) -> None:
    """Checks a bundle: files, hashes, contract, shapes, and the policy against its golden pairs.

    Says too whether it has passed its simulation gate, without refusing one that has not.

    Examples: `iql-ros verify bundle --contract robot.yaml`,
    `iql-ros verify bundle --key release.pub.pem --backend auto`
    """
    loaded = load_bundle(bundle)
    if contract is not None:
        require_same(load_contract(contract), loaded.contract, str(bundle))
    if key is not None:
        require_signature(loaded, key)
        out_console.print(f"signed by the holder of {key}")
    opened = open_policy(loaded, backend)
    shown = opened.verification
    out_console.print(
        f"{bundle} is whole and runs as trained on {opened.backend} ({opened.reason}): "
        f"{shown.pairs} golden pairs, worst error {shown.worst_error:.1e} of "
        f"{shown.worst_action}'s range (tolerance {shown.tolerance:.0e}); digest {shown.digest}"
    )
    reason = why_not(loaded, loaded.gate)
    if reason is None and loaded.gate is not None:
        suite, episodes = loaded.gate.bound_to.suite.name, loaded.gate.episodes
        reason = f"passed, suite {suite!r}, {episodes} episodes"
    out_console.print(f"gate: {reason}")


def sign_command(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option(help="private Ed25519 key (PEM, no password)")],
) -> None:
    """Signs a bundle, its gate's record included, for nodes that ask for a signature.

    Keys: `openssl genpkey -algorithm ed25519 -out key.pem` and
    `openssl pkey -in key.pem -pubout -out key.pub.pem`; the node takes the public one as its
    parameter `public_key`.

    Example: `iql-ros sign bundle --key key.pem`
    """
    signed = sign_bundle(bundle, key)
    gate = "with its gate record" if signed.gate is not None else "without a gate record"
    out_console.print(f"signed bundle {signed.digest[:16]}… {gate}")
