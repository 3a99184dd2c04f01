"""A graph whose synapses and neurons come and go while it trains: what a method and a loop talk to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sizer.dimensions import Atom
from sizer.errors import InputError, unknown
from sizer.graph import Graph
from sizer.groups import Group, Groups, Slot, TensorRef
from sizer.levels import ACTIVATIONS, KINDS, levels_of, renumbered
from sizer.methods.method import Method
from sizer.net import Net

NEURONS, SYNAPSES = "neurons", "synapses"


class GraphNet(Net):
    """A ``Graph`` in the place of a layered network: its widths are its ``neurons`` and its ``synapses``.

    Neurons that nothing feeds any more, or that nobody listens to, go with their synapses; what they gave their
    listeners as a constant goes into these' biases. Optimiser state, gradients and copies follow.
    """

    module: Graph

    def __init__(self, module: Graph, inputs: tuple[Any, ...], method: Method, round_to: int = 1) -> None:
        super().__init__(module, inputs, method, _Sizes(module), round_to)

    def remove_all(self, units: Mapping[str, Iterable[int]]) -> None:
        """Removes synapses by their places in ``Graph.weight``, or neurons by theirs in ``Graph.bias``.

        Raises:
            InputError: there is no such one, or no neuron, or an output without a synapse, would be left.
        """
        graph = self.module
        gone = torch.zeros(graph.synapses, dtype=torch.bool)
        for kind, given in units.items():
            places, width = list(given), self.group(kind).width
            if odd := [at for at in places if not -width <= at < width]:
                raise InputError(f"'{kind}' go from 0 to {width - 1}, got {odd[0]}")
            chosen = torch.zeros(width, dtype=torch.bool)
            chosen[torch.as_tensor(places, dtype=torch.int64)] = True
            if kind == SYNAPSES:
                gone |= chosen
            else:
                at = graph.inputs + chosen.nonzero()[:, 0]
                gone |= torch.isin(graph.source.cpu(), at) | torch.isin(graph.target.cpu(), at)
        if not survives(graph, gone[None])[0]:
            raise InputError("a graph keeps a neuron, and a synapse to each output: leave more of it")
        self.cut(gone)

    @torch.no_grad()
    def cut(self, gone: Tensor) -> None:
        """Removes the synapses of a mask, bool (synapses,), and the neurons that are then of no use."""
        graph = self.module
        gone = gone.cpu().clone()
        source, target = graph.source.cpu(), graph.target.cpu()
        end = graph.inputs + graph.neurons
        left = torch.ones(graph.neurons, dtype=torch.bool)
        while True:
            fed, feeds = (torch.bincount(at[~gone], minlength=end)[graph.inputs : end] > 0 for at in (target, source))
            idle = (left & ~(fed & feeds)).nonzero()[:, 0]
            if not len(idle):
                break
            for neuron in idle.tolist():
                onward = (source == graph.inputs + neuron) & ~gone
                if not fed[neuron]:
                    for module in self._graphs():
                        _fold(module, neuron, onward.nonzero()[:, 0])
                gone |= onward | (target == graph.inputs + neuron)
            left[idle] = False
        self._rebuild(left.nonzero()[:, 0], (~gone).nonzero()[:, 0])

    @torch.no_grad()
    def add_neuron(self, incoming: Tensor, bias: Tensor | float, outgoing: Tensor, activation: str = "tanh") -> None:
        """Adds a neuron that all inputs feed, and that feeds all other neurons and all outputs.

        Args:
            incoming: its weights, float (inputs,).
            bias: its own.
            outgoing: the weights of its synapses, float (neurons + outputs,).
            activation: one of ``ACTIVATIONS``.
        """
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        graph = self.module
        inputs, neurons, old = graph.inputs, graph.neurons, graph.synapses
        new = torch.full((inputs + neurons + graph.outputs,), -1)
        self._rebuild(torch.cat((torch.tensor([-1]), torch.arange(neurons))), torch.cat((torch.arange(old), new)))
        # Synapses are sorted by target, then source: those into the new neuron are the first, then one a listener.
        fresh = (graph.target == inputs) | (graph.source == inputs)
        for module in self._graphs():
            module.weight.data[fresh] = torch.cat((incoming, outgoing)).to(module.weight)
            module.bias.data[0] = bias
            module.kind[0] = KINDS.index(activation)

    def grow(self, layer: str, count: int) -> None:
        """Adds neurons with fresh incoming weights and outgoing weights of 0: the outputs stay the same."""
        graph = self.module
        if layer != NEURONS:
            self.group(layer)
            raise InputError("synapses come with the neurons that they belong to: grow 'neurons'")
        if count < 1:
            raise InputError(f"units to grow must be at least 1, got {count}")
        for _ in range(count):
            incoming = torch.randn(graph.inputs, device=self.device) / graph.inputs**0.5
            self.add_neuron(incoming, 0.0, torch.zeros(graph.neurons + graph.outputs, device=self.device))

    def _graphs(self) -> list[Graph]:
        """The graph, and the copies that follow it."""
        return [self.module, *(copy for copy in self.copies if isinstance(copy, Graph))]

    def _rebuild(self, neurons: Tensor, synapses: Tensor) -> None:
        """Brings the graph to these of its neurons and synapses, in canonical order.

        Args:
            neurons: places of those that stay, -1 in the first place for a new one.
            synapses: likewise; new ones, at the end, are all of a new neuron.
        """
        graph = self.module
        inputs, outputs, had = graph.inputs, graph.outputs, graph.neurons
        to = torch.full((had,), -1)
        to[neurons[neurons >= 0]] = (neurons >= 0).nonzero()[:, 0]
        pairs = torch.stack((graph.source.cpu(), graph.target.cpu()), 1)[synapses[synapses >= 0]]
        inner = (pairs >= inputs) & (pairs < inputs + had)
        moved = torch.where(pairs >= inputs + had, pairs - had + len(neurons), pairs)
        moved[inner] = inputs + to[pairs[inner] - inputs]
        if new := int((synapses < 0).sum()):
            others = inputs + 1 + torch.arange(new - inputs)
            into = torch.stack((torch.arange(inputs), torch.full((inputs,), inputs)), 1)
            onward = torch.stack((torch.full_like(others, inputs), others), 1)
            moved = torch.cat((moved, into, onward))
        order = levels_of(moved, inputs, len(neurons)).argsort(stable=True)
        source, target = (renumbered(moved[:, at], inputs, order) for at in (0, 1))
        at = (target * (inputs + len(neurons) + outputs) + source).argsort()
        own = {group.name: group for group in self.groups}
        self._resize({own[NEURONS]: neurons[order], own[SYNAPSES]: synapses[at]})
        for module in self._graphs():
            module.source, module.target = source[at].to(graph.weight.device), target[at].to(graph.weight.device)


class _Sizes:
    """The neurons and the synapses of a graph as width groups, which carry parameters and optimiser state along."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def groups(self) -> Groups:
        def group(name: str, roles: Mapping[str, str]) -> Group:
            atom = Atom(len(getattr(self.graph, next(iter(roles)))))
            slots = [Slot(TensorRef(at, ((self.graph, at),)), 0, (atom,), role) for at, role in roles.items()]
            return Group(name, atom, slots, slots[:1], [], [])

        return Groups(
            [
                group(NEURONS, {"bias": "bias", "kind": "offset"}),
                group(SYNAPSES, {"weight": "row", "source": "offset", "target": "offset"}),
            ],
            [],
        )


def survives(graph: Graph, gone: Tensor) -> Tensor:
    """Whether a graph without some of its synapses has a neuron between inputs and outputs, and all outputs one.

    Args:
        graph: it.
        gone: masks of synapses, bool (K, synapses).

    Returns:
        bool (K,).
    """
    source, target, result = graph.source.cpu(), graph.target.cpu(), []
    end = graph.inputs + graph.neurons
    for mask in gone.cpu():
        stays = ~mask
        reached = torch.zeros(end + graph.outputs, dtype=torch.bool)
        reached[: graph.inputs] = True
        useful = torch.zeros_like(reached)
        useful[end:] = True
        # Neurons stand by level, synapses by target: in this order one pass would do, were it not for Python's loops.
        for marked, (before, behind) in ((reached, (source, target)), (useful, (target, source))):
            while True:
                new = behind[stays & marked[before] & ~marked[behind]]
                if not len(new):
                    break
                marked[new] = True
        alive = stays & reached[source] & useful[target]
        fed = torch.zeros_like(reached)
        fed[target[alive]] = True
        result.append(bool((reached & useful)[graph.inputs : end].any() and fed[end:].all()))
    return torch.tensor(result)


def _fold(module: Graph, neuron: int, onward: Tensor) -> None:
    """Moves what a neuron that nothing feeds gives its listeners into their biases."""
    constant = ACTIVATIONS[KINDS[int(module.kind[neuron])]](module.bias.detach()[neuron])
    end = module.inputs + module.neurons
    for at in onward.tolist():
        target = int(module.target[at])
        biases, place = (module.bias, target - module.inputs) if target < end else (module.output_bias, target - end)
        biases.data[place] += module.weight.detach()[at] * constant
