"""The one typed configuration of a training run.

A run is a pure function of (dataset, TrainConfig). The resolved config lies as
`config.yaml` beside every run. Names are the paper's words; the letter stands in the
description.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from iql_ros.errors import IqlRosError


class ConfigError(IqlRosError):
    """A training configuration has an unknown key or a value out of its range."""


class TrainConfig(BaseModel):
    """What to train and how. Defaults are those of the IQL paper for locomotion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    algorithm: Literal["iql", "bc"] = "iql"
    steps: PositiveInt = Field(100_000, description="gradient updates")
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = Field(3e-4, description="Adam; the actor's decays by a cosine")

    hidden: tuple[PositiveInt, ...] = Field((256, 256), min_length=1, description="layer widths")
    actor: Literal["gaussian", "deterministic"] = Field(
        "gaussian", description="tanh mean with a learned state-independent std, or std 1 fixed"
    )

    expectile: float = Field(0.7, gt=0, lt=1, description="tau")
    inverse_temperature: float = Field(3.0, ge=0, description="beta, multiplies the advantage")
    advantage_weight_max: PositiveFloat = Field(100.0, description="cap of exp(beta A)")
    discount: float = Field(0.99, ge=0, lt=1, description="gamma")
    polyak: float = Field(0.005, gt=0, le=1, description="share of the critic in each target step")

    reward_scale: PositiveFloat = Field(1.0, description="reward used = scale * reward + shift")
    reward_shift: float = 0.0
    normalise_observations: bool = True
    held_out_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the episodes never trained on; 0 for none"
    )

    log_every: PositiveInt = Field(100, description="steps between records of training losses")
    evaluate_every: PositiveInt = Field(1_000, description="steps between held-out losses")
    checkpoint_every: PositiveInt = Field(5_000, description="steps between checkpoints")
    threads: PositiveInt = Field(1, description="CPU threads of one update")

    @model_validator(mode="after")
    def _intervals_fit(self) -> TrainConfig:
        for key in ("evaluate_every", "checkpoint_every"):
            interval = getattr(self, key)
            if interval % self.log_every:
                raise ValueError(
                    f"{key} {interval} is not a multiple of log_every {self.log_every}: "
                    f"the loop looks up from its updates only every log_every steps"
                )
        return self


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Returns the defaults, overlaid by a YAML file, overlaid by `key=value` strings.

    Raises:
        ConfigError: naming the key, its value and the rule.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values.update(_read_mapping(path))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"override {override!r} has no '=': write key=value")
        values[key.strip()] = _parse_yaml(text, f"override {override!r}")
    return _validated(values, "training config" if path is None else str(path))


def dump_config(config: TrainConfig) -> str:
    """Returns the resolved config as YAML text, every key present."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"training config {path} cannot be read: {error.strerror}") from error
    values = _parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, must be a mapping of keys")
    return values


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error


def _validated(values: dict[str, Any], source: str) -> TrainConfig:
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        complaints = [
            f"{'.'.join(map(str, item['loc'])) or 'config'} = {item['input']!r}: {item['msg']}"
            for item in error.errors()
        ]
        known = ", ".join(TrainConfig.model_fields)
        unknown = any(item["type"] == "extra_forbidden" for item in error.errors())
        hint = f"\nknown keys: {known}" if unknown else ""
        raise ConfigError(f"{source}: " + "; ".join(complaints) + hint) from error
