"""How the members of a pack take their steps: in stacks, or each by its own module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer import fused
from sizer.batches import Resident
from sizer.chain import WEIGHTED, chain_of
from sizer.errors import InputError
from sizer.grouping import grouped
from sizer.net import Net
from sizer.objectives import Accuracy
from sizer.recorded import Recorded
from sizer.run import Measures, Training
from sizer.stack import Stack, hits_of
from sizer.stepper import OptimizerMaker

if TYPE_CHECKING:
    from sizer.packs import Member

OVERHEAD = {"cpu": 60_000.0, "cuda": 10_000_000.0}
"""What a step of one more stack costs beside its arithmetic, in parameters of dense layers at batches of 100 or so."""

Owning = Callable[["Member"], AbstractContextManager[None]]
"""member -> a context in which what fails is its own failure."""


class Seat:
    """A member's place in a pack: its training, and its own stream of random numbers.

    Attributes:
        generator: its random numbers while it is in a stack.
    """

    def __init__(self, member: Member, training: Training, device: torch.device) -> None:
        self.member = member
        self.training = training
        self.generator = torch.Generator(device)
        self._cuda = device if device.type == "cuda" else None
        self._state = self._get()
        self._can_stack: bool | None = None

    @property
    def net(self) -> Net:
        return self.training.net

    @property
    def part(self) -> Resident:
        part = self.training.train_part
        assert isinstance(part, Resident)
        return part

    @property
    def can_stack(self) -> bool:
        """Whether its network is a chain that is trained as ``Stack`` trains: on classes, in float32."""
        if self._can_stack is None:
            passes = self.training.passes
            plain = isinstance(passes.objective.score(), Accuracy) and not passes.forward.lower
            labels = [part.y for part in self.training.parts.values() if isinstance(part, Resident)]
            each = all(y.dim() == 1 and bool((y >= 0).all()) for y in labels)  # negative ones would not count
            self._can_stack = plain and each and chain_of(self.net.module) is not None
            if self._can_stack:
                try:
                    Stack([self.net], [self.training.stepper.optimizer], [self.generator])
                except InputError:
                    self._can_stack = False
        return self._can_stack

    def begin_epoch(self) -> None:
        self.training.begin_epoch()
        self.order = self.part.order()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside, torch's random numbers are this member's."""
        torch.set_rng_state(self._state[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._state[1], self._cuda)
        try:
            yield
        finally:
            self._state = self._get()

    def lend(self) -> None:
        """Goes on with the random numbers in ``generator``, until ``take_back``."""
        self.generator.set_state(self._state[-1])

    def take_back(self) -> None:
        self._state = (*self._state[:-1], self.generator.get_state())

    def _get(self) -> tuple[Tensor, ...]:
        state = torch.get_rng_state()
        return (state,) if self._cuda is None else (state, torch.cuda.get_rng_state(self._cuda))


class Lane(Protocol):
    """Members that take their steps in one way, as long as they have these widths.

    Attributes:
        stale: whether they are to be arranged anew before the next step, as some have other widths.
    """

    stale: bool

    def open(self, at: int) -> None:
        """Steps follow, from this one of the epoch on, counted from 0."""

    def step(self) -> None: ...
    def close(self) -> None:
        """Brings the members to where they stand; no step follows until it is opened again."""

    def measured(self) -> dict[Seat, Measures]:
        """What can be measured of several members in one go, while it is closed."""


class Apart:
    """Each by its own module, one backward pass and one optimiser for all.

    Args:
        seats: at least one.
        its_own: puts a member's own failure to it.
    """

    def __init__(self, seats: list[Seat], its_own: Owning) -> None:
        self.seats = seats
        self.its_own = its_own
        self.stale = False

    def open(self, at: int) -> None:
        self.at, self.stale = at, False
        self.optimizer = together(seat.training.stepper.optimizer for seat in self.seats)

    def step(self) -> None:
        fused.clear(self.optimizer)
        aims: list[Tensor] = []
        stepping: list[tuple[Seat, int]] = []
        for seat in self.seats:
            with self.its_own(seat.member), seat.drawing():
                batch = seat.part.batch(seat.order, self.at)
                aims.append(seat.training.passes.aim(batch, len(batch[1])))
                stepping.append((seat, len(batch[1])))
        torch.autograd.backward(aims)
        fused.step(self.optimizer)
        going = []
        for seat, samples in stepping:
            resizes = seat.net.resizes
            with self.its_own(seat.member), seat.drawing():
                seat.training.passes.stepped(samples)
                going.append(seat)
            self.stale = self.stale or seat.net.resizes != resizes
        self.stale = self.stale or len(going) < len(self.seats)
        self.seats = going
        self.at += 1

    def close(self) -> None:
        """They stand where they are."""

    def measured(self) -> dict[Seat, Measures]:
        return {}


class Stacked:
    """In stacks.

    Args:
        groups: those of each stack.
        its_own: as ``Apart`` takes it.
    """

    def __init__(self, groups: list[list[Seat]], its_own: Owning) -> None:
        self.groups = groups
        self.its_own = its_own
        self.stale = False
        self.stacks = [_stack(seats) for seats in groups]
        part = groups[0][0].part
        assert part.batch_size is not None
        self._samples = [min(part.batch_size, len(part.x) - start) for start in part.starts]
        self.steps = Recorded(self.stacks, part.x, part.y, part.batch_size)

    def open(self, at: int) -> None:
        self._at, self.stale = at, False
        self._due: list[list[int]] = [[] for _ in self.groups]
        for stack in self.stacks:
            stack.refresh()
        for seats in self.groups:
            for seat in seats:
                seat.lend()
        self.steps.begin([torch.stack([seat.order for seat in seats]) for seats in self.groups], at)

    def step(self) -> None:
        self.steps.step()
        self._due = [stack.due() for stack in self.stacks]
        self.stale = any(self._due)

    def close(self) -> None:
        samples = sum(self._samples[self._at : self.steps.at])
        for stack, seats, due in zip(self.stacks, self.groups, self._due, strict=True):
            stack.write_back()
            for seat, total, hits in zip(seats, stack.total.tolist(), stack.hits.tolist(), strict=True):
                seat.take_back()
                with self.its_own(seat.member):
                    seat.training.passes.credit(total, hits, samples)
            for seat in [seats[at] for at in due]:
                with self.its_own(seat.member), seat.drawing():
                    seat.net.method.remove(seat.net)

    def measured(self) -> dict[Seat, Measures]:
        found: dict[Seat, Measures] = {}
        for stack, seats in zip(self.stacks, self.groups, strict=True):
            for seat in seats:
                found[seat] = {}
            for name in ("val", "test"):
                part = seats[0].training.parts[name]
                assert isinstance(part, Resident)
                for seat, loss, accuracy in zip(seats, *_measured(stack, part), strict=True):
                    found[seat][name] = loss, accuracy
        return found


def together(optimizers: Iterable[Optimizer]) -> Optimizer:
    """One optimiser for all that several of a kind train; what they keep of a parameter stays theirs."""
    several = list(optimizers)
    groups: dict[tuple[tuple[str, object], ...], list[nn.Parameter]] = {}
    for optimizer in several:
        for options in optimizer.param_groups:
            key = tuple(sorted((name, value) for name, value in options.items() if name != "params"))
            groups.setdefault(key, []).extend(options["params"])
    make: OptimizerMaker = type(several[0])
    made = make([{**dict(key), "params": held} for key, held in groups.items()])
    for optimizer in several:
        for options in optimizer.param_groups:
            for parameter in options["params"]:
                made.state[parameter] = optimizer.state[parameter]
    return made


def stacks_of(seats: Iterable[Seat], device: torch.device, wanted: bool | None) -> list[list[Seat]]:
    """Who is stacked with whom; those that are in no stack are faster, or can only be trained, by their own modules.

    On a GPU all are in some stack, and most of them in one. On a CPU convolutions of several members are slower as one,
    so that only networks of dense layers are stacked, of little different widths.

    Args:
        wanted: True also where it is slower; False for none.
    """
    if wanted is False:
        return []
    alike: dict[object, list[Seat]] = {}
    for seat in seats:
        if seat.can_stack and (wanted or device.type == "cuda" or not _is_convolutional(seat.net.module)):
            rates = tuple(options["lr"] for options in seat.training.stepper.optimizer.param_groups)
            alike.setdefault((seat.net.epoch, seat.net.steps, rates, tuple(seat.net.widths)), []).append(seat)
    found = []
    for several in alike.values():
        widths = [seat.net.widths for seat in several]
        groups = grouped(widths, _parameters_of(several[0].net), OVERHEAD[device.type])
        found += [
            [several[at] for at in group] for group in groups if wanted or len(group) > 1 or device.type == "cuda"
        ]
    return found


@torch.no_grad()
def _measured(stack: Stack, part: Resident) -> tuple[list[float], list[float]]:
    """Each member's mean loss and accuracy on a part, as ``Passes.measure`` gives them."""
    total, hits = torch.zeros_like(stack.total), torch.zeros_like(stack.hits)
    stack.training = False
    for (x,), y in part:
        outputs, targets = stack(x), y.expand(len(total), -1)
        total += stack.losses(outputs, targets).double() * len(y)
        hits += hits_of(outputs, targets)
    stack.training = True
    return (total / len(part.x)).tolist(), (hits.double() / len(part.x)).tolist()


def _stack(seats: list[Seat]) -> Stack:
    return Stack(
        [seat.net for seat in seats], [seat.training.stepper.optimizer for seat in seats],
        [seat.generator for seat in seats],
    )  # fmt: skip


def _is_convolutional(module: nn.Module) -> bool:
    return any(isinstance(child, nn.Conv2d) for child in module.modules())


def _parameters_of(net: Net) -> Callable[[Mapping[str, int]], int]:
    """widths -> the parameters of such a chain."""
    pieces = chain_of(net.module)
    assert pieces is not None
    layers = [(piece.path, piece.module.weight.shape) for piece in pieces if isinstance(piece.module, WEIGHTED)]

    def count(widths: Mapping[str, int]) -> int:
        total, before, reads = 0, 1, 1
        for path, shape in layers:
            units = widths.get(path, shape[0])
            columns = shape[1] // before * reads
            total += units * (columns * prod(shape[2:]) + 1)
            before, reads = shape[0], units
        return total

    return count
