from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from iql_ros.bundle import Bundle, load_bundle
from iql_ros.bundles.format import Support, seal, unseal
from iql_ros.bundles.gate_record import (
    Criterion,
    GateRecord,
    envelope_digest,
    why_not,
    write_gate,
)
from iql_ros.cli import app
from iql_ros.contract import Contract
from iql_ros.errors import BundleError
from tests.small_bundle import CONTRACT, SUPPORT, Mlp, write_bundle
from tests.small_gate import pass_gate, record_of, success_rate

OTHER = "e" * 64


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("pristine") / "bundle")


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    return load_bundle(shutil.copytree(pristine.path, tmp_path / "bundle"))


# -- the file --------------------------------------------------------------------------------


def test_a_record_that_passed_is_read_back_and_lets_the_bundle_act(bundle: Bundle) -> None:
    record = record_of(bundle)
    write_gate(bundle, record)
    loaded = load_bundle(bundle.path)
    assert loaded.gate == record
    assert why_not(loaded, loaded.gate) is None


def test_the_same_record_gives_the_same_bytes_and_leaves_no_draft(bundle: Bundle) -> None:
    first = (pass_gate(bundle) / "gate.json").read_bytes()
    assert (pass_gate(bundle) / "gate.json").read_bytes() == first
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["bundle"]


def test_a_record_edited_by_hand_is_refused(bundle: Bundle) -> None:
    write_gate(bundle, record_of(bundle, successes=50))
    file = bundle.path / "gate.json"
    file.write_text(file.read_text().replace('"failed"', '"passed"'))
    with pytest.raises(
        BundleError, match=r"gate.json was altered.*remove it and run `iql-ros gate`"
    ):
        load_bundle(bundle.path)


def test_a_verdict_that_its_criteria_deny_is_refused_even_when_sealed(bundle: Bundle) -> None:
    write_gate(bundle, record_of(bundle, successes=50))
    file = bundle.path / "gate.json"
    _, document = unseal(file.read_bytes(), str(file))
    file.write_bytes(seal({**document, "verdict": "passed"}))
    with pytest.raises(BundleError, match="verdict is passed, but its criteria say otherwise"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"verdict": "fine"}, "verdict: Input should be 'passed' or 'failed'"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"scenarios": []}, "scenarios: Tuple should have at least 1 item"),
        ({"when": "today"}, "when: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_gate_record_is_refused_by_field(
    bundle: Bundle, change: dict[str, Any], text: str
) -> None:
    document = record_of(bundle).model_dump(mode="json") | change
    (bundle.path / "gate.json").write_bytes(seal(document))
    with pytest.raises(BundleError, match=text):
        load_bundle(bundle.path)


def test_a_record_of_another_bundle_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", Mlp.drawn(1))
    with pytest.raises(BundleError, match=r"does not belong there: the policy \(policy.onnx\) is"):
        write_gate(bundle, record_of(other))
    assert not (bundle.path / "gate.json").exists()


# -- a criterion -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"judged": 0.2, "interval": None}, "passed is True, but 0.2 must be at least 0.9"),
        ({"count": 101}, "count is 101 of 100"),
        ({"judged": 1.0}, "no worse end"),
        ({"judged": float("nan")}, "finite"),
    ],
)
def test_a_criterion_that_contradicts_itself_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Criterion(**(success_rate(100, 100).model_dump() | change))


def test_a_criterion_says_itself_in_words() -> None:
    assert success_rate(90, 100).in_words() == (
        "success rate 0.8256 (90 of 100, 95 % interval 0.826 to 0.945), must be at least 0.9"
    )


# -- why not ---------------------------------------------------------------------------------


def test_without_a_record_the_reason_names_the_command(bundle: Bundle) -> None:
    assert why_not(bundle, None) == (
        f"{bundle.path} has not passed in simulation (no gate.json): "
        f"run `iql-ros gate {bundle.path}`"
    )


def test_a_failed_record_gives_the_first_criterion_that_does_not_hold(bundle: Bundle) -> None:
    assert why_not(bundle, record_of(bundle, successes=90)) == (
        f"{bundle.path} failed in simulation: scenario 'nominal': "
        + success_rate(90, 100).in_words()
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"policy": OTHER}, r"the policy \(policy.onnx\) is .*…, the gate ran eeeeeeeeeeee…"),
        ({"contract": OTHER}, "the contract is .*, the gate ran eeee"),
        ({"envelope": OTHER}, r"the envelope \(limits, slew, safety, support\) is .*eeee"),
        (
            {"software": {"iql_ros": "0.0.1"}},
            "iql_ros is .*, the gate ran 0.0.1: run `iql-ros gate`",
        ),
    ],
)
def test_a_record_bound_to_other_things_names_the_first(
    bundle: Bundle, change: dict[str, Any], text: str
) -> None:
    record = record_of(bundle, **change)
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(why_not(bundle, record))


def test_a_record_copied_from_another_bundle_does_not_let_it_act(
    bundle: Bundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", metrics={"value_loss": 0.5})
    shutil.copy(pass_gate(other) / "gate.json", bundle.path)
    loaded = load_bundle(bundle.path)
    assert "the bundle is" in str(why_not(loaded, loaded.gate))


def _with_slew(document: dict[str, Any]) -> None:
    document["actions"][0]["slew"] = 100.0


def _with_wider_limits(document: dict[str, Any]) -> None:
    document["actions"][1]["limits"] = [-2.0, 2.0]


def _with_fallback(document: dict[str, Any]) -> None:
    document["safety"] = {"fallback": "zero"}


@pytest.mark.parametrize("change", [_with_slew, _with_wider_limits, _with_fallback])
def test_the_envelope_s_digest_changes_with_the_contract_s_bounds(
    bundle: Bundle, change: Callable[[dict[str, Any]], None]
) -> None:
    document = CONTRACT.canonical()
    change(document)
    other = replace(bundle, contract=Contract.model_validate(document))
    assert envelope_digest(other) != envelope_digest(bundle)


@pytest.mark.parametrize("support", [None, SUPPORT.model_copy(update={"threshold": 5.0})])
def test_the_envelope_s_digest_changes_with_the_support(
    bundle: Bundle, support: Support | None
) -> None:
    manifest = bundle.manifest.model_copy(update={"support": support})
    assert envelope_digest(replace(bundle, manifest=manifest)) != envelope_digest(bundle)


def test_verify_says_what_the_gate_says_without_refusing(bundle: Bundle) -> None:
    def verified() -> str:
        done = CliRunner().invoke(app, ["verify", str(bundle.path)], env={"COLUMNS": "400"})
        assert done.exit_code == 0, done.output
        return done.output

    assert "gate: " + str(why_not(bundle, None)) in verified()
    write_gate(bundle, record_of(bundle, successes=90))
    assert "failed in simulation: scenario 'nominal'" in verified()
    pass_gate(bundle)
    assert "gate: passed, suite " in verified()


def test_json_schema_describes_the_record() -> None:
    schema = GateRecord.model_json_schema()
    assert set(schema["required"]) == {"bundle_digest", "verdict", "seed", "bound_to", "scenarios"}
