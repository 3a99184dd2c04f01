"""Growing an architecture (Khashin and Shemyakova, arXiv:2108.02231): synapses go one by one, and neurons come.

A network is any directed acyclic graph of neurons, ``sizer.graph.Graph``. It is trained, then loses its least synapses
until that costs too much; then it gets a neuron, and is trained again.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from sizer import candidates, cost
from sizer.candidates import Candidates
from sizer.errors import InputError, unknown
from sizer.graph import Graph
from sizer.graph_net import GraphNet, survives
from sizer.levels import ACTIVATIONS
from sizer.methods.method import Knob, Method
from sizer.net import Net

OPTIMIZERS = ("adam", "lbfgs")
REFERENCES = ("lowest", "start")


class Growing(Method):
    """After each epoch synapses go; before the next one a neuron comes, until the network has its size.

    Removal: of all synapses those with the least weight relative to the largest of their neuron are candidates (N1).
    The loss without each is measured in one pass; the best of them (N2) are trained side by side, and the one of least
    loss goes, with the weights it was trained to. That repeats as long as the loss is at most 1 + epsilon times what it
    was before. Where there still is much to learn, what the candidates learn meanwhile would pay for any removal. So
    "before" is the lowest loss since the epoch's training, and the network as it stands is trained beside them and
    counts; or, as in the paper's words, it is the loss before the first removal of an epoch (``reference``).

    Growth: a neuron that all inputs feed, and that feeds all other neurons and outputs; of several random starts (N3)
    in [-1, 1] that of the least loss. The network is then trained in the next epoch.

    Losses are means over the same training rows. It needs ``net.examples`` and ``net.loss``, which ``fit`` sets; what
    came of each epoch stands in ``net.notes["growing"]``.

    Args:
        value: epsilon: by what share the loss may rise.
        candidates: N1, of which the loss is measured in each round.
        retrained: N2, which are trained.
        starts: N3, of a new neuron.
        per_round: synapses that a candidate removes together.
        rounds: of removal at most after an epoch; 0: as many as the loss allows.
        every: epochs of training before each removal.
        growth: whether neurons come.
        limit: parameters at which sizing ends: once removal leaves so many or more, no neuron comes. 0: never.
        keep: the share of the synapses at the start at which removal ends.
        activation: of new neurons.
        reference: what the loss may not rise above: ``lowest``, or ``start``.
        optimizer: ``adam`` or ``lbfgs``, for the candidates.
        steps: of it, for each.
        polish: steps of it for the network itself, after each epoch's training and before removal.
        batch: rows of a step of Adam; L-BFGS takes all.
        rate: Adam's learning rate.
        sample: training rows at most that losses and steps are taken of, drawn anew each time; 0: all.
    """

    name = "growing"
    knob = Knob("epsilon", 1e-4, 1e-1)
    grows: ClassVar[bool] = True
    takes: ClassVar[str] = "graph"
    settings: ClassVar = {
        "candidates": 8, "retrained": 3, "starts": 100, "per_round": 1, "rounds": 0, "every": 1, "growth": True,
        "limit": 0, "keep": 0.0, "activation": "tanh", "reference": "lowest", "optimizer": "adam", "steps": 50,
        "polish": 0, "batch": 1024, "rate": 1e-3, "sample": 32768,
    }  # fmt: skip

    def __init__(
        self,
        value: float,
        candidates: int = 8,
        retrained: int = 3,
        starts: int = 100,
        per_round: int = 1,
        rounds: int = 0,
        every: int = 1,
        growth: bool = True,
        limit: int = 0,
        keep: float = 0.0,
        activation: str = "tanh",
        reference: str = "lowest",
        optimizer: str = "adam",
        steps: int = 50,
        polish: int = 0,
        batch: int = 1024,
        rate: float = 1e-3,
        sample: int = 32768,
    ) -> None:
        super().__init__(value)
        for name, number, least in (
            ("candidates", candidates, 1), ("retrained", retrained, 1), ("starts", starts, 1),
            ("per_round", per_round, 1), ("rounds", rounds, 0), ("every", every, 1), ("limit", limit, 0),
            ("steps", steps, 0), ("polish", polish, 0), ("batch", batch, 1), ("sample", sample, 0),
        ):  # fmt: skip
            if number < least:
                raise InputError(f"{name} of growing must be at least {least}, got {number}")
        if retrained > candidates:
            raise InputError(f"retrained of growing must be at most the {candidates} candidates, got {retrained}")
        if not 0 <= keep < 1 or not rate > 0:
            raise InputError(f"growing needs 0 <= keep < 1 and rate > 0, got {keep} and {rate}")
        for kind, given, known in (
            ("activation", activation, ACTIVATIONS),
            ("reference", reference, REFERENCES),
            ("optimizer", optimizer, OPTIMIZERS),
        ):
            if given not in known:
                raise unknown(f"{kind} of growing", given, known)
        self.candidates, self.retrained, self.starts = candidates, retrained, starts
        self.per_round, self.rounds, self.every = per_round, rounds, every
        self.growth, self.limit, self.keep = growth, limit, keep
        self.activation, self.reference, self.optimizer = activation, reference, optimizer
        self.steps, self.polish, self.batch, self.rate, self.sample = steps, polish, batch, rate, sample

    def check_start(self, module: nn.Module) -> None:
        has = cost.parameters(module)
        if self.limit and self.limit <= has:
            raise InputError(f"limit of growing must be over the {has:,} parameters of the start, got {self.limit:,}")

    def prepare(self, net: Net) -> None:
        self.check_start(net.module)
        net.notes["growing"] = {"start": _graph(net).synapses, "done": False, "epochs": []}

    def before_epoch(self, net: Net) -> None:
        state = net.notes["growing"]
        if self.growth and not state["done"] and state["epochs"] and state["epochs"][-1]["epoch"] == net.epoch - 1:
            self._add(cast(GraphNet, net))

    def after_epoch(self, net: Net) -> None:
        state = net.notes["growing"]
        if state["done"] or net.epoch % self.every:
            return
        came = self._remove(cast(GraphNet, net), state["start"])
        state["epochs"].append({"epoch": net.epoch, **came})
        state["done"] = bool(self.limit) and cost.parameters(net.module) >= self.limit

    def _add(self, net: GraphNet) -> None:
        """Adds the best of so many neurons."""
        graph, (x, y) = net.module, self._rows(net)
        incoming, outgoing = graph.inputs, graph.neurons + graph.outputs
        net.add_neuron(torch.zeros(incoming), 0.0, torch.zeros(outgoing), self.activation)
        fresh = ((graph.source == graph.inputs) | (graph.target == graph.inputs)).nonzero()[:, 0]
        tried = Candidates.without(graph, torch.zeros(self.starts, graph.synapses, dtype=torch.bool, device=net.device))
        tried.weight[:, fresh] = 2 * torch.rand(self.starts, len(fresh), device=net.device) - 1
        tried.bias[:, 0] = 2 * torch.rand(self.starts, device=net.device) - 1
        tried.give(graph, int(self._losses(net, tried, x, y).argmin()))

    def _remove(self, net: GraphNet, start: int) -> dict[str, Any]:
        """Removes synapses round by round, and says what came of it."""
        graph, (x, y) = net.module, self._rows(net)
        nothing = torch.zeros(1, graph.synapses, dtype=torch.bool, device=net.device)
        if self.polish:
            self._trained(net, Candidates.without(graph, nothing), x, y, self.polish).give(graph, 0)
        before = float(self._losses(net, Candidates.without(graph, nothing), x, y))
        came: dict[str, Any] = {"loss_before": before, "loss": before, "rounds": 0, "ended": "the loss would rise"}
        had, measure = graph.synapses, before
        while True:
            if graph.synapses <= self.keep * start:
                came["ended"] = "enough are gone"
                break
            if self.rounds and came["rounds"] == self.rounds:
                came["ended"] = "all rounds are done"
                break
            gone = self._weakest(graph)
            if not len(gone):
                came["ended"] = "none may go"
                break
            best = gone[self._losses_without(net, gone, x, y).argsort()[: self.retrained]]
            beside = torch.zeros_like(gone[:1]) if self.reference == "lowest" else gone[:0]
            tried = self._trained(net, Candidates.without(graph, torch.cat((best, beside))), x, y, self.steps)
            after = self._losses(net, tried, x, y).tolist()
            least, twin = min(after[: len(best)]), after[len(best) :]
            measure = min([measure, *twin])
            if not least <= measure + self.value * abs(measure):
                break
            at = after.index(least)
            tried.give(graph, at)
            net.cut(best[at])
            came["rounds"], came["loss"] = came["rounds"] + 1, least
            measure = min(measure, least) if twin else measure
        return {**came, "removed": had - graph.synapses, "synapses": graph.synapses, "neurons": graph.neurons}

    @torch.no_grad()
    def _weakest(self, graph: Graph) -> Tensor:
        """The candidates of a round: masks of the synapses that each removes, bool (up to N1, synapses)."""
        size = graph.weight.abs()
        largest = size.new_zeros(graph.inputs + graph.neurons + graph.outputs)
        largest = largest.scatter_reduce(0, graph.target, size, "amax")[graph.target]
        order = (size / largest.clamp(min=1e-30)).argsort(stable=True)
        count = min(self.candidates, graph.synapses // self.per_round)
        gone = torch.zeros(count, graph.synapses, dtype=torch.bool, device=size.device)
        gone.scatter_(1, order[: count * self.per_round].view(count, self.per_round), True)
        return gone[survives(graph, gone).to(gone.device)]

    def _trained(self, net: GraphNet, start: Candidates, x: Tensor, y: Tensor, steps: int) -> Candidates:
        if not steps:
            return start
        assert net.loss is not None
        if self.optimizer == "lbfgs":
            trained, passes = candidates.lbfgs(net.module, start, x, y, net.loss, steps=steps)
            net.spent += net.module.flops()[1] * len(start) * len(x) * passes
            return trained
        net.spent += net.module.flops()[1] * len(start) * min(self.batch, len(x)) * steps
        return candidates.adam(net.module, start, x, y, net.loss, steps=steps, batch=self.batch, rate=self.rate)

    def _losses(self, net: GraphNet, of: Candidates, x: Tensor, y: Tensor) -> Tensor:
        assert net.loss is not None
        net.spent += net.module.flops()[0] * len(of) * len(x)
        return candidates.losses(net.module, of, x, y, net.loss)

    def _losses_without(self, net: GraphNet, gone: Tensor, x: Tensor, y: Tensor) -> Tensor:
        assert net.loss is not None
        net.spent += net.module.flops()[0] * len(gone) * len(x)
        return candidates.losses_without(net.module, gone, x, y, net.loss)

    def _rows(self, net: GraphNet) -> tuple[Tensor, Tensor]:
        """Training rows to measure and train on."""
        if net.examples is None or net.loss is None:
            raise InputError(
                "growing needs net.examples, a callable that gives the training data's batches as (inputs, targets),"
                " and net.loss, their mean loss of (outputs, targets); fit() sets both"
            )
        parts = list(net.examples())
        x = torch.cat([inputs[0] for inputs, _ in parts]).flatten(1)
        y = torch.cat([targets for _, targets in parts])
        if 0 < self.sample < len(x):
            rows = torch.randperm(len(x), device=x.device)[: self.sample]
            return x[rows], y[rows]
        return x, y


def _graph(net: Net) -> Graph:
    assert isinstance(net.module, Graph)
    return net.module
