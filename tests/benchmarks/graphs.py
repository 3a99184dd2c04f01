"""What is timed of graphs: candidates side by side against one after the other, and a round of removal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

import sizer
from sizer import candidates, datasets, networks
from sizer.candidates import Candidates
from sizer.datasets import Data
from sizer.graph import Graph
from sizer.graph_net import GraphNet
from sizer.methods import create
from sizer.methods.growing import Growing
from sizer.objectives import cross_entropy, squared_error
from tests.benchmarks.images import first
from tests.benchmarks.row import Side

ROWS = 32_768
EXAMPLES: dict[str, tuple[Callable[[], Data], list[int]]] = {
    "mnist": (lambda: first("mnist"), [7, 7]),
    "coordinates": (lambda: datasets.load("coordinates"), [12, 12]),
}
"""Data set -> how it is read, and the layers that its graph starts as."""


def attached(example: str) -> tuple[GraphNet, Growing, Tensor, Tensor]:
    """A graph with the weights of seed 0, its method, and rows to measure on."""
    read, widths = EXAMPLES[example]
    data = read()
    torch.manual_seed(0)
    graph = networks.build("graph", data.input_shape, data.outputs, widths)
    method = cast(Growing, create("growing", 2e-3, rounds=1))
    net = cast(GraphNet, sizer.attach(graph, data.x_train[:2], method))
    x, y = data.x_train[:ROWS], data.y_train[:ROWS]
    net.examples = lambda: [((x,), y)]
    net.loss = cross_entropy if data.task == "classification" else squared_error
    return net, method, x.flatten(1), y


def measured(example: str, count: int) -> tuple[Side, ...]:
    """Seconds to find the losses of so many candidates, each without another synapse."""
    net, _, x, y = attached(example)
    graph, loss = net.module, cast(Callable[[Tensor, Tensor], Tensor], net.loss)
    many = without(graph, count)
    assert many.kept is not None
    gone = ~many.kept

    def together() -> float:
        began = time.perf_counter()
        candidates.losses_without(graph, gone, x, y, loss)
        return time.perf_counter() - began

    def one_by_one() -> float:
        began = time.perf_counter()
        for at in range(count):
            candidates.losses(graph, single(many, at), x, y, loss)
        return time.perf_counter() - began

    return together, one_by_one


def trained(example: str, count: int) -> tuple[Side, ...]:
    """Seconds to train so many candidates by 50 steps of Adam on batches of 1,024."""
    net, _, x, y = attached(example)
    graph, loss = net.module, cast(Callable[[Tensor, Tensor], Tensor], net.loss)
    many = without(graph, count)

    def train(of: Candidates) -> None:
        candidates.adam(graph, of, x, y, loss, steps=50, batch=1024, rate=1e-3)

    def together() -> float:
        began = time.perf_counter()
        train(many)
        return time.perf_counter() - began

    def one_by_one() -> float:
        began = time.perf_counter()
        for at in range(count):
            train(single(many, at))
        return time.perf_counter() - began

    return together, one_by_one


def removal() -> tuple[Side, ...]:
    """Seconds of one round of removal on 784-7-7-10."""

    def ours() -> float:
        net, method, _, _ = attached("mnist")
        method.value = 1.0
        began = time.perf_counter()
        came = method._remove(net, net.module.synapses)
        took = time.perf_counter() - began
        assert (came["rounds"], came["removed"]) == (1, 1)
        return took

    return (ours,)


def without(graph: Graph, count: int) -> Candidates:
    gone = torch.zeros(count, graph.synapses, dtype=torch.bool)
    gone[torch.arange(count), torch.arange(count)] = True
    return Candidates.without(graph, gone)


def single(of: Candidates, at: int) -> Candidates:
    kept = None if of.kept is None else of.kept[at : at + 1]
    return Candidates.of((value[at : at + 1] for value in of.tensors), kept)
