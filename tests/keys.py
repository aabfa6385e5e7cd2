"""Key pairs as PEM files, as openssl writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization


def write_keys(folder: Path, private: Any) -> tuple[Path, Path]:
    """Writes a private key and its public half; returns both paths."""
    folder.mkdir(exist_ok=True)
    secret, public = folder / "key.pem", folder / "key.pub.pem"
    secret.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return secret, public
