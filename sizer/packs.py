"""Packs: several trainings as one program, each to the same end as alone.

A step of a pack is one step of each member, on a batch of its own. Members of like widths are stacked into one set of
tensors (``sizer.stack``) and stacked anew as they shrink; the others share one backward pass and one optimiser. What
that saves is what a step costs beside its arithmetic, which is most of it where networks are small.
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
from statistics import median

import torch
from torch import nn

from sizer import methods
from sizer.batches import Part, parts_of
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.history import Epoch
from sizer.lanes import Apart, Lane, Seat, Stacked, stacks_of
from sizer.methods.method import Method
from sizer.run import Measures, Run, random_states
from sizer.stepper import OptimizerMaker
from sizer.training import dtype_of, made

NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
"""What torch says where it has no error of its own for it."""
STEPS, TURNS = 8, 5
"""Of each of two sizes that are compared, in turn: a machine's pace changes from second to second."""
WORTH = 0.97
"""A larger pack is taken where a step takes so much of the time."""
LONG = 0.02
"""Seconds of a step on a CPU beside which what a pack saves is nothing."""

SOON = 3.0
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
    stacked: bool | None = None,
    after_epoch: Callable[[], Iterable[Member]] | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Run | Exception]:
    """Trains all members, each as ``sizer.fit`` would train it: on the same batches, from the same random numbers.

    Stacks add in another order, so that losses differ in the last digits, and final widths by a unit or so; without
    them a member is trained to the bit as alone (on a CPU). A member that ends leaves; one that fails, collapses or
    diverges harms no other. Seconds are shared among those that train; the peak of memory is that of the whole process.

    Args:
        members: whose methods have packs (see ``names``).
        data: shared by all; each goes through it in an order of its own.
        epochs, batch_size, optimizer, device, precision: as ``sizer.fit`` takes them, for all.
        stacked: whether to stack members that can be; by default where that is faster (see ``sizer.lanes``).
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
        pack = _Pack(some, ends, device, after_epoch, stacked)
        try:
            with random_states(device):
                pack.run(data, epochs, batch_size, optimizer, precision)
        except Exception as error:  # of any type: only that of memory is answered, others are raised again
            left = [member for member in some if member not in ends]
            if not left or (len(some) > 1 and not is_memory(error)):
                raise
            if len(some) == 1:
                pack.leaves(some[0], error)
                continue
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
    stacked: bool | None = None,
) -> int:
    """How many members train fastest at once, by some steps of packs of growing size.

    Args:
        member: number -> a member like those to come.
        data, batch_size, optimizer, device, precision, stacked: as ``fit`` takes them.
        most: the largest size to try.
        steps: how many are to come, of all members together; few seconds of them are not worth the trying.

    Returns:
        1 where steps are long, as those of wide networks on a CPU are: a pack saves what a step costs beside them.
    """
    device = torch.device(device)
    rows = slice(0, STEPS * batch_size)
    few = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows])
    pack = _Pack([], {}, device, None, stacked)
    size = 1
    with random_states(device):
        pack.seat([member(0)], few, 1, batch_size, optimizer, precision)
        seconds = pack.seconds_a_step(1)
        while size < most and seconds * steps >= SOON and (device.type == "cuda" or seconds <= LONG):
            larger = min(4 * size, most)
            pack.seat([member(at) for at in range(size, larger)], few, 1, batch_size, optimizer, precision)
            pairs = [(pack.seconds_a_step(size), pack.seconds_a_step(larger)) for _ in range(TURNS)]
            if median(long / short for short, long in pairs) > WORTH:
                break
            size, seconds = larger, min(long for _, long in pairs)
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
        after_epoch, stacked: as ``fit`` takes them.
    """

    def __init__(
        self,
        members: Sequence[Member],
        ends: dict[Member, Run | Exception],
        device: torch.device,
        after_epoch: Callable[[], Iterable[Member]] | None,
        stacked: bool | None,
    ) -> None:
        self.members = members
        self.ends = ends
        self.device = device
        self.after_epoch = after_epoch
        self.stacked = stacked
        self.seats: list[Seat] = []
        self.parts: dict[str, Part | None] | None = None
        self._lanes: list[Lane] = []
        self._arranged: list[tuple[Seat, int]] = []

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
                self.seats.append(Seat(member, training, self.device))

    def seconds_a_step(self, size: int) -> float:
        """How long a step takes a member of a pack of the first so many that are seated, the first step left out."""
        seated, self.seats = self.seats, self.seats[:size]
        for seat in self.seats:
            with seat.drawing():
                seat.begin_epoch()
        self._arrange()
        count = min(STEPS, seated[0].training.train_part.batches or 1)
        for lane in self._lanes:
            lane.open(0)
        began = self._clock()
        for at in range(count):
            if at == 1:
                began = self._clock()
            for lane in self._lanes:
                lane.step()
        seconds = self._clock() - began
        self._close()
        self.seats = seated
        return seconds / max(1, count - 1) / size

    def _clock(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _going(self) -> list[Seat]:
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
        except Exception as error:  # whatever a user's network raises is kept as that member's end
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
                seat.training.close_epoch()
        found = self._measured()
        for seat in list(self.seats):
            with self._its_own(seat.member), seat.drawing():
                seat.training.end_epoch(found.get(seat))
        leaving = self.after_epoch() if self.after_epoch is not None else ()
        for member in leaving:
            for seat in [seat for seat in self.seats if seat.member is member]:
                self.leaves(member, seat.training.so_far, told=False)

    def _steps(self) -> None:
        """The steps of an epoch, of which all members have the same number."""
        began = time.perf_counter()
        taking_part = list(self.seats)
        count = self.seats[0].training.train_part.batches
        assert count is not None
        for at in range(count):
            if not at or any(lane.stale for lane in self._lanes):
                if at:
                    self._close()
                self._arrange()
                for lane in self._lanes:
                    lane.open(at)
            for lane in self._lanes:
                lane.step()
        self._close()
        seconds = (time.perf_counter() - began) / len(taking_part)
        for seat in taking_part:
            seat.training.passes.seconds += seconds

    def _arrange(self) -> None:
        """Stacks where they are faster, and all others by their own modules; as before where nothing has changed."""
        now = [(seat, seat.net.resizes) for seat in self.seats]
        if now == self._arranged:
            return
        together = stacks_of(self.seats, self.device, self.stacked)
        taken = {seat for seats in together for seat in seats}
        apart = [seat for seat in self.seats if seat not in taken]
        self._lanes = [Stacked(together, self._its_own)] if together else []
        self._lanes += [Apart(apart, self._its_own)] if apart else []
        self._arranged = now

    def _close(self) -> None:
        for lane in self._lanes:
            lane.close()

    def _measured(self) -> dict[Seat, Measures]:
        """What several members have measured in one go."""
        self._arrange()
        found: dict[Seat, Measures] = {}
        for lane in self._lanes:
            found |= lane.measured()
        return found
