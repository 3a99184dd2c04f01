"""A sized network in a folder: widths as JSON, weights as safetensors; and back to an ordinary nn.Module."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sizer import networks, own_network, usercode
from sizer.checkpoint import load_tensors, save_tensors
from sizer.errors import InputError

FORMAT = 1
JSON = "architecture.json"
WEIGHTS = "weights.safetensors"
_CHANGED = "has changed since this network was trained"


@dataclass
class Architecture:
    """What is needed to build a sized network again.

    Attributes:
        network: the family, one of ``sizer.networks.names()``, or the user's own ``package.module:function``.
        input_shape: one input, without the batch.
        outputs: classes or targets.
        task: ``classification`` or ``regression``.
        widths: layer -> units, in the order in which they run; of a graph, its neurons and synapses.
        preprocessing: how raw values become the network's inputs (and, in regression, its outputs raw values):
            ``(raw / divisor - mean) / std``.
        info: where it comes from: study, trial, epoch, accuracies; under ``training`` how it was trained; of a user's
            own network ``network_folder``, where its module lay, and ``network_sha256``, what it held.
    """

    network: str
    input_shape: tuple[int, ...]
    outputs: int
    task: str
    widths: dict[str, int]
    preprocessing: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with these widths and fresh weights.

        Raises:
            InputError: a user's own network whose module is neither where it lay, nor in the current folder, nor
                installed; or one that has changed so that it has no such widths.
        """
        if usercode.is_named(self.network):
            return own_network.build(self.code(), self.input_shape, self.outputs, self.widths)
        return networks.rebuild(self.network, self.input_shape, self.outputs, self.widths)

    def code(self) -> usercode.Code:
        """The source of a user's own network."""
        return usercode.find(self.network, str(self.info.get("network_folder", "")))

    def changed(self) -> bool:
        """Whether a user's own network has another source than it was trained with."""
        trained = self.info.get("network_sha256")
        return trained is not None and self.code().sha256 != trained

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
            found = cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"not an architecture of sizer: {type(error).__name__}: {error}") from error
        found._check()
        return found

    def _check(self) -> None:
        plain = {"network": str, "task": str, "widths": dict, "preprocessing": dict, "info": dict}
        for name, kind in plain.items():
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"not an architecture of sizer: {name} is {getattr(self, name)!r:.80}")
        sizes = {
            "outputs": self.outputs,
            **self.widths,
            **{f"input_shape[{k}]": n for k, n in enumerate(self.input_shape)},
        }
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise InputError(
                    f"not an architecture of sizer: {name} must be a whole number from 1, got {size!r:.80}"
                )


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
    fill(architecture, weights, "the weights")
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

    A network of one's own is built by its function again; a warning says where that has changed meanwhile.

    Raises:
        InputError: a file is missing, broken, or does not fit the other; or the module of a user's own network cannot
            be imported.
    """
    folder = Path(folder)
    architecture = read(folder)
    weights, _ = load_tensors(folder / WEIGHTS)
    module = fill(architecture, weights, str(folder / WEIGHTS)).eval()
    if architecture.changed():
        warnings.warn(f"{architecture.network} {_CHANGED}: its outputs may differ", stacklevel=2)
    return module


def read(folder: Path | str) -> Architecture:
    """Reads ``architecture.json`` alone.

    Raises:
        InputError: it is missing or broken.
    """
    folder = Path(folder)
    try:
        text = (folder / JSON).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {folder / JSON} ({error}); name a folder of 'sizer best --out'") from error
    return Architecture.from_json(text)


def fill(architecture: Architecture, weights: dict[str, Tensor], what: str) -> nn.Module:
    """Builds the network and gives it these weights; random states are left as they were.

    Args:
        architecture: the network.
        weights: its ``state_dict``.
        what: what a message calls the weights.

    Raises:
        InputError: they do not fit.
    """
    build: Callable[[], nn.Module] = architecture.build
    try:
        if not usercode.is_named(architecture.network):
            # Without memory first: whatever the file says, no more is built than the weights hold.
            with torch.device("meta"):
                _compare(build().state_dict(), weights)
        with torch.random.fork_rng([]):
            module = build()
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, OverflowError, ZeroDivisionError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        since = f" ({architecture.network} {_CHANGED})" if architecture.changed() else ""
        raise InputError(f"{what} do not fit the architecture{since}: {' '.join(lines)[:300]}") from error
    return module


def _compare(wanted: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Makes sure that the weights have the names and shapes that the network wants."""
    for name in wanted.keys() ^ weights.keys():
        raise RuntimeError(f"{name} is {'missing' if name in wanted else 'too much'}")
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            raise RuntimeError(f"{name} should be {tuple(tensor.shape)}, is {tuple(weights[name].shape)}")
