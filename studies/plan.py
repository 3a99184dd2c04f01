"""An evaluation and its arms: read from TOML or built in Python, checked before anything runs.

    plan = Plan(name="mine", data="digits", network="mlp", epochs=20, trials=10,
                arms={"shrinknets": {"lambda": {"low": 1e-5, "high": 1e-2}}})

Each arm is one Optuna study, named `PLAN/ARM`. A sizing arm sweeps its method's knob and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from torch import nn

from sizer import datasets, methods, networks, own_network, usercode
from sizer.datasets import Data
from sizer.errors import InputError, unknown
from studies import checks, presets

_KNOBS = {kind.knob.name for kind in map(methods.method_class, methods.names()) if kind.knob}
_NO_SWEEP = {"knob", "settings", "enqueue"}
_Rate = Annotated[float, Field(gt=0)]
_Width = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Range(_Strict):
    """Where a value is drawn from: low <= value <= high, both positive.

    Attributes:
        low: The smallest value.
        high: The largest value.
        log: Uniform in the logarithm (True) or in the value itself.
    """

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    log: bool = True

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got low={self.low:g}, high={self.high:g}")
        return self


class Arm(_Strict):
    """One method (or baseline) of an evaluation: what its study draws, and where it differs from the plan.

    Attributes:
        method: A name of `sizer.methods.names()`; the arm's own name unless given.
        knob: The range of the method's knob, written under the knob's own name (`lambda`, `alpha`).
        settings: Keyword settings of the method, one value each.
        enqueue: Points that come before the sampler's own. In a sizing arm numbers; in a baseline tables such
            as `{widths = [300, 100], weight_decay = 1e-4}`.
        widths: Baselines: the range of every layer's width, or one a layer.
        depth: Baselines: the range of the number of hidden layers, where the network leaves it free.
        weight_decay: Baselines with an L2 penalty: its range.
        learning_rate, epochs, batch_size, optimizer, sampler: Override the plan's, for this arm only.
    """

    method: str
    knob: Range | None = None
    settings: dict[str, bool | int | float | str] = {}
    enqueue: list[Annotated[float, Field(gt=0)] | dict[str, Any]] = []
    widths: Range | dict[str, Range] | None = None
    depth: Range | None = None
    weight_decay: Range | None = None
    learning_rate: _Rate | None = None
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    optimizer: str | None = None
    sampler: str | None = None

    @property
    def knob_name(self) -> str | None:
        """The name of the method's knob; None for a baseline."""
        knob = methods.method_class(self.method).knob
        return knob.name if knob else None

    @property
    def sizes(self) -> bool:
        """Whether the arm's method finds widths itself."""
        return methods.method_class(self.method).sizes


class Plan(_Strict):
    """One evaluation: several arms over the same data, network, epochs and seeds.

    Attributes:
        name: The evaluation's name; may hold one cell, `shrinknets-search/mlp-mnist`.
        data: A name of `sizer.datasets.names()`, the path of an .npz file, or one's own `package.module:function`,
            called as `sizer.datasets.load` says.
        network: A name of `sizer.networks.names()`, or one's own `package.module:function`, called as
            `function(input_shape, outputs)`; it gives the network that the sizing arms start from.
        widths: The widths that the sizing arms start from; the network's own defaults unless given.
        epochs: Epochs of every trial.
        trials: Trials of every arm.
        seed: Trial k of every arm trains with seed + k; the validation split is drawn from `seed`.
        validation: The share of the training set held out to choose by, strictly between 0 and 1.
        sampler: One of random, grid, qmc, tpe, gp.

    Raises:
        InputError: A value is wrong; the message names the field, the value and what would be right.
    """

    name: str
    description: str = ""
    data: str
    network: str
    widths: list[_Width] | None = Field(default=None, min_length=1)
    epochs: int = Field(ge=1)
    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: _Rate = 1e-3
    optimizer: str = "adam"
    validation: float = Field(default=0.2, gt=0, lt=1)
    sampler: str = "random"
    arms: dict[str, Arm] = Field(min_length=1)
    # What the user's own functions are is settled once: their files may be edited while a sweep runs.
    _codes: dict[str, usercode.Code] = PrivateAttr(default_factory=dict)
    _widths: dict[str, int] = PrivateAttr(default_factory=dict)
    _data: Data | None = PrivateAttr(default=None)

    def __init__(self, **values: Any) -> None:
        named = _named_arms(values)
        try:
            super().__init__(**named)
        except ValidationError as error:
            raise _one_line(error, named) from None
        for field in ("network", "data"):
            if usercode.is_named(getattr(self, field)):
                self._codes[field] = usercode.find(getattr(self, field))
                self._codes[field].function()
        checks.check(self)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not all(re.match(checks.NAME, part) for part in name.split("/")):
            raise ValueError("must be letters, digits, '.', '_' or '-'")
        return name

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
            self._data = self.read_data()
            self._widths = own_network.widths_of(self._codes["network"], self._data.input_shape, self._data.outputs)
        return self._widths

    def code(self, field: str) -> usercode.Code | None:
        """The source of the user's own function for `network` or `data`; None where a name of ours stands there."""
        return self._codes.get(field)

    def read_data(self) -> Data:
        """Gives the data, split and standardised; read anew, unless it was needed to check a network of one's own."""
        held, self._data = self._data, None
        return held or datasets.load(self.data, validation=self.validation, seed=self.seed)

    def build(self, data: Data, widths: list[int] | None) -> nn.Module:
        """The network with fresh weights for this data; `widths` as `studies.search.Point` has them."""
        return build(self._codes.get("network") or self.network, data, widths)

    def setting(self, arm: str, field: str) -> Any:
        """The value of `field` that holds for `arm`: its own, else the plan's."""
        own = getattr(self.arms[arm], field)
        return getattr(self, field) if own is None else own

    def spec(self) -> dict[str, Any]:
        """The plan as plain JSON values; knobs stand under their own names, files and functions with their SHA-256."""
        values = self.model_dump(exclude_none=True)
        for name, arm in self.arms.items():
            entry = values["arms"][name]
            if "knob" in entry:
                entry[arm.knob_name] = entry.pop("knob")
        if Path(self.data).suffix == ".npz":
            values["data_sha256"] = _sha256(self.data, Path(self.data).stat().st_mtime_ns)
        return values | {f"{field}_sha256": code.sha256 for field, code in self._codes.items()}


def build(network: str | usercode.Code, data: Data, widths: list[int] | None) -> nn.Module:
    """A network of ours, by its name, or of the user's code, with fresh weights for this data."""
    if isinstance(network, usercode.Code):
        return own_network.build(network, data.input_shape, data.outputs, widths)
    return networks.build(network, data.input_shape, data.outputs, widths)


def study_name(plan: str, arm: str) -> str:
    """The name of the Optuna study of an arm: `PLAN/ARM`."""
    return f"{plan}/{arm}"


def read_plan(source: str | Path, overrides: Mapping[str, Any] | None = None) -> list[Plan]:
    """Reads an evaluation, or several where the source has cells.

    Args:
        source: The name of a preset, `PRESET/CELL`, or the path of a .toml file.
        overrides: Values for `trials`, `epochs`, `seed`, `name`, `data` that win over the file's; None is ignored.

    Returns:
        One plan a cell; one plan where there are no cells.

    Raises:
        InputError: No such preset, cell or file, or a value in it is wrong.
    """
    values, base, cell = _load(str(source))
    cells = values.pop("cells", {})
    if cell is not None and cell not in cells:
        raise unknown(f"cell of {values.get('name', source)}", cell, cells)
    chosen = {cell: cells[cell]} if cell is not None else cells
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if not chosen:
        return [_plan(values, {}, given, base, None)]
    return [_plan(values, own, given, base, name) for name, own in chosen.items()]


def _load(source: str) -> tuple[dict[str, Any], Path, str | None]:
    stem, _, cell = source.partition(".toml/")
    if cell:
        source = f"{stem}.toml"
    if source.endswith(".toml"):
        path = Path(source)
        if not path.is_file():
            raise InputError(f"no plan at {source}: name a .toml file or a preset ({', '.join(presets.names())})")
        text, base = path.read_text(encoding="utf-8"), path.resolve().parent
    else:
        name, _, cell = source.partition("/")
        if name not in presets.names():
            raise unknown("preset", name, presets.names())
        text, base = presets.text(name), Path.cwd()
    try:
        return tomllib.loads(text), base, cell or None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not TOML: {error}") from None


def _plan(
    values: Mapping[str, Any], own: Mapping[str, Any], given: Mapping[str, Any], base: Path, cell: str | None
) -> Plan:
    merged = {**values, **{key: value for key, value in own.items() if key != "arms"}, **given}
    arms = {name: dict(arm) for name, arm in values.get("arms", {}).items()}
    for name, arm in own.get("arms", {}).items():
        arms[name] = {**arms.get(name, {}), **arm}
    if "epochs" in given:
        arms = {name: {key: value for key, value in arm.items() if key != "epochs"} for name, arm in arms.items()}
    if cell is not None:
        merged["name"] = f"{merged.get('name', '')}/{cell}"
    data = merged.get("data")
    if any(usercode.is_named(str(merged.get(field, ""))) for field in ("network", "data")):
        usercode.look_first(base)
    if isinstance(data, str | Path) and str(data).endswith(".npz"):
        folder = Path.cwd() if "data" in given else base
        merged["data"] = str((folder / Path(data).expanduser()).resolve())
    return Plan(**{**merged, "arms": arms})


def _named_arms(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gives each arm its method's name and moves the knob's range from the knob's own name to `knob`."""
    arms = values.get("arms")
    if not isinstance(arms, Mapping):
        return dict(values)
    named: dict[str, Any] = {}
    for name, arm in arms.items():
        if not isinstance(arm, Mapping):
            named[name] = arm
            continue
        method = arm.get("method", name)
        if method not in methods.names():
            raise unknown("method", str(method), methods.names())
        entry = {**arm, "method": method}
        knob = methods.method_class(method).knob
        if knob is not None:
            entry["knob"] = entry.pop(knob.name, entry.get("knob", {"low": knob.low, "high": knob.high}))
            if not isinstance(entry["knob"], Mapping | Range):
                raise InputError(
                    f"arms.{name}.{knob.name} must be a range such as {{low = {knob.low:g}, high = {knob.high:g}}},"
                    f" got {entry['knob']!r}; single points go into enqueue"
                )
            settings = arm.get("settings")
            swept = {**entry, **(settings if isinstance(settings, Mapping) else {})}
            for field, value in swept.items():
                known = field in {*Arm.model_fields, *_KNOBS} or field not in entry
                if known and isinstance(value, Mapping | Range | list) and field not in _NO_SWEEP:
                    raise InputError(
                        f"arms.{name}.{field}: a sizing arm sweeps {knob.name} and nothing else, got {value!r};"
                        " give one value (the widths it starts from stand at the top of the plan)"
                    )
        named[name] = entry
    return {**values, "arms": named}


def _one_line(error: ValidationError, values: Mapping[str, Any]) -> InputError:
    """The first complaint of pydantic as one line: the field, what would be right, the value."""
    first = error.errors()[0]
    # A union adds its members' type names to the location; they mean nothing to whoever wrote the plan.
    parts = [str(part) for part in first["loc"] if str(part) not in {"Range", "dict[str,Range]", "float"}]
    parts = [part for part in parts if not part.startswith(("dict[", "constrained"))] or ["plan"]
    knob = None
    if parts[0] == "arms" and len(parts) > 2:
        knob = methods.method_class(values["arms"][parts[1]]["method"]).knob
        parts[2] = knob.name if knob and parts[2] == "knob" else parts[2]
    where = ".".join(parts)
    if first["type"] == "extra_forbidden":
        own = [*(field for field in Arm.model_fields if field != "knob"), *([knob.name] if knob else [])]
        fields: Iterable[str] = own if parts[0] == "arms" and len(parts) == 3 else Plan.model_fields
        fields = Range.model_fields if len(parts) > 3 else fields
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
    """What differs between two `Plan.spec()`, as `field: was X, now Y`; trials and description may differ."""
    lines: list[str] = []
    files = all(str(spec.get("data")).endswith(".npz") for spec in (before, now))
    moved = files and before.get("data_sha256") == now.get("data_sha256")
    for key in dict.fromkeys([*before, *now]):
        if not prefix and (key in {"trials", "description"} or (key == "data" and moved)):
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
