"""A graph of neurons computes what its synapses say, refuses what is no graph, and changes without changing outputs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sizer
from sizer import cost, networks
from sizer.candidates import Candidates, losses
from sizer.errors import InputError, UnsupportedNetworkError
from sizer.graph import Graph
from sizer.graph_net import GraphNet, survives
from sizer.levels import ACTIVATIONS, KINDS
from sizer.methods import create

quickly = settings(max_examples=60, deadline=None)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph: each neuron and output fed by some of what stands before it, and nothing for nothing."""
    inputs, neurons, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    end = inputs + neurons
    synapses = {
        (source, target)
        for target in range(inputs, end + outputs)
        for source in draw(st.sets(st.integers(0, min(target, end) - 1), min_size=1))
    }
    listened = {source for source, _ in synapses}
    synapses |= {(at, end) for at in range(inputs, end) if at not in listened}
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=neurons, max_size=neurons))
    torch.manual_seed(draw(st.integers(0, 99)))
    graph = Graph(inputs, outputs, draw(st.permutations(sorted(synapses))), kinds)
    nn.init.normal_(graph.bias)
    nn.init.normal_(graph.output_bias)
    return graph


def one_by_one(graph: Graph, x: Tensor) -> Tensor:
    """Each neuron by itself, as the paper writes it."""
    values, end = list(x.t()), graph.inputs + graph.neurons
    for place in range(graph.inputs, end + graph.outputs):
        bias = graph.bias[place - graph.inputs] if place < end else graph.output_bias[place - end]
        total = bias.expand(len(x))
        for at in (graph.target == place).nonzero()[:, 0].tolist():
            total = total + graph.weight[at] * values[int(graph.source[at])]
        kind = KINDS[int(graph.kind[place - graph.inputs])] if place < end else "linear"
        values.append(ACTIVATIONS[kind](total))
    return torch.stack(values[end:], 1)


def attached(graph: Graph) -> GraphNet:
    net = sizer.attach(graph, torch.randn(2, graph.inputs), create("growing", 2e-3))
    assert isinstance(net, GraphNet)
    return net


@quickly
@given(graphs())
def test_it_computes_what_its_synapses_say(graph: Graph) -> None:
    x = torch.randn(5, graph.inputs)
    torch.testing.assert_close(graph(x), one_by_one(graph, x), rtol=1e-4, atol=1e-5)


@quickly
@given(graphs())
def test_it_computes_the_same_in_lower_precision(graph: Graph) -> None:
    x = torch.randn(5, graph.inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = graph(x)
    torch.testing.assert_close(found.float(), graph(x), rtol=0.1, atol=0.2)


@quickly
@given(graphs(), st.integers(1, 4))
def test_candidates_side_by_side_are_what_each_is_alone(graph: Graph, count: int) -> None:
    x, y = torch.randn(5, graph.inputs), torch.randn(5, graph.outputs)
    many = Candidates.without(graph, torch.zeros(count, graph.synapses, dtype=torch.bool))
    many.weight += torch.randn(count, graph.synapses)
    many.bias += torch.randn(count, graph.neurons)
    found = losses(graph, many, x, y, nn.functional.mse_loss)
    for at in range(count):
        many.give(graph, at)
        assert float(found[at]) == pytest.approx(float(nn.functional.mse_loss(graph(x), y).detach()), rel=1e-4)


@quickly
@given(graphs(), st.data())
def test_candidates_without_synapses_are_what_each_is_alone(graph: Graph, data: st.DataObject) -> None:
    x, count = torch.randn(5, graph.inputs), data.draw(st.integers(1, 3))
    gone = torch.tensor(data.draw(st.lists(
        st.lists(st.booleans(), min_size=graph.synapses, max_size=graph.synapses), min_size=count, max_size=count
    )))  # fmt: skip
    found = graph.without(x, gone)
    for at in range(count):
        alone = copy.deepcopy(graph)
        alone.weight.data[gone[at]] = 0
        torch.testing.assert_close(found[at], alone(x), rtol=1e-4, atol=1e-5)


@quickly
@given(graphs(), st.data())
def test_synapses_of_weight_0_go_and_the_outputs_stay(graph: Graph, data: st.DataObject) -> None:
    net, x = attached(graph), torch.randn(5, graph.inputs)
    gone = data.draw(st.sets(st.integers(0, graph.synapses - 1), min_size=1))
    graph.weight.data[list(gone)] = 0
    followed = net.follow(copy.deepcopy(graph))
    before, had = graph(x), graph.neurons
    mask = torch.zeros(1, graph.synapses, dtype=torch.bool)
    mask[0, list(gone)] = True
    if not survives(graph, mask):
        with pytest.raises(InputError, match="keeps a neuron"):
            net.remove("synapses", gone)
        assert torch.equal(graph(x), before)
        return
    net.remove("synapses", gone)
    torch.testing.assert_close(graph(x), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(followed(x), before, rtol=1e-4, atol=1e-5)
    graph.check()
    assert graph.neurons <= had
    assert net.widths == {"neurons": graph.neurons, "synapses": graph.synapses}
    assert cost.parameters(graph) == graph.neurons + graph.synapses + graph.outputs


@quickly
@given(graphs(), st.integers(1, 3))
def test_neurons_that_come_with_outgoing_weights_of_0_change_nothing(graph: Graph, count: int) -> None:
    net, x = attached(graph), torch.randn(5, graph.inputs)
    before, had, synapses = graph(x), graph.neurons, graph.synapses
    net.grow("neurons", count)
    torch.testing.assert_close(graph(x), before, rtol=1e-4, atol=1e-5)
    graph.check()
    assert graph.neurons == had + count
    assert graph.synapses == synapses + sum(graph.inputs + had + at + graph.outputs for at in range(count))


@quickly
@given(graphs())
def test_its_state_is_all_of_it(graph: Graph) -> None:
    other = Graph.blank(graph.inputs, graph.outputs, graph.neurons, graph.synapses)
    other.load_state_dict(graph.state_dict())
    x = torch.randn(4, graph.inputs)
    assert torch.equal(other(x), graph(x))


@pytest.mark.parametrize("name", ["Adam", "SGD", "AdamW", "RMSprop"])
def test_what_the_optimiser_knows_of_a_synapse_stays_with_it(name: str) -> None:
    torch.manual_seed(0)
    graph = Graph.layered(3, 2, [4, 3])
    net = attached(graph)
    options = {"momentum": 0.9} if name in {"SGD", "RMSprop"} else {}
    optimizer = net.track(getattr(torch.optim, name)(net.param_groups(1e-2), **options))
    x, y = torch.randn(16, 3), torch.randn(16, 2)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()

    def known() -> dict[float, dict[str, float]]:
        """What is kept of each synapse, by its weight, which none shares."""
        state = optimizer.state[graph.weight]
        return {
            float(weight.detach()): {key: float(value[at]) for key, value in state.items() if value.dim()}
            for at, weight in enumerate(graph.weight)
        }

    for _ in range(3):
        step()
    before = known()
    net.remove("synapses", [0, 5, 13])
    left = known()
    assert len(left) == len(before) - 3
    assert all(before[weight] == kept for weight, kept in left.items())
    net.grow("neurons", 1)
    grown = known()
    assert all(grown[weight] == kept for weight, kept in left.items())
    start = {path: value.detach().clone() for path, value in graph.named_parameters()}
    step()
    for path, value in graph.named_parameters():
        assert not torch.equal(value, start[path]), path


def test_any_mlp_becomes_a_graph_with_the_same_outputs() -> None:
    torch.manual_seed(0)
    for name in ("mlp", "das-mlp"):
        module = networks.build(name, (2, 3), 4).eval()
        x = torch.randn(5, 2, 3)
        graph = Graph.of(module)
        torch.testing.assert_close(graph(x), module(x), rtol=1e-4, atol=1e-5)
        assert cost.parameters(graph) == cost.parameters(module)
    assert cost.parameters(Graph.layered(784, 10, [7, 7])) == 5631


class Skipping(nn.Module):
    """Layers that are not all that its forward() does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(x + self.first(x))
        return result


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (Skipping(), "does more than its layers"),
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(3, 1)), "got a Conv1d"),
        (nn.Sequential(nn.Linear(3, 2)), "2 or more Linear layers"),
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1), nn.Tanh()), "leave out what follows"),
    ],
)
def test_what_is_no_mlp_becomes_no_graph(module: nn.Module, line: str) -> None:
    with pytest.raises(UnsupportedNetworkError, match=line):
        Graph.of(module)


@pytest.mark.parametrize(
    ("synapses", "line"),
    [
        ([(0, 2), (2, 3), (3, 2), (3, 4)], "no cycle, got 3 -> 2 -> 3|no cycle, got 2 -> 3 -> 2"),
        ([(0, 2), (2, 2), (2, 4), (0, 3), (3, 4)], "no cycle, got 2 -> 2"),
        ([(0, 2), (2, 4)], "nothing feeds neuron 3"),
        ([(0, 2), (2, 4), (0, 3)], "neuron 3 feeds nothing"),
        ([(0, 2), (2, 3), (3, 2)], "no cycle|nothing feeds output"),
        ([(0, 2), (0, 3), (2, 3), (3, 5)], "2 to 4, got 3 -> 5"),
        ([(4, 2), (2, 4)], "0 to 3, got 4 -> 2"),
        ([(2, 1), (2, 4)], "2 to 4, got 2 -> 1"),
        ([(0, 2), (0, 2), (2, 3), (3, 4)], "once, got 0 -> 2"),
    ],
)
def test_what_is_no_graph_is_one_line(synapses: list[tuple[int, int]], line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        Graph(2, 1, synapses, neurons=2)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_no_graph(tmp_path: Any) -> None:
    graph = Graph.layered(3, 2, [4])
    state = graph.state_dict()
    state["source"] = state["source"].clone()
    state["source"][0] = 6
    architecture = sizer.Architecture(
        "graph", (3,), 2, "regression", {"neurons": graph.neurons, "synapses": graph.synapses}
    )
    with pytest.raises(InputError, match="stand by level"):
        sizer.save(tmp_path / "out", architecture, state)


def test_removed_synapses_take_their_memory_and_flops_along() -> None:
    graph = Graph.layered(784, 10, [7, 7])
    net = attached(graph)

    def held() -> int:
        return sum(value.numel() * value.element_size() for value in graph.state_dict().values())

    whole, flops = held(), graph.flops()
    net.remove("synapses", range(0, graph.synapses, 2))
    assert held() < 0.51 * whole
    assert graph.flops()[0] == pytest.approx(flops[0] / 2, rel=0.01)


def test_wrong_changes_are_one_line() -> None:
    net = attached(Graph.layered(3, 2, [4]))
    for call, line in (
        (lambda: net.grow("synapses", 1), "grow 'neurons'"),
        (lambda: net.grow("neurons", 0), "at least 1"),
        (lambda: net.remove("neurons", range(4)), "keeps a neuron"),
        (lambda: net.remove("synapses", [20]), "0 to 19, got 20"),
        (lambda: net.remove("dense1", [0]), "neurons"),
    ):
        with pytest.raises(InputError, match=line):
            call()
