"""What a network weighs: parameters, FLOPs, latency, and the memory that training took."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from sizer.gates import is_gate
from sizer.graph import Graph

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def parameters(module: nn.Module) -> int:
    """How many numbers the network's parameters hold, gates left out: what the finished network has."""
    return sum(value.numel() for name, value in module.named_parameters() if not is_gate(name))


def flops(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, int]:
    """FLOPs of one sample, counted by torch's FlopCounterMode (a multiplication and an addition are two).

    Those of a ``Graph`` are those of its synapses.

    Args:
        module: the network; nothing of it changes.
        inputs: its positional inputs; the first sample is used.

    Returns:
        Those of a forward pass, and those of a training step's forward and backward pass.
    """
    if isinstance(module, Graph):
        return module.flops()
    one = tuple(value[:1] if isinstance(value, Tensor) else value for value in inputs)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        with FlopCounterMode(display=False) as forward, torch.enable_grad():
            outputs = list(_tensors(module(*one)))
        with FlopCounterMode(display=False, custom_mapping=_CORRECTED) as backward:
            torch.autograd.grad(torch.stack([output.sum() for output in outputs]).sum(), trained, allow_unused=True)
    finally:
        for child in training:
            child.training = True
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


class Flops:
    """``flops`` of one network as its widths change, without a pass where that is not needed.

    A linear or convolutional layer costs in proportion to its weight, as the places that it is applied at do not depend
    on widths. Where such layers come to all that was counted at first, the rest is worked out from their weights.

    Args:
        module: the network; nothing of it changes.
        inputs: as ``flops`` takes them.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.module = module
        self.inputs = inputs
        self._layers: list[tuple[Weighted, int, bool]] | None = None
        self._follows = False

    def __call__(self) -> tuple[int, int]:
        """As ``flops`` gives them, at the present widths."""
        if self._layers is None:
            self._layers = []
            with ExitStack() as hooks:
                for child in self.module.modules():
                    if isinstance(child, Weighted):
                        hooks.callback(child.register_forward_hook(self._passed).remove)
                counted = flops(self.module, self.inputs)
            self._follows = counted == self._worked_out()
            return counted
        return self._worked_out() if self._follows else flops(self.module, self.inputs)

    def _passed(self, layer: Weighted, inputs: tuple[Any, ...], output: Any) -> None:
        assert self._layers is not None
        places = sum(each.numel() for each in _tensors(output)) // len(layer.weight)
        self._layers.append((layer, places, any(each.requires_grad for each in _tensors(inputs))))

    def _worked_out(self) -> tuple[int, int]:
        forward = backward = 0
        for layer, places, passes_on in self._layers or ():
            cost = 2 * layer.weight.numel() * places
            forward += cost
            backward += cost * (int(layer.weight.requires_grad) + int(passes_on))
        return forward, forward + backward


def latency(module: nn.Module, inputs: tuple[Any, ...], runs: int = 20) -> float:
    """Seconds of one forward pass in evaluation mode, the median of so many after some to warm up.

    Args:
        module: the network; its mode is left as it was.
        inputs: the positional inputs of the pass, on its device; their batch size is the one that is timed.
        runs: how many are timed, at least 1.
    """
    device = next(module.parameters()).device
    training = [child for child in module.modules() if child.training]
    module.eval()
    seconds = []
    try:
        with torch.inference_mode():
            for run in range(runs + 3):
                began = time.perf_counter()
                module(*inputs)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if run >= 3:
                    seconds.append(time.perf_counter() - began)
    finally:
        for child in training:
            child.training = True
    return statistics.median(seconds)


def _convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any, out_shape: Any = None) -> int:
    """Input and weight gradients cost what the forward pass does; torch's own formula forgets groups."""
    transposed, wanted = rest[4], rest[7]
    return int(conv_flop_count(x, weight, grad, transposed=transposed) * sum(wanted[:2]))


_CORRECTED: dict[Any, Any] = {torch.ops.aten.convolution_backward: _convolution_backward}


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def reset_peak_memory(device: torch.device) -> None:
    """Begins a new measurement; where the system cannot, ``peak_memory`` covers the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes used since ``reset_peak_memory``: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
