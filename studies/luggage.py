"""What trials of a user's own functions need, in the folder that every node sees: code as text, data as tensors.

The network's function runs in every worker, so its source goes there. The data's function runs once, in the driver:
what it reads need not lie on the other nodes, and all trials train on the same rows even if it draws them.
"""

from __future__ import annotations

import shutil
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from sizer.checkpoint import load_tensors, save_tensors
from sizer.datasets import PARTS, Data
from sizer.usercode import Code
from studies.database import Database
from studies.plan import Plan

_TENSORS = tuple(f"{kind}_{part}" for part in PARTS for kind in ("x", "y"))


def pack(plan: Plan, data: Data, database: Database) -> dict[str, str]:
    """Writes what the workers need of the user's functions.

    Args:
        plan: The evaluation.
        data: Its data.
        database: In whose folder it is written.

    Returns:
        Field -> file, for the trials' descriptions: `code`, of the network's function, and `tensors`.
    """
    folder = luggage(plan, database)
    packed = {}
    if (code := plan.code("network")) is not None:
        packed["code"] = folder / f"{code.sha256}.json"
        folder.mkdir(parents=True, exist_ok=True)
        packed["code"].write_text(code.to_json(), encoding="utf-8")
    if (code := plan.code("data")) is not None:
        packed["tensors"] = folder / f"{code.sha256}.safetensors"
        notes = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in _TENSORS}
        save_tensors(packed["tensors"], {name: getattr(data, name) for name in _TENSORS}, notes)
    return {field: str(path) for field, path in packed.items()}


def unpack(plan: Plan, database: Database) -> None:
    """Removes what `pack` wrote."""
    shutil.rmtree(luggage(plan, database), ignore_errors=True)


def luggage(plan: Plan, database: Database) -> Path:
    """The folder that `pack` writes to."""
    return database.runs / f"{plan.name.replace('/', '+')}.own"


@lru_cache(maxsize=8)
def code_of(path: str) -> Code:
    """The user's code in a file of `pack`; read once a process."""
    return Code.from_json(Path(path).read_text(encoding="utf-8"))


def data_of(path: str) -> Data:
    """The data in a file of `pack`."""
    tensors, notes = load_tensors(Path(path))
    fields: dict[str, Any] = {**notes, **tensors, "input_shape": tuple(notes["input_shape"])}
    return Data(**fields)
