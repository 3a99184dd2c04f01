"""A run's state in one safetensors file, written whole or not at all, so that a run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer import layout
from sizer.errors import InputError
from sizer.net import Net
from sizer.snapshot import Snapshot


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any] | None = None) -> None:
    """Writes tensors and JSON notes to ``path`` atomically; its folder must be there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            part,
            {"sizer": json.dumps(notes or {})},
        )
        part.replace(path)
    except SafetensorError as error:  # a full or read-only disk, told as the system would
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what ``save_tensors`` wrote.

    Raises:
        InputError: the file is missing or not whole.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {}).get("sizer", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from error


def read_notes(path: Path) -> dict[str, Any]:
    """Reads the notes that ``save_tensors`` was given, and no tensor.

    Raises:
        InputError: the file is missing or not whole.
    """
    try:
        with safe_open(path, "pt") as file:
            notes: dict[str, Any] = json.loads((file.metadata() or {}).get("sizer", "{}"))
            return notes
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from error


@dataclass(frozen=True)
class KeptRun:
    """What ``load_run`` found beside the network.

    Attributes:
        states: the optimiser's state by parameter name, for ``restore_optimizer``.
        extra: the tensors that ``save_run`` was given, by name.
        notes: those that ``save_run`` was given.
    """

    states: dict[str, dict[str, Any]]
    extra: dict[str, Tensor]
    notes: dict[str, Any]


def save_run(
    path: Path, net: Net, optimizer: Optimizer, notes: dict[str, Any], extra: dict[str, Tensor] | None = None
) -> None:
    """Writes network, optimiser and where the run stands.

    Raises:
        InputError: the optimiser's state holds something else than tensors and numbers.
    """
    tensors = {f"module/{name}": value for name, value in net.module.state_dict().items()}
    tensors |= {f"extra/{name}": value for name, value in (extra or {}).items()}
    numbers: dict[str, dict[str, Any]] = {}
    for name, parameter in net.module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}/{key}"] = value
            elif value is None or isinstance(value, (bool, int, float)):
                numbers.setdefault(name, {})[key] = value
            else:
                raise InputError(
                    f"the state of {type(optimizer).__name__} cannot be kept ('{key}' of '{name}' is a "
                    f"{type(value).__name__}); train without a folder"
                )
    progress = {
        "widths": net.widths,
        "epoch": net.epoch,
        "steps": net.steps,
        "steps_per_epoch": net.steps_per_epoch,
        "collapsed": net.collapsed,
        "notes": net.notes,
        "snapshot": None,
    }
    if net.snapshot is not None:
        progress["snapshot"] = net.snapshot.notes()
        tensors |= {f"snapshot/{name}": value for name, value in net.snapshot.tensors.items()}
    save_tensors(path, tensors, {**notes, "net": progress, "optimizer": numbers})


def load_run(path: Path, net: Net) -> KeptRun:
    """Brings a freshly attached network to the state in ``path``."""
    tensors, notes = load_tensors(path)
    progress = notes["net"]
    net.resize_to(progress["widths"])
    net.module.load_state_dict({n[7:]: value for n, value in tensors.items() if n.startswith("module/")})
    net.epoch, net.steps = progress["epoch"], progress["steps"]
    net.steps_per_epoch, net.collapsed = progress["steps_per_epoch"], progress["collapsed"]
    net.notes = progress.get("notes", {})
    if progress.get("snapshot") is not None:
        device = next(net.module.parameters()).device
        held = {n[9:]: value.to(device) for n, value in tensors.items() if n.startswith("snapshot/")}
        net.snapshot = Snapshot.of(progress["snapshot"], held)
    states: dict[str, dict[str, Any]] = {name: dict(state) for name, state in notes.get("optimizer", {}).items()}
    for full, value in tensors.items():
        if full.startswith("optimizer/"):
            _, name, key = full.split("/")
            states.setdefault(name, {})[key] = value
    extra = {n[6:]: value for n, value in tensors.items() if n.startswith("extra/")}
    return KeptRun(states, extra, notes)


def restore_optimizer(
    optimizer: Optimizer,
    module: nn.Module,
    states: dict[str, dict[str, Any]],
    groups: Sequence[dict[str, Any]] = (),
) -> None:
    """Gives the optimiser the state that it had, and its parameter groups the options they had, where given."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    packed = optimizer.state_dict()
    for held, listed in zip(optimizer.param_groups, packed["param_groups"], strict=True):
        for parameter, at in zip(held["params"], listed["params"], strict=True):
            if names.get(id(parameter)) in states:
                kept = states[names[id(parameter)]]
                packed["state"][at] = {key: _beside(value, parameter) for key, value in kept.items()}
    for listed, options in zip(packed["param_groups"], groups, strict=False):
        listed.update(options)
    optimizer.load_state_dict(packed)


def _beside(value: Any, parameter: Tensor) -> Any:
    return layout.like(value, parameter) if isinstance(value, Tensor) and value.dim() == parameter.dim() else value


def _not_whole(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a whole safetensors file ({error}); delete it and train again")
