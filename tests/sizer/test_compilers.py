"""A network that torch.compile has compiled computes and learns the same before and after a resize."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sizer import InputError
from tests.sizer.loops import Bare, X, adam, attach, convolutional, equal, step


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Counting:
    """A backend of torch.compile that runs graphs as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch._dynamo hides it, which "error" undoes
@pytest.mark.parametrize("kind", [convolutional, Bare])
def test_a_compiled_network_computes_and_learns_the_same_before_and_after_a_resize(kind: Any) -> None:
    torch.compiler.reset()
    module = kind()
    net, twin = attach(copy.deepcopy(module)), attach(module)
    backend = Counting()
    compiled = torch.compile(net.module, backend=backend)
    optimizer, other = adam(net), adam(twin)
    for at in range(4):
        step(net, optimizer, compiled)
        step(twin, other)
        assert equal(compiled(X), twin(X))
        for mine, theirs in zip(net.module.parameters(), twin.module.parameters(), strict=True):
            assert mine.grad is not None
            assert theirs.grad is not None
            assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-3)
        layer = list(net.widths)[at % 2]
        for each in (net, twin):
            torch.manual_seed(at)
            each.remove(layer, [0])
            each.grow(layer, 2)
    seen = backend.graphs
    step(net, optimizer, compiled)
    assert backend.graphs > seen  # one compilation for each resize
    seen = backend.graphs
    step(net, optimizer, compiled)
    assert backend.graphs == seen  # and none between


def test_after_more_resizes_than_a_compiler_follows_results_stay_right_and_a_reset_compiles_again() -> None:
    torch.compiler.reset()
    net, backend = attach(convolutional()), Counting()
    compiled = torch.compile(net.module, backend=backend)
    optimizer = adam(net)
    with torch._dynamo.config.patch(recompile_limit=2):
        for _ in range(4):
            step(net, optimizer, compiled)
            net.module.eval()
            assert equal(compiled(X), net(X))
            net.module.train()
            net.grow("0", 1)
        stuck = backend.graphs
        step(net, optimizer, compiled)
        assert backend.graphs == stuck
        torch.compiler.reset()
        step(net, optimizer, compiled)
        assert backend.graphs > stuck
    net.finish()
    net.module.eval()
    assert equal(compiled(X), net.module(X))


def wrapped(kind: str) -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 3))
    return torch.compile(module, backend="eager") if kind == "compile" else nn.DataParallel(module)  # type: ignore[return-value]  # a module, too


@pytest.mark.parametrize(("kind", "inner"), [("compile", "module._orig_mod"), ("parallel", "module.module")])
def test_a_wrapped_network_is_refused_for_what_it_wraps(kind: str, inner: str) -> None:
    with pytest.raises(InputError, match=rf"attach the network itself, not its \w+: attach\({inner}, \.\.\.\)"):
        attach(wrapped(kind))
