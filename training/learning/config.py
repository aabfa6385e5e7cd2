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

# Those of the paper's experiments (section 5 and appendix) and the official configs. Steps,
# networks and learning rates are the defaults in all three; train for as long as you can.
PRESETS: dict[str, dict[str, Any]] = {
    # configs/mujoco_config.py; returns are scaled to span 1000 in train_offline.py.
    "locomotion": {"expectile": 0.7, "inverse_temperature": 3.0, "return_span": 1000.0},
    # configs/antmaze_config.py: rewards of 0 and 1 become -1 until the goal and 0 at it.
    "sparse-reward": {"expectile": 0.9, "inverse_temperature": 10.0, "reward_shift": -1.0},
    # configs/kitchen_config.py, also used for adroit: few demonstrations of one way to do it.
    "narrow-demonstrations": {"expectile": 0.7, "inverse_temperature": 0.5, "dropout": 0.1},
    # Our own measurement: the table of docs/training.md for 200 episodes.
    "few-episodes": {"layer_norm": "actor"},
}


class ConfigError(IqlRosError):
    """A training configuration has an unknown key or a value out of its range."""


class TrainConfig(BaseModel):
    """What to train and how. Defaults are those of the IQL paper for locomotion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    algorithm: Literal["iql", "bc", "cql"] = Field(
        "iql", description="implicit Q-learning, or a baseline: cloning, conservative Q-learning"
    )
    steps: PositiveInt = Field(100_000, description="gradient updates")
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = Field(3e-4, description="Adam; the actor's decays by a cosine")

    hidden: tuple[PositiveInt, ...] = Field((256, 256), min_length=1, description="layer widths")
    actor: Literal["gaussian", "deterministic", "unsquashed"] = Field(
        "gaussian",
        description="tanh mean with a learned state-independent std; the same with std 1 fixed; "
        "mean without tanh, clipped to the limits where it acts",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the actor's hidden units")
    layer_norm: Literal["none", "actor", "critic", "all"] = Field(
        "none", description="normalise hidden layers of the actor, of V and Q, or of all"
    )

    expectile: float = Field(0.7, gt=0, lt=1, description="tau")
    expectile_schedule: Literal["constant", "annealed", "value_error", "policy_value"] = Field(
        "constant", description="how tau goes from expectile_start to expectile"
    )
    expectile_start: float = Field(0.5, gt=0, lt=1, description="tau at first, of a schedule")
    value_warm_up: NonNegativeInt = Field(
        0, description="steps at first that train V alone; actor and critics stand still"
    )
    inverse_temperature: float = Field(3.0, ge=0, description="beta, multiplies the advantage")
    advantage_weight_max: PositiveFloat = Field(100.0, description="cap of exp(beta A)")
    extraction: Literal["weighted", "sampled"] = Field(
        "weighted",
        description="the policy imitates by exp(beta A), or chooses among samples of a mixture",
    )
    mixture_components: PositiveInt = Field(5, description="sampled: Gaussians of the mixture")
    samples: int = Field(32, ge=1, le=4096, description="sampled: actions to choose from")
    selection: Literal["best", "drawn"] = Field(
        "best", description="sampled: the largest Q, or by exp(beta A)"
    )
    refinements: NonNegativeInt = Field(
        0, description="sampled: cross-entropy rounds, each with as many samples again"
    )
    discount: float = Field(0.99, ge=0, lt=1, description="gamma")
    polyak: float = Field(0.005, gt=0, le=1, description="share of the critic in each target step")

    reward_scale: PositiveFloat = Field(1.0, description="reward used = scale * reward + shift")
    reward_shift: float = 0.0
    return_span: PositiveFloat | None = Field(
        None, description="sets reward_scale so that episode returns span this much"
    )
    best_fraction: float = Field(
        1.0, gt=0, le=1, description="share of the training episodes kept, best returns first"
    )
    conservative_weight: float = Field(5.0, ge=0, description="alpha of CQL")
    conservative_samples: PositiveInt = Field(
        10, description="of CQL, actions drawn from each of three proposals for its log-sum-exp"
    )

    normalise_observations: bool = True
    held_out_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the episodes never trained on; 0 for none"
    )

    log_every: PositiveInt = Field(100, description="steps between records of training losses")
    evaluate_every: PositiveInt = Field(1_000, description="steps between held-out losses")
    checkpoint_every: PositiveInt = Field(5_000, description="steps between checkpoints")
    threads: PositiveInt = Field(1, description="CPU threads of one update")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the hidden layers' products; weights stay float32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to train; auto takes a GPU where there is one"
    )
    data: Literal["auto", "memory", "disk"] = Field(
        "auto",
        description="where transitions lie; auto: on disk beyond a quarter of the machine's memory",
    )

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

    @model_validator(mode="after")
    def _cql_has_an_actor_of_its_own(self) -> TrainConfig:
        if self.algorithm == "cql" and (self.actor != "gaussian" or self.dropout):
            raise ValueError(
                f"actor {self.actor!r} and dropout {self.dropout} are not for algorithm 'cql', "
                f"whose actor is SAC's: leave actor at 'gaussian' and dropout at 0"
            )
        return self

    @model_validator(mode="after")
    def _samples_are_ranked_by_critics(self) -> TrainConfig:
        if self.extraction == "sampled" and self.algorithm != "iql":
            raise ValueError(
                f"extraction 'sampled' needs the critics of algorithm 'iql', it is "
                f"{self.algorithm!r}: leave extraction at 'weighted'"
            )
        if self.refinements and self.samples < 4:
            raise ValueError(
                f"refinements {self.refinements} with samples {self.samples}: a spread needs at "
                f"least 4 samples"
            )
        return self

    @model_validator(mode="after")
    def _expectile_can_follow_its_schedule(self) -> TrainConfig:
        if self.expectile_schedule == "constant":
            return self
        if self.expectile_start > self.expectile:
            raise ValueError(
                f"expectile_start {self.expectile_start} is above expectile {self.expectile}: "
                f"a schedule goes from the first up to the second; lower expectile_start"
            )
        if self.expectile_schedule != "annealed" and self.held_out_fraction == 0:
            raise ValueError(
                f"expectile_schedule {self.expectile_schedule!r} looks at held-out losses and "
                f"held_out_fraction is 0: hold out some, or use 'annealed'"
            )
        return self


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), preset: str | None = None
) -> TrainConfig:
    """Returns the defaults, overlaid by preset, then YAML file, then `key=value` strings.

    Raises:
        ConfigError: naming the key, its value and the rule.
    """
    values: dict[str, Any] = {} if preset is None else _preset(preset)
    if path is not None:
        values.update(_read_mapping(path))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"override {override!r} has no '=': write key=value")
        values[key.strip()] = _parse_yaml(text, f"override {override!r}")
    return _validated(values, "training config" if path is None else str(path))


def _preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is not known: one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])


def with_samples(config: TrainConfig, samples: int) -> TrainConfig:
    """Returns the config with another number of actions that its policy chooses from.

    Raises:
        ConfigError: the policy chooses from none, or the number is out of range.
    """
    if config.extraction != "sampled":
        raise ConfigError(
            f"samples {samples} are asked for, but the run has extraction "
            f"{config.extraction!r}, whose policy draws none: train with extraction=sampled"
        )
    return _validated({**config.model_dump(), "samples": samples}, "samples")


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
