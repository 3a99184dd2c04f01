"""What a method is, as the loop sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sizer.errors import InputError

if TYPE_CHECKING:
    from sizer.gates import Gate
    from sizer.looks import Looks
    from sizer.net import Net
    from sizer.step_sizes import StepSize


@dataclass(frozen=True)
class Knob:
    """The one number that a study may sweep for a method, on a log scale, under the paper's name."""

    name: str
    low: float
    high: float


class Layer(Protocol):
    """A width group of a network, or the same one of k stacked networks."""

    @property
    def width(self) -> int | Sequence[int]:
        """How many units it has now; of each member."""

    def incoming(self) -> list[Tensor]:
        """What gives the units their outputs: (width, n) each, or (k, widest, n) with zeros behind a member's own."""


class Gating(Protocol):
    """The gates of a network, (width,) each, or of k stacked ones, (k, widest) each and closed behind their own."""

    @property
    def by_group(self) -> Mapping[Any, Gate]: ...
    def parameters(self) -> list[nn.Parameter]: ...


class Sized(Protocol):
    """What a method's formulas are written over: a ``Net``, or a ``Stack`` of k whose tensors lead with the member.

    Formulas go over the last dimensions, so that one text serves both; ``knob`` is a number, or (k,).
    """

    looks: Looks

    @property
    def groups(self) -> Sequence[Layer]: ...
    @property
    def gates(self) -> Gating | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def knob(self) -> float | Tensor: ...
    @property
    def epoch(self) -> int: ...
    @property
    def epochs(self) -> int | None: ...
    @property
    def steps(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int | None: ...
    def step_sizes(self, parameters: Iterable[Tensor]) -> dict[Tensor, StepSize]: ...


def misfit(method: type[Method], graph: bool) -> str:
    """Why a method cannot have a graph, or a network that is none; empty where it can."""
    if method.takes == ("layers" if graph else "graph"):
        needs, has = ("layers", "a graph has none") if graph else ("a graph", "this network has layers")
        other = "growing, fixed" if graph else "the network 'graph', or sizer.graph.Graph.of(module)"
        return f"{method.name} needs {needs}, and {has}: take {other}" + (", or a layered network" if graph else "")
    return ""


class Method:
    """Sizes a network while it trains. Stateless but for settings: what belongs to a network stands in its ``Net``.

    Attributes:
        name: as in plans and on the command line.
        knob: the one knob, or None for a baseline.
        sizes: whether widths change.
        grows: whether a smaller knob lets a network grow that a larger one has made small.
        takes: networks that it may have: of ``layers``, a ``graph`` (``sizer.graph.Graph``), or ``any``.
        stacks: whether its formulas serve a ``Stack`` as well, so that it has packs (``sizer.packs``).
        settings: the constants that may be set, with their defaults.
        gate_rate: the gates' learning rate over that of the weights.
        weight_decay: L2 decay that the method asks of the optimiser.
        value: the knob's value; may be changed while training.
    """

    name: ClassVar[str]
    knob: ClassVar[Knob | None] = None
    sizes: ClassVar[bool] = True
    grows: ClassVar[bool] = False
    takes: ClassVar[str] = "layers"
    stacks: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Any]] = {}
    gate_rate: float = 1.0
    weight_decay: float = 0.0
    value: float = 0.0

    def __init__(self, value: float) -> None:
        self.set_knob(value)

    def set_knob(self, value: float) -> None:
        """Gives the knob another value, for the steps to come.

        Raises:
            InputError: there is no knob, or the value is not positive.
        """
        if self.knob is None:
            raise InputError(f"{self.name} has no knob to set, got {value}")
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{self.knob.name} must be a positive number, got {value}")
        self.value = value

    def check_epochs(self, epochs: int) -> None:
        """Whether a training of so many epochs reaches the method's sizing.

        Raises:
            InputError: it ends before; says from how many epochs on it does not.
        """

    def check_start(self, module: nn.Module) -> None:
        """Whether its settings bear the network that it is to start from.

        Raises:
            InputError: they do not.
        """

    def prepare(self, net: Net) -> None:
        """Inserts gates and first values."""

    def acts(self, net: Sized) -> bool:
        """Whether ``penalty`` and ``shrink`` do anything in the current epoch."""
        return self.sizes

    def penalty(self, net: Sized) -> Tensor:
        """What is added to the loss, summed over members; shape ()."""
        return torch.zeros((), device=net.device)

    def strength(self, net: Sized) -> float:
        """The share of the knob that acts after this step, from 0 to 1: a ramp."""
        return 1.0

    def shrink(self, net: Sized, strength: float | Tensor) -> None:
        """The proximal step that follows each optimiser step, and removes nothing.

        Args:
            net: the network or the stack.
            strength: what ``strength`` gave; on a GPU a tensor of shape (), so that the step can be recorded.
        """

    def look(self, net: Sized) -> Tensor | None:
        """Once a step: whether units are to be removed now, bool of shape () or (k,); None at most steps."""
        return None

    def remove(self, net: Net) -> None:
        """Removes what ``look`` has found."""

    def after_step(self, net: Net) -> None:
        """What follows each optimiser step: proximal steps, removal on the way."""

    def before_epoch(self, net: Net) -> None:
        """Growth."""

    def after_epoch(self, net: Net) -> None:
        """Removal."""

    def finish(self, net: Net) -> None:
        """Leaves an ordinary dense module with the same outputs."""
        if net.gates is not None:
            net.gates.remove()
            net.gates = None
