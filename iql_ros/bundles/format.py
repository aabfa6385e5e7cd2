"""The document `bundle.json`: its fields, its limits and its seal.

A sealed document carries the SHA-256 of its own other content and has one spelling only,
so that any edit, down to a space, is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from iql_ros.contract import Contract
from iql_ros.errors import BundleError

FORMAT = 1
OPSET: Final = 18

BUNDLE_FILE = "bundle.json"
POLICY_FILE = "policy.onnx"
GOLDEN_FILE = "golden.npz"
GATE_FILE = "gate.json"
SIGNATURE_FILE = "signature.json"

# Read no more than this, whatever a file claims: a 4096x3 actor and a camera-free
# observation of a thousand components stay far below.
MAX_BYTES = {
    BUNDLE_FILE: 32 << 20,
    POLICY_FILE: 256 << 20,
    GOLDEN_FILE: 64 << 20,
    GATE_FILE: 4 << 20,
    SIGNATURE_FILE: 4 << 10,
}

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Row = tuple[float, ...]


class Model(BaseModel):
    """What stands in a bundle's documents: no unknown key, no coercion, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class FileRecord(Model):
    """Size and hash of one file of the bundle."""

    size: int = Field(ge=0, description="bytes")
    sha256: Digest


class Tensor(Model):
    """One input or output of the graph, in SI units."""

    name: str
    dtype: Literal["float32"] = "float32"
    shape: tuple[int, int] = Field(description="(1, components): one step a call")
    components: tuple[str, ...] = Field(description="names, in order, as in the contract")


class Noise(Model):
    """The graph's second input, where the policy draws: independent standard normal numbers.

    They are a function of the seed and the observation; see `iql_ros.bundles.noise`.
    """

    name: Literal["noise"] = "noise"
    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal[1], Annotated[int, Field(ge=1, le=1 << 16)]] = Field(
        description="(1, numbers): for one step"
    )
    seed: int = Field(ge=0, lt=1 << 63)
    generator: Literal["shake128-box-muller"] = "shake128-box-muller"


class Io(Model):
    """What the graph reads and writes."""

    opset: Literal[18] = OPSET
    input: Tensor
    output: Tensor
    noise: Noise | None = Field(default=None, description="null where the policy draws nothing")


class Provenance(Model):
    """Where the policy comes from."""

    dataset_digest: Digest | None = Field(description="SHA-256 of the training file, if known")
    run: str = Field(description="name of the training run")
    algorithm: str
    seed: int
    steps: int = Field(ge=0, description="updates taken")
    versions: dict[str, str] = Field(description="versions of the software that exported it")


class Support(Model):
    """Where the training data lies: Mahalanobis distance and a conformal threshold.

    An observation x, shape (O,), is inside when
    sqrt((x - mean)^T precision (x - mean)) <= threshold.
    """

    mean: Row = Field(description="(O,)")
    precision: tuple[Row, ...] = Field(description="(O, O), symmetric, positive definite")
    threshold: float = Field(gt=0, description="distance, no unit")
    alpha: float = Field(gt=0, lt=1, description="share of false alarms that was asked for")
    false_alarm_bound: float = Field(
        gt=0, lt=1, description="share that the held-out episodes can promise, per episode"
    )
    episodes: int = Field(ge=1, description="held-out episodes behind the threshold")
    constant: tuple[str, ...] = Field(description="components that never changed in training")

    @model_validator(mode="after")
    def _usable(self) -> Support:
        size = len(self.mean)
        if [len(row) for row in self.precision] != [size] * size:
            raise ValueError(f"precision must be {size} x {size}, as mean has {size} values")
        precision = np.array(self.precision).reshape(size, size)
        # An indefinite matrix would make distances imaginary, and NaN is never above a limit.
        if not np.array_equal(precision, precision.T) or np.linalg.eigvalsh(precision).min() <= 0:
            raise ValueError("precision must be symmetric and positive definite")
        return self


class Manifest(Model):
    """The content of `bundle.json`, its seal apart."""

    format: Literal[1] = 1
    contract: dict[str, Any] = Field(description="the robot's contract, canonical content")
    contract_digest: Digest
    io: Io
    provenance: Provenance
    metrics: dict[str, float] = Field(description="held-out losses and the like")
    support: Support | None
    files: dict[str, FileRecord] = Field(description="every other file, the gate record apart")

    @model_validator(mode="after")
    def _all_files(self) -> Manifest:
        if sorted(self.files) != [GOLDEN_FILE, POLICY_FILE]:
            raise ValueError(
                f"files lists {sorted(self.files)}, must be the golden pairs and the policy"
            )
        return self


class Document(Manifest):
    """`bundle.json` as it lies in the folder, for its JSON Schema."""

    digest: Digest = Field(description="SHA-256 of this file without this key")


def io_of(contract: Contract, noise: Noise | None = None) -> Io:
    """The graph signature that a contract asks for, with the noise of a policy that draws."""
    return Io(
        input=Tensor(
            name="observation",
            shape=(1, contract.observation_size),
            components=contract.observation_names,
        ),
        output=Tensor(
            name="action", shape=(1, contract.action_size), components=contract.action_names
        ),
        noise=noise,
    )


def graph_metadata(contract: Contract) -> dict[str, str]:
    """The properties that `policy.onnx` carries, so that it names its contract even alone."""
    return {
        "iql_ros.contract_digest": contract.digest(),
        "iql_ros.observation_names": json.dumps(contract.observation_names),
        "iql_ros.action_names": json.dumps(contract.action_names),
    }


def parse_manifest(document: Mapping[str, Any], where: str) -> Manifest:
    """The manifest in an unsealed document. Raises BundleError naming each wrong field."""
    try:
        return Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:10]
        ]
        raise BundleError("\n".join([*lines, "export the bundle again"])) from None


def seal(document: Mapping[str, Any]) -> bytes:
    """The bytes of `document`, a JSON object without `digest`, under its own digest."""
    digest = hashlib.sha256(_spell(document)).hexdigest()
    return _spell({"digest": digest, **document})


def unseal(
    data: bytes, where: str, remedy: str = "export the bundle again"
) -> tuple[str, dict[str, Any]]:
    """Reads what `seal` wrote.

    Args:
        where: the file, for errors.
        remedy: what to do if it cannot be read.

    Returns:
        The digest, and the document without it.

    Raises:
        BundleError: `data` is no JSON object of this format, or was altered.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}): {remedy}") from None
    if not isinstance(document, dict):
        raise BundleError(f"{where} holds a {type(document).__name__}, must be a JSON object")
    version = document.get("format")
    if type(version) is not int or version != FORMAT:
        raise BundleError(
            f"{where} has format {version!r:.40}, this version of iql_ros reads format {FORMAT}: "
            f"{remedy}, or install the version that wrote it"
        )
    claimed = document.pop("digest", None)
    try:
        intact = seal(document) == data
    except (ValueError, RecursionError):  # NaN, or nesting deeper than can be written
        intact = False
    if not intact or not isinstance(claimed, str):
        raise BundleError(
            f"{where} was altered: its digest reads {claimed!r:.70}, its content has another; "
            f"{remedy}"
        )
    return claimed, document


def _spell(document: Mapping[str, Any]) -> bytes:
    """One top-level key a line: readable, and no line for each number of a matrix."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in document.items()
    )
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
