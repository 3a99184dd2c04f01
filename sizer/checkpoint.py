"""A run's state in one safetensors file, written whole or not at all, so that a run goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer.errors import InputError
from sizer.net import Net


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any] | None = None) -> None:
    """Writes tensors and JSON notes to ``path`` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
        raise InputError(f"{path} is not a whole safetensors file ({error}); delete it and train again") from error


def save_run(path: Path, net: Net, optimizer: Optimizer, notes: dict[str, Any]) -> None:
    """Writes network, optimiser and where the run stands."""
    tensors = {f"module/{name}": value for name, value in net.module.state_dict().items()}
    for name, parameter in net.module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    progress = {
        "widths": net.widths,
        "epoch": net.epoch,
        "steps": net.steps,
        "steps_per_epoch": net.steps_per_epoch,
        "collapsed": net.collapsed,
    }
    save_tensors(path, tensors, {**notes, "net": progress})


def load_run(path: Path, net: Net) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Brings a freshly attached network to the state in ``path``.

    Returns:
        The optimiser's state by parameter name, for ``restore_optimizer``, and the notes.
    """
    tensors, notes = load_tensors(path)
    progress = notes["net"]
    net.resize_to(progress["widths"])
    net.module.load_state_dict({n[7:]: value for n, value in tensors.items() if n.startswith("module/")})
    net.epoch, net.steps = progress["epoch"], progress["steps"]
    net.steps_per_epoch, net.collapsed = progress["steps_per_epoch"], progress["collapsed"]
    states: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        if full.startswith("optimizer/"):
            _, name, key = full.split("/")
            states.setdefault(name, {})[key] = value
    return states, notes


def restore_optimizer(optimizer: Optimizer, module: nn.Module, states: dict[str, dict[str, Tensor]]) -> None:
    """Gives the optimiser the state that it had."""
    parameters = dict(module.named_parameters())
    for name, state in states.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if value.dim() else value.clone() for key, value in state.items()
        }
