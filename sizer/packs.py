"""Packs: several trainings as one program, each to the same end as alone.

A step of a pack is one step of each member, on a batch of its own: their losses have one backward pass, and one
optimiser moves all parameters. What that saves is what a step costs beside its arithmetic, which is most of it where
networks are small.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer import methods
from sizer.batches import Part, parts_of
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.history import Epoch
from sizer.methods.method import Method
from sizer.run import Run, Training, random_states
from sizer.stepper import OptimizerMaker
from sizer.training import dtype_of, made

NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
"""What torch says where it has no error of its own for it."""
STEPS, TURNS = 3, 3
"""Of a size that is tried."""
WORTH = 0.95
"""A larger pack is taken where a step takes so much of the time."""
LONG = 0.02
"""Seconds of a step on a CPU beside which what a pack saves is nothing."""

SOON = 10.0
"""Seconds of training in all that no larger pack is tried for."""


@dataclass(frozen=True, eq=False)
class Member:
    """One training of a pack; the fields are those of ``fit``.

    Attributes:
        build: gives the network, freshly built. It is called again where a pack halves itself and there is no folder.
        on_end: told once what ``fit`` would have returned, or raised.
    """

    build: Callable[[], nn.Module]
    method: Method
    seed: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    folder: Path | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    on_end: Callable[[Run | Exception], None] | None = None


def fit(
    members: Sequence[Member],
    data: Data,
    *,
    epochs: int,
    batch_size: int = 256,
    optimizer: str | OptimizerMaker = "adam",
    device: str | torch.device = "cpu",
    precision: str = "float32",
    after_epoch: Callable[[], Iterable[Member]] | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Run | Exception]:
    """Trains all members, each as ``sizer.fit`` would train it: on a CPU to the bit.

    A member that ends leaves; one that fails, collapses or diverges harms no other. Seconds are shared among those that
    train; the peak of memory is that of the whole process.

    Args:
        members: whose methods have packs (see ``names``).
        data: shared by all; each goes through it in an order of its own.
        epochs, batch_size, optimizer, device, precision: as ``sizer.fit`` takes them, for all.
        after_epoch: called when all that train have ended an epoch; gives those that are to leave, without an end.
        note: told what is worth a line: that a pack was too large for the memory, and went on as two halves.

    Returns:
        For each member what ``fit`` would have returned, or raised. One that left early has its run so far.

    Raises:
        InputError: an argument is out of range, or a method has no packs.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    for member in members:
        check(member.method)
    device = torch.device(device)
    ends: dict[Member, Run | Exception] = {}
    waiting = [list(members)]
    while waiting:
        some = waiting.pop(0)
        pack = _Pack(some, ends, device, after_epoch)
        try:
            with random_states(device):
                pack.run(data, epochs, batch_size, optimizer, precision)
        except Exception as error:
            if len(some) > 1 and not is_memory(error):
                raise
            if len(some) == 1:
                pack.leaves(some[0], error)
                continue
            left = [member for member in some if member not in ends]
            middle = (len(left) + 1) // 2
            waiting = [half for half in (left[:middle], left[middle:]) if half] + waiting
        else:
            continue
        # A network and its optimiser hold each other.
        del pack
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if note is not None:
            note(f"a pack of {len(some)} does not fit in memory: it goes on as packs of {len(waiting[0])}")
    return [ends[member] for member in members]


def best_size(
    member: Callable[[int], Member],
    data: Data,
    most: int,
    *,
    steps: float = math.inf,
    batch_size: int = 256,
    optimizer: str | OptimizerMaker = "adam",
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> int:
    """How many members train fastest at once, by some steps of packs of growing size.

    Args:
        member: number -> a member like those to come.
        data, batch_size, optimizer, device, precision: as ``fit`` takes them.
        most: the largest size to try.
        steps: how many are to come, of all members together; few seconds of them are not worth the trying.

    Returns:
        1 where steps are long, as those of wide networks on a CPU are: a pack saves what a step costs beside them.
    """
    device = torch.device(device)
    rows = slice(0, STEPS * batch_size)
    few = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows])
    pack = _Pack([], {}, device, None)
    size, fastest, trying = 1, math.inf, 1
    with random_states(device):
        while trying <= most:
            pack.seat([member(at) for at in range(len(pack.seats), trying)], few, 1, batch_size, optimizer, precision)
            seconds = pack.seconds_a_step() / trying
            if seconds > fastest * WORTH:
                break
            size, fastest = trying, seconds
            if trying == most or seconds * steps < SOON or (device.type == "cpu" and seconds > LONG):
                break
            trying = min(4 * trying, most)
    return size


def names() -> tuple[str, ...]:
    """The methods that have packs."""
    return tuple(name for name in methods.names() if methods.method_class(name).stacks)


def check(method: Method) -> None:
    """Whether a method has packs.

    Raises:
        InputError: it has none; says which have.
    """
    if not method.stacks:
        raise InputError(f"{method.name} has no packs: {', '.join(names())} have; train it with pack 1")


def is_memory(error: BaseException) -> bool:
    """Whether memory was too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))


class _Pack:
    """Members that train at once.

    Args:
        members: of the pack.
        ends: where what came of each is put.
        device: where they train.
        after_epoch: as ``fit`` takes it.
    """

    def __init__(
        self,
        members: Sequence[Member],
        ends: dict[Member, Run | Exception],
        device: torch.device,
        after_epoch: Callable[[], Iterable[Member]] | None,
    ) -> None:
        self.members = members
        self.ends = ends
        self.device = device
        self.after_epoch = after_epoch
        self.seats: list[_Seat] = []
        self.parts: dict[str, Part | None] | None = None

    def run(self, data: Data, epochs: int, batch_size: int, optimizer: str | OptimizerMaker, precision: str) -> None:
        self.seat(self.members, data, epochs, batch_size, optimizer, precision)
        while self._going():
            self._epoch()

    def seat(
        self,
        members: Sequence[Member],
        data: Data,
        epochs: int,
        batch_size: int,
        optimizer: str | OptimizerMaker,
        precision: str,
    ) -> None:
        """Builds the networks of members, and takes up what their folders keep."""
        for member in members:
            with self._its_own(member):
                module = member.build()
                if self.parts is None:
                    self.parts = parts_of(data, self.device, dtype_of(module), batch_size)
                training = made(
                    module, self.parts, member.method, epochs=epochs, learning_rate=member.learning_rate,
                    optimizer=optimizer, seed=member.seed, device=self.device, folder=member.folder,
                    on_epoch=member.on_epoch, weight_decay=member.weight_decay, precision=precision,
                )  # fmt: skip
                training.begin()
                self.seats.append(_Seat(member, training, self.device))

    def seconds_a_step(self) -> float:
        """The shortest of some epochs of all that are seated, over its steps; they are not measured, and do not end."""
        found = math.inf
        for _ in range(TURNS):
            for seat in self.seats:
                with seat.drawing():
                    seat.begin_epoch()
            began = time.perf_counter()
            steps = self._steps()
            found = min(found, (time.perf_counter() - began) / steps)
        return found

    def _going(self) -> list[_Seat]:
        """Those that train on; the others get up."""
        for seat in [seat for seat in self.seats if not seat.training.going]:
            self.leaves(seat.member, seat.training.so_far)
        return self.seats

    def leaves(self, member: Member, end: Run | Exception, *, told: bool = True) -> None:
        self.seats = [seat for seat in self.seats if seat.member is not member]
        self.ends[member] = end
        if isinstance(end, Run):
            end.net.module.zero_grad()
        if told and member.on_end is not None:
            member.on_end(end)

    @contextmanager
    def _its_own(self, member: Member) -> Iterator[None]:
        """What fails inside is the member's own failure, unless that is of memory which others take, too."""
        try:
            yield
        except Exception as error:
            if is_memory(error) and len(self.members) > 1:
                raise
            self.leaves(member, error)

    def _epoch(self) -> None:
        for seat in list(self.seats):
            with self._its_own(seat.member), seat.drawing():
                seat.begin_epoch()
        if self.seats:
            self._steps()
        for seat in list(self.seats):
            with self._its_own(seat.member), seat.drawing():
                seat.training.end_epoch()
        leaving = self.after_epoch() if self.after_epoch is not None else ()
        for member in leaving:
            for seat in [seat for seat in self.seats if seat.member is member]:
                self.leaves(member, seat.training.so_far, told=False)

    def _steps(self) -> int:
        """The steps of an epoch, of which all members have the same number; gives it."""
        began = time.perf_counter()
        taking_part = list(self.seats)
        together = Together(seat.training.stepper.optimizer for seat in self.seats)
        count = self.seats[0].training.train_part.batches
        assert count is not None
        for _ in range(count):
            together.zero_grad()
            aims: list[Tensor] = []
            for seat in list(self.seats):
                with self._its_own(seat.member), seat.drawing():
                    aims.append(seat.aim())
            torch.autograd.backward(aims)
            together.step()
            for seat in list(self.seats):
                resizes = seat.training.net.resizes
                with self._its_own(seat.member), seat.drawing():
                    seat.training.passes.stepped(seat.samples)
                together.stale = together.stale or seat.training.net.resizes != resizes
            if together.stale or len(self.seats) < len(aims):
                if not self.seats:
                    break
                together = Together(seat.training.stepper.optimizer for seat in self.seats)
        seconds = (time.perf_counter() - began) / len(taking_part)
        for seat in taking_part:
            seat.training.passes.seconds += seconds
        return count


class _Seat:
    """A member's place: its training, and its own stream of random numbers.

    Attributes:
        samples: of the last batch.
    """

    def __init__(self, member: Member, training: Training, device: torch.device) -> None:
        self.member = member
        self.training = training
        self.samples = 0
        self._cuda = device if device.type == "cuda" else None
        self._state = self._get()

    def begin_epoch(self) -> None:
        self.training.begin_epoch()
        self._batches = iter(self.training.train_part)

    def aim(self) -> Tensor:
        """The next batch's aim, as ``Passes.aim`` gives it."""
        batch = next(self._batches)
        self.samples = len(batch[1])
        return self.training.passes.aim(batch, self.samples)

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

    def _get(self) -> tuple[Tensor, ...]:
        state = torch.get_rng_state()
        return (state,) if self._cuda is None else (state, torch.cuda.get_rng_state(self._cuda))


class Together:
    """One optimiser for all that several optimisers of a kind train; what they keep of a parameter stays theirs.

    Attributes:
        stale: whether parameters have been replaced since.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        several = list(optimizers)
        groups: dict[tuple[tuple[str, object], ...], list[nn.Parameter]] = {}
        for optimizer in several:
            for options in optimizer.param_groups:
                key = tuple(sorted((name, value) for name, value in options.items() if name != "params"))
                groups.setdefault(key, []).extend(options["params"])
        self.stale = False
        make: OptimizerMaker = type(several[0])
        self.optimizer = make([{**dict(key), "params": held} for key, held in groups.items()])
        for optimizer in several:
            for options in optimizer.param_groups:
                for parameter in options["params"]:
                    self.optimizer.state[parameter] = optimizer.state[parameter]

    def zero_grad(self) -> None:
        for options in self.optimizer.param_groups:
            for parameter in options["params"]:
                parameter.grad = None

    def step(self) -> None:
        self.optimizer.step()
