"""Steps of torch's fused Adam on a CPU without what its ``step()`` does beside it, which small networks feel.

``Adam.step()`` takes longer than its kernel does on some 100,000 parameters: it looks for hooks, profilers, captured
graphs, and groups by device and type. Where none of that is there, the kernel is called as it would call it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as everywhere

Lists = tuple[list[Tensor], ...]
"""Of the parameters that have a gradient: they, their gradients, first and second moments, and counts of steps."""


def step(optimizer: Optimizer) -> None:
    """As ``optimizer.step()``, to the bit."""
    found = [_lists(optimizer, options) for options in optimizer.param_groups] if _unwatched(optimizer) else []
    lists = [held for held in found if held is not None]
    if not found or len(lists) < len(found):
        optimizer.step()
        return
    with torch.no_grad():
        for options, held in zip(optimizer.param_groups, lists, strict=True):
            trained, gradients, first, second, counts = held
            if not trained:
                continue
            torch._foreach_add_(counts, 1)
            kernel = torch._fused_adamw_ if options["decoupled_weight_decay"] else torch._fused_adam_
            kernel(
                trained, gradients, first, second, [], counts, amsgrad=False, lr=options["lr"],
                beta1=options["betas"][0], beta2=options["betas"][1], weight_decay=options["weight_decay"],
                eps=options["eps"], maximize=options["maximize"],
            )  # fmt: skip


def clear(optimizer: Optimizer) -> None:
    """As ``optimizer.zero_grad()``, which takes longer to say what it does than to do it on small networks."""
    for options in optimizer.param_groups:
        for parameter in options["params"]:
            parameter.grad = None


def _unwatched(optimizer: Optimizer) -> bool:
    """Whether it is torch's own, and no schedule or hook takes part in its steps."""
    hooks = (
        optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks,
        everywhere._global_optimizer_pre_hooks, everywhere._global_optimizer_post_hooks,
    )  # fmt: skip
    return type(optimizer) in (Adam, AdamW) and "step" not in vars(optimizer) and not any(hooks)


def _lists(optimizer: Optimizer, options: dict[str, Any]) -> Lists | None:
    """What the kernel takes of a group; None where only ``step()`` itself will do, as it must in the first step."""
    if not options["fused"] or options["amsgrad"] or options["differentiable"] or isinstance(options["lr"], Tensor):
        return None
    trained = [parameter for parameter in options["params"] if parameter.grad is not None]
    gradients = [parameter.grad for parameter in trained]
    states = [optimizer.state.get(parameter) or {} for parameter in trained]
    dense = not any(gradient.is_sparse for gradient in gradients)
    kinds = {(parameter.device.type, parameter.dtype) for parameter in trained}
    if not (dense and all(states) and len(kinds) < 2 and all(kind == "cpu" for kind, _ in kinds)):
        return None
    first, second, counts = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
    return trained, gradients, first, second, counts
