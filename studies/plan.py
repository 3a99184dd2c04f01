"""An evaluation and its arms: read from TOML or built in Python, checked before anything runs.

    plan = Plan(name="mine", data="digits", network="mlp", epochs=20, trials=10,
                arms={"shrinknets": {"lambda": {"low": 1e-5, "high": 1e-2}}})

Each arm is one Optuna study, named `PLAN/ARM`. A sizing arm sweeps its method's knob and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator
from torch import nn

from sizer import datasets, methods, networks, own_network, usercode
from sizer.datasets import Data, Whole
from sizer.errors import InputError, unknown
from studies import checks
from studies.arms import Arm, Range, Rate, Taken, Width, named, needed, planned, with_stages
from studies.path import Schedule
from studies.pruning import NONE, Pruner
from studies.strict import Strict
from studies.target import SIZE, Target

PATH = "path"
"""What stands for the sampler of an arm that walks."""
LEARNING = ("tpe", "gp")
"""Samplers that draw each trial by what the ones before it came to."""
MAY_DIFFER = frozenset({"trials", "target", "max_training_flops", "max_concurrent_trials", "description"})
"""Fields that say how far a sweep goes, and how fast, and not what its trials are."""
LONGEST_NAME = 150
"""Characters of a plan's name: files and studies are called after it, and an arm's name comes after it."""


class Plan(Strict):
    """One evaluation: several arms over the same data, network, epochs and seeds.

    Attributes:
        name: The evaluation's name; may hold one cell, `shrinknets-search/mlp-mnist`.
        data: A name of `sizer.datasets.names()`, the path of an .npz file, or one's own `package.module:function`,
            called as `sizer.datasets.load` says.
        network: A name of `sizer.networks.names()`, or one's own `package.module:function`, called as
            `function(input_shape, outputs)`; it gives the network that the sizing arms start from.
        widths: The widths that the sizing arms start from; the network's own defaults unless given.
        epochs: Epochs of every trial.
        trials: Trials of every arm; with `folds`, points of every arm, each of which is that many trials.
        folds: Cross-validation: training and test set are merged and parted so, and each point is trained once for
            each fold, which is then the test set.
        samples: At most so many training rows, of each class alike, and the same share of the test set; with folds, of
            both together.
        seed: Trial k of every arm trains with seed + k, or all with `seed` where they look for sizes; the validation
            split is drawn from `seed`.
        validation: The share of the training set held out to choose by, strictly between 0 and 1.
        sampler: One of random, grid, qmc, tpe, gp, or size, which sizing arms have where there is a target: see
            `studies.size_sampler`.
        schedule: Overridden by an arm's own; of sizing arms: see `studies.path`.
        target: Sizes that sizing arms look for; they ask for no more trials when each has its network. See
            `studies.target`.
        max_training_flops: What each arm may spend on training: once its trials have, it asks for no more.
        max_concurrent_trials: How many trials of an arm train at once, at most. With 1 whoever draws or prunes by what
            came before knows all of it, and the same plan gives the same trials again, on however many workers.
        precision: `float32` unless given, or `bfloat16`: outputs and loss under autocast, as `sizer.fit` has it.
        pruner: What ends trials of the baselines early, by validation accuracy: a name, or a table of a name and
            arguments; see `studies.pruning`.

    Raises:
        InputError: A value is wrong; the message names the field, the value and what would be right.
    """

    name: str
    description: str = ""
    data: str
    network: str
    widths: list[Width] | None = Field(default=None, min_length=1)
    epochs: int = Field(ge=1)
    trials: int = Field(ge=1)
    folds: int | None = Field(default=None, ge=2)
    samples: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: Rate = 1e-3
    optimizer: str = "adam"
    validation: float = Field(default=0.2, gt=0, lt=1)
    sampler: str = "random"
    precision: str | None = None
    schedule: Schedule | None = None
    target: Target | None = None
    max_training_flops: float | None = Field(default=None, gt=0)
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    pruner: Pruner | None = None
    arms: dict[str, Arm] = Field(min_length=1)
    # What the user's own functions are is settled once: their files may be edited while a sweep runs.
    _codes: dict[str, usercode.Code] = PrivateAttr(default_factory=dict)
    _widths: dict[str, int] = PrivateAttr(default_factory=dict)
    _whole: Whole | None = PrivateAttr(default=None)
    _all: dict[str, Arm] = PrivateAttr(default_factory=dict)
    _planned: dict[str, int] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        complete = named(values)
        try:
            super().__init__(**complete)
        except ValidationError as error:
            raise _one_line(error, complete) from None
        self._all = with_stages(self.arms)
        for field in ("network", "data"):
            if usercode.is_named(getattr(self, field)):
                self._codes[field] = usercode.find(getattr(self, field))
                self._codes[field].function()
        checks.check(self)
        spec = self.spec()
        self._planned = {name: planned(spec, name) for name in self.every}

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not all(re.fullmatch(checks.NAME, part) for part in name.split("/")):
            raise ValueError("must be letters, digits, '.', '_' or '-'")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"must have at most {LONGEST_NAME} characters")
        return name

    @field_validator("pruner")
    @classmethod
    def _no_pruner(cls, pruner: Pruner | None) -> Pruner | None:
        return None if pruner is not None and pruner.name == NONE else pruner

    @property
    def every(self) -> Mapping[str, Arm]:
        """The arms and their stages, each of which is an Optuna study, in the order in which they run."""
        return self._all

    def planned(self, arm: str) -> int:
        """How many trials an arm or a stage has."""
        return self._planned[arm]

    def only(self, arms: Sequence[str]) -> Plan:
        """The same plan, of which only some arms have trials, and those that they take something from.

        Raises:
            InputError: It has no such arm.
        """
        if strange := [arm for arm in arms if arm not in self.arms]:
            raise unknown(f"arm of {self.name}", strange[0], self.arms)
        wanted = {each for arm in arms for each in (arm, *needed(self.every, arm))}
        found = self.model_copy()
        found._planned = {arm: count if arm in wanted else 0 for arm, count in self._planned.items()}
        return found

    def fold(self, arm: str, number: int) -> int | None:
        """Which fold a trial is tested on; a stage looks at the first alone. None where there are none."""
        if self.folds is None:
            return None
        return 0 if self.every[arm].stage else number % self.folds

    def study_name(self, arm: str) -> str:
        """The name of an arm's Optuna study."""
        return study_name(self.name, arm)

    def layers(self, depth: int | None = None) -> tuple[str, ...]:
        """The resizable layers in the order they run, for `depth` or as many as the start widths say."""
        if "network" in self._codes:
            return tuple(self.start_widths())
        if depth is None and self.widths is not None:
            depth = len(self.widths)
        return networks.layers(self.network, depth)

    def start_widths(self) -> dict[str, int]:
        """Layer -> the width that sizing arms start from, in the order they run."""
        if "network" not in self._codes:
            widths = self.widths or networks.default_widths(self.network)
            return dict(zip(self.layers(), widths, strict=True))
        if not self._widths:
            self._whole = self.read()
            data = self.part(self._whole)
            self._widths = own_network.widths_of(self._codes["network"], data.input_shape, data.outputs)
        return self._widths

    def code(self, field: str) -> usercode.Code | None:
        """The source of the user's own function for `network` or `data`; None where a name of ours stands there."""
        return self._codes.get(field)

    def read(self) -> Whole:
        """Gives the data as it is read; anew, unless it was needed to check a network of one's own."""
        held, self._whole = self._whole, None
        return held or datasets.read(self.data)

    def part(self, whole: Whole) -> Data:
        """Gives the data split and standardised, with folds the first of them."""
        return datasets.part(whole, validation=self.validation, seed=self.seed, folds=self.folds, samples=self.samples)

    def read_data(self) -> Data:
        """Gives the data, read, split and standardised."""
        return self.part(self.read())

    def build(self, input_shape: tuple[int, ...], outputs: int, widths: list[int] | None) -> nn.Module:
        """The network with fresh weights for such data; `widths` as `studies.search.Point` has them."""
        return build(self._codes.get("network") or self.network, input_shape, outputs, widths)

    def setting(self, arm: str, field: str) -> Any:
        """The value of `field` that holds for `arm`: its own, else the plan's.

        Of a grid of rates, the first; of a range of them, its middle.
        """
        own = getattr(self.every[arm], field)
        if isinstance(own, list):
            return own[0]
        if isinstance(own, Range):
            return own.middle
        return getattr(self, field) if own is None else own

    def draws_by(self, arm: str) -> str:
        """What draws an arm's points: with a target, a sizing arm that names none looks for sizes."""
        found = self.every[arm]
        if self.path(arm) is not None:
            return PATH
        aims = self.target is not None and found.sizes and found.sampler is None and found.stage is None
        return SIZE if aims else str(self.setting(arm, "sampler"))

    @property
    def aiming(self) -> list[str]:
        """The arms that look for the sizes of the target, or come down to them."""
        return [name for name in self.arms if self.target is not None and self.draws_by(name) in (SIZE, PATH)]

    def path(self, arm: str) -> Schedule | None:
        """How an arm walks through its knob; None where its trials are independent."""
        found = self.every[arm]
        return (found.schedule or self.schedule) if found.sizes and found.stage is None else None

    def epochs_of(self, arm: str, number: int) -> tuple[int, int]:
        """The epochs of a trial, and how many of them, the last ones, settle."""
        path, epochs = self.path(arm), int(self.setting(arm, "epochs"))
        return (epochs, 0) if path is None else (path.sizing(number, epochs) + path.settle, path.settle)

    def seed_of(self, arm: str, number: int) -> int:
        """The seed that a trial trains with.

        One seed for all trials of a stage, as it compares, and of a search for sizes: sizes over the knob scatter by a
        half to a fifth of what they do over seeds (784-300-100-10, 12,000 images: 3 to 6 % against 4 to 14 %).
        """
        return self.seed + (0 if self.every[arm].stage or self.draws_by(arm) == SIZE else number)

    def reach(self, arm: Arm) -> Range:
        """The range that an arm's knob is drawn from: as far as a target may extend it."""
        assert arm.knob is not None
        return arm.knob if self.target is None or arm.stage else self.target.reach(arm.knob)

    def spec(self) -> dict[str, Any]:
        """The plan as plain JSON values; knobs stand under their own names, files and functions with their SHA-256."""
        values = self.model_dump(exclude_none=True)
        values["arms"] = {name: arm.model_dump(exclude_none=True) for name, arm in self.every.items()}
        for name, arm in self.every.items():
            entry = values["arms"][name]
            if "knob" in entry:
                entry[arm.knob_name] = entry.pop("knob")
        if (file := datasets.file_of(self.data)) is not None:
            values["data_sha256"] = _sha256(str(file), file.stat().st_mtime_ns)
        return values | {f"{field}_sha256": code.sha256 for field, code in self._codes.items()}


def build(
    network: str | usercode.Code, input_shape: tuple[int, ...], outputs: int, widths: list[int] | None
) -> nn.Module:
    """A network of ours, by its name, or of the user's code, with fresh weights for such data."""
    if isinstance(network, usercode.Code):
        return own_network.build(network, input_shape, outputs, widths)
    return networks.build(network, input_shape, outputs, widths)


def study_name(plan: str, arm: str) -> str:
    """The name of the Optuna study of an arm: `PLAN/ARM`."""
    return f"{plan}/{arm}"


_TAGS = {"Range", "Layers", "Taken", "float", "dict[str,Range]"}


def _one_line(error: ValidationError, values: Mapping[str, Any]) -> InputError:
    """The first complaint of pydantic as one line: the field, what would be right, the value."""
    every = error.errors()
    # Of a union's members, what was meant is the one that got furthest.
    same = [each for each in every if each["loc"][:3] == every[0]["loc"][:3]]
    first = max(same, key=lambda each: len(each["loc"]))
    # A union adds its members' type names to the location; they mean nothing to whoever wrote the plan.
    parts = [str(part) for part in first["loc"] if str(part) not in _TAGS]
    parts = [part for part in parts if not part.startswith(("dict[", "constrained", "list["))] or ["plan"]
    knob = None
    if parts[0] == "arms" and len(parts) > 2:
        knob = methods.method_class(values["arms"][parts[1]]["method"]).knob
        parts[2] = knob.name if knob and parts[2] == "knob" else parts[2]
    where = ".".join(parts)
    if first["type"] == "extra_forbidden":
        hidden = {"knob", "stage"}
        own = [*(field for field in Arm.model_fields if field not in hidden), *([knob.name] if knob else [])]
        fields: Iterable[str] = own if parts[0] == "arms" and len(parts) == 3 else Plan.model_fields
        if len(parts) > 3:
            fields = Taken.model_fields if "Taken" in first["loc"] else Range.model_fields
        wrong = unknown("field", where.rpartition(".")[2], fields)
        return InputError(f"{where}: {wrong}")
    if first["type"] == "missing":
        return InputError(f"{where} is missing from the plan")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[:1].lower() + message[1:]
    value = repr(first["input"])
    shown = "" if first["type"] == "value_error" and "got" in message else f", got {value[:80]}"
    return InputError(f"{where}: {message}{shown}")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two `Plan.spec()`, as `field: was X, now Y`; what is in `MAY_DIFFER` may differ."""
    lines: list[str] = []
    files = all(datasets.file_of(str(spec.get("data"))) is not None for spec in (before, now))
    moved = files and before.get("data_sha256") == now.get("data_sha256")
    for key in dict.fromkeys([*before, *now]):
        if not prefix and (key in MAY_DIFFER or (key == "data" and moved)):
            continue
        was, this = before.get(key, "not there"), now.get(key, "not there")
        if isinstance(was, Mapping) and isinstance(this, Mapping):
            lines += differences(was, this, f"{prefix}{key}.")
        elif was != this and not (prefix == "arms." and key not in before):
            lines.append(f"{prefix}{key}: was {_short(was)}, now {_short(this)}")
    return lines


def _short(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else str(value)


@cache
def _sha256(path: str, _changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
