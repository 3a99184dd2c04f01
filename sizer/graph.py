"""A network that is any directed acyclic graph: neurons, and the synapses between them, stored one by one.

After "Growing an architecture for a neural network" (Khashin and Shemyakova, arXiv:2108.02231), whose networks are not
layered. What is left of a level's synapses is computed as one product over the neurons and sources that have any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sizer.errors import InputError, UnsupportedNetworkError, unknown
from sizer.levels import ACTIVATIONS, KINDS, Levels, activated, check, levels_of, renumbered

_MODULES: dict[type | None, str] = {
    nn.Identity: "linear", nn.Tanh: "tanh", nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.SELU: "selu",
}  # fmt: skip


class Graph(nn.Module):
    """Neurons in topological order, each fed by inputs and by earlier neurons, and linear outputs.

    Places are counted through: inputs from 0, then neurons, then outputs. What it is stands in its ``state_dict``:
    a graph of as many neurons and synapses takes any other's.

    Args:
        inputs: numbers that a sample has, whatever its shape.
        outputs: numbers that it gives for a sample.
        synapses: (from, to), places; neurons may stand in any order that has no cycle.
        activations: of the neurons, one for all or one each, of ``ACTIVATIONS``; their number says how many there are.
        neurons: how many, where one activation stands for all.

    Attributes:
        weight: of each synapse, float (synapses,), as its ``source`` and ``target``, int64, by target, then source.
        bias, kind: of each neuron, (neurons,), by level; ``kind`` is a place in ``ACTIVATIONS``, int8.
        output_bias: float (outputs,).

    Raises:
        InputError: a place is not there, a synapse is there twice or closes a cycle, a neuron has no input or nobody
            listens to it, or an output is fed by nothing.
    """

    weight: Tensor
    bias: Tensor
    output_bias: Tensor
    source: Tensor
    target: Tensor
    kind: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        synapses: Sequence[tuple[int, int]],
        activations: str | Sequence[str] = "tanh",
        neurons: int | None = None,
    ) -> None:
        super().__init__()
        given = [activations] * (neurons or 0) if isinstance(activations, str) else list(activations)
        for name in given:
            if name not in ACTIVATIONS:
                raise unknown("activation", name, ACTIVATIONS)
        pairs = torch.tensor(synapses, dtype=torch.int64).reshape(-1, 2)
        check(pairs, inputs, len(given), outputs)
        order = levels_of(pairs, inputs, len(given)).argsort(stable=True)
        source, target = (renumbered(pairs[:, at], inputs, order) for at in (0, 1))
        at = (target * (inputs + len(given)) + source).argsort()
        kind = torch.tensor([KINDS.index(given[i]) for i in order], dtype=torch.int8)
        self._hold(inputs, outputs, source[at], target[at], kind)
        self.reset_parameters()
        self._plan()

    def _hold(self, inputs: int, outputs: int, source: Tensor, target: Tensor, kind: Tensor) -> None:
        self.inputs, self.outputs = inputs, outputs
        for name, length in (("weight", len(source)), ("bias", len(kind)), ("output_bias", outputs)):
            self.register_parameter(name, nn.Parameter(torch.zeros(length)))
        for name, value in (("source", source), ("target", target), ("kind", kind)):
            self.register_buffer(name, value)
        self._arranged: Levels | None = None

    @classmethod
    def blank(cls, inputs: int, outputs: int, neurons: int, synapses: int) -> Graph:
        """One of this size whose ``state_dict`` is to be loaded: before that it gives nothing."""
        graph = cls.__new__(cls)
        nn.Module.__init__(graph)
        source, target = (torch.zeros(synapses, dtype=torch.int64) for _ in range(2))
        graph._hold(inputs, outputs, source, target, torch.zeros(neurons, dtype=torch.int8))
        return graph

    @classmethod
    def layered(cls, inputs: int, outputs: int, widths: Sequence[int], activation: str = "tanh") -> Graph:
        """Layers of neurons, each fed by all of the one before."""
        starts = [0]
        for width in (inputs, *widths, outputs):
            starts.append(starts[-1] + width)
        synapses = [
            (source, target)
            for low, middle, high in zip(starts, starts[1:], starts[2:], strict=False)
            for target in range(middle, high)
            for source in range(low, middle)
        ]
        return cls(inputs, outputs, synapses, activation, sum(widths))

    @classmethod
    def of(cls, module: nn.Module) -> Graph:
        """The graph of a layered network, with the same outputs: of Linear layers, with activations between them.

        Raises:
            UnsupportedNetworkError: it has something else, or no neuron, or its forward() does more.
        """
        parts = [part for part in module.modules() if not list(part.children())]
        parts = [part for part in parts if not isinstance(part, nn.Flatten | nn.Dropout)]
        linear = [part for part in parts if isinstance(part, nn.Linear)]
        kinds: list[str] = []
        for part, following in pairwise([*parts, None]):
            if type(part) in _MODULES:
                continue
            if not isinstance(part, nn.Linear):
                kind = type(part).__name__
                raise UnsupportedNetworkError(f"a graph is made of Linear layers and {', '.join(KINDS)}, got a {kind}")
            if part is not linear[-1]:
                kinds += [_MODULES.get(type(following), "linear")] * part.out_features
            elif following is not None:
                raise UnsupportedNetworkError("a graph's outputs are linear: leave out what follows the last layer")
        if len(linear) < 2 or any(a.out_features != b.in_features for a, b in pairwise(linear)):
            kind = type(module).__name__
            raise UnsupportedNetworkError(f"a graph is made of 2 or more Linear layers in a row, got a {kind}")
        widths = [layer.out_features for layer in linear]
        graph = cls.layered(linear[0].in_features, widths[-1], widths[:-1])
        with torch.no_grad():
            graph.weight.copy_(torch.cat([layer.weight.flatten() for layer in linear]))
            biases: list[Tensor] = [
                torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in linear
            ]
            graph.bias.copy_(torch.cat(biases[:-1]))
            graph.output_bias.copy_(biases[-1])
            graph.kind.copy_(torch.tensor([KINDS.index(kind) for kind in kinds]))
        if not _alike(graph, module):
            raise UnsupportedNetworkError(
                f"the forward() of this {type(module).__name__} does more than its layers, one after the other"
            )
        return graph

    @property
    def neurons(self) -> int:
        """How many neurons it has, outputs not among them."""
        return len(self.bias)

    @property
    def synapses(self) -> int:
        """How many synapses it has: with the biases, its parameters."""
        return len(self.weight)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws weights as Glorot and Bengio do (2010), uniformly, by each target's synapses; biases are 0."""
        fed = torch.bincount(self.target, minlength=self.inputs + self.neurons + self.outputs)
        feeds = torch.bincount(self.source, minlength=len(fed))
        # In layers, the fan-out of a layer's neuron is that of its siblings: what feeds it feeds as many.
        bound = (6 / (fed[self.target] + feeds[self.source])).sqrt()
        self.weight.copy_((2 * torch.rand(self.synapses) - 1) * bound)
        self.bias.zero_()
        self.output_bias.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """float (N, ...) with ``inputs`` numbers a sample -> (N, outputs)."""
        return self.candidates(input, self.weight, self.bias, self.output_bias)

    def candidates(self, input: Tensor, weight: Tensor, bias: Tensor, output_bias: Tensor) -> Tensor:
        """The outputs under other parameters, of several candidates at once.

        Args:
            input: (N, ...).
            weight, bias, output_bias: in the shape of its own, or (K, ...) of them, for K candidates.

        Returns:
            (N, outputs), or (K, N, outputs).
        """
        plan = self._plan()
        sums = plan.inward.product(weight, plan.feeding(input))
        return self._onward(sums, weight, bias, output_bias, input.shape[0])

    def without(self, input: Tensor, gone: Tensor) -> Tensor:
        """The outputs of candidates that each do without some synapses, and are else as the graph is.

        What inputs give neurons is summed once for all, and corrected by what each is without.

        Args:
            input: (N, ...).
            gone: masks, bool (K, synapses).

        Returns:
            (K, N, outputs).
        """
        plan, count = self._plan(), len(gone)
        block, feeding = plan.inward, plan.feeding(input)
        base = block.product(self.weight, feeding)
        sums = base.repeat(count, 1)
        candidate, synapse = gone.index_select(1, block.synapses).nonzero(as_tuple=True)
        row, column = block.places[synapse] // block.columns, block.places[synapse] % block.columns
        missing = self.weight[block.synapses[synapse], None] * feeding.index_select(0, column)
        sums = sums.index_add(0, candidate * block.rows + row, missing, alpha=-1)
        weight = self.weight.expand(count, -1).masked_fill(gone, 0)
        bias, output_bias = (value.expand(count, -1) for value in (self.bias, self.output_bias))
        return self._onward(sums.view(count, block.rows, -1), weight, bias, output_bias, input.shape[0])

    def _onward(self, sums: Tensor, weight: Tensor, bias: Tensor, output_bias: Tensor, samples: int) -> Tensor:
        """The outputs, from what inputs give each neuron, level by level."""
        found: list[Tensor] = []
        plan = self._plan()
        for level in plan.levels:
            own = output_bias if level.last else bias[..., level.first : level.end]
            total = own.unsqueeze(-1)
            if level.fed is not None:
                total = level.fed.put(total, sums[..., level.fed.first : level.fed.end, :], level.width)
            if level.block is not None:
                parts = [found[at] if rows is None else found[at].index_select(-2, rows) for at, rows in level.sources]
                joined = parts[0] if len(parts) == 1 else torch.cat(parts, -2)
                total = level.onto.put(total, level.block.product(weight, joined), level.width)
            if level.last:
                return total.expand(*total.shape[:-1], samples).transpose(-1, -2)
            found.append(activated(total, level.kinds))
        raise AssertionError("a graph has outputs")

    def flops(self) -> tuple[int, int]:
        """FLOPs of one sample, two a synapse: forward; and with the gradients of weights and of neurons' outputs.

        The products that a level is computed by have zeros where neurons and sources that have synapses do not have one
        with each other; these are not counted.
        """
        behind = int((self.source >= self.inputs).sum())
        forward = 2 * self.synapses
        return forward, 2 * forward + 2 * behind

    def levels(self) -> list[int]:
        """Of each neuron, how many neurons lie on the longest way to it from an input."""
        pairs = torch.stack((self.source, self.target), 1).cpu()
        return [int(level) for level in levels_of(pairs, self.inputs, self.neurons)]

    def check(self) -> None:
        """Refuses what ``load_state_dict`` may have brought.

        Raises:
            InputError: as the constructor; or neurons and synapses stand in another order than they do in a graph.
        """
        pairs = torch.stack((self.source, self.target), 1).cpu()
        check(pairs, self.inputs, self.neurons, self.outputs)
        levels = levels_of(pairs, self.inputs, self.neurons)
        places = pairs[:, 1] * (self.inputs + self.neurons) + pairs[:, 0]
        if bool((levels.diff() < 0).any()) or bool((places.diff() <= 0).any()):
            raise InputError("a graph's neurons stand by level, its synapses by target, then source: these do not")
        if not 0 <= int(self.kind.min()) <= int(self.kind.max()) < len(KINDS):
            raise InputError(f"kinds of neurons go from 0 to {len(KINDS) - 1}, got {self.kind.tolist()}")

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, neurons={self.neurons}, synapses={self.synapses}, outputs={self.outputs}"

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._arranged = None
        problems = args[-1]
        if self.target.device.type != "meta" and not problems:
            self.check()
            self._plan()  # who exports it next cannot look at its values

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Graph:
        arranged = self._arranged is not None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types for it
        if arranged and self.target.device.type != "meta":
            self._plan()
        return self

    def _plan(self) -> Levels:
        """How it is computed; anew where its synapses have changed, whoever changed them."""
        if self._arranged is None or not (torch.compiler.is_compiling() or self._arranged.is_of(self)):
            self._arranged = Levels.of(self)
        return self._arranged


@torch.no_grad()
def _alike(graph: Graph, module: nn.Module) -> bool:
    """Whether a layered network gives what the graph made of it does; its mode is left as it was."""
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        with torch.random.fork_rng():
            x = torch.randn(4, graph.inputs)
        given = module(x)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    finally:
        for child in training:
            child.training = True
    found = graph(x)
    return isinstance(given, Tensor) and given.shape == found.shape and torch.allclose(given, found, 1e-3, 1e-4)
