"""A user's module with its width groups, its method and its optimisers: what a method and a loop talk to."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from sizer import copies, overview, resize
from sizer.errors import InputError, unknown
from sizer.folding import fold_constants
from sizer.gates import Gates, factors, fold, folded, is_gate
from sizer.groups import FixedWidth, Group, Groups, Slot
from sizer.looks import Looks
from sizer.step_sizes import StepSize, step_sizes

if TYPE_CHECKING:
    from sizer.methods.method import Method
    from sizer.snapshot import Snapshot

Opt = TypeVar("Opt", bound=Optimizer)
ATTACHED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Any]] = weakref.WeakKeyDictionary()
"""Which module is whose, from ``attach`` to ``finish``."""


class Grouped(Protocol):
    """What knows the width groups of a network, such as ``Traced``."""

    def groups(self) -> Groups: ...


class Net:
    """A network that can change its widths while it trains: what a method and a loop talk to. Made by ``attach``.

    In a training loop of one's own::

        net = sizer.attach(module, x[:2], sizer.methods.create("shrinknets", 1e-3))
        optimizer = net.track(torch.optim.Adam(net.param_groups(lr=1e-3)))
        for epoch in range(epochs):
            net.before_epoch()
            for x, y in loader:
                optimizer.zero_grad()
                (loss_of(net(x), y) + net.penalty()).backward()
                optimizer.step()
                net.after_step()
            net.after_epoch()
        module = net.finish()

    What stands beside it in such a loop:

    - An average of the weights, or another copy, follows after ``net.follow(average)``; ``finish`` makes it plain, too.
    - An optimiser made before ``attach`` gets the gates by ``net.track(optimizer)``; schedulers are made after that.
    - ``torch.compile(net.module)`` compiles anew after each resize; after torch's limit of so many
      (``torch._dynamo.config.recompile_limit``) it goes on uncompiled, until ``torch.compiler.reset()``.
    - Methods that look at data need what they name of ``net.training_data``, ``net.validate``, ``net.examples`` and
      ``net.loss``, set by you.
    - ``DistributedDataParallel(net.module)`` is made anew whenever ``net.resizes`` has changed. All processes attach
      with the same seed and example, and remove and grow the same units, as their gradients are the same.
    - Frozen parameters stay frozen, and their units may go; ``ignore`` keeps their widths. ``finish`` multiplies the
      gates into them where they read behind some.

    Attributes:
        module: the user's module; its parameters are replaced in place when widths change.
        groups: the free width groups, in the order in which they run.
        fixed: the widths that stay, with the reason.
        method: the method that sizes it.
        epochs: how many epochs are planned, if known: methods divide them into phases.
        steps_per_epoch: if known from the start, ramps begin at once; else it is learned from the first epoch.
        settle: in the last so many of the planned epochs the method does nothing: widths stay, and no penalty acts.
        enough: whether the network is small enough; from then on the method does nothing either. Asked once a resize.
        epoch, steps, resizes: the current epoch from 1 (0 before training), and how many optimiser steps and changes of
            width there were so far.
        collapsed: names of layers that would have lost their last unit; one unit of each was kept.
        training_data: gives the inputs of the training data's batches, unaugmented, each a tensor or a tuple of the
            positional inputs; for methods that measure activations, and the same on all processes. ``fit`` sets it.
        validate: gives the validation metric, larger being better, for methods that judge by it. ``fit`` sets it.
        examples: gives the training data's batches, unaugmented, as (inputs, targets), for methods that train by
            themselves; ``loss`` their mean loss, of (outputs, targets). ``fit`` sets both.
        spent: FLOPs of what the method computed beside the loop's steps; who counts training FLOPs takes them away.
        notes: what methods remember of this network, as it stands in JSON; a run that goes on finds it again.
        snapshot: where a method may want to return to; kept like the notes.
        looks: what a method asks of the device on the way; forgotten with each resize and each epoch.
    """

    def __init__(
        self, module: nn.Module, inputs: tuple[Any, ...], method: Method, traced: Grouped, round_to: int = 1
    ) -> None:
        self.module = module
        self.inputs = inputs
        self.method = method
        self.round_to = round_to
        self.epochs: int | None = None
        self.steps_per_epoch: int | None = None
        self.settle = 0
        self.enough: Callable[[], bool] | None = None
        self._asked: tuple[int, bool] | None = None
        self.epoch = 0
        self.steps = 0
        self.resizes = 0
        self.collapsed: list[str] = []
        self.optimizers: list[Optimizer] = []
        self.copies: list[nn.Module] = []
        self.gates: Gates | None = None
        self.training_data: Callable[[], Iterable[Tensor | tuple[Tensor, ...]]] | None = None
        self.validate: Callable[[], float] | None = None
        self.examples: Callable[[], Iterable[tuple[tuple[Tensor, ...], Tensor]]] | None = None
        self.loss: Callable[[Any, Tensor], Tensor] | None = None
        self.spent = 0
        self.notes: dict[str, Any] = {}
        self.snapshot: Snapshot | None = None
        self.looks = Looks()
        found = traced.groups()
        self.groups: list[Group] = found.free
        self.fixed: list[FixedWidth] = found.fixed
        self._start = overview.sizes(self)
        self._steps_before_epoch = 0

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def __repr__(self) -> str:
        return overview.text(self, self._start)

    def _repr_html_(self) -> str:
        return overview.html(self, self._start)

    @property
    def widths(self) -> dict[str, int]:
        """Layer -> width now, of the free groups, in the order in which they run."""
        return {group.name: group.width for group in self.groups}

    @property
    def device(self) -> torch.device:
        """Where its parameters stand."""
        return next(self.module.parameters()).device

    @property
    def knob(self) -> float:
        """The method's knob; may be set while training: a larger one shrinks further, a smaller one lets grow again."""
        return self.method.value

    @knob.setter
    def knob(self, value: float) -> None:
        self.method.set_knob(value)

    # The loop's side ----------------------------------------------------------------------------------------------

    def param_groups(self, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """The optimiser's parameter groups: gates at the method's rate, and never with weight decay."""
        gates = self.gates.parameters() if self.gates else []
        mine = {id(parameter) for parameter in gates}
        others = [parameter for parameter in self.module.parameters() if id(parameter) not in mine]
        groups: list[dict[str, Any]] = [{"params": others, "lr": lr, "weight_decay": weight_decay}]
        if gates:
            groups.append({"params": gates, "lr": lr * self.method.gate_rate, "weight_decay": 0.0})
        return groups

    def track(self, optimizer: Opt) -> Opt:
        """Carries the optimiser's parameters and state through every resize from now on; gives it back.

        One that was made before ``attach``, of the module's own parameters, gets the gates as one more group, at the
        method's multiple of its first group's rate and without weight decay.

        Raises:
            InputError: it trains nothing of this network, is LBFGS, which cannot follow a resize, or has a scheduler
                already that would not know the gates' group.
        """
        kind = type(optimizer).__name__
        if isinstance(optimizer, LBFGS):
            raise InputError("LBFGS keeps all parameters as one vector, which cannot follow a resize; take Adam or SGD")
        held = {id(p) for options in optimizer.param_groups for p in options["params"]}
        if not any(id(p) in held for p in self.module.parameters()):
            raise InputError(f"this {kind} trains no parameter of the network; make it of net.param_groups(lr)")
        missing = [theta for theta in (self.gates.parameters() if self.gates else []) if id(theta) not in held]
        if missing:
            if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
                raise InputError(
                    f"this {kind} has a scheduler already, which would not know the gates; make the scheduler after "
                    "net.track(optimizer)"
                )
            rate = optimizer.param_groups[0]["lr"] * self.method.gate_rate
            optimizer.add_param_group({"params": missing, "lr": rate, "weight_decay": 0.0})
        if optimizer not in self.optimizers:
            self.optimizers.append(optimizer)
        return optimizer

    def follow(self, copy: nn.Module) -> nn.Module:
        """Resizes a copy of the module with it from now on, such as an average of its weights (EMA); gives it back.

        Args:
            copy: a ``copy.deepcopy`` of the module made after ``attach``, or an ``AveragedModel`` of it. Units that
                grow begin there as they do in the module. A copy that does not follow keeps its widths and its outputs,
                and can no longer be averaged with the module once that has others.

        Raises:
            InputError: it is no copy of the module as it stands.
        """
        copies.check(self.module, copies.inside(copy))
        self.copies.append(copies.inside(copy))
        return copy

    def penalty(self) -> Tensor:
        """What the method adds to the loss; shape ()."""
        return torch.zeros((), device=self.device) if self.settling else self.method.penalty(self)

    @property
    def settling(self) -> bool:
        """Whether the method does nothing now: the epoch is one of the last ones, or the network is small enough."""
        if self.epochs is not None and self.epoch > self.epochs - self.settle:
            return True
        if self.enough is None:
            return False
        if self._asked is None or self._asked[0] != self.resizes:
            self._asked = self.resizes, self.enough()
        return self._asked[1]

    def after_step(self) -> None:
        """To be called after each ``optimizer.step()``."""
        self.steps += 1
        if not self.settling:
            self.method.after_step(self)

    def before_epoch(self) -> None:
        """To be called before each epoch: growth."""
        self.epoch += 1
        self._steps_before_epoch = self.steps
        self.looks.forget()
        if not self.settling:
            self.method.before_epoch(self)

    def after_epoch(self) -> None:
        """To be called after each epoch: removal."""
        self.steps_per_epoch = self.steps - self._steps_before_epoch
        if not self.settling:
            self.method.after_epoch(self)

    def finish(self) -> nn.Module:
        """Gives the user's module back as a plain dense one: same outputs, no gates, no hooks.

        Copies that follow become plain, too, and follow no longer.
        """
        self.method.finish(self)
        for copy in self.copies:
            fold(copy)
        self.copies.clear()
        ATTACHED.pop(self.module, None)
        return self.module

    def plain_state(self, copy: nn.Module | None = None) -> dict[str, Tensor]:
        """The ``state_dict`` that ``finish`` would leave, without finishing: gates folded in.

        Args:
            copy: one that follows, whose state is asked for instead of the module's.
        """
        module = self.module if copy is None else copies.inside(copy)
        plain = folded(module)
        tensors = module.state_dict(keep_vars=True)
        return {name: plain.get(value, value).detach() for name, value in tensors.items() if not is_gate(name)}

    # The method's side --------------------------------------------------------------------------------------------

    def group(self, layer: str) -> Group:
        """The group that the layer's width belongs to."""
        for group in self.groups:
            if group.name == layer:
                return group
        for fixed in self.fixed:
            if fixed.name == layer:
                raise InputError(f"the width of '{layer}' is fixed at {fixed.width}: {fixed.reason}")
        raise unknown("layer", layer, self.widths)

    def add_gates(self, starts: dict[Group, Tensor]) -> None:
        """Puts gates behind the groups: ``starts`` gives the first theta of each, of shape (width,)."""
        self.gates = Gates(self.module, starts)

    def step_sizes(self, parameters: Iterable[Tensor]) -> dict[Tensor, StepSize]:
        """The learning rate of each parameter that is trained, and what its optimiser divided the last gradient by.

        Returns:
            The rate, with what momentum makes of it, and ``sqrt(v) + eps`` of Adam or RMSprop in the parameter's shape;
            1.0 for gradient descent.

        Raises:
            InputError: no tracked optimiser trains any of them.
        """
        found = step_sizes(self.optimizers, parameters)
        if not found:
            raise InputError(
                f"{self.method.name} needs the optimiser that trains the network: net.track(optimizer), made of "
                "net.param_groups(lr)"
            )
        return found

    def remove(self, layer: str, units: Iterable[int]) -> None:
        """Removes units of a layer, whatever they contribute; at least one must stay."""
        self.remove_all({layer: units})

    def remove_all(self, units: Mapping[str, Iterable[int]]) -> None:
        """Removes units of several layers at once, which copies each weight once: layer -> its units' indices.

        Raises:
            InputError: a layer would lose its last unit, has no such unit, or no width of its own.
        """
        kept: dict[Group, Tensor] = {}
        for layer, indices in units.items():
            group, given = self.group(layer), list(indices)
            if odd := [index for index in given if not -group.width <= index < group.width]:
                raise InputError(f"'{layer}' has units 0 to {group.width - 1}, got {odd[0]}")
            gone = torch.zeros(group.width, dtype=torch.bool)
            gone[torch.as_tensor(given, dtype=torch.int64)] = True
            if gone.all():
                raise InputError(f"cannot remove all {group.width} units of '{layer}'; leave at least 1")
            kept[group] = (~gone).nonzero()[:, 0]
        self._keep(kept)

    def grow(self, layer: str, count: int) -> None:
        """Adds ``count`` units with fresh incoming weights and outgoing weights of 0: the outputs stay the same."""
        if count < 1:
            raise InputError(f"units to grow must be at least 1, got {count}")
        self.grow_all({self.group(layer): count}, fresh(1.0, 0.0))

    def grow_all(self, counts: dict[Group, int], fill: resize.Fill) -> None:
        """Appends units to several groups at once; ``fill`` gives their entries."""
        self._resize({group: resize.appended(group, count) for group, count in counts.items()}, fill)

    def _keep(self, kept: dict[Group, Tensor]) -> None:
        self._resize(kept)

    def _resize(self, chosen: dict[Group, Tensor], fill: resize.Fill | None = None) -> None:
        resize.resize(chosen, fill, self.optimizers, self.copies)
        self.looks.forget()
        self.resizes += 1

    def resize_to(self, widths: dict[str, int], *, blank: bool = False) -> None:
        """Brings every layer to the given width, for values that are loaded afterwards; ``blank`` draws no new ones."""
        for layer, width in widths.items():
            group = self.group(layer)
            if width < group.width:
                self._keep({group: torch.arange(width)})
            elif width > group.width:
                units = resize.appended(group, width - group.width)
                self._resize({group: units}, None if blank else fresh(1.0, 0.0))

    def drop(self, dead: dict[Group, Tensor], tolerance: float = 1e-6) -> int:
        """Removes units that contribute nothing but a constant, which is folded into what their readers add.

        Units that are fed by nothing but removed ones go, too, where their constant can be folded.

        Args:
            dead: for each group a bool mask of shape (width,).
            tolerance: how far from constant the units' outputs may be, for ``fold_constants``.

        Returns:
            How many units were removed. A layer never loses its last unit: one stays, and the layer is noted in
            ``collapsed``. With ``round_to``, as many dead units stay as make the width a multiple.
        """
        removed = 0
        while True:
            kept = self._kept(dead, tolerance)
            if not kept:
                return removed
            removed += sum(group.width - len(stay) for group, stay in kept.items())
            self._keep(kept)
            tolerance = 1e-6
            dead = self._starved(kept)

    def _kept(self, dead: dict[Group, Tensor], tolerance: float) -> dict[Group, Tensor]:
        """The units that stay, of each group that loses some."""
        going: dict[Group, Tensor] = {}
        for group, mask in dead.items():
            gone = mask.nonzero()[:, 0]
            if len(gone) == group.width:
                if group.name not in self.collapsed:
                    self.collapsed.append(group.name)
                gone = gone[1:]
            if len(gone):
                going[group] = gone
        if going:
            inputs = copies.beside(self.inputs, self.module)
            going = fold_constants(self.module, inputs, going, factors(self.module), tolerance, self.round_to)
            constant = {group: units[self._open(group, units)] for group, units in going.items()}
            for copy in self.copies:
                copies.fold_there(copy, self.inputs, constant)
        kept: dict[Group, Tensor] = {}
        for group, gone in going.items():
            if len(gone):
                stays = torch.ones(group.width, dtype=torch.bool, device=gone.device)
                stays[gone] = False
                kept[group] = stays.nonzero()[:, 0]
        return kept

    def _open(self, group: Group, units: Tensor) -> Tensor:
        """Which units reach their readers: bool, as long as ``units``."""
        gate = self.gates.by_group.get(group) if self.gates else None
        return torch.ones_like(units, dtype=torch.bool) if gate is None else gate.theta.detach()[units] > 0

    @torch.no_grad()
    def _starved(self, changed: dict[Group, Tensor]) -> dict[Group, Tensor]:
        """Units whose incoming weights are all zero, of the layers that read changed groups."""
        reading = {reader.column.ref for group in changed for reader in group.readers}
        starved: dict[Group, Tensor] = {}
        for group in self.groups:
            rows = [slot for slot in group.roles("row") if slot.ref.tensor.dim() > 1]
            if group.width > 1 and any(slot.ref in reading for slot in rows):
                sizes = [slot.by_unit(slot.ref.tensor, group).abs().amax(1) for slot in rows]
                mask = torch.stack(sizes).amax(0) == 0
                if bool(mask.any()) and not bool(mask.all()):
                    starved[group] = mask
        return starved


def fresh(rows: float, columns: float) -> resize.Fill:
    """Fills grown units: LeCun normal weights times ``rows`` (incoming) and ``columns`` (outgoing), biases 0.

    Normalisations start as the identity, gates at 1.
    """

    def fill(slot: Slot, entries: Tensor) -> None:
        if slot.role in {"row", "column"}:
            tensor = slot.ref.tensor
            rows_at = slot.dim if slot.role == "row" else 1 - min(slot.dim, 1)
            fan_in = tensor.numel() // tensor.shape[rows_at]
            noise = torch.randn(entries.shape, device=entries.device) / fan_in**0.5
            entries.copy_(noise * (rows if slot.role == "row" else columns))
        elif slot.role in {"scale", "variance", "factor", "gate"}:
            entries.fill_(True if entries.dtype == torch.bool else 1)
        elif slot.role == "slope":
            entries.fill_(0.25)

    return fill
