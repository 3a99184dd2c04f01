"""How far an optimiser moves each entry of a parameter for one unit of gradient: what a proximal step is taken with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

StepSize = tuple[float | Tensor, Tensor | float]
"""A rate, and what each entry's gradient is divided by: a number, or a tensor in the parameter's shape.

The rate is a tensor of shape () where the optimiser's is one on a GPU, which nothing then waits for.
"""


def step_sizes(optimizers: Iterable[Optimizer], parameters: Iterable[Tensor]) -> dict[Tensor, StepSize]:
    """The step of each of these parameters that an optimiser trains; of others there is none."""
    wanted = {id(parameter): parameter for parameter in parameters}
    found: dict[Tensor, StepSize] = {}
    for optimizer in optimizers:
        for options in optimizer.param_groups:
            for parameter in options["params"]:
                if id(parameter) in wanted:
                    found[parameter] = _step_size(optimizer.state.get(parameter, {}), options)
    return found


def _rate(options: dict[str, Any]) -> float | Tensor:
    """The learning rate, times what momentum makes of a gradient that stays: 1 + m + m^2 + ... = 1 / (1 - m).

    Dampening counts the gradient (1 - d) times. Nesterov's form, which has none, ends at the same step. Adam's first
    moment is an average, so its step is the learning rate.
    """
    given, momentum = options["lr"], options.get("momentum", 0.0)
    rate: float | Tensor = given if isinstance(given, Tensor) and given.is_cuda else float(given)
    return rate * (1 - options.get("dampening", 0.0)) / (1 - momentum) if momentum else rate


def _step_size(state: dict[str, Any], options: dict[str, Any]) -> StepSize:
    """The rate, and what the optimiser divided its last step by, of those that scale each entry by itself."""
    rate = _rate(options)
    if "exp_avg_sq" in state:  # the Adam family; AMSGrad keeps the largest
        steps = state["step"]
        if isinstance(steps, Tensor) and steps.device.type == "cpu":
            steps = float(steps)  # elsewhere that would stop the device
        # rate / (sqrt(v / c) + eps), with the bias correction c on the side of the numbers
        root = (1 - options["betas"][1] ** steps) ** 0.5
        largest: Tensor = state.get("max_exp_avg_sq", state["exp_avg_sq"])
        return rate * root, largest.sqrt().add_(options["eps"] * root)
    for name in ("square_avg", "sum"):  # RMSprop, Adagrad
        if isinstance(state.get(name), Tensor):
            mean: Tensor = state[name]
            return rate, mean.sqrt().add_(options["eps"])
    if "exp_inf" in state:  # Adamax
        norm: Tensor = state["exp_inf"]
        return rate, norm.clone()
    return rate, 1.0
