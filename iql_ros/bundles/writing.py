"""Writing a bundle: drafted beside its place, verified there, and only then given its name."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.folder import check_free, put_in_place
from iql_ros.bundles.format import (
    BUNDLE_FILE,
    GOLDEN_FILE,
    POLICY_FILE,
    FileRecord,
    Manifest,
    Noise,
    Provenance,
    Support,
    io_of,
    seal,
)
from iql_ros.bundles.golden import Golden, pack_golden
from iql_ros.contract import Contract
from iql_ros.policies import verify


def save_bundle(
    out: str | Path,
    *,
    contract: Contract,
    policy: bytes,
    golden: Golden,
    provenance: Provenance,
    metrics: Mapping[str, float],
    support: Support | None,
    noise: Noise | None = None,
    force: bool = False,
) -> Bundle:
    """Writes a bundle, verifies it, and only then gives it its name.

    Args:
        out: the folder to create.
        policy: the ONNX graph; its properties are those of `graph_metadata`.
        noise: the graph's second input, of a policy that draws.
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
        io=io_of(contract, noise),
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
