"""Networks of one shape trained as one: every tensor of theirs in one with a leading member dimension.

What bounds small networks on a GPU is the number of operations, not their size. So the members of a sweep that differ
in knob, seed and widths share one forward pass, one backward pass and one optimiser step. Narrower members are padded
with zeros, which stay zero: a padded unit is 0 behind any activation with f(0) = 0, what reads it is 0, so neither gets
a gradient. Each member's gradient is that of its own loss alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sizer import fused, layout
from sizer.chain import POOLS, WEIGHTED, Piece, chain_of
from sizer.errors import InputError
from sizer.gates import Gate
from sizer.looks import Looks
from sizer.methods.method import Method
from sizer.net import Net
from sizer.objectives import aligned
from sizer.stacked import StackedGates, StackedLayer, leading, padded, part
from sizer.stacked_optimizer import StackedOptimizer, Stacking
from sizer.step_sizes import StepSize, step_sizes


@dataclass(frozen=True, eq=False)
class Copied:
    """A stacked parameter or buffer, by the name that it has in each member; ``area`` as in ``padded``."""

    name: str
    tensor: Tensor
    area: int


class Stack:
    """k attached networks as one, from which each can be had back at any time.

    In a loop (``sizer.recorded`` has it for a GPU)::

        stack = Stack(nets, optimizers)
        for x, y in batches:  # (k, B, ...) and (k, B)
            stack.begin_step()
            stack.step(x, y)
            if due := stack.due():
                stack.write_back()
                for member in due:
                    nets[member].method.remove(nets[member])
                stack = Stack(nets, optimizers)
        stack.write_back()

    Args:
        nets: attached to chains (``chain_of``) that differ in widths alone, at the same step, and of one method that
            ``stacks``, which differs in its knob and weight decay alone.
        optimizers: what each tracks, as ``StackedOptimizer`` takes them.
        generators: each member's random numbers, on the device; needed where the chain drops units out. On the CPU a
            member drops the units that it would alone, from the default generator in that state.
        clip: the largest norm of all gradients of a member together.

    Attributes:
        nets, method: the members, and the first one's method: the others' but for the knob.
        knob: (k,).
        training: whether dropout drops.
        groups: the layers that can be sized.
        gates: their gates, or None.
        optimizer: the torch optimiser of the stacked parameters.
        steps, steps_per_epoch, epoch, epochs: as those of the members.
        total: (k,) float64, of training losses times samples, since the last ``refresh``.
        hits: (k,) int64, of samples whose class was right, likewise; 0 in regression.

    Raises:
        InputError: they cannot be stacked.
    """

    def __init__(
        self,
        nets: Sequence[Net],
        optimizers: Sequence[Optimizer],
        generators: Sequence[torch.Generator] = (),
        clip: float | None = None,
    ) -> None:
        self.nets, self.generators = list(nets), list(generators)
        self.clip = clip
        self.training = True
        self.looks = Looks()
        self.method = _method(self.nets)
        self._pieces = _pieces(self.nets)
        if any(isinstance(piece.module, nn.Dropout) for piece in self._pieces):
            _require(len(self.generators) == len(nets), "dropout in a stack needs a generator for each member")
        self._copied: list[Copied] = []
        self._layers = self._stacked_layers()
        by_path = {layer.path: layer for layer in self._layers}
        self.groups = [by_path[group.name] for group in nets[0].groups]
        gates = {layer: layer.gate for layer in self.groups if layer.gate is not None}
        self.gates = StackedGates(gates) if gates else None
        like = self._layers[0].weight
        self.device = like.device
        self.knob = like.new_zeros(len(nets))
        self._strength = like.new_zeros(())
        self._ones = like.new_ones(len(nets))
        self._optimizer = StackedOptimizer(optimizers, self._trained(optimizers))
        self.optimizer = self._optimizer.inner
        self.total = torch.zeros(len(nets), dtype=torch.float64, device=self.device)
        self.hits = torch.zeros(len(nets), dtype=torch.int64, device=self.device)
        self._resizes = [net.resizes for net in nets]
        self.refresh()

    def refresh(self) -> None:
        """Takes knobs, learning rates and the place in the training from the members, as an epoch begins."""
        first = self.nets[0]
        places = {(net.epoch, net.epochs, net.steps, net.steps_per_epoch) for net in self.nets}
        _require(len(places) == 1, "members of a stack must be at the same step of the same epoch")
        self.epoch, self.epochs, self.steps = first.epoch, first.epochs, first.steps
        self.steps_per_epoch = first.steps_per_epoch
        self.knob.copy_(torch.tensor([net.knob for net in self.nets], dtype=torch.float64))
        self._optimizer.refresh()
        self.total.zero_()
        self.hits.zero_()
        self.looks.forget()

    # Outputs and losses -------------------------------------------------------------------------------------------

    def __call__(self, x: Tensor) -> Tensor:
        """Every member's outputs.

        Args:
            x: (k, B, ...), a batch for each; in evaluation also (B, ...), one for all.

        Returns:
            (k, B, outputs).

        Raises:
            InputError: it has other dimensions, or is one for all in training.
        """
        alone = self.nets[0].inputs[0].dim()
        shared = x.dim() == alone
        if x.dim() != alone + 1 and (self.training or not shared):
            raise InputError(f"a stack takes a batch for each of its members, got inputs of shape {tuple(x.shape)}")
        layers = iter(self._layers)
        behind: StackedLayer | None = None
        for piece in self._pieces:
            module = piece.module
            if isinstance(module, WEIGHTED):
                behind = next(layers)
                x = behind(_side_by_side(x), shared)
                shared = False
            elif isinstance(module, nn.Flatten):
                x = x.flatten(1) if shared else self._by_member(x).flatten(2)
            elif isinstance(module, nn.Dropout):
                x = self._dropped(x, module.p, behind) if self.training else x
            else:
                x = module(_side_by_side(x) if isinstance(module, POOLS) else x)
        return x

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Each member's mean loss, as ``sizer.objectives`` has it: cross entropy of labels, squared error of floats.

        Args:
            outputs: (k, B, outputs).
            targets: (k, B) labels, none of them negative, or floats (k, B) or (k, B, outputs).

        Returns:
            (k,).
        """
        if targets.is_floating_point():
            flat = outputs.flatten(0, 1)
            return (flat - aligned(flat, targets.flatten(0, 1))).square().view(len(outputs), -1).mean(1)
        return F.cross_entropy(outputs.mT, targets, reduction="none").mean(1)

    # Training -----------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Brings what the host knows of the next step to the device; to be called before each ``step``."""
        self.steps += 1
        self._strength.fill_(self.method.strength(self))

    def step(self, x: Tensor, targets: Tensor) -> None:
        """A training step of every member; it never waits for the device, so that it can be recorded.

        Args:
            x: (k, B, ...).
            targets: as ``losses`` takes them.
        """
        fused.clear(self.optimizer)
        outputs = self(x)
        losses = self.losses(outputs, targets)
        penalty = self.method.penalty(self)
        terms = [losses, penalty] if penalty.requires_grad else [losses]
        torch.autograd.backward(terms, [self._ones, None][: len(terms)])
        with torch.no_grad():
            self._clip()
            self._optimizer.step()
            self.method.shrink(self, self._strength)
            self.total.add_(losses, alpha=targets.shape[1])
            if not targets.is_floating_point():
                self.hits += hits_of(outputs, targets)

    def due(self) -> list[int]:
        """After each step: the members of which the method's ``remove`` would now take units."""
        found = self.method.look(self)
        return [] if found is None else [int(member) for member in found.nonzero()[:, 0]]

    def step_sizes(self, parameters: Iterable[Tensor]) -> dict[Tensor, StepSize]:
        """As ``Net.step_sizes``, of stacked parameters."""
        return step_sizes([self.optimizer], parameters)

    def bound_to(self) -> list[Any]:
        """What stands in a recording of ``step`` as it is now: once this is another, it must be recorded anew."""
        options = [
            sorted((key, repr(value)) for key, value in group.items() if key not in ("params", "lr"))
            for group in self.optimizer.param_groups
        ]
        return [self.method.acts(self), self.training, options]

    @torch.no_grad()
    def write_back(self, members: Iterable[int] | None = None) -> None:
        """Brings members, by default all, to where they stand here: parameters, gates, optimiser state, steps.

        Raises:
            RuntimeError: one was resized after it was stacked.
        """
        for at in range(len(self.nets)) if members is None else members:
            net, state = self.nets[at], self._optimizer.members[at].state
            if net.resizes != self._resizes[at]:
                raise RuntimeError(f"member {at} was resized after it was stacked")
            net.steps = self.steps
            for copied in self._copied:
                own = _tensor(net, copied.name)
                own.copy_(part(copied.tensor, at, own, copied.area))
                for key, value in self.optimizer.state.get(copied.tensor, {}).items():
                    mine = part(value, at, own, copied.area) if isinstance(value, Tensor) and value.dim() else value
                    if isinstance(state[own].get(key), Tensor):
                        state[own][key].copy_(mine)
                    else:
                        state[own][key] = _beside(mine, own)

    # Inside -------------------------------------------------------------------------------------------------------

    def _by_member(self, x: Tensor) -> Tensor:
        """Undoes ``_side_by_side``; what is flat already stays."""
        maps = x.dim() == 4 == self.nets[0].inputs[0].dim()
        return x.view(len(x), len(self.nets), -1, *x.shape[2:]).transpose(0, 1) if maps else x

    def _dropped(self, x: Tensor, p: float, behind: StackedLayer | None) -> Tensor:
        """Dropout: each member draws for units of its own, in the order in which it would alone."""
        if p == 0:
            return x
        mask = torch.zeros_like(x)
        units = self._by_member(mask)
        if behind is not None and units.dim() == 3:
            units = units.view(*units.shape[:2], behind.weight.shape[1], -1)
        for at, generator in enumerate(self.generators if p < 1 else ()):
            own = units[at] if behind is None else units[at, :, : behind.width[at]]
            drawn = torch.empty(own.shape, dtype=x.dtype, device=x.device)
            if behind is not None:
                drawn = layout.like(drawn, behind.module.weight)  # numbers are drawn in the order of the memory
            own.copy_(drawn.bernoulli_(1 - p, generator=generator).div_(1 - p))
        return x * mask

    def _clip(self) -> None:
        """As ``nn.utils.clip_grad_norm_`` does it, of each member."""
        if self.clip is None:
            return
        grads = [copied.tensor.grad for copied in self._copied if copied.tensor.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads])
        factor = (self.clip / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(leading(factor, grad))

    def _stacked_layers(self) -> list[StackedLayer]:
        layers: list[StackedLayer] = []
        for piece in self._pieces:
            module = piece.module
            if not isinstance(module, WEIGHTED):
                continue
            shapes = [_tensor(net, f"{piece.path}.weight").shape for net in self.nets]
            before = layers[-1].width if layers else tuple(shape[1] for shape in shapes[:1] * len(shapes))
            area = shapes[0][1] // before[0]
            fits = all(shape[1] == width * area for shape, width in zip(shapes, before, strict=True))
            _require(fits, f"members of a stack must have the same inputs; those of '{piece.path}' differ")
            weight = self._copy(f"{piece.path}.weight", area)
            bias = None if module.bias is None else self._copy(f"{piece.path}.bias")
            widths, gate = tuple(shape[0] for shape in shapes), layers[-1].gate if layers else None
            layers.append(StackedLayer(piece.path, module, widths, area, weight, bias, self._gate(piece.path), gate))
        _require(len(set(layers[-1].width)) == 1, "members of a stack must have as many outputs")
        free = [list(net.widths) for net in self.nets]
        known = {layer.path for layer in layers[:-1]}
        _require(all(names == free[0] and known.issuperset(names) for names in free), "the same layers must be free")
        return layers

    def _gate(self, path: str) -> Gate | None:
        """The stacked gate behind a layer."""
        gates = self.nets[0].gates
        own = next((gate for group, gate in gates.by_group.items() if group.name == path), None) if gates else None
        if own is None:
            return None
        name = next(name for name, module in self.nets[0].module.named_modules() if module is own)
        gate = Gate(own.theta)
        gate.theta, gate.alive = self._copy(f"{name}.theta"), self._copy(f"{name}.alive")
        return gate

    def _copy(self, name: str, area: int = 1) -> Any:
        """The stacked tensor of that name: a parameter where the members' are."""
        tensors = [_tensor(net, name) for net in self.nets]
        stacked = padded(tensors, area)
        if isinstance(tensors[0], nn.Parameter):
            stacked = nn.Parameter(stacked, tensors[0].requires_grad)
        _require(len({t.requires_grad for t in tensors}) == 1, f"'{name}' must be trained in all members of a stack")
        self._copied.append(Copied(name, stacked, area))
        return stacked

    def _trained(self, optimizers: Sequence[Optimizer]) -> list[list[tuple[Tensor, list[Tensor], Stacking]]]:
        """What ``StackedOptimizer`` takes: group by group the stacked parameters, and those of the members."""
        _require(len(optimizers) == len(self.nets), "a stack needs an optimiser for each of its members")
        names = [{p: name for name, p in net.module.named_parameters()} for net in self.nets]
        held = [
            [[known.get(p, "") for p in group["params"]] for group in optimizer.param_groups]
            for known, optimizer in zip(names, optimizers, strict=True)
        ]
        copied = {each.name: each for each in self._copied}
        fits = all(groups == held[0] for groups in held) and all(name in copied for group in held[0] for name in group)
        _require(fits, "the optimisers of a stack must train the parameters of their members, in the same groups")

        def entry(name: str) -> tuple[Tensor, list[Tensor], Stacking]:
            each = copied[name]
            return each.tensor, [_tensor(net, name) for net in self.nets], partial(padded, area=each.area)

        return [[entry(name) for name in group] for group in held[0]]


def hits_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many samples of each member have their class right: (k,) int64.

    Args:
        outputs: (k, B, classes), as a stack gives them.
        targets: (k, B).
    """
    return (outputs.mT.max(1).indices == targets).sum(1)  # as they lie: argmax goes across, and takes ten times as long


def _require(holds: bool, said: str) -> None:
    if not holds:
        raise InputError(said)


def _method(nets: Sequence[Net]) -> Method:
    """The members' one method.

    Raises:
        InputError: it is not one, or has no formulas for a stack.
    """
    first = nets[0].method
    own = [{k: v for k, v in vars(net.method).items() if k not in ("value", "weight_decay")} for net in nets]
    _require(first.stacks, f"networks under {first.name} cannot be stacked")
    same = all(type(net.method) is type(first) and options == own[0] for net, options in zip(nets, own, strict=True))
    _require(same, "members of a stack must have one method, with the same settings but for its knob")
    return first


def _pieces(nets: Sequence[Net]) -> list[Piece]:
    """The members' chain, by the modules of the first.

    Raises:
        InputError: it is none, or they differ in more than widths.
    """
    chains = [chain_of(net.module) for net in nets]
    first = chains[0]
    if first is None or None in chains:
        raise InputError("only chains of linear and convolutional layers can be stacked (sizer.chain)")
    kinds = [[(piece.path, piece.kind) for piece in chain] for chain in chains if chain is not None]
    _require(all(own == kinds[0] for own in kinds), "members of a stack must differ in their widths alone")
    entry = next(piece.module for piece in first if isinstance(piece.module, (*WEIGHTED, *POOLS, nn.Flatten)))
    needed = {2} if isinstance(entry, nn.Linear) else set(range(2, 6)) if isinstance(entry, nn.Flatten) else {4}
    inputs = [net.inputs for net in nets]
    _require(all(len(each) == 1 and each[0].dim() in needed for each in inputs), "inputs must be batches of samples")
    return first


def _side_by_side(x: Tensor) -> Tensor:
    """Maps of all members, (k, B, C, H, W), in one row of channels: (B, k * C, H, W). Others stay as they are."""
    return x.transpose(0, 1).flatten(1, 2) if x.dim() == 5 else x


def _beside(value: Any, own: Tensor) -> Any:
    """A copy of what an optimiser keeps, lying as its parameter does."""
    if not isinstance(value, Tensor):
        return value
    return layout.like(value.clone(), own) if value.dim() == own.dim() else value.clone()


def _tensor(net: Net, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    value = getattr(net.module.get_submodule(path), leaf)
    assert isinstance(value, Tensor)
    return value
