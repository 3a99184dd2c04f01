"""What the API takes and gives, field by field, for whoever reads /openapi.json."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studies.target import Target

NAME = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
LONGEST = 255
_OPTUNA = "Optuna's: COMPLETE, FAIL, RUNNING, WAITING or PRUNED"
State = Literal["starting", "running", "stopped", "done", "failed"]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line: the value given, what would be right, what to do.")


class Health(BaseModel):
    """Whether the service works."""

    status: Literal["ok", "degraded"] = Field(description="`ok` where all that it needs answers.")
    database: bool = Field(description="Whether the database answers.")
    version: str = Field(description="The version of sizer that answers.")


class ArmStanding(BaseModel):
    """An arm, or a stage of one, and its trials by state."""

    model_config = ConfigDict(from_attributes=True)

    arm: str
    stage: str = Field(description="What a stage looks for, `learning_rate` or `knob`; empty of an arm.")
    planned: int = Field(description="Trials that are to be.")
    complete: int = Field(description="Trials that ended with a result, collapsed ones among them.")
    collapsed: int = Field(description="Trials in which a layer emptied.")
    pruned: int = Field(description="Trials that a pruner ended early.")
    failed: int = Field(description="Trials that gave no network.")
    running: int = Field(description="Trials that a driver trains, or that a killed one left.")
    waiting: int = Field(description="Trials that are still to begin.")
    epochs: int = Field(description="Epochs written, of all trials.")


class Unusual(BaseModel):
    """A trial that failed or collapsed."""

    model_config = ConfigDict(from_attributes=True)

    arm: str
    number: int
    status: str = Field(description="`failed`, `error`, `diverged`, `collapsed`, ...")
    reason: str


class Standing(BaseModel):
    """Where an evaluation stands."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    state: State = Field(
        description="`starting`: submitted, not in the database yet; `running`; `stopped`: not done, and nobody runs"
        " it; `done`; `failed`: it ended before it began."
    )
    driver: str = Field(description="Who runs it, in words; of a failed one, why it failed.")
    data: str
    network: str
    arms: list[ArmStanding] = Field(description="Arms and their stages, in the order in which they run.")
    unusual: list[Unusual] = Field(description="Trials that failed or collapsed.")


class Listed(BaseModel):
    """An evaluation, in short."""

    name: str
    state: State
    driver: str = Field(description="Who runs it, in words.")
    planned: int = Field(description="Trials that are to be, of all arms and stages.")
    ended: int = Field(description="Trials that have ended, whatever with.")


class Driver(BaseModel):
    """Who runs an evaluation."""

    driver: str = Field(description="In words, such as `run by process 4711 on HOST since ...`.")


class Sized(BaseModel):
    """What an epoch's network is and scores, in trials and in history."""

    arm: str
    trial_id: int = Field(description="The trial, in the whole database.")
    number: int = Field(description="The trial, in its arm.")
    knob: float | None = Field(description="The method's one number; null of a baseline without one.")
    epoch: int | None = Field(description="Counts from 1; of a trial its best validation epoch.")
    val_accuracy: float | None
    test_accuracy: float | None
    val_loss: float | None
    test_loss: float | None
    parameters: int | None = Field(description="Weights and biases.")
    flops: int | None = Field(description="Of one sample's forward pass.")
    training_flops: int | None = Field(description="Spent on training since the trial began.")
    seconds: float | None = Field(description="Since the trial began.")
    peak_memory: int | None = Field(description="Bytes.")
    widths: dict[str, int] = Field(description="Layer -> units, in the order in which they run.")


class Trial(Sized):
    """A trial; its figures are those of its best validation epoch, and null where it has none."""

    method: str
    stage: str = Field(description="What a stage looks for; empty of an arm.")
    point: int = Field(description="Which point of the search; trials of several folds share one.")
    fold: int | None = Field(description="Which fold it is tested on, in cross-validation.")
    state: str = Field(description=_OPTUNA)
    status: str = Field(description="`complete`, `collapsed`, `diverged`, `error`, ...; empty while it runs.")
    reason: str = Field(description="Why it failed or collapsed.")
    knob_name: str = Field(description="`lambda`, `alpha`, ...; empty where there is none.")
    learning_rate: float | None
    seed: int | None
    units: int | None = Field(description="The sum of the widths.")
    epochs: int | None = Field(description="Epochs written.")
    tunes: int | None = Field(description="The number of the step of a path that it tunes; null of all others.")
    latency_ms: float | None = Field(description="Of the last network, where a target is a latency.")
    device: str
    notes: dict[str, Any] = Field(description="What the method noted, such as its rounds.")


class Epoch(Sized):
    """An epoch of a trial."""

    train_loss: float | None
    train_accuracy: float | None


class Found(Epoch):
    """An epoch of a complete trial, with what the trial says."""

    method: str
    knob_name: str = Field(description="`lambda`, `alpha`, ...; empty where there is none.")
    seed: int | None
    status: str = Field(description="`complete` or `collapsed`.")
    fold: int | None = Field(description="Which fold it is tested on, in cross-validation.")
    learning_rate: float | None
    units: int = Field(description="The sum of the widths.")


class Architecture(BaseModel):
    """A network's `architecture.json`: with the weights beside it, `sizer.load(FOLDER)` builds the network."""

    format: int = Field(description="The format's number.")
    network: str = Field(description="The family, or a function of one's own.")
    input_shape: list[int] = Field(description="One input, without the batch.")
    outputs: int = Field(description="Classes or targets.")
    task: str = Field(description="`classification` or `regression`.")
    widths: dict[str, int] = Field(description="Layer -> units, in the order in which they run.")
    preprocessing: dict[str, Any] = Field(description="How raw values become inputs: `(raw / divisor - mean) / std`.")
    info: dict[str, Any] = Field(description="Where it comes from: study, trial, epoch, scores, how it was trained.")


class Overrides(BaseModel):
    """What is said instead of the plan's own values."""

    model_config = ConfigDict(extra="forbid")

    trials: int | None = Field(default=None, ge=1, description="Trials of each arm.")
    epochs: int | None = Field(default=None, ge=1, description="Epochs of each trial.")
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="Seed of data split, draws and training.")
    name: str | None = Field(default=None, pattern=NAME, max_length=LONGEST, description="Another name.")
    target: Target | None = Field(default=None, description="Sizes that sizing arms look for.")


class Submission(BaseModel):
    """A plan to run: its TOML, or the name of a preset."""

    model_config = ConfigDict(extra="forbid")

    plan: str | None = Field(
        default=None,
        max_length=200_000,
        description="The plan as TOML. It may name no function or file of one's own: the server has none.",
    )
    preset: str | None = Field(default=None, description="`PRESET`, or `PRESET/CELL`, as `sizer presets` lists them.")
    scale: str = Field(default="full", description="`full`, or a scale that the plan has.")
    overrides: Overrides = Field(default_factory=Overrides)

    @model_validator(mode="after")
    def _one_of_them(self) -> Submission:
        if (self.plan is None) == (self.preset is None):
            raise ValueError("give one of plan (TOML text) and preset (a name)")
        return self


class Submitted(BaseModel):
    """A plan, and what has become of it."""

    name: str
    state: Literal["starting", "running", "done"] = Field(
        description="`starting`: by this request; `running`: somebody runs it; `done`: nothing is left to do."
    )


class Stopped(BaseModel):
    """Who was asked to stop."""

    asked: str = Field(description="In words, such as `process 4711 on HOST`. It ends within seconds.")


def repr_digest(content: bytes) -> str:
    """The SHA-256 of a content as the header `Repr-Digest` of RFC 9530 has it."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
