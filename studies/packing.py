"""How many trials of an arm one worker trains at once: what was asked for, or what a few timed steps say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from sizer import methods, packs
from sizer.errors import InputError
from studies import estimate
from studies import plan as plans
from studies.luggage import Luggage, code_of, data_of
from studies.plan import LEARNING, PATH, Plan
from studies.target import SIZE

if TYPE_CHECKING:
    from studies.workers import Shares

AUTO = "auto"
Asked = int | str
"""A number of trials, or `auto`."""


def checked(plan: Plan, asked: Asked, trial_timeout: float | None) -> Asked:
    """Whether a pack can be had as it is asked for; gives it as a number, or `auto`.

    Raises:
        InputError: It is no size, a method has no packs, or trials have a time limit each.
    """
    if asked == AUTO:
        return AUTO
    size = int(asked) if str(asked).isdecimal() else 0
    if size < 1:
        raise InputError(f"pack must be a number of trials, 1 or more, or {AUTO}, got {asked}")
    if size == 1:
        return size
    if trial_timeout is not None:
        raise InputError(f"a pack of {size} has one clock, so no trial's own time can be limited: use --pack 1")
    for name, arm in plan.every.items():
        if not methods.method_class(arm.method).stacks:
            raise InputError(
                f"pack {size}: {arm.method} (arm {name}) has no packs, {', '.join(packs.names())} have; "
                f"--pack {AUTO} packs the arms that can be"
            )
    return size


def chosen(
    plan: Plan,
    asked: Asked,
    left: Mapping[str, int],
    at_once: int,
    shares: Shares,
    time: Callable[[dict[str, Any], Shares], int],
) -> dict[str, int]:
    """The size of the packs of each arm, some steps of which are timed where that is `auto`.

    Args:
        plan: The evaluation.
        asked: As `checked` gives it.
        left: arm -> trials that are still to be begun: as many packs as run at once share them.
        at_once: How many that is.
        shares: Of a trial, or a pack.
        time: Calls `timed` where a trial would run.
    """
    if asked != AUTO:
        return dict.fromkeys(plan.every, int(asked))
    sizes = dict.fromkeys(plan.every, 1)
    for name, arm in plan.every.items():
        most = math.ceil(left[name] / at_once)
        # Who learns from each trial asks for the next when it has ended; so do those who may spend, or train
        # at once, no more than so much.
        limited = plan.max_training_flops is not None or plan.max_concurrent_trials is not None
        waits = limited or plan.draws_by(name) in (SIZE, PATH, *LEARNING)
        if most > 1 and not waits and shares.limit is None and methods.method_class(arm.method).stacks:
            best = time({**_like(plan, name), "most": most}, shares)
            sizes[name] = math.ceil(left[name] / (at_once * math.ceil(left[name] / (at_once * best))))
    return sizes


def _like(plan: Plan, name: str) -> dict[str, Any]:
    """A trial of an arm like many of its trials: in the middle of its knob and of its widths."""
    arm = plan.every[name]
    small, large = estimate.ends(plan, arm)
    depth = (len(small) + len(large)) // 2
    small, large = ((widths * depth)[:depth] for widths in (small, large))
    widths = [round(math.sqrt(low * high)) for low, high in zip(small, large, strict=True)]
    return {
        "method": arm.method, "knob": arm.first_knob, "settings": dict(arm.settings), "network": plan.network,
        "widths": widths, **{field: plan.setting(name, field) for field in ("epochs", "batch_size", "optimizer")},
        "precision": plan.setting(name, "precision") or "float32",
    }  # fmt: skip


def timed(like: dict[str, Any], shares: Shares, luggage: Luggage) -> int:
    """The size of packs that trains fastest here, as `sizer.packs.best_size` finds it; 1 where such a trial fails."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(shares.cpus)))
    data = data_of(luggage, 0)

    def build() -> torch.nn.Module:
        return plans.build(code_of(luggage) or like["network"], data.input_shape, data.outputs, like["widths"])

    def member(seed: int) -> packs.Member:
        return packs.Member(build, methods.create(like["method"], like["knob"], **like["settings"]), seed)

    try:
        return packs.best_size(
            member, data, like["most"],
            steps=like["most"] * like["epochs"] * len(data.x_train) / like["batch_size"],
            batch_size=like["batch_size"], optimizer=like["optimizer"], precision=like["precision"],
            device="cuda" if shares.gpus > 0 and torch.cuda.is_available() else "cpu",
        )  # fmt: skip
    except Exception:  # what it was, the trials say better
        return 1
    finally:
        torch.set_num_threads(threads)
