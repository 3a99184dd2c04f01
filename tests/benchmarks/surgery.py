"""What is timed of resizing and gating networks."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.nn import functional as F

import sizer
from sizer import networks
from sizer.methods import create
from sizer.net import Net
from tests.benchmarks.row import Side

CIFAR = (3, 32, 32)


def build(name: str, shape: tuple[int, ...] = CIFAR) -> nn.Module:
    torch.manual_seed(0)
    return networks.build(name, shape, 10)


def attaching(network: str) -> tuple[Side, ...]:
    """Seconds of one ``attach``, the network being there."""

    def ours() -> float:
        module, x = build(network), torch.randn(2, *CIFAR)
        began = time.perf_counter()
        sizer.attach(module, x, create("shrinknets", 1e-3))
        return time.perf_counter() - began

    return (ours,)


def removing(units: int) -> tuple[Side, ...]:
    """Seconds to take some units from each width of resnet18, the graph being known."""
    import torch_pruning  # type: ignore[import-untyped]

    x = torch.randn(2, *CIFAR)
    layers = networks.layers("resnet18")

    def ours() -> float:
        net = sizer.attach(build("resnet18"), x, create("fixed"))
        began = time.perf_counter()
        net.remove_all({layer: range(units) for layer in layers})
        return time.perf_counter() - began

    def theirs() -> float:
        module = build("resnet18")
        graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=x)
        began = time.perf_counter()
        for layer in layers:
            convolution = module.get_submodule(layer)
            graph.get_pruning_group(convolution, torch_pruning.prune_conv_out_channels, idxs=list(range(units))).prune()
        return time.perf_counter() - began

    return ours, theirs


def gated(network: str, shape: tuple[int, ...], batch: int, steps: int) -> tuple[Side, ...]:
    """Seconds of a training step, the first left out: with gates that stay open, and without any."""
    x, y = torch.randn(batch, *shape), torch.randint(10, (batch,))

    def seconds(module: nn.Module, net: Net | None, optimizer: torch.optim.Optimizer) -> float:
        began = 0.0
        for at in range(steps + 1):
            began = began if at > 1 else time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
            if net is not None:
                net.after_step()
        return (time.perf_counter() - began) / steps

    def ours() -> float:
        module = build(network, shape)
        net = sizer.attach(module, x[:2], create("shrinknets", 1e-9, start="ones"))
        return seconds(module, net, net.track(torch.optim.Adam(net.param_groups(1e-4), fused=True)))

    def theirs() -> float:
        module = build(network, shape)
        return seconds(module, None, torch.optim.Adam(module.parameters(), 1e-4, fused=True))

    return ours, theirs
