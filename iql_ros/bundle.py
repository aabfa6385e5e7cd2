"""A bundle: a policy, what it was made for, and the proof that it runs as trained.

The folder holds `policy.onnx`, `bundle.json`, `golden.npz` and, once the simulation gate is
passed, `gate.json`; docs/bundle.md describes each field. Every file is read once, bounded
and hashed, and what was hashed is what runs. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iql_ros.backends.onnx import open_onnx
from iql_ros.bundle_folder import check_free, check_listing, put_in_place, read_bounded
from iql_ros.bundle_format import (
    BUNDLE_FILE,
    FORMAT,
    GATE_FILE,
    GOLDEN_FILE,
    POLICY_FILE,
    FileRecord,
    Manifest,
    Provenance,
    Support,
    io_of,
    parse_manifest,
    seal,
    unseal,
)
from iql_ros.contract import Contract
from iql_ros.errors import BundleError, ContractError
from iql_ros.golden import (
    TOLERANCE,
    Golden,
    Policy,
    Verification,
    check_policy,
    pack_golden,
    unpack_golden,
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose files are complete, unaltered and consistent.

    Whether a backend runs its policy as trained is for `verify` to say.

    Attributes:
        path: the folder it was read from.
        digest: SHA-256 of `bundle.json`'s content, and so of all but the gate record.
        policy: the bytes of `policy.onnx`.
        gate: the record of the simulation gate, if there is one.
    """

    path: Path
    digest: str
    manifest: Manifest = field(repr=False)
    contract: Contract = field(repr=False)
    policy: bytes = field(repr=False)
    golden: Golden = field(repr=False)
    gate: Mapping[str, Any] | None = field(repr=False)


OpenBackend = Callable[[Bundle], Policy]


def load_bundle(path: str | Path) -> Bundle:
    """Reads a bundle and checks all that needs no backend.

    Raises:
        BundleError: a file is missing, unknown, altered or too large, or does not fit the
            contract that the bundle carries.
    """
    path = Path(path)
    check_listing(path)
    where = str(path / BUNDLE_FILE)
    digest, document = unseal(read_bounded(path / BUNDLE_FILE), where)
    manifest = parse_manifest(document, where)
    contract = _embedded_contract(manifest, where)
    policy = _read_recorded(path / POLICY_FILE, manifest)
    golden = _read_recorded(path / GOLDEN_FILE, manifest)
    return Bundle(
        path=path,
        digest=digest,
        manifest=manifest,
        contract=contract,
        policy=policy,
        golden=unpack_golden(golden, contract, str(path / GOLDEN_FILE)),
        gate=_read_gate(path / GATE_FILE, digest),
    )


def verify(
    bundle: Bundle | str | Path,
    open_backend: OpenBackend = open_onnx,
    *,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Checks that a bundle is whole and that a backend runs its policy as trained.

    Args:
        bundle: a loaded bundle, or a folder.
        open_backend: opens the bundle into a policy; it checks the graph's signature.
        tolerance: largest difference from the golden actions, as a share of their range.

    Raises:
        BundleError: naming the file, the value, the rule and the fix.
    """
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    return _check(bundle, open_backend(bundle), tolerance)


def open_policy(bundle: Bundle | str | Path, backend: str = "auto") -> Policy:
    """Opens a bundle into a verified policy.

    Args:
        bundle: a loaded bundle, or a folder.
        backend: "onnx", or "auto" for the fastest there is.

    Raises:
        BundleError: the bundle or the backend fails verification.
    """
    if backend not in ("auto", "onnx"):
        raise BundleError(f"backend {backend!r} is not known: give auto or onnx")
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    policy = open_onnx(bundle)
    _check(bundle, policy, TOLERANCE)
    return policy


def save_bundle(
    out: str | Path,
    *,
    contract: Contract,
    policy: bytes,
    golden: Golden,
    provenance: Provenance,
    metrics: Mapping[str, float],
    support: Support | None,
    force: bool = False,
) -> Bundle:
    """Writes a bundle, verifies it, and only then gives it its name.

    Args:
        out: the folder to create.
        policy: the ONNX graph; its properties are those of `graph_metadata`.
        force: replace the bundle that is there.

    Raises:
        BundleError: `out` exists, or the new bundle fails its own verification.
    """
    out = Path(out).absolute()
    check_free(out, force)
    files = {POLICY_FILE: policy, GOLDEN_FILE: pack_golden(golden)}
    manifest = Manifest(
        contract=contract.canonical(),
        contract_digest=contract.digest(),
        io=io_of(contract),
        provenance=provenance,
        metrics=dict(metrics),
        support=support,
        files={
            name: FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in files.items()
        },
    )
    files[BUNDLE_FILE] = seal(manifest.model_dump(mode="json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        draft.mkdir()
        for name, data in files.items():
            (draft / name).write_bytes(data)
        verify(draft)
        put_in_place(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return load_bundle(out)


def save_gate(bundle: Bundle, record: Mapping[str, Any]) -> None:
    """Adds the gate's record to a bundle's folder, bound to that bundle's digest.

    Args:
        record: a JSON object; `format` and `bundle_digest` are added.
    """
    document = {"format": FORMAT, "bundle_digest": bundle.digest, **record}
    draft = bundle.path.with_name(f".{bundle.path.name}.{os.getpid()}.gate")
    draft.write_bytes(seal(document))
    draft.replace(bundle.path / GATE_FILE)


# -- checks ------------------------------------------------------------------------------


def _check(bundle: Bundle, policy: Policy, tolerance: float) -> Verification:
    return check_policy(policy, bundle.golden, bundle.contract, bundle.digest, tolerance)


def _read_recorded(file: Path, manifest: Manifest) -> bytes:
    data = read_bounded(file)
    record = manifest.files[file.name]
    digest = hashlib.sha256(data).hexdigest()
    if (len(data), digest) != (record.size, record.sha256):
        raise BundleError(
            f"{file} has {len(data)} bytes and SHA-256 {digest[:16]}…, {BUNDLE_FILE} says "
            f"{record.size} and {record.sha256[:16]}…: it was altered, export the bundle again"
        )
    return data


def _embedded_contract(manifest: Manifest, where: str) -> Contract:
    text = json.dumps(manifest.contract, sort_keys=True, separators=(",", ":"))
    try:
        contract = Contract.from_json(text)
    except ContractError as error:
        raise BundleError(f"{where}: the contract in it is not valid\n{error}") from None
    if contract.canonical_json() != text or contract.digest() != manifest.contract_digest:
        raise BundleError(
            f"{where}: contract_digest is {manifest.contract_digest[:16]}…, the contract in it "
            f"has {contract.digest()[:16]}… in canonical form: export the bundle again"
        )
    if manifest.io != io_of(contract):
        raise BundleError(
            f"{where}: io is {manifest.io}, its contract asks for {io_of(contract)}: "
            f"export the bundle again"
        )
    size = contract.observation_size
    if manifest.support is not None and len(manifest.support.mean) != size:
        raise BundleError(
            f"{where}: support has {len(manifest.support.mean)} components, the contract has "
            f"{size} observations: export the bundle again"
        )
    return contract


def _read_gate(file: Path, digest: str) -> Mapping[str, Any] | None:
    if not file.exists():
        return None
    _, record = unseal(read_bounded(file), str(file))
    if record.get("bundle_digest") != digest:
        raise BundleError(
            f"{file} was made for bundle {record.get('bundle_digest')!r:.20}, this is "
            f"{digest[:16]}…: run `iql-ros gate` again"
        )
    return record
