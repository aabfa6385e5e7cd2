"""Signing a bundle with an Ed25519 key, and asking for the signature.

The seal in `bundle.json` notices damage and mixing. A signature also says who let the
bundle out: with a public key in the node's parameters, nothing else runs. It covers the
bundle and the gate's record together, so a record added later has to be signed again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.format import SIGNATURE_FILE
from iql_ros.errors import BundleError, IqlRosError

ALGORITHM = "ed25519"
DOMAIN = "iql_ros bundle signature 1"
MAKE_KEYS = (
    "make a pair with `openssl genpkey -algorithm ed25519 -out key.pem` and "
    "`openssl pkey -in key.pem -pubout -out key.pub.pem`"
)


class SigningError(IqlRosError):
    """A key cannot be used, or the package that signs is missing."""


def sign_bundle(path: str | Path, private_key: Path) -> Bundle:
    """Signs the bundle at `path`, its gate's record included, and returns it as it is now.

    Args:
        path: the bundle's folder.
        private_key: an Ed25519 key in PEM without a password.

    Raises:
        BundleError: the bundle is not whole.
        SigningError: the key is missing or of another kind.
    """
    bundle = load_bundle(path)
    key = _load_key(private_key, private=True)
    document = {"algorithm": ALGORITHM, "signature": key.sign(signed_content(bundle)).hex()}
    draft = bundle.path.with_name(f".{bundle.path.name}.{os.getpid()}.signature")
    draft.write_text(json.dumps(document) + "\n")
    draft.replace(bundle.path / SIGNATURE_FILE)
    return load_bundle(path)


def require_signature(bundle: Bundle, public_key: Path) -> None:
    """Raises BundleError unless the holder of a key signed this bundle as it is.

    Args:
        public_key: an Ed25519 public key in PEM.

    Raises:
        SigningError: the key is missing or of another kind.
    """
    key = _load_key(public_key, private=False)
    where = bundle.path / SIGNATURE_FILE
    if bundle.signature is None:
        raise BundleError(
            f"{bundle.path} is not signed, and key {public_key} is asked for: "
            f"sign it with `iql-ros sign {bundle.path} --key key.pem`"
        )
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(_signature_of(bundle.signature, str(where)), signed_content(bundle))
    except InvalidSignature:
        raise BundleError(
            f"{where} is no signature of {public_key} on bundle {bundle.digest[:16]}… with "
            f"{_gate_in_words(bundle)}: another key, another bundle, or a gate record newer than "
            f"the signature; check where it comes from, then sign it again"
        ) from None


def signed_content(bundle: Bundle) -> bytes:
    """The bytes that are signed: what this is, the bundle's digest, the gate record's digest."""
    return "\n".join([DOMAIN, bundle.digest, bundle.gate_digest or "no gate"]).encode()


def _gate_in_words(bundle: Bundle) -> str:
    return f"gate {bundle.gate_digest[:16]}…" if bundle.gate_digest else "no gate record"


def _signature_of(data: bytes, where: str) -> bytes:
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or set(document) != {"algorithm", "signature"}:
            raise ValueError("must hold algorithm and signature")
        if document["algorithm"] != ALGORITHM:
            raise ValueError(f"algorithm is {document['algorithm']!r:.40}, must be {ALGORITHM!r}")
        return bytes.fromhex(document["signature"])
    except (ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{where} cannot be read ({error}): sign the bundle again") from None


def _load_key(path: Path, *, private: bool) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise SigningError(
            f"signatures need the package cryptography ({error}): apt install "
            f"python3-cryptography, or pip install cryptography"
        ) from None
    kind = "private" if private else "public"
    wanted = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    try:
        data = path.read_bytes()
        key: Any = (
            serialization.load_pem_private_key(data, password=None)
            if private
            else serialization.load_pem_public_key(data)
        )
    except OSError as error:
        raise SigningError(f"{kind} key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise SigningError(
            f"{path} is no {kind} key in PEM without password ({error}): {MAKE_KEYS}"
        ) from None
    if not isinstance(key, wanted):
        raise SigningError(
            f"{path} is a {type(key).__name__}, must be an Ed25519 {kind} key: {MAKE_KEYS}"
        )
    return key
