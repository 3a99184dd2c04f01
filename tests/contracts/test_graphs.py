"""What every method that sizes graphs must keep; the numbers are those of the contract of all methods.

1 and 3, that what does nothing goes without a trace and that optimisers follow, hold of the graph itself and are tested
with it (tests/sizer/test_graph.py), as is 2 for neurons that `Net.grow` adds. Of the method's own growth 2 is not
asked: the paper starts a neuron with weights that are not 0, as its gradients would be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sizer
from sizer import Architecture, networks
from sizer.checkpoint import load_tensors
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.graph import Graph
from sizer.methods import create, method_class, names
from sizer.training import Run, weights_file
from tests.sizer.digit_images import digits
from tests.sizer.elsewhere import in_onnx

SETTINGS: dict[str, dict[str, Any]] = {
    "growing": {"steps": 5, "batch": 64, "per_round": 8, "sample": 200, "starts": 5, "rounds": 6}
}
"""Settings with which a method sizes a small graph in the few epochs of these tests."""


@pytest.fixture(params=[name for name in names() if method_class(name).takes == "graph"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Interrupted(Exception):
    """Stands for whatever ends a run from outside."""


def run(
    method: str, factor: float = 1.0, seed: int = 0, epochs: int = 4, folder: Path | None = None,
    stop_after: int | None = None, precision: str = "float32", **settings: Any,
) -> Run:  # fmt: skip
    data, knob = digits(), method_class(method).knob
    assert knob is not None

    def on_epoch(epoch: sizer.Epoch) -> None:
        if epoch.epoch == stop_after:
            raise Interrupted

    torch.manual_seed(seed)
    graph = networks.build("graph", data.input_shape, data.outputs, [6, 5])
    made = create(method, (knob.low * knob.high) ** 0.5 * factor, **{**SETTINGS[method], **settings})
    return sizer.fit(
        graph,
        data,
        made,
        epochs=epochs,
        batch_size=32,
        learning_rate=3e-3,
        seed=seed,
        folder=folder,
        on_epoch=on_epoch,
        precision=precision,
    )


def graph_of(run: Run) -> Graph:
    assert isinstance(run.net.module, Graph)
    return run.net.module


def measured(run: Run) -> list[dict[str, object]]:
    rows = [epoch.to_dict() for epoch in run.history]
    return [{key: row[key] for key in row if key not in {"seconds", "peak_memory"}} for row in rows]


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_it_sizes_and_learns(method: str) -> None:
    result = run(method, epochs=8)
    widths = [epoch.widths for epoch in result.history]
    assert all(set(each) == {"neurons", "synapses"} for each in widths)
    assert len({tuple(each.values()) for each in widths}) > 2
    assert result.history[-1].val_accuracy > 0.6
    graph_of(result).check()


def test_it_sizes_alike_in_lower_precision(method: str) -> None:
    there, here = run(method, precision="bfloat16"), run(method)
    assert all(parameter.dtype == torch.float32 for parameter in graph_of(there).parameters())
    for one, other in zip(there.history, here.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.1)
        assert one.widths["synapses"] == pytest.approx(other.widths["synapses"], rel=0.2)


def test_4_what_is_left_is_a_plain_module_that_runs_elsewhere(method: str, tmp_path: Path) -> None:
    result, data = run(method), digits()
    with torch.no_grad():
        before = result.net(data.x_val[:9])
    module = result.net.finish().eval()
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    assert {name for name, _ in module.named_parameters()} == {"weight", "bias", "output_bias"}
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(module, (data.x_val[:4],), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(data.x_val[:9]), before)
    torch.testing.assert_close(in_onnx(program, data.x_val[:9], tmp_path), before, rtol=1e-4, atol=1e-4)


def test_5_two_runs_with_one_seed_are_equal_to_the_bit(method: str) -> None:
    one, two = run(method), run(method)
    assert measured(one) == measured(two)
    assert same(one.net.module, two.net.module)
    assert measured(one) != measured(run(method, seed=1))


def test_5_an_interrupted_run_goes_on_equal_to_the_bit(method: str, tmp_path: Path) -> None:
    whole = run(method, folder=tmp_path / "whole")
    for stop in (1, 3):
        with pytest.raises(Interrupted):
            run(method, folder=tmp_path / "parts", stop_after=stop)
    parts = run(method, folder=tmp_path / "parts")
    assert measured(parts) == measured(whole)
    assert same(parts.net.module, whole.net.module)


def test_6_a_larger_knob_gives_no_more_synapses(method: str) -> None:
    left = [
        sum(run(method, factor, seed, 2, rounds=0, steps=2).history[-1].widths["synapses"] for seed in range(3))
        for factor in (0.1, 30.0)
    ]
    assert left[1] < left[0]


def test_7_the_kept_weights_are_those_of_the_best_epoch_and_say_the_structure(method: str, tmp_path: Path) -> None:
    result, data = run(method, folder=tmp_path), digits()
    best = result.best
    assert best is not None
    weights, _ = load_tensors(weights_file(tmp_path, best.epoch))
    architecture = Architecture("graph", data.input_shape, data.outputs, data.task, best.widths)
    sizer.save(tmp_path / "out", Architecture.from_json(architecture.to_json()), weights)
    module = sizer.load(tmp_path / "out")
    with torch.no_grad():
        hits = float((module(data.x_val).argmax(1) == data.y_val).float().mean())
    assert hits == pytest.approx(best.val_accuracy, abs=1e-6)
    assert sum(p.numel() for p in module.parameters()) == best.parameters


def test_8_a_knob_too_large_leaves_a_network(method: str) -> None:
    result = run(method, factor=1e6, epochs=2, rounds=0, steps=1, growth=False)
    graph = graph_of(result)
    graph.check()
    assert result.status == "complete"
    assert graph.neurons >= 1
    assert graph.synapses < 60


def test_flops_of_the_candidates_are_counted(method: str) -> None:
    few, many = run(method, epochs=1, rounds=1), run(method, epochs=1, rounds=1, steps=50)
    assert many.history[-1].training_flops > 1.5 * few.history[-1].training_flops


def test_layers_and_graphs_have_methods_of_their_own(method: str) -> None:
    data: Data = digits()
    mlp = networks.build("mlp", data.input_shape, data.outputs, [5])
    with pytest.raises(InputError, match=r"needs a graph, and this network has layers: take the network 'graph'"):
        sizer.attach(mlp, data.x_train[:2], create(method, 1e-2))
    graph = networks.build("graph", data.input_shape, data.outputs, [5])
    for other in names():
        knob = method_class(other).knob
        if method_class(other).takes == "any":
            sizer.attach(graph, data.x_train[:2], create(other)).finish()
        elif method_class(other).takes == "layers":
            with pytest.raises(InputError, match="a graph has none"):
                sizer.attach(graph, data.x_train[:2], create(other, None if knob is None else knob.low))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"limit": 50}, r"limit of growing must be over the 485 parameters of the start, got 50"),
        ({"candidates": 0}, "candidates of growing must be at least 1, got 0"),
        ({"retrained": 9}, "at most the 8 candidates, got 9"),
        ({"keep": 1.0}, "0 <= keep < 1"),
        ({"optimizer": "sgd"}, "optimizer of growing"),
        ({"activation": "sin"}, "activation of growing"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        run("growing", **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_epsilon_is_a_positive_number(epsilon: float) -> None:
    with pytest.raises(InputError, match="epsilon must be a positive number"):
        create("growing", epsilon)
