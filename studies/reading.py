"""Reads plans from TOML: a preset's or the user's own, its cells, its scales, and what is said instead; writes them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizer import datasets, networks, usercode
from sizer.errors import InputError, unknown
from studies import presets
from studies.papers import KEY
from studies.plan import Plan

FULL = "full"
"""The scale of a plan as it stands, which for a preset is the paper's."""


def read_plan(source: str | Path, overrides: Mapping[str, Any] | None = None, scale: str = FULL) -> list[Plan]:
    """Reads an evaluation, or several where the source has cells.

    A plan may have scales beside its full one, `[scale.small]`: what stands there, and under `cells` there, wins over
    the rest, and the plan is called `NAME.small`.

    Args:
        source: The name of a preset, `PRESET/CELL`, or the path of a .toml file.
        overrides: Values for `trials`, `epochs`, `seed`, `name`, `data` that win over the file's; None is ignored.
        scale: `full`, or one that the source has.

    Returns:
        One plan a cell; one plan where there are no cells.

    Raises:
        InputError: No such preset, cell, scale or file, or a value in it is wrong.
    """
    text, base, cell = _load(str(source))
    return _plans(_parsed(text, str(source)), str(source), base, cell, overrides, scale)


def read_submitted(
    source: str, overrides: Mapping[str, Any] | None = None, scale: str = FULL, *, preset: bool = False
) -> list[Plan]:
    """Reads an evaluation that was sent from elsewhere: it may name nothing that lies on this machine.

    Args:
        source: The TOML itself; with `preset` the name of a preset, or `PRESET/CELL`.
        overrides: As `read_plan` takes them.
        scale: As `read_plan` takes it.
        preset: What `source` is.

    Returns:
        As `read_plan` does.

    Raises:
        InputError: As `read_plan` does; or the plan names a function or a file of one's own.
    """
    if not preset:
        return _plans(_parsed(source, "the plan"), "the plan", None, None, overrides, scale)
    name, _, cell = source.partition("/")
    return _plans(_parsed(_preset(name), name), name, None, cell or None, overrides, scale)


def read_text(source: str) -> str:
    """The text of a plan's .toml file.

    Raises:
        InputError: There is none.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no plan at {source}: name a .toml file or a preset ({', '.join(presets.names())})")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not TOML: it is not UTF-8 at byte {error.start}") from None


def written(plans: Sequence[Plan]) -> str:
    """The plans as TOML that gives them back: one as it is, several cells of one name as its cells."""
    if len(plans) == 1:
        return _table(_values(plans[0]))
    cells = {plan.name.rpartition("/")[2]: _values(plan) for plan in plans}
    for values in cells.values():
        del values["name"]
    return _table({"name": plans[0].name.rpartition("/")[0], "cells": cells})


def _plans(
    values: dict[str, Any],
    source: str,
    base: Path | None,
    cell: str | None,
    overrides: Mapping[str, Any] | None,
    scale: str,
) -> list[Plan]:
    """The plans of what a file says; `base` is the folder in which it names files, None where it may name none."""
    values.pop(KEY, None)
    cells, scales = _tables(values.pop("cells", {}), "cells"), _tables(values.pop("scale", {}), "scale")
    if cell is not None and cell not in cells:
        raise unknown(f"cell of {values.get('name', source)}", cell, cells)
    if scale != FULL and scale not in scales:
        raise unknown(f"scale of {values.get('name', source)}", scale, [FULL, *scales])
    scaled = dict(scales.get(scale, {}))
    own_scaled = _tables(scaled.pop("cells", {}), f"scale.{scale}.cells")
    if scale != FULL:
        scaled["name"] = f"{values.get('name', '')}.{scale}"
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    names = [cell] if cell is not None else list(cells)
    layers: dict[str | None, list[dict[str, Any]]] = {
        name: [values, cells[name], scaled, own_scaled.get(name, {})] for name in names
    }
    return [_plan(each, given, base, name) for name, each in (layers or {None: [values, scaled]}).items()]


def _load(source: str) -> tuple[str, Path, str | None]:
    stem, _, cell = source.partition(".toml/")
    if cell:
        source = f"{stem}.toml"
    if source.endswith(".toml"):
        return read_text(source), Path(source).resolve().parent, cell or None
    name, _, cell = source.partition("/")
    return _preset(name), Path.cwd(), cell or None


def _preset(name: str) -> str:
    if name not in presets.names():
        raise unknown("preset", name, presets.names())
    return presets.text(name)


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{source} is not TOML: {error}") from None


def _tables(value: Any, where: str) -> dict[str, dict[str, Any]]:
    """A table of tables, checked to be one."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a table, got {value!r:.80}")
    for name, inner in value.items():
        if not isinstance(inner, Mapping):
            raise InputError(f"{where}.{name} must be a table, got {inner!r:.80}")
    return {name: dict(inner) for name, inner in value.items()}


def _plan(layers: list[dict[str, Any]], given: Mapping[str, Any], base: Path | None, cell: str | None) -> Plan:
    """The plan of what stands in the layers, each over those before it, and is given, over all."""
    merged: dict[str, Any] = {}
    arms: dict[str, dict[str, Any]] = {}
    for layer in layers:
        merged |= {key: value for key, value in layer.items() if key != "arms"}
        for name, arm in _tables(layer.get("arms", {}), "arms").items():
            arms[name] = {**arms.get(name, {}), **arm}
    merged |= given
    if "epochs" in given:
        arms = {name: {key: value for key, value in arm.items() if key != "epochs"} for name, arm in arms.items()}
    if cell is not None:
        merged["name"] = f"{merged.get('name', '')}/{cell}"
    if base is None:
        _refuse_own(merged)
        return Plan(**{**merged, "arms": arms})
    data = merged.get("data")
    if any(usercode.is_named(str(merged.get(field, ""))) for field in ("network", "data")):
        usercode.look_first(base)
    file = datasets.file_of(str(data)) if isinstance(data, str | Path) else None
    if file is not None:
        folder = Path.cwd() if "data" in given else base
        merged["data"] = datasets.with_file(str(data), (folder / file.expanduser()).resolve())
    return Plan(**{**merged, "arms": arms})


def _refuse_own(values: Mapping[str, Any]) -> None:
    """Refuses what lies on somebody's machine before anything looks there."""
    for field, known in (("network", networks.names()), ("data", datasets.names())):
        given = values.get(field)
        if isinstance(given, str) and given not in known and (usercode.is_named(given) or datasets.file_of(given)):
            raise InputError(
                f"{field}: a plan that is sent to a server cannot name functions or files of one's own, got {given!r};"
                " `sizer sweep` and `sizer submit` run it"
            )


def _values(plan: Plan) -> dict[str, Any]:
    """What a TOML file would say: the arms without their stages, knobs under their own names."""
    values = plan.model_dump(exclude_none=True)
    for name, arm in plan.arms.items():
        if "knob" in values["arms"][name]:
            values["arms"][name][arm.knob_name] = values["arms"][name].pop("knob")
    return values


def _table(values: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    """A value on one line. Numbers and booleans are written as JSON writes them, and so are strings."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
