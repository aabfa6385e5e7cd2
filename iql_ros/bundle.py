"""A bundle: a policy, what it was made for, and the proof that it runs as trained.

The folder holds `policy.onnx`, `bundle.json`, `golden.npz`, `gate.json` once the simulation gate
has run, and `signature.json` if somebody signed it; docs/bundle.md describes each field. Every
file is read once, bounded and hashed, and what was hashed is what runs. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from iql_ros.bundles.folder import check_listing, read_bounded
from iql_ros.bundles.format import (
    BUNDLE_FILE,
    GATE_FILE,
    GOLDEN_FILE,
    POLICY_FILE,
    SIGNATURE_FILE,
    Manifest,
    io_of,
    parse_manifest,
    unseal,
)
from iql_ros.bundles.gate_record import GateRecord, parse_gate
from iql_ros.bundles.golden import Golden, unpack_golden
from iql_ros.bundles.graph_file import check_graph
from iql_ros.contract import Contract
from iql_ros.errors import BundleError, ContractError


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose files are complete, unaltered and consistent.

    Whether a backend runs its policy as trained is for `iql_ros.policies.verify` to say.

    Attributes:
        path: the folder it was read from.
        digest: SHA-256 of `bundle.json`'s content, and so of all but the gate record.
        policy: the bytes of `policy.onnx`.
        gate: the record of a simulation gate, if there is one. Whether it is this bundle's, and
            passed, is for `iql_ros.bundles.gate_record.why_not` to say.
        gate_digest: SHA-256 of the content of `gate.json`.
        signature: the content of `signature.json`, not yet checked; see `iql_ros.bundles.signing`.
    """

    path: Path
    digest: str
    manifest: Manifest = field(repr=False)
    contract: Contract = field(repr=False)
    policy: bytes = field(repr=False)
    golden: Golden = field(repr=False)
    gate: GateRecord | None = field(repr=False)
    gate_digest: str | None = field(repr=False)
    signature: bytes | None = field(repr=False)


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
    check_graph(policy, str(path / POLICY_FILE))
    golden = _read_recorded(path / GOLDEN_FILE, manifest)
    gate_file, signature = path / GATE_FILE, path / SIGNATURE_FILE
    gate_digest, gate = (
        parse_gate(read_bounded(gate_file), str(gate_file)) if gate_file.exists() else (None, None)
    )
    return Bundle(
        path=path,
        digest=digest,
        manifest=manifest,
        contract=contract,
        policy=policy,
        golden=unpack_golden(golden, contract, str(path / GOLDEN_FILE)),
        gate=gate,
        gate_digest=gate_digest,
        signature=read_bounded(signature) if signature.exists() else None,
    )


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
    expected = io_of(contract, manifest.io.noise)
    if manifest.io != expected:
        raise BundleError(
            f"{where}: io is {manifest.io}, its contract asks for {expected}: "
            f"export the bundle again"
        )
    size = contract.observation_size
    if manifest.support is not None and len(manifest.support.mean) != size:
        raise BundleError(
            f"{where}: support has {len(manifest.support.mean)} components, the contract has "
            f"{size} observations: export the bundle again"
        )
    return contract
