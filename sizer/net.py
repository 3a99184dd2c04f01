"""attach(): the user's own module made resizable, with its groups, its method and its optimisers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer import resize
from sizer.errors import InputError, UnsupportedNetworkError, unknown
from sizer.folding import fold_constants
from sizer.gates import Gates, is_gate
from sizer.groups import FixedWidth, Group, Slot, TensorRef, find_groups

if TYPE_CHECKING:
    from sizer.methods.method import Method


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

    Attributes:
        module: the user's module; its parameters are replaced in place when widths change.
        groups: the free width groups, in the order in which they run.
        fixed: the widths that stay, with the reason.
        method: the method that sizes it.
        epochs: how many epochs are planned, if known: methods divide them into phases.
        steps_per_epoch: if known from the start, ramps begin at once; else it is learned from the first epoch.
        epoch, steps, resizes: the current epoch from 1 (0 before training), and how many optimiser steps and changes of
            width there were so far.
        collapsed: names of layers that would have lost their last unit; one unit of each was kept.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...], method: Method, ignore: Sequence[str]) -> None:
        self.module = module
        self.inputs = inputs
        self.method = method
        self.epochs: int | None = None
        self.steps_per_epoch: int | None = None
        self.epoch = 0
        self.steps = 0
        self.resizes = 0
        self.collapsed: list[str] = []
        self.optimizers: list[Optimizer] = []
        self.gates: Gates | None = None
        found = find_groups(module, inputs, ignore)
        self.groups: list[Group] = found.free
        self.fixed: list[FixedWidth] = found.fixed
        self._steps_before_epoch = 0

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def __repr__(self) -> str:
        lines = [f"{self.method.name} on {type(self.module).__name__}"]
        lines += [f"  {name}: {width} units" for name, width in self.widths.items()]
        lines += [f"  {fixed.name}: {fixed.width} units, fixed: {fixed.reason}" for fixed in self.fixed]
        return "\n".join(lines)

    @property
    def widths(self) -> dict[str, int]:
        """Layer -> width now, of the free groups, in the order in which they run."""
        return {group.name: group.width for group in self.groups}

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

    def track(self, optimizer: Optimizer) -> Optimizer:
        """Carries the optimiser's parameters and state through every resize from now on; gives it back."""
        self.optimizers.append(optimizer)
        return optimizer

    def penalty(self) -> Tensor:
        """What the method adds to the loss; shape ()."""
        return self.method.penalty(self)

    def after_step(self) -> None:
        """To be called after each ``optimizer.step()``."""
        self.steps += 1
        self.method.after_step(self)

    def before_epoch(self) -> None:
        """To be called before each epoch: growth."""
        self.epoch += 1
        self._steps_before_epoch = self.steps
        self.method.before_epoch(self)

    def after_epoch(self) -> None:
        """To be called after each epoch: removal."""
        self.steps_per_epoch = self.steps - self._steps_before_epoch
        self.method.after_epoch(self)

    def finish(self) -> nn.Module:
        """Gives the user's module back as a plain dense one: same outputs, no gates, no hooks."""
        self.method.finish(self)
        return self.module

    def plain_state(self) -> dict[str, Tensor]:
        """The ``state_dict`` that ``finish`` would leave, without finishing: gates folded in."""
        folded = self.gates.folded() if self.gates else {}
        tensors = self.module.state_dict(keep_vars=True)
        return {name: folded.get(id(value), value).detach() for name, value in tensors.items() if not is_gate(name)}

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
        """Puts gates behind the groups; those where none can stand become fixed, with the reason."""
        for group in [group for group in starts if group.ungated]:
            self.fixed.append(FixedWidth(group.name, group.width, group.ungated))
            self.groups.remove(group)
            del starts[group]
        self.gates = Gates(starts)

    def step_size(self, parameter: nn.Parameter) -> tuple[float, Tensor | float]:
        """The learning rate of a tracked parameter, and what its optimiser divided the last gradient by.

        Returns:
            The rate, and ``sqrt(v) + eps`` of Adam or RMSprop in the parameter's shape; 1.0 for plain gradient descent.
        """
        for optimizer in self.optimizers:
            for options in optimizer.param_groups:
                if any(parameter is other for other in options["params"]):
                    return float(options["lr"]), _scale(optimizer.state.get(parameter, {}), options)
        raise InputError(
            f"{self.method.name} needs the optimiser that trains its gates: net.track(optimizer), made of "
            "net.param_groups(lr)"
        )

    def remove(self, layer: str, units: Iterable[int]) -> None:
        """Removes units of a layer, whatever they contribute; at least one must stay."""
        group = self.group(layer)
        gone = torch.zeros(group.width, dtype=torch.bool)
        gone[torch.as_tensor(list(units), dtype=torch.int64)] = True
        if gone.all():
            raise InputError(f"cannot remove all {group.width} units of '{layer}'; leave at least 1")
        self._keep({group: (~gone).nonzero()[:, 0]})

    def grow(self, layer: str, count: int) -> None:
        """Adds ``count`` units with fresh incoming weights and outgoing weights of 0: the outputs stay the same."""
        if count < 1:
            raise InputError(f"units to grow must be at least 1, got {count}")
        self.grow_all({self.group(layer): count}, fresh(1.0, 0.0))

    def grow_all(self, counts: dict[Group, int], fill: resize.Fill) -> None:
        """Appends units to several groups at once; ``fill`` gives their entries."""
        resize.grow(counts, fill, self.optimizers)
        self.resizes += 1

    def _keep(self, kept: dict[Group, Tensor]) -> None:
        resize.keep(kept, self.optimizers)
        self.resizes += 1

    def resize_to(self, widths: dict[str, int]) -> None:
        """Brings every layer to the given width, for values that are loaded afterwards."""
        for layer, width in widths.items():
            group = self.group(layer)
            if width < group.width:
                self._keep({group: torch.arange(width)})
            elif width > group.width:
                self.grow(layer, width - group.width)

    def drop(self, dead: dict[Group, Tensor], tolerance: float = 1e-6) -> int:
        """Removes units that contribute nothing but a constant, which is folded into their readers' biases.

        Args:
            dead: for each group a bool mask of shape (width,).
            tolerance: how far from constant the units' outputs may be, for ``fold_constants``.

        Returns:
            How many units were removed. A layer never loses its last unit: one stays, and the layer is noted in
            ``collapsed``.
        """
        kept: dict[Group, Tensor] = {}
        removed = 0
        for group, mask in dead.items():
            gone = mask.nonzero()[:, 0]
            if len(gone) == group.width:
                if group.name not in self.collapsed:
                    self.collapsed.append(group.name)
                gone = gone[1:]
            if group.shifted and len(gone):
                gone = fold_constants(self.module, self.inputs, group, gone, tolerance)
            if len(gone):
                stays = torch.ones(group.width, dtype=torch.bool, device=mask.device)
                stays[gone] = False
                kept[group] = stays.nonzero()[:, 0]
                removed += len(gone)
        if kept:
            self._keep(kept)
        return removed


def _scale(state: dict[str, Any], options: dict[str, Any]) -> Tensor | float:
    if "exp_avg_sq" in state:
        second: Tensor = state["exp_avg_sq"] / (1 - options["betas"][1] ** state["step"])
        return second.sqrt_().add_(options["eps"])
    if "square_avg" in state:
        mean: Tensor = state["square_avg"]
        return mean.sqrt().add_(options["eps"])
    return 1.0


def attach(module: nn.Module, example_input: Any, method: Method, ignore: Sequence[str] = ()) -> Net:
    """Makes a plain module resizable while it trains.

    Args:
        module: any network that torch.export follows; changed in place by the method (gates, first widths).
        example_input: a tensor, or a tuple of the positional inputs, as forward() takes them; a batch of 2 is enough.
        method: what sizes it, from ``sizer.methods.create``.
        ignore: paths of submodules that keep their width.

    Raises:
        UnsupportedNetworkError: its widths cannot be followed, or forward() hard-codes one.
        InputError: there is nothing to size, or a path in ``ignore`` is unknown.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    net = Net(module, inputs, method, ignore)
    if method.sizes and not net.groups:
        reasons = (
            "; ".join(f"{fixed.name or type(module).__name__}: {fixed.reason}" for fixed in net.fixed)
            or "it has no hidden layer"
        )
        raise UnsupportedNetworkError(f"{type(module).__name__} has no width that is free ({reasons})")
    if method.sizes:
        _try_resize(net)
    method.prepare(net)
    return net


def _try_resize(net: Net) -> None:
    """Grows every width by one in a copy of the network: a hard-coded width shows in an error or an output's shape."""
    problem = _resized_problem(net, net.groups)
    if problem is None:
        return
    for group in net.groups:
        alone = _resized_problem(net, [group])
        if alone is not None:
            raise UnsupportedNetworkError(
                f"the width of '{group.name}' ({group.width}) is hard-coded where it is used: {alone}; "
                f"use flatten(1) or sizes of the tensor itself, or keep the width with ignore=['{group.name}']"
            )
    raise UnsupportedNetworkError(f"widths are hard-coded in forward(): {problem}")


def _resized_problem(net: Net, groups: list[Group]) -> str | None:
    memo: dict[int, Any] = {}
    trial = copy.deepcopy(net.module, memo).eval()

    def moved(ref: TensorRef) -> TensorRef:
        return TensorRef(ref.path, tuple((memo[id(owner)], name) for owner, name in ref.owners))

    copies = [replace(group, slots=[replace(slot, ref=moved(slot.ref)) for slot in group.slots]) for group in groups]
    inside: list[str] = []
    for path, child in trial.named_modules():
        child.register_forward_pre_hook(lambda _, __, path=path: inside.append(path))
        child.register_forward_hook(lambda _, __, ___: (inside.pop(), None)[1])
    with torch.no_grad():
        before = _shapes(trial(*net.inputs))
        resize.grow(dict.fromkeys(copies, 1), fresh(1.0, 1.0))
        inside.clear()
        try:
            after = _shapes(trial(*net.inputs))
        except Exception as error:  # whatever the user's forward() raises when a width is not what it expects
            where = f"module '{inside[-1]}'" if inside and inside[-1] else "the network's own forward()"
            return f"{where} failed with another width ({type(error).__name__}: {str(error).splitlines()[0]})"
    return None if before == after else f"the output's shape changes from {before} to {after}"


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: _shapes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shapes(item) for item in value]
    return None


def fresh(rows: float, columns: float) -> resize.Fill:
    """Fills grown units: LeCun normal weights times ``rows`` (incoming) and ``columns`` (outgoing), biases 0.

    Normalisations start as the identity, gates at 1.
    """

    def fill(slot: Slot, entries: Tensor) -> None:
        if slot.role in {"row", "column"}:
            fan_in = slot.ref.tensor[0].numel()
            noise = torch.randn(entries.shape, device=entries.device) / fan_in**0.5
            entries.copy_(noise * (rows if slot.role == "row" else columns))
        elif slot.role in {"scale", "variance", "factor", "gate"}:
            entries.fill_(True if entries.dtype == torch.bool else 1)

    return fill
