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
                    found[parameter] = _rate(options), _scale(optimizer.state.get(parameter, {}), options)
    return found


def _rate(options: dict[str, Any]) -> float | Tensor:
    """The learning rate, times what momentum makes of a gradient that stays: 1 + m + m^2 + ... = 1 / (1 - m).

    Dampening counts the gradient (1 - d) times. Nesterov's form, which has none, ends at the same step. Adam's first
    moment is an average, so its step is the learning rate.
    """
    given, momentum = options["lr"], options.get("momentum", 0.0)
    rate: float | Tensor = given if isinstance(given, Tensor) and given.is_cuda else float(given)
    return rate * (1 - options.get("dampening", 0.0)) / (1 - momentum) if momentum else rate


def _scale(state: dict[str, Any], options: dict[str, Any]) -> Tensor | float:
    """What the optimiser divided its last step by, of those that scale each entry by itself."""
    if "exp_avg_sq" in state:  # the Adam family; AMSGrad keeps the largest
        largest = state.get("max_exp_avg_sq", state["exp_avg_sq"])
        steps = state["step"]
        if isinstance(steps, Tensor) and steps.device.type == "cpu":
            steps = float(steps)  # elsewhere that would stop the device
        second: Tensor = largest / (1 - options["betas"][1] ** steps)
        return second.sqrt_().add_(options["eps"])
    for name in ("square_avg", "sum"):  # RMSprop, Adagrad
        if isinstance(state.get(name), Tensor):
            mean: Tensor = state[name]
            return mean.sqrt().add_(options["eps"])
    if "exp_inf" in state:  # Adamax
        norm: Tensor = state["exp_inf"]
        return norm.clone()
    return 1.0
