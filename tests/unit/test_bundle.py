from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.format import Document, seal, unseal
from iql_ros.bundles.golden import Golden, pack_golden
from iql_ros.errors import BundleError
from iql_ros.policies import open_policy, verify
from tests.small_bundle import CONTRACT, SUPPORT, Mlp, write_bundle

MUTATIONS = int(os.environ.get("IQL_ROS_FUZZ", "300"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("pristine") / "bundle")


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine.path, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    """Changes bundle.json and seals it again, as only a deliberate forger would."""
    _, document = unseal((bundle / "bundle.json").read_bytes(), "bundle.json")
    change(document)
    (bundle / "bundle.json").write_bytes(seal(document))


def replace_file(bundle: Path, name: str, data: bytes) -> None:
    """Replaces a file and records its new size and hash."""
    (bundle / name).write_bytes(data)
    record = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(bundle, lambda document: document["files"].update({name: record}))


# -- what a bundle holds -------------------------------------------------------------------


def test_saved_bundle_loads_with_everything_that_was_saved(pristine: Bundle) -> None:
    loaded = load_bundle(pristine.path)
    golden = Mlp.drawn(0).golden()
    assert loaded.digest == pristine.digest
    assert loaded.contract == CONTRACT.from_json(CONTRACT.canonical_json())
    assert loaded.manifest.support == SUPPORT
    assert loaded.manifest.metrics == {"value_loss": 0.25}
    assert loaded.policy == Mlp.drawn(0).graph()
    assert np.array_equal(loaded.golden.observations, golden.observations)
    assert np.array_equal(loaded.golden.actions, golden.actions)
    assert loaded.gate is None


def test_same_content_gives_the_same_bytes(pristine: Bundle, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again")
    for file in sorted(pristine.path.iterdir()):
        assert file.read_bytes() == (again.path / file.name).read_bytes()


def test_verification_reports_pairs_and_worst_error(pristine: Bundle) -> None:
    verification = verify(pristine.path)
    assert verification.digest == pristine.digest
    assert verification.pairs == 256
    assert verification.worst_action in ("vx", "wz")
    assert 0 <= verification.worst_error <= verification.tolerance


def test_golden_arrays_are_read_only(pristine: Bundle) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pristine.golden.actions[0, 0] = 1.0


# -- saving ----------------------------------------------------------------------------------


def test_existing_folder_is_refused_without_force(bundle: Path) -> None:
    with pytest.raises(BundleError, match="exists: choose another folder, or replace it"):
        write_bundle(bundle)


def test_force_replaces_a_bundle_and_leaves_no_trace(bundle: Path) -> None:
    before = load_bundle(bundle).digest
    write_bundle(bundle, Mlp.drawn(1), force=True)
    assert load_bundle(bundle).digest != before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


def test_force_does_not_replace_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write_bundle(tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_bundle_that_fails_verification_is_never_put_in_place(bundle: Path) -> None:
    before = load_bundle(bundle).digest
    with pytest.raises(BundleError, match="does not run the policy that was trained"):
        write_bundle(bundle, Mlp.drawn(1), golden=Mlp.drawn(2).golden(), force=True)
    assert load_bundle(bundle).digest == before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bundle.json", "policy.onnx", "golden.npz"])
def test_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing: copy the whole folder"):
        load_bundle(bundle)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*nowhere"):
        load_bundle(tmp_path / "nowhere")


def test_unknown_file_is_named(bundle: Path) -> None:
    (bundle / "policy.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"holds 'policy.pkl', which is no part of a bundle"):
        load_bundle(bundle)


def test_link_in_place_of_a_file_is_refused(bundle: Path) -> None:
    (bundle / "policy.onnx").rename(bundle.parent / "elsewhere.onnx")
    (bundle / "policy.onnx").symlink_to(bundle.parent / "elsewhere.onnx")
    with pytest.raises(BundleError, match=r"policy.onnx is a link or folder"):
        load_bundle(bundle)


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc/hostname"), os.mkfifo, Path.mkdir])
def test_what_takes_the_place_of_a_file_after_the_listing_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    def swap(path: Path) -> None:
        (path / "policy.onnx").unlink()
        make(path / "policy.onnx")

    monkeypatch.setattr("iql_ros.bundle.check_listing", swap)
    with pytest.raises(BundleError, match=r"policy.onnx is a link or folder"):
        load_bundle(bundle)


def test_path_in_the_file_list_is_refused(bundle: Path) -> None:
    edit(bundle, lambda d: d["files"].update({"../policy.onnx": d["files"].pop("policy.onnx")}))
    with pytest.raises(BundleError, match=r"files lists .*\.\./policy.onnx"):
        load_bundle(bundle)


def test_altered_file_is_named_with_both_hashes(bundle: Path) -> None:
    data = bytearray((bundle / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "policy.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"policy.onnx has \d+ bytes and SHA-256 .* altered"):
        load_bundle(bundle)


def test_metric_edited_by_hand_is_noticed(bundle: Path) -> None:
    text = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(text.replace('"value_loss": 0.25', '"value_loss": 0.05'))
    with pytest.raises(BundleError, match=r"bundle.json was altered"):
        load_bundle(bundle)


def test_other_format_is_refused_by_its_number(bundle: Path) -> None:
    edit(bundle, lambda document: document.update(format=2))
    with pytest.raises(BundleError, match="has format 2, this version of iql_ros reads format 1"):
        load_bundle(bundle)


def test_file_beyond_the_size_limit_is_not_read(bundle: Path) -> None:
    with (bundle / "golden.npz").open("r+b") as stream:
        stream.truncate(1 << 36)  # sparse: 64 GiB that occupy nothing
    with pytest.raises(BundleError, match="has more than 67108864 bytes"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"\x80\x81", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "holds a list, must be a JSON object"),
        (b'{"format": NaN}', "has format nan"),
        (b'{"format": 1, "digest": NaN}', "was altered"),
    ],
)
def test_document_that_is_no_bundle_is_refused(bundle: Path, text: bytes, rule: str) -> None:
    (bundle / "bundle.json").write_bytes(text)
    with pytest.raises(BundleError, match=rule):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: d.pop("metrics"), "metrics: Field required"),
        (lambda d: d.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda d: d["provenance"].update(seed="7"), "provenance.seed: Input should be a valid"),
        (lambda d: d["contract"].update(robot="other"), "contract_digest is"),
        (lambda d: d["contract"].update(topics={}), "the contract in it is not valid"),
        (lambda d: d["io"]["input"].update(shape=[1, 5]), "its contract asks for"),
        (lambda d: d["support"].update(mean=[0.0]), "precision must be 1 x 1"),
        (lambda d: d["support"]["precision"][0].__setitem__(0, -1.0), "positive definite"),
        (lambda d: d["support"].update(mean=[0.0], precision=[[1.0]]), "support has 1 components"),
    ],
)
def test_wrong_field_is_named(bundle: Path, change: Callable, rule: str) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=rule):
        load_bundle(bundle)


NOISE = {"name": "noise", "dtype": "float32", "shape": [1, 3], "seed": 0}
NOISE["generator"] = "shake128-box-muller"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"shape": [1, 10**12]}, r"io.noise.shape.1: Input should be less than or equal to 65536"),
        ({"shape": [2, 3]}, r"io.noise.shape.0: Input should be 1"),
        ({"seed": -1}, r"io.noise.seed: Input should be greater than or equal to 0"),
        ({"generator": "dice"}, r"io.noise.generator: Input should be 'shake128-box-muller'"),
        ({}, r"input is \[\('observation', .*the contract asks for \[.*\('noise', .*\(1, 3\)"),
    ],
)
def test_noise_that_the_graph_does_not_take_is_refused(
    bundle: Path, change: dict, rule: str
) -> None:
    edit(bundle, lambda document: document["io"].update(noise={**NOISE, **change}))
    with pytest.raises(BundleError, match=rule):
        verify(bundle)


def test_bundle_of_before_there_was_noise_is_read(bundle: Path) -> None:
    edit(bundle, lambda document: document["io"].pop("noise"))
    assert verify(bundle).pairs == 256


# -- the schema ----------------------------------------------------------------------------


def test_schema_in_the_documentation_is_what_is_checked() -> None:
    file = Path(__file__).parents[2] / "docs" / "bundle.schema.json"
    told = "renew it: iql-ros schema bundle > docs/bundle.schema.json"
    assert json.loads(file.read_text()) == Document.model_json_schema(), told


def test_schema_has_the_keys_of_a_bundle_and_no_others(pristine: Bundle) -> None:
    def check(value: Any, schema: dict) -> None:
        schema = whole["$defs"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
        if "anyOf" in schema and value is not None:
            schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
            check(value, schema)
        if "properties" in schema:
            assert schema["additionalProperties"] is False
            assert list(value) == [key for key in schema["properties"] if key != "digest"]
            assert set(schema["required"]) - {"digest"} <= set(value)
            for key, one in schema["properties"].items():
                if key != "digest":
                    check(value[key], one)

    whole = Document.model_json_schema()
    assert whole["properties"]["digest"]["pattern"] == "^[0-9a-f]{64}$"
    _, document = unseal((pristine.path / "bundle.json").read_bytes(), "bundle.json")
    check(document, whole)


# -- golden pairs --------------------------------------------------------------------------


GOLDEN = Mlp.drawn(0).golden()


@pytest.mark.parametrize(
    ("observations", "actions", "rule"),
    [
        (GOLDEN.observations[:255], GOLDEN.actions[:255], "holds 255 pairs, at least 256"),
        (GOLDEN.observations, GOLDEN.actions[:255], r"actions has shape \(255, 2\)"),
        (GOLDEN.observations[:, :3], GOLDEN.actions, r"observations has shape \(256, 3\)"),
        (GOLDEN.observations, GOLDEN.actions * np.nan, "actions holds NaN or infinity"),
        (GOLDEN.observations, GOLDEN.actions.astype(np.float64), "must be two-dimensional float32"),
        (GOLDEN.observations, np.array([{"a": 1}]), "cannot be read"),
        (GOLDEN.observations, GOLDEN.actions + 1, "action 'vx' of golden pair 0 is"),
    ],
)
def test_unfit_golden_pairs_are_refused(
    bundle: Path, tmp_path: Path, observations: np.ndarray, actions: np.ndarray, rule: str
) -> None:
    np.savez(tmp_path / "forged.npz", observations=observations, actions=actions)
    replace_file(bundle, "golden.npz", (tmp_path / "forged.npz").read_bytes())
    with pytest.raises(BundleError, match=rule):
        load_bundle(bundle)


def test_compressed_golden_pairs_are_refused(bundle: Path, tmp_path: Path) -> None:
    zeros = np.zeros((1_000_000, 4), np.float32)
    np.savez_compressed(tmp_path / "bomb.npz", observations=zeros, actions=zeros)
    replace_file(bundle, "golden.npz", (tmp_path / "bomb.npz").read_bytes())
    with pytest.raises(BundleError, match="must be stored uncompressed"):
        load_bundle(bundle)


def test_action_off_by_more_than_the_tolerance_is_refused(bundle: Path) -> None:
    actions = GOLDEN.actions.copy()
    actions[3, 1] += 3e-4  # range 2, tolerance 1e-4 of it
    replace_file(bundle, "golden.npz", pack_golden(Golden(GOLDEN.observations, actions)))
    with pytest.raises(BundleError, match=r"action 'wz' of golden pair 3 .* off by 1.5e-04"):
        verify(bundle)
    with pytest.raises(BundleError, match="does not run the policy that was trained"):
        open_policy(bundle)


def test_backend_that_answers_nan_with_an_action_is_refused(pristine: Bundle) -> None:
    mlp = Mlp.drawn(0)

    def open_careless(_: Bundle) -> Callable:
        return lambda observation: mlp(np.nan_to_num(observation)[None])[0]

    with pytest.raises(BundleError, match="answers observation 'position_x' = nan"):
        verify(pristine, open_careless)


def test_backend_that_fails_while_running_is_refused(pristine: Bundle) -> None:
    with pytest.raises(BundleError, match=r"policy fails on a golden pair .*division by zero"):
        verify(pristine, lambda _: lambda observation: 1 / 0)


# -- mutations -------------------------------------------------------------------------------


def flip_byte(bundle: Path, other: Path, rng: random.Random) -> None:
    file = bundle / rng.choice(["bundle.json", "policy.onnx", "golden.npz"])
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def cut_or_extend(bundle: Path, other: Path, rng: random.Random) -> None:
    file = bundle / rng.choice(["bundle.json", "policy.onnx", "golden.npz"])
    data = file.read_bytes()
    grown = data + rng.randbytes(rng.randrange(1, 50))
    file.write_bytes(rng.choice([data[: rng.randrange(len(data))], grown]))


def swap_file(bundle: Path, other: Path, rng: random.Random) -> None:
    name = rng.choice(["bundle.json", "policy.onnx", "golden.npz"])
    shutil.copy(other / name, bundle / name)


def change_files(bundle: Path, other: Path, rng: random.Random) -> None:
    file = bundle / rng.choice(["bundle.json", "policy.onnx", "golden.npz"])
    if rng.random() < 0.5:
        file.unlink()
    else:
        file.rename(bundle / f"{rng.randrange(1000)}{file.suffix}")


def lie_about_a_file(bundle: Path, other: Path, rng: random.Random) -> None:
    def change(document: dict) -> None:
        record = document["files"][rng.choice(["policy.onnx", "golden.npz"])]
        lies = {"size": rng.randrange(-5, 1 << 60), "sha256": rng.randbytes(32).hex()}
        key = rng.choice(list(lies))
        record[key] = lies[key]

    edit(bundle, change)


def edit_json(bundle: Path, other: Path, rng: random.Random) -> None:
    """Puts junk anywhere in the document, without the means to seal it again."""
    document = json.loads((bundle / "bundle.json").read_bytes())
    put_junk(document, rng)
    (bundle / "bundle.json").write_text(json.dumps(document))


def forge_json(bundle: Path, other: Path, rng: random.Random) -> None:
    """Puts junk where every value is checked against something else, and seals it."""
    checked = ["contract", "contract_digest", "io", "files"]
    key = rng.choice(checked)
    edit(bundle, lambda document: put_junk(document[key], rng, document, key))


JUNK = [None, True, -1, 1e300, "", "../../etc/passwd", "\ud800", [], {}, [[[]]], {"a": {}}]


def put_junk(value: Any, rng: random.Random, parent: Any = None, key: Any = None) -> None:
    """Replaces one random leaf or branch below `parent[key]`, which is `value`."""
    inner = list(value) if isinstance(value, dict) else []
    inner = range(len(value)) if isinstance(value, list) else inner
    if inner and (parent is None or rng.random() < 0.8):
        step = rng.choice(inner)
        put_junk(value[step], rng, value, step)
    else:
        parent[key] = rng.choice([junk for junk in JUNK if junk != value])


MUTATORS = [
    flip_byte,
    cut_or_extend,
    swap_file,
    change_files,
    lie_about_a_file,
    edit_json,
    forge_json,
]


def test_every_mutated_bundle_is_refused(pristine: Bundle, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", Mlp.drawn(1)).path
    rng = random.Random(20)
    for i in range(MUTATIONS):
        victim = Path(shutil.copytree(pristine.path, tmp_path / "victim"))
        mutate = MUTATORS[i % len(MUTATORS)]
        mutate(victim, other, rng)
        try:
            verify(victim)
            refused = False
        except BundleError:
            refused = True
        assert refused, f"mutation {i} ({mutate.__name__}) was accepted, see {victim}"
        shutil.rmtree(victim)
