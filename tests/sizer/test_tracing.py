"""What cannot be followed, or cannot be sized, is refused by name with the remedy; and the remedy works."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sizer
from sizer import Net, SizerError, UnsupportedNetworkError, tracing
from sizer.groups import find_groups
from sizer.methods import create


def attach(module: nn.Module, x: Any, ignore: tuple[str, ...] = ()) -> Net:
    torch.manual_seed(0)
    return sizer.attach(module, x, create("shrinknets", 1e-3), ignore=ignore)


def refusal(module: nn.Module, x: Any, ignore: tuple[str, ...] = ()) -> str:
    """The one line that attach() refuses the module with; the module is as it was."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(SizerError) as refused:
        attach(module, x, ignore)
    assert "\n" not in str(refused.value)
    after = module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    return str(refused.value)


class Leaving(nn.Module):
    """Leaves torch on its way, which torch.export refuses."""

    def __init__(self, gives: str) -> None:
        super().__init__()
        self.gives = gives
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Any:
        y = torch.from_numpy(x.detach().numpy() * 2)
        if self.gives == "tuple":
            return y, [y.sum(1)]
        return {"y": y} if self.gives == "dict" else self.inner(y)


class Around(nn.Module):
    """A module that cannot be followed between two that can."""

    def __init__(self, odd: nn.Module, gives: str = "tensor") -> None:
        super().__init__()
        self.first, self.odd, self.second, self.out = nn.Linear(4, 5), odd, nn.Linear(5, 6), nn.Linear(6, 2)
        self.norm, self.gives = nn.BatchNorm1d(5), gives

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.first(x)))
        if self.gives == "tuple":
            y, (total,) = self.odd(h)
            h = y + total[:, None]
        elif self.gives == "dict":
            h = self.odd(x=h)["y"]
        elif self.gives == "tensor, twice":
            h = self.odd(self.odd(h))
        else:
            h = self.odd(h)
        return self.out(torch.relu(self.second(h)))


@pytest.mark.parametrize("gives", ["tensor", "tensor, twice", "tuple", "dict"])
def test_what_torch_export_refuses_is_named_and_can_be_left_as_it_is(gives: str) -> None:
    module = Around(Leaving(gives), gives)
    said = refusal(module, torch.randn(3, 4))
    assert said.startswith("module 'odd' (Leaving) cannot be traced: RuntimeError: ")
    assert said.endswith("or leave it as it is with ignore=('odd',)")

    own = dict(module.odd.__dict__)
    net = attach(module, torch.randn(3, 4), ignore=("odd",))
    assert net.widths == {"second": 6}
    assert {fixed.name: fixed.reason for fixed in net.fixed} == {
        "first": "module 'odd' is ignored, as asked", "out": "an output of the network",
    }  # fmt: skip
    assert dict(module.odd.__dict__) == own
    net.remove("second", [0, 4])
    assert module(torch.randn(7, 4)).shape == (7, 2)


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).real


def test_an_operation_without_a_rule_is_named_and_either_remedy_works() -> None:
    x = torch.randn(3, 4)
    said = refusal(Around(Fourier()), x)
    assert said.startswith("module 'odd', operation fft_fft: there is no rule for this operation")
    assert said.endswith("ignore=('first',)")
    for ignore in ("first", "odd"):
        net = attach(Around(Fourier()), x, ignore=(ignore,))
        assert net.widths == {"second": 6}
        net.grow("second", 3)
        assert net(x).shape == (3, 2)


def plain(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), *norm, nn.ReLU(), nn.Linear(5, 2))


def test_a_forward_that_fails_on_the_example_input_is_said_so() -> None:
    said = refusal(plain(), torch.randn(2, 3))
    assert said.startswith("forward() fails on the example input: RuntimeError: mat1 and mat2 shapes")
    assert said.endswith("give attach() an input it takes")
    assert refusal(plain(), torch.randn(2, 3), ignore=("0",)) == said


def test_a_batch_of_one_is_enough_but_for_batch_normalisation_in_training() -> None:
    one = torch.randn(1, 4)
    assert attach(plain(), one).widths == {"0": 5}
    assert attach(plain(nn.BatchNorm1d(5)).eval(), one).widths == {"0": 5}
    assert refusal(plain(nn.BatchNorm1d(5)), one).endswith("needs an example input of at least 2 samples")


def test_tracing_changes_no_buffer_no_mode_and_no_random_number() -> None:
    module = plain(nn.BatchNorm1d(5), nn.Dropout(0.5))
    module[1].eval()
    modes, buffers = [m.training for m in module.modules()], [b.clone() for b in module.buffers()]
    torch.manual_seed(1)
    sizer.attach(module, torch.zeros(3, 4), create("auto-sizing", 1e-4))
    drawn = torch.rand(3)
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(buffers, module.buffers(), strict=True))
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))


def test_parameters_of_whole_numbers_are_refused() -> None:
    module = plain()
    module[0].steps = nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    assert refusal(module, torch.randn(2, 4)).startswith("parameter '0.steps' is int64: only floating-point")


def test_parameters_that_share_memory_without_being_one_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    module[3].weight = nn.Parameter(module[1].weight.data)
    said = refusal(module, torch.randn(2, 3))
    assert said.startswith("parameters '1.weight' and '3.weight' share their memory")
    module[3].weight = module[1].weight
    assert attach(module, torch.randn(2, 3)).widths == {"0": 4}


class Written(nn.Module):
    """A width that stands in forward() as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.out = nn.Conv2d(1, 5, 3), nn.Conv2d(5, 4, 1), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.last(torch.relu(self.first(x))).view(-1, 36))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Linear(4, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.free, self.out = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.out(torch.relu(self.free(self.attend(h, h, h)[0])))


def test_a_width_that_forward_counts_on_stays_with_the_reason() -> None:
    net = attach(Written(), torch.randn(2, 1, 5, 5))
    assert net.widths == {"first": 5}
    assert net.fixed[0].name == "last"
    assert net.fixed[0].reason.startswith("hard-coded where it is used: the network's own forward() failed")


def test_the_heads_of_torchs_own_attention_stay_and_what_follows_is_free() -> None:
    net = attach(Attending(), torch.randn(2, 3, 4))
    assert "free" in net.widths
    fixed = {fixed.name: fixed.reason for fixed in net.fixed}
    assert fixed["embed"].startswith("hard-coded where it is used: module 'attend' failed")
    assert "attend.in_proj_weight" in fixed
    for layer in net.widths:
        net.remove(layer, [0])
    assert net(torch.randn(2, 3, 4)).shape == (2, 3, 2)


@pytest.mark.parametrize("training", [True, False])
def test_the_inner_width_of_torchs_transformer_layer_is_free_and_gated_without_gradients_too(training: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    module = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    with torch.set_grad_enabled(training):
        net = attach(module.train(training), torch.randn(2, 3, 4))
    assert net.widths == {"1.layers.0.linear1": 16, "1.layers.1.linear1": 16}
    x = torch.randn(5, 3, 4)

    def outputs() -> list[Tensor]:
        """With gradients in training, and without in evaluation: the way that torch has a fused operation for."""
        trained = module.train()(x).detach()
        with torch.no_grad():
            return [trained, module.eval()(x)]

    def equal() -> bool:
        return torch.allclose(*outputs(), atol=1e-5)

    ungated = outputs()[0]
    assert net.gates is not None
    with torch.no_grad():
        for theta in net.gates.parameters():
            theta[3] = 0
    assert equal()
    assert not torch.allclose(outputs()[1], ungated, atol=1e-3)
    before = outputs()[1]
    net.after_epoch()
    assert net.widths == {"1.layers.0.linear1": 15, "1.layers.1.linear1": 15}
    assert equal()
    net.finish()
    assert equal()
    for left, right in itertools.pairwise([before, *outputs()]):
        assert torch.allclose(left, right, atol=1e-5)


def test_a_network_without_a_free_width_says_why() -> None:
    with pytest.raises(
        UnsupportedNetworkError, match=r"'?Linear'? has no width that is free \(.*an output of the network"
    ):
        attach(nn.Linear(4, 2), torch.randn(2, 4))


def chain(width: int = 4, activation: nn.Module | None = None, dropout: float = 0.0) -> nn.Sequential:
    layers = [nn.Linear(3, width), activation or nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(width, 2))


def test_chains_that_are_alike_are_traced_once_and_each_has_its_own_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    own = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **named: traced.append(args) or own(*args, **named))
    monkeypatch.setattr(tracing, "_CHAINS", OrderedDict())
    monkeypatch.setattr(tracing, "KEPT", 6)
    x = torch.randn(2, 3)
    first, second = chain(), chain()
    groups = [find_groups(each, (x,)).free for each in (first, second)]
    assert len(traced) == 1
    for module, found in zip((first, second), groups, strict=True):
        held = {id(parameter) for parameter in module.parameters()}
        assert [(group.name, group.width) for group in found] == [("0", 4), ("3", 4)]
        assert {id(slot.ref.tensor) for group in found for slot in group.slots} <= held
    tied = chain()
    tied[3].bias = tied[0].bias
    others = [chain(5), chain(activation=nn.SELU()), chain(dropout=0.5), chain().eval(), chain().double(), tied]
    for number, other in enumerate(others, 2):
        find_groups(other, (x.to(next(other.parameters()).dtype),))
        assert len(traced) == number
    assert len(find_groups(tied, (x,)).free) == 1
    assert len(tracing._CHAINS) == 6
    find_groups(chain(), (x,))
    assert len(traced) == 8  # it was the oldest
