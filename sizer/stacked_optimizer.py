"""Several optimisers of one kind as one over stacked parameters, with their state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from sizer import fused
from sizer.errors import InputError
from sizer.stacked import leading

ELEMENTWISE = (Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, SGD)
"""Those that move each entry by itself, and whose steps a GPU can record."""

Stacking = Callable[[list[Tensor]], Tensor]
"""Stacks a tensor of each member that has a parameter's shape."""


class StackedOptimizer:
    """One torch optimiser of the members' class, in groups as theirs, and their weight decays.

    Args:
        members: their optimisers: one class, the same options but for weight decay, as many steps.
        parameters: for each group of theirs, and each parameter in it: the stacked one, those of the members, and how
            what has their shape is stacked.

    Attributes:
        inner: the optimiser. On a GPU its rates are tensors and its steps can be recorded.

    Raises:
        InputError: they cannot be stacked.
    """

    def __init__(
        self, members: Sequence[Optimizer], parameters: list[list[tuple[Tensor, list[Tensor], Stacking]]]
    ) -> None:
        self.members = list(members)
        kind, kinds = type(members[0]), {type(member) for member in members}
        if len(kinds) > 1 or kind not in ELEMENTWISE:
            names = ", ".join(sorted(each.__name__ for each in kinds))
            raise InputError(f"optimisers of a stack must be of one kind that moves each entry by itself, got {names}")
        like = parameters[0][0][0]
        self.gpu = like.is_cuda
        decays = [[float(m.param_groups[at]["weight_decay"]) for m in members] for at in range(len(parameters))]
        self.decays = [like.new_tensor(each) if len(set(each)) > 1 else None for each in decays]
        groups = self._options()
        known = inspect.signature(kind).parameters
        defaults = {key: value for key, value in members[0].defaults.items() if key in known}
        for options, held in zip(groups, parameters, strict=True):
            if self.gpu:
                options["lr"] = torch.tensor(options["lr"], device=like.device)
            options["params"] = [stacked for stacked, _, _ in held]
        if self.gpu and kind is SGD:
            defaults |= {"fused": True, "foreach": None}
        self.inner = kind(groups, **defaults)
        if self.gpu:  # torch warns of steps that could be recorded and are not
            vars(self.inner)["_warned_capturable_if_run_uncaptured"] = True
        self._take_states([entry for held in parameters for entry in held])

    def refresh(self) -> None:
        """Takes rates and other options from the members."""
        for mine, theirs in zip(self.inner.param_groups, self._options(), strict=True):
            rate = theirs.pop("lr")
            if self.gpu:
                mine["lr"].fill_(rate)
            else:
                mine["lr"] = rate
            mine.update(theirs)

    def step(self) -> None:
        """The members' weight decays where they differ, of the gradient or of the weights as theirs, then the step."""
        for group, decay in zip(self.inner.param_groups, self.decays, strict=True):
            for p in group["params"]:
                if decay is None or p.grad is None:
                    continue
                if group.get("decoupled_weight_decay"):
                    p.mul_(leading(1 - group["lr"] * decay, p))
                else:
                    p.grad.add_(p * leading(decay, p), alpha=-1 if group.get("maximize") else 1)
        fused.step(self.inner)

    def _options(self) -> list[dict[str, Any]]:
        """Those of each group, but for its parameters; weight decay is 0 where the members' differ."""
        found: list[dict[str, Any]] = []
        for groups in zip(*(member.param_groups for member in self.members), strict=True):
            options = {key: value for key, value in groups[0].items() if key != "params"}
            odd = [k for k, v in options.items() if k != "weight_decay" and any(group.get(k) != v for group in groups)]
            if odd:
                raise InputError(f"members of a stack must have one {odd[0]}, got {[g.get(odd[0]) for g in groups]}")
            options["lr"] = float(options["lr"])
            if self.decays[len(found)] is not None:
                options["weight_decay"] = 0.0
            if self.gpu and "capturable" in options:
                options["capturable"] = True
            elif self.gpu:
                options |= {"fused": True, "foreach": None}  # SGD, whose rate is a number otherwise
            found.append(options)
        return found

    def _take_states(self, entries: list[tuple[Tensor, list[Tensor], Stacking]]) -> None:
        counts: list[Tensor] = []
        for stacked, own, stacking in entries:
            states = [member.state.get(p, {}) for member, p in zip(self.members, own, strict=True)]
            if any(state.keys() != states[0].keys() for state in states):
                raise InputError("members of a stack must have taken as many steps: some optimisers have no state yet")
            for key, first in states[0].items():
                values = [state[key] for state in states]
                if not isinstance(first, Tensor):
                    self.inner.state[stacked][key] = first
                elif first.dim():
                    self.inner.state[stacked][key] = stacking(values)
                else:
                    counts.append(torch.stack([value.to(stacked.device) for value in values]))
                    self.inner.state[stacked][key] = counts[-1][0].clone() if self.gpu else first.clone()
        if counts:
            table = torch.stack(counts).double()  # (counts, k)
            if not bool((table == table[:, :1]).all()):
                raise InputError("members of a stack must have taken as many steps: their optimisers' counts differ")
