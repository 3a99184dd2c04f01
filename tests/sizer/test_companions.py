"""What a user's own loop has beside the network: averages, compilers, processes, optimisers, schedulers."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sizer
from sizer import InputError, Net
from sizer.methods import create
from tests.sizer.digit_images import digits

X = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(80, 7), nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip


class Bare(nn.Module):
    """Reads units with a parameter of its own: an operation among others in forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight, self.last = nn.Linear(64, 9), nn.Parameter(torch.randn(9, 8) / 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.relu(self.first(x.flatten(1))) @ self.weight))


def attach(module: nn.Module, method: str = "shrinknets", knob: float = 1e-3, x: Tensor = X, **settings: Any) -> Net:
    torch.manual_seed(0)
    return sizer.attach(module, x, create(method, knob, **settings))


def adam(net: Net, lr: float = 1e-2) -> torch.optim.Optimizer:
    return net.track(torch.optim.Adam(net.param_groups(lr)))


def step(net: Net, optimizer: torch.optim.Optimizer, forward: Any = None) -> None:
    optimizer.zero_grad()
    (net if forward is None else forward)(X).square().sum().backward()
    optimizer.step()


def equal(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, atol=1e-5)


def shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in [*module.parameters(), *module.buffers()]]


# Averages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "buffers"), [("shrinknets", True), ("auto-sizing", False)])
def test_an_average_follows_and_goes_on_and_is_plain_in_the_end(method: str, buffers: bool) -> None:
    net = attach(convolutional(), method)
    ema = get_ema_multi_avg_fn(0.9)
    average = net.follow(AveragedModel(net.module, multi_avg_fn=ema, use_buffers=buffers))
    twin = net.follow(copy.deepcopy(net.module))
    optimizer = adam(net)
    for at in range(4):
        step(net, optimizer)
        average.update_parameters(net.module)
        if at % 2:
            net.remove("3", [1, 4])
        else:
            net.grow("0", 3)
            net.grow("3", 2)
        assert shapes(average.module) == shapes(twin) == shapes(net.module)
    average.eval()
    before, twins, own = average(X), twin.eval()(X), net.module.eval()(X)
    assert not equal(before, own)
    states = net.plain_state(average), net.plain_state(twin), net.plain_state()
    net.finish()
    for module, output, state in zip(
        (average.module, twin, net.module), (before, twins, own), states, strict=True
    ):  # each is plain, with its own outputs
        assert equal(module(X), output)
        plain = convolutional_of(state)
        plain.load_state_dict(state)
        assert equal(plain.eval()(X), output)
        assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    average.update_parameters(net.module)


def convolutional_of(state: dict[str, Tensor]) -> nn.Module:
    first, second = len(state["0.bias"]), len(state["3.bias"])
    module = convolutional()
    module[0], module[1], module[3] = nn.Conv2d(1, first, 3), nn.BatchNorm2d(first), nn.Conv2d(first, second, 3)
    module[6] = nn.Linear(second * 16, 7)
    return module


def test_averages_of_units_that_stay_keep_their_values_and_new_units_are_the_networks() -> None:
    net = attach(convolutional())
    average = net.follow(AveragedModel(net.module))
    optimizer = adam(net)
    for _ in range(3):
        step(net, optimizer)
        average.update_parameters(net.module)
    before = average.module[3].weight.clone()
    net.remove("3", [0, 2])
    assert torch.equal(average.module[3].weight, before[[1, 3, 4]])
    net.grow("3", 2)
    assert torch.equal(average.module[3].weight[:3], before[[1, 3, 4]])
    assert torch.equal(average.module[3].weight[3:], net.module[3].weight[3:])
    assert not torch.equal(average.module[3].weight[:3], net.module[3].weight[:3])


def test_the_constant_of_a_removed_unit_stays_in_the_average_too() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Sigmoid(), nn.Linear(6, 3))
    net = attach(module, "auto-sizing")
    average = net.follow(AveragedModel(module))
    with torch.no_grad():
        for parameter in (module[1].weight, module[1].bias, average.module[1].weight, average.module[1].bias):
            parameter[:2] = 0
        average.module[3].weight.mul_(1.5)
    before = average(X)
    net.drop({net.groups[0]: torch.arange(6) < 2})
    assert net.widths == {"1": 4}
    assert equal(average(X), before)


def test_dead_units_that_stay_for_a_round_width_keep_their_constant_once() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Sigmoid(), nn.Linear(12, 3))
    net = sizer.attach(module, X, create("auto-sizing", 1e-3), round_to=4)
    with torch.no_grad():
        module[1].weight[:6] = 0
        module[1].bias[:6] = 0
    before = module(X)
    for dead, width in ((3, 12), (6, 8)):
        net.drop({net.groups[0]: torch.arange(12) < dead})
        assert net.widths == {"1": width}
        assert equal(module(X), before)


def test_a_copy_that_does_not_follow_keeps_widths_and_outputs_and_is_averaged_no_more() -> None:
    net = attach(convolutional())
    average = AveragedModel(net.module)
    average.update_parameters(net.module)
    before = average(X)
    net.remove("3", [0])
    assert equal(average(X), before)
    with pytest.raises(RuntimeError, match="size"):
        average.update_parameters(net.module)


def test_what_is_no_copy_of_the_network_is_refused() -> None:
    module = convolutional()
    early = copy.deepcopy(module)
    net = attach(module)
    with pytest.raises(InputError, match=r"'0.sizer_gate.theta' is missing there and \(6,\) here; copy it after"):
        net.follow(early)
    with pytest.raises(InputError, match="give follow\\(\\) a copy of it"):
        net.follow(module)


# Compilers --------------------------------------------------------------------------------------------------


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


# Processes --------------------------------------------------------------------------------------------------


def train_part(rank: int, world: int, folder: str) -> None:
    """Trains on each ``world``-th sample from ``rank`` on; with other processes where there are some."""
    torch.set_num_threads(1)
    if world > 1:
        place = f"file://{folder}/meeting"
        distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].argmax(1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 3))
    net = attach(module, knob=0.05, x=x[:2], ramp=0.0, check_every=4)
    optimizer = net.track(torch.optim.SGD(net.param_groups(0.1), momentum=0.9))
    forward, resizes = None, -1
    widths = []
    for at in range(16):
        if net.resizes != resizes:
            forward, resizes = DistributedDataParallel(module) if world > 1 else module, net.resizes
        assert forward is not None
        optimizer.zero_grad()
        (F.cross_entropy(forward(x[rank::world]), y[rank::world]) + net.penalty()).backward()
        optimizer.step()
        net.after_step()
        if at == 9:
            net.grow("0", 3)
        widths.append(net.widths)
    torch.save((widths, net.resizes, module.state_dict()), f"{folder}/{world}-{rank}.pt")
    if world > 1:
        distributed.destroy_process_group()


def test_two_processes_take_out_the_same_units_and_end_as_one_with_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(train_part, (2, str(tmp_path)), nprocs=2)
    train_part(0, 1, str(tmp_path))
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert first[0] == second[0] == alone[0]
    assert alone[1] >= 3
    for name, value in alone[2].items():
        assert torch.equal(first[2][name], second[2][name])
        assert torch.allclose(first[2][name].float(), value.float(), atol=1e-4)


def test_a_distributed_wrapper_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/alone", rank=0, world_size=1)
    try:
        with pytest.raises(InputError, match=r"not its DistributedDataParallel: attach\(module.module, \.\.\.\)"):
            attach(DistributedDataParallel(convolutional()))
    finally:
        distributed.destroy_process_group()


# Optimisers and schedulers ----------------------------------------------------------------------------------


def test_frozen_parameters_stay_frozen_and_their_units_may_go() -> None:
    module = convolutional()
    for parameter in module[3].parameters():
        parameter.requires_grad = False
    net = attach(module)
    optimizer = adam(net)
    before = module[3].weight.clone()
    step(net, optimizer)
    net.remove("3", [1])
    step(net, optimizer)
    assert [parameter.requires_grad for parameter in module[3].parameters() if parameter.dim() != 1] == [False]
    assert not module[3].bias.requires_grad
    assert torch.equal(module[3].weight, before[[0, 2, 3, 4]])
    assert module[0].weight.requires_grad


def test_frozen_and_ignored_layers_keep_their_width() -> None:
    module = convolutional()
    module[3].requires_grad_(False)
    net = sizer.attach(module, X, create("shrinknets", 1e-3), ignore=("3",))
    assert net.widths == {"0": 6, "6": 7}
    with pytest.raises(InputError, match="the width of '3' is fixed at 5: ignored, as asked"):
        net.remove("3", [0])


def earlier() -> tuple[nn.Module, torch.optim.Optimizer]:
    module = convolutional()
    return module, torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)


def test_an_optimiser_from_before_gets_the_gates_as_a_group_and_trains_them() -> None:
    module, optimizer = earlier()
    net = attach(module, start="ones")
    assert net.track(optimizer) is optimizer
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-3, 0.1), (1e-2, 0.0)]
    net.track(optimizer)
    assert len(optimizer.param_groups) == 2
    step(net, optimizer)
    net.remove("3", [0])
    step(net, optimizer)
    assert net.gates is not None
    assert all((theta != 1).all() for theta in net.gates.parameters())
    assert [len(g["params"]) for g in optimizer.param_groups] == [10, 3]


SCHEDULES: dict[str, Any] = {
    "cosine": lambda optimizer: schedules.CosineAnnealingLR(optimizer, 10),
    "lambda": lambda optimizer: schedules.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
    "warm-up": lambda optimizer: schedules.SequentialLR(
        optimizer, [schedules.LinearLR(optimizer), schedules.StepLR(optimizer, 1)], [2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scheduler_made_after_track_moves_both_rates_alike_and_one_made_before_is_refused(name: str) -> None:
    module, optimizer = earlier()
    net = attach(module)
    net.track(optimizer)
    scheduler = SCHEDULES[name](optimizer)
    rates = set()
    for _ in range(3):
        step(net, optimizer)
        net.grow("3", 1)
        scheduler.step()
        slow, fast = (group["lr"] for group in optimizer.param_groups)
        assert fast == pytest.approx(10 * slow)
        rates.add(slow)
    assert len(rates) == 3

    module, optimizer = earlier()
    SCHEDULES[name](optimizer)
    with pytest.raises(InputError, match=r"has a scheduler already, .*; make the scheduler after net\.track"):
        attach(module).track(optimizer)
    assert len(optimizer.param_groups) == 1
    module, optimizer = earlier()
    SCHEDULES[name](optimizer)
    attach(module, "auto-sizing").track(optimizer)  # which has no gates


def test_optimisers_that_cannot_follow_are_refused() -> None:
    net = attach(convolutional(), "auto-sizing")
    with pytest.raises(InputError, match="LBFGS keeps all parameters as one vector"):
        net.track(torch.optim.LBFGS(net.module.parameters()))
    with pytest.raises(InputError, match=r"this Adam trains no parameter of the network; make it of net\.param_groups"):
        net.track(torch.optim.Adam(convolutional().parameters()))


def test_state_of_rows_and_columns_follows_too() -> None:
    net = attach(convolutional())
    optimizer = net.track(torch.optim.Adafactor(net.param_groups(1e-2)))
    step(net, optimizer)
    weight = net.module[6].weight
    rows, columns = optimizer.state[weight]["row_var"].clone(), optimizer.state[weight]["col_var"].clone()
    net.remove("3", [0])
    net.grow("6", 2)
    state = optimizer.state[net.module[6].weight]
    assert torch.equal(state["row_var"][:7], rows)
    assert state["row_var"].shape == (9, 1)
    assert torch.equal(state["col_var"], columns[:, 16:])
    step(net, optimizer)


# Attaching again, and a trained network -----------------------------------------------------------------------


def test_a_network_is_attached_once_until_it_is_finished() -> None:
    module = convolutional()
    net = attach(module)
    with pytest.raises(InputError, match=r"attached already: use the net that attach\(\) gave, or finish\(\) it first"):
        attach(module, "auto-sizing")
    net.finish()
    net = attach(module, "auto-sizing")
    with pytest.raises(InputError, match="attached already"):
        attach(module)
    del net
    gc.collect()
    attach(module).finish()


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    data = digits(samples=500)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 30), nn.ReLU(),
        nn.Linear(30, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(data.x_train), data.y_train).backward()
        optimizer.step()
    return module, data.x_train, data.y_train


def widths_after(net: Net, x: Tensor, y: Tensor, knob: float) -> list[int]:
    """All units after five epochs, and after five more with another knob; the network still tells digits apart."""
    optimizer = adam(net, 4e-3)
    widths = []
    for epoch in range(10):
        if epoch == 5:
            widths.append(sum(net.widths.values()))
            net.knob = knob
        net.before_epoch()
        for at in range(0, len(x), 50):
            optimizer.zero_grad()
            (F.cross_entropy(net(x[at : at + 50]), y[at : at + 50]) + net.penalty()).backward()
            optimizer.step()
            net.after_step()
        net.after_epoch()
    assert (net(x).argmax(1) == y).float().mean() > 0.85
    return [*widths, sum(net.widths.values())]


@pytest.fixture(scope="module")
def model() -> tuple[nn.Module, Tensor, Tensor]:
    return trained()


GROWING = {"threshold": 1e-2, "min_growth": 4, "growth": 0.05}


@pytest.mark.parametrize(
    ("method", "low", "high", "settings"),
    [("shrinknets", 1e-3, 3e-2, {"start": "ones"}), ("auto-sizing", 1e-5, 1e-3, GROWING)],
)
def test_a_trained_network_begins_as_it_was_and_a_larger_knob_then_shrinks_it(
    model: tuple[nn.Module, Tensor, Tensor], method: str, low: float, high: float, settings: dict[str, Any]
) -> None:
    module, x, y = model
    own = F.cross_entropy(module(x), y).item()
    assert own < 0.2
    ends = []
    for then in (low, high):
        net = attach(copy.deepcopy(module), method, low, x[:8], **settings)
        assert F.cross_entropy(net(x), y).item() == pytest.approx(own, rel=1e-6)
        ends.append(widths_after(net, x, y, then)[-1])
    assert ends[1] < min(ends[0], 42)


def test_with_auto_sizing_a_smaller_knob_lets_it_grow_again(model: tuple[nn.Module, Tensor, Tensor]) -> None:
    module, x, y = model
    net = attach(copy.deepcopy(module), "auto-sizing", 1e-3, x[:8], **GROWING)
    before, after = widths_after(net, x, y, 1e-5)
    assert before < 42
    assert after > before


@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_knob_that_is_no_positive_number_is_refused_and_stays(value: float) -> None:
    net = attach(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 3)))
    with pytest.raises(InputError, match="lambda must be a positive number, got"):
        net.knob = value
    assert net.knob == 1e-3
