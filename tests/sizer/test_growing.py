"""What the method does in each of its steps: which synapses it tries, how candidates are trained, when it ends."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import sizer
from sizer import candidates
from sizer.candidates import Candidates, losses
from sizer.graph import Graph
from sizer.graph_net import GraphNet
from sizer.methods import create
from sizer.methods.growing import Growing

LOSS = nn.functional.mse_loss


def problem(rows: int = 200) -> tuple[Graph, Tensor, Tensor]:
    """A graph, and something smooth that it can learn."""
    torch.manual_seed(0)
    x = torch.randn(rows, 3)
    return Graph.layered(3, 1, [5, 4]), x, (x[:, :1] * x[:, 1:2]).tanh() + 0.5 * x[:, 2:]


def attached(epsilon: float = 2e-3, **settings: Any) -> tuple[GraphNet, Growing]:
    graph, x, y = problem()
    method = cast(Growing, create("growing", epsilon, **{"steps": 5, "sample": 0, "batch": 64, **settings}))
    net = cast(GraphNet, sizer.attach(graph, x[:2], method))
    net.examples, net.loss = lambda: [((x,), y)], LOSS
    return net, method


def some(graph: Graph) -> Candidates:
    """Candidates of other weights, each without another synapse."""
    gone = torch.zeros(3, graph.synapses, dtype=torch.bool)
    gone[torch.arange(3), torch.tensor([0, 7, 20])] = True
    made = Candidates.without(graph, gone)
    made.weight += torch.randn_like(made.weight).mul(0.3).masked_fill(gone, 0)
    return made


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_candidates_that_are_trained_side_by_side_come_to_what_each_comes_to_alone(optimizer: str) -> None:
    graph, x, y = problem()
    start = some(graph)

    def trained(of: Candidates) -> Candidates:
        torch.manual_seed(5)
        if optimizer == "lbfgs":
            return candidates.lbfgs(graph, of, x, y, LOSS, steps=12)[0]
        return candidates.adam(graph, of, x, y, LOSS, steps=40, batch=64, rate=1e-2)

    together, before = trained(start), losses(graph, start, x, y, LOSS)
    after = losses(graph, together, x, y, LOSS)
    assert bool((after < 0.7 * before).all())
    assert start.kept is not None
    assert not together.weight[~start.kept].any(), "what is gone stays gone"
    for at in range(3):
        alone = trained(Candidates.of((value[at : at + 1] for value in start.tensors), start.kept[at : at + 1]))
        assert float(losses(graph, alone, x, y, LOSS)) == pytest.approx(float(after[at]), rel=0.02)
    assert all(value.grad is None for value in graph.parameters())


def test_lbfgs_is_as_good_as_torchs_own_of_one_network() -> None:
    graph, x, y = problem()
    one = Candidates.without(graph, torch.zeros(1, graph.synapses, dtype=torch.bool))
    ours, passes = candidates.lbfgs(graph, one, x, y, LOSS, steps=60)
    theirs = torch.optim.LBFGS(graph.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        theirs.zero_grad()
        loss = LOSS(graph(x), y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        return loss

    theirs.step(closure)
    assert 61 <= passes <= 180
    assert float(losses(graph, ours, x, y, LOSS)) < 1.5 * float(LOSS(graph(x), y).detach())


def test_candidates_are_the_least_relative_to_the_largest_of_their_neuron() -> None:
    net, method = attached(candidates=3, retrained=1)
    graph = net.module
    graph.weight.data.fill_(1.0)
    first, second = ((graph.target == place).nonzero()[:, 0] for place in (3, 4))
    graph.weight.data[first] *= 100  # large in itself, yet the least beside its like
    graph.weight.data[first[0]] = 2.0
    graph.weight.data[second[1]] = -0.03
    graph.weight.data[-1] = 0.5
    found = [int(mask.nonzero()) for mask in method._weakest(graph)]
    assert found == [int(first[0]), int(second[1]), graph.synapses - 1]
    together = create("growing", 1e-2, candidates=2, retrained=1, per_round=2)
    (one, other) = cast(Growing, together)._weakest(graph)
    assert one.nonzero()[:, 0].tolist() == sorted([int(first[0]), int(second[1])])
    assert int(other.sum()) == 2
    assert not (one & other).any()


def test_a_new_neuron_is_the_best_of_its_starts() -> None:
    def grown(starts: int) -> float:
        net, method = attached(starts=starts)
        torch.manual_seed(1)
        method._add(net)
        assert net.module.neurons == 10
        assert net.examples is not None
        ((x,), y) = next(iter(net.examples()))
        net.module.check()
        fresh = net.module.weight[(net.module.source == 3) | (net.module.target == 3)]
        assert 0.5 < float(fresh.detach().abs().max()) <= 1
        return float(LOSS(net.module(x), y).detach())

    assert grown(200) < grown(1)


@pytest.mark.parametrize(
    ("settings", "ended"),
    [
        ({"keep": 0.7, "epsilon": 10.0}, "enough are gone"),
        ({"rounds": 3, "epsilon": 10.0}, "all rounds are done"),
        ({"epsilon": 1e9}, "none may go"),
        ({"epsilon": 1e-9, "polish": 200, "optimizer": "lbfgs"}, "the loss would rise"),
    ],
)
def test_removal_ends_and_says_why(settings: dict[str, Any], ended: str) -> None:
    net, method = attached(**settings)
    start = net.module.synapses
    came = method._remove(net, start)
    assert came["ended"] == ended
    assert came["synapses"] == net.module.synapses == start - came["removed"]
    assert net.module.synapses >= (0.7 * start - 1 if ended == "enough are gone" else 3)
    if ended == "the loss would rise":
        assert came["loss"] <= came["loss_before"] * (1 + 1e-6)
    assert net.spent > 0


def test_what_candidates_learn_meanwhile_pays_for_removals_only_against_the_start() -> None:
    left = {}
    for reference in ("start", "lowest"):
        net, method = attached(reference=reference, steps=60, rate=1e-2)
        torch.manual_seed(2)
        left[reference] = method._remove(net, net.module.synapses)["synapses"]
    assert left["start"] < left["lowest"]


def test_it_grows_until_its_limit_and_no_further() -> None:
    graph, x, y = problem()
    data = sizer.Loaders(*(torch.utils.data.TensorDataset(x, y) for _ in range(2)))
    method = create("growing", 2e-3, steps=2, starts=3, rounds=1, limit=70)
    run = sizer.fit(graph, data, method, epochs=8, batch_size=32)
    sizes = [epoch.parameters for epoch in run.history]
    reached = next(at for at, size in enumerate(sizes) if size >= 70)
    assert reached < 6
    assert len(set(sizes[reached:])) == 1
    assert sizes[0] < sizes[1] < 70 or reached == 1
