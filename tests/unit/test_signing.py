from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.signing import SigningError, require_signature, sign_bundle
from iql_ros.errors import BundleError
from tests.keys import write_keys
from tests.small_bundle import write_bundle
from tests.small_gate import pass_gate


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("signing") / "bundle").path


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Bundle:
    return load_bundle(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path / "keys", ed25519.Ed25519PrivateKey.generate())


def test_a_signed_bundle_shows_its_signature(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    require_signature(sign_bundle(bundle.path, keys[0]), keys[1])


def test_an_unsigned_bundle_is_refused_with_the_remedy(
    bundle: Bundle, keys: tuple[Path, Path]
) -> None:
    with pytest.raises(BundleError, match=r"is not signed, .*iql-ros sign"):
        require_signature(bundle, keys[1])


def test_another_key_s_signature_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    signed = sign_bundle(bundle.path, keys[0])
    _, stranger = write_keys(tmp_path / "stranger", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(BundleError, match="another key, another bundle"):
        require_signature(signed, stranger)


def test_a_signature_of_another_bundle_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign_bundle(bundle.path, keys[0])
    other = write_bundle(tmp_path / "other", metrics={"value_loss": 0.5})
    shutil.copy(bundle.path / "signature.json", other.path)
    with pytest.raises(BundleError, match="another bundle"):
        require_signature(load_bundle(other.path), keys[1])


def test_a_gate_record_added_later_has_to_be_signed_again(
    bundle: Bundle, keys: tuple[Path, Path]
) -> None:
    pass_gate(sign_bundle(bundle.path, keys[0]))
    with pytest.raises(BundleError, match="a gate record newer than the signature"):
        require_signature(load_bundle(bundle.path), keys[1])
    require_signature(sign_bundle(bundle.path, keys[0]), keys[1])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"algorithm": "none", "signature": ""}', "[" * 2000],
)
def test_a_broken_signature_file_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], text: str
) -> None:
    (bundle.path / "signature.json").write_text(text)
    with pytest.raises(BundleError, match=r"signature\.json cannot be read"):
        require_signature(load_bundle(bundle.path), keys[1])


@pytest.mark.parametrize("signature", ["00", "zz", 5, "00" * 64])
def test_a_wrong_signature_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], signature: object
) -> None:
    document = {"algorithm": "ed25519", "signature": signature}
    (bundle.path / "signature.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"signature\.json (cannot be read|is no signature)"):
        require_signature(load_bundle(bundle.path), keys[1])


def test_keys_of_another_kind_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    secret, public = write_keys(tmp_path / "rsa", weak)
    with pytest.raises(SigningError, match="must be an Ed25519 private key"):
        sign_bundle(bundle.path, secret)
    with pytest.raises(SigningError, match="is no private key in PEM"):
        sign_bundle(bundle.path, public)
    with pytest.raises(SigningError, match="cannot be read: No such file"):
        sign_bundle(bundle.path, tmp_path / "none.pem")
