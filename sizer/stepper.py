"""How parameters move: the optimiser, its schedule, and the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from sizer import fused, plain
from sizer.checkpoint import restore_optimizer
from sizer.errors import InputError, unknown
from sizer.history import Epoch
from sizer.net import Net

OptimizerMaker = Callable[[list[dict[str, Any]]], Optimizer]
ScheduleMaker = Callable[[Optimizer], LRScheduler]

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
SCHEDULES = ("cosine",)


def optimizer_of(chosen: str | OptimizerMaker, groups: list[dict[str, Any]]) -> Optimizer:
    """``adam``, ``adamw`` (both fused), ``rmsprop``, ``sgd`` (momentum 0.9), or what a callable makes of the groups.

    Raises:
        InputError: the name is unknown, or what the callable made cannot train in such a loop.
    """
    if callable(chosen):
        made = chosen(groups)
        if not isinstance(made, Optimizer):
            raise InputError(f"optimizer must make a torch.optim.Optimizer of the groups, got a {type(made).__name__}")
        if isinstance(made, LBFGS):
            raise InputError("LBFGS needs a closure in each step, which fit() has not; take another optimiser")
        return made
    if chosen == "adam":
        return Adam(groups, fused=True)
    if chosen == "adamw":
        return AdamW(groups, fused=True)
    if chosen == "rmsprop":
        return RMSprop(groups)
    if chosen == "sgd":
        return SGD(groups, momentum=0.9)
    raise unknown("optimizer", chosen, OPTIMIZERS)


def schedule_of(chosen: str | ScheduleMaker | None, optimizer: Optimizer, epochs: int) -> LRScheduler | None:
    """``cosine`` (from the learning rate to 0 over the epochs), or what a callable makes of the optimiser.

    Raises:
        InputError: the name is unknown, or the callable made something else.
    """
    if chosen is None:
        return None
    if callable(chosen):
        made = chosen(optimizer)
        if not isinstance(made, LRScheduler):
            raise InputError(f"schedule must make a torch LRScheduler of the optimiser, got a {type(made).__name__}")
        return made
    if chosen == "cosine":
        return LambdaLR(optimizer, lambda epoch: (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2)
    raise unknown("schedule", chosen, SCHEDULES)


class Stepper:
    """Steps the optimiser of a network; made when the network has the widths that the optimiser is to see."""

    def __init__(
        self,
        net: Net,
        optimizer: str | OptimizerMaker,
        learning_rate: float,
        weight_decay: float,
        schedule: str | ScheduleMaker | None,
        clip: float | None,
        epochs: int,
    ) -> None:
        self.net = net
        self.clip = clip
        self.optimizer = net.track(optimizer_of(optimizer, net.param_groups(learning_rate, weight_decay)))
        self.schedule = schedule_of(schedule, self.optimizer, epochs)

    def zero_grad(self) -> None:
        fused.clear(self.optimizer)

    def step(self) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.net.module.parameters(), self.clip)
        fused.step(self.optimizer)

    def end_epoch(self, epoch: Epoch) -> None:
        """Moves the schedule on; one that waits for a plateau watches the validation loss, or metric where ``max``."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(epoch.val_loss if self.schedule.mode == "min" else epoch.val_accuracy)
        elif self.schedule is not None:
            self.schedule.step()

    def state(self) -> dict[str, Tensor]:
        """The schedule's state, with the options of the parameter groups that it has set; empty without a schedule."""
        if self.schedule is None:
            return {}
        groups = [
            {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups
        ]
        try:
            return plain.pack("schedule", {"schedule": self.schedule.state_dict(), "groups": groups})
        except (AttributeError, TypeError) as error:
            raise InputError(
                f"the state of {type(self.schedule).__name__} cannot be kept ({error}); train without a folder"
            ) from error

    def restore(self, states: dict[str, dict[str, Any]], kept: dict[str, Tensor]) -> None:
        """Brings optimiser and schedule to a kept state: by parameter name, and what ``state`` gave."""
        if self.schedule is None or "schedule" not in kept:
            restore_optimizer(self.optimizer, self.net.module, states)
            return
        try:
            saved = plain.unpack("schedule", kept)
        except ValueError as error:
            name = type(self.schedule).__name__
            raise InputError(
                f"the kept state of {name} cannot be read ({error}); train anew in another folder"
            ) from error
        restore_optimizer(self.optimizer, self.net.module, states, saved["groups"])
        self.schedule.load_state_dict(saved["schedule"])
