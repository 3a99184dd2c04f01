"""A sized network in a folder: widths as JSON, weights as safetensors; and back to an ordinary nn.Module."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sizer import networks
from sizer.checkpoint import load_tensors, save_tensors
from sizer.errors import InputError

FORMAT = 1
JSON = "architecture.json"
WEIGHTS = "weights.safetensors"


@dataclass
class Architecture:
    """What is needed to build a sized network again.

    Attributes:
        network: the family, one of ``sizer.networks.names()``.
        input_shape: one input, without the batch.
        outputs: classes or targets.
        task: ``classification`` or ``regression``.
        widths: layer -> units, in the order in which they run.
        preprocessing: how raw values become the network's inputs (and, in regression, its outputs raw values):
            ``(raw / divisor - mean) / std``.
        info: where it comes from: study, trial, epoch, accuracies.
    """

    network: str
    input_shape: tuple[int, ...]
    outputs: int
    task: str
    widths: dict[str, int]
    preprocessing: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with these widths and fresh weights."""
        return networks.build(self.network, self.input_shape, self.outputs, list(self.widths.values()))

    def to_json(self) -> str:
        """Text that ``from_json`` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Reads what ``to_json`` wrote.

        Raises:
            InputError: the text is not that of an architecture, or of a newer format.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise InputError(f"the architecture's format is not {FORMAT}; use the version that wrote it")
            fields["input_shape"] = tuple(fields["input_shape"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not an architecture of sizer: {type(error).__name__}: {error}") from error


def save(folder: Path | str, architecture: Architecture, weights: dict[str, Tensor]) -> None:
    """Writes ``architecture.json`` and ``weights.safetensors``; the folder is made if need be.

    Args:
        folder: where to.
        architecture: the widths.
        weights: the ``state_dict`` of the plain network; it must fit the widths.

    Raises:
        InputError: the weights do not fit; nothing is written.
    """
    folder = Path(folder)
    _fill(architecture, weights, "the weights")
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, weights)
    part = folder / f".{JSON}.{os.getpid()}.part"
    try:
        part.write_text(architecture.to_json())
        part.replace(folder / JSON)
    finally:
        part.unlink(missing_ok=True)


def load(folder: Path | str) -> nn.Module:
    """Gives back the network that ``save`` or ``sizer best --out`` wrote: a plain module in evaluation mode.

    Raises:
        InputError: a file is missing, broken, or does not fit the other.
    """
    folder = Path(folder)
    try:
        text = (folder / JSON).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {folder / JSON} ({error}); name a folder of 'sizer best --out'") from error
    weights, _ = load_tensors(folder / WEIGHTS)
    return _fill(Architecture.from_json(text), weights, str(folder / WEIGHTS)).eval()


def _fill(architecture: Architecture, weights: dict[str, Tensor], what: str) -> nn.Module:
    build: Callable[[], nn.Module] = architecture.build
    with torch.random.fork_rng([]):
        module = build()
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(f"{what} do not fit the architecture: {' '.join(lines)[:300]}") from error
    return module
