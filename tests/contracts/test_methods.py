"""What every method that sizes layers must keep, on every network that has them; of others: test_graphs.py."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sizer
from sizer import Architecture, Net, networks
from sizer.checkpoint import load_tensors
from sizer.datasets import Data
from sizer.dimensions import positions
from sizer.methods import create, method_class, names
from sizer.methods.activity import SOURCES
from sizer.training import Run, weights_file
from tests.sizer.digit_images import WIDTHS, pictures
from tests.sizer.elsewhere import in_onnx

TRAINED = ["mlp", "lenet", "das-conv"]
"""Networks on which whole runs are repeated; for the others they would take minutes."""
SETTINGS: dict[str, dict[str, Any]] = {
    "activity": {"criterion": "l1+correlation", "pretrain": 2, "first": 0.5, "last": 0.1, "retraining": 0}
}
"""Settings with which a method sizes the small networks in the few epochs of these tests."""
RATES = {"group-sparsity": 1e-2}
"""Learning rates of whole runs, where 5e-4 cannot take a whole unit to zero in as few steps as they have here."""
SIZING = [name for name in names() if method_class(name).sizes and method_class(name).takes == "layers"]
LAYERED = [name for name in networks.names() if networks.layered(name)]
STRUCTURE = [(method, name) for name in LAYERED for method in SIZING
             if name in TRAINED or method in {"shrinknets", "auto-sizing"}]  # fmt: skip
"""For what a network's structure decides, not the method: one with gates and one without stand for all."""
OTHERS = [(method, name) for method in SIZING for name in LAYERED if (method, name) not in STRUCTURE]
GATED = [(method, name) for method, name in STRUCTURE if method == "shrinknets" or name in TRAINED]
"""Where gates are the harder case, as they are read through and folded away."""
GROWING: list[tuple[str, dict[str, Any]]] = [
    *[("activity", {"direction": "add", "source": source, "pretrain": 0}) for source in SOURCES],
    ("auto-sizing", {}),
]
"""Methods that grow, in every way they have."""
WHERE = [
    ("cpu", "bfloat16"),
    *[pytest.param("cuda", precision, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))
      for precision in ("float32", "bfloat16")],
]  # fmt: skip
BOUNDED = ["activity"]
"""Methods that size up to a bound: a large knob lets them size all the way, and no layer empties."""


class Interrupted(Exception):
    """Stands for whatever ends a run from outside."""


@pytest.fixture(params=SIZING)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYERED)
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TRAINED)
def trained(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def knob(method: str, factor: float = 1.0) -> float:
    """A knob in the middle of the method's range, times ``factor``."""
    found = method_class(method).knob
    assert found is not None
    return (found.low * found.high) ** 0.5 * factor


def build(network: str, data: Data, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = networks.build(network, data.input_shape, data.outputs, WIDTHS.get(network))
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return module


def attached(network: str, method: str, factor: float = 1.0) -> tuple[Net, Data]:
    data = pictures(network)
    made = create(method, knob(method, factor), **SETTINGS.get(method, {}))
    net = sizer.attach(build(network, data), data.x_train[:2], made)
    net.training_data = lambda: torch.split(data.x_train[:64], 32)
    net.validate = lambda: 0.5
    return net, data


def kill(net: Net, units: tuple[int, ...] = (1, 3)) -> None:
    """Makes units contribute nothing: their weights, biases, normalisations and gates are 0, and nothing moves them."""
    for group in net.groups:
        for slot in group.slots:
            entries = positions(slot.units, group.atom)[list(units)].flatten()
            if slot.role in {"row", "bias", "scale", "shift", "gate"}:
                slot.ref.tensor.detach().index_fill_(slot.dim, entries, 0)
            for state in [optimizer.state.get(slot.ref.tensor, {}) for optimizer in net.optimizers]:
                for value in state.values():
                    if value.shape == slot.ref.tensor.shape:
                        value.index_fill_(slot.dim, entries, 0)


@torch.no_grad()
def outputs(net: Net, data: Data) -> Tensor:
    net.module.eval()
    result = net(data.x_val)
    net.module.train()
    assert isinstance(result, Tensor)
    return result


def assert_same(after: Tensor, before: Tensor, tolerance: float = 1e-5) -> None:
    assert (after - before).abs().max() <= tolerance * before.abs().max()


def loss_of(net: Net, data: Data, start: int, samples: int) -> Tensor:
    """Cross entropy; a label counts for every pixel of a class map."""
    output = net(data.x_train[start : start + samples])
    target = data.y_train[start : start + samples]
    return F.cross_entropy(output, target if output.dim() == 2 else target.view(-1, 1, 1).expand(output[:, 0].shape))


def step(net: Net, optimizer: torch.optim.Optimizer, data: Data, start: int) -> Tensor:
    """One step of a user's own loop, with gradient clipping."""
    optimizer.zero_grad()
    loss = loss_of(net, data, start, 32)
    (loss + net.penalty()).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    torch.nn.utils.clip_grad_norm_(net.module.parameters(), 5.0)
    optimizer.step()
    net.after_step()
    return loss


def test_units_that_contribute_nothing_go_and_the_outputs_stay(method: str, network: str) -> None:
    net, data = attached(network, method)
    net.track(torch.optim.Adam(net.param_groups(1e-3)))
    net.epoch = 1
    kill(net)
    before, widths = outputs(net, data), net.widths
    net.after_epoch()
    assert net.widths == {layer: width - 2 for layer, width in widths.items()}
    assert_same(outputs(net, data), before)


@pytest.mark.parametrize(("method", "network"), GATED)
def test_growing_units_leaves_the_outputs_as_they_were(method: str, network: str) -> None:
    net, data = attached(network, method)
    before, widths = outputs(net, data), net.widths
    for layer in widths:
        net.grow(layer, 3)
    assert net.widths == {layer: width + 3 for layer, width in widths.items()}
    assert_same(outputs(net, data), before)


@pytest.mark.parametrize(("method", "network"), OTHERS)
def test_the_methods_own_step_sizes_every_layer(method: str, network: str) -> None:
    net, data = attached(network, method, factor=1e6)
    optimizer, widths = net.track(torch.optim.Adam(net.param_groups(1e-3))), net.widths
    net.epoch = 3
    net.before_epoch()
    for at in range(2):
        step(net, optimizer, data, 32 * at)
    net.after_epoch()
    assert all(1 <= net.widths[layer] < width for layer, width in widths.items())
    assert torch.isfinite(outputs(net, data)).all()


def test_growth_of_the_method_itself_stays_within_its_tolerance(network: str) -> None:
    net, data = attached(network, "activity")
    for method, settings in GROWING:
        net.method = create(method, knob(method), **settings)
        net.notes.clear()
        before, widths = outputs(net, data), net.widths
        net.before_epoch()
        assert all(net.widths[layer] > width for layer, width in widths.items())
        assert_same(outputs(net, data), before, tolerance=1e-3)


@pytest.mark.parametrize(
    ("method", "network", "name"),
    [
        (method, network, name)
        for method, network in STRUCTURE
        for name in ("Adam", "SGD", "AdamW", "RMSprop")
        if name == "Adam" or network in TRAINED
    ],
)
def test_a_resize_carries_the_optimisers_state_and_training_goes_on(method: str, network: str, name: str) -> None:
    net, data = attached(network, method)
    options = {"momentum": 0.9} if name in {"SGD", "RMSprop"} else {"fused": True}
    optimizer = net.track(getattr(torch.optim, name)(net.param_groups(1e-3), **options))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    losses = [step(net, optimizer, data, 32 * at) for at in range(4)]
    schedule.step()
    alive = loss_of(net, data, 0, 8)
    old = dict(net.module.named_parameters())
    before = {path: (p.detach().clone(), dict(optimizer.state[p])) for path, p in old.items()}
    for layer, width in net.widths.items():
        net.remove(layer, range(width // 2, width))
        net.grow(layer, 2)
    alive.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    assert all(torch.isfinite(loss) for loss in losses)
    now = dict(net.module.named_parameters())
    assert now.keys() == before.keys()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in now.values()}
    for path, parameter in now.items():
        value, state = before[path]
        keep = tuple(slice(0, a // 2 if a != b else a) for a, b in zip(value.shape, parameter.shape, strict=True))
        assert optimizer.state[parameter].keys() == state.keys()
        for key, entry in optimizer.state[parameter].items():
            if state[key].shape == value.shape:
                assert entry.shape == parameter.shape
                if network == "mlp" or (network in TRAINED and value.dim() == 1):
                    assert torch.equal(entry[keep], state[key][keep])
            else:
                assert torch.equal(entry, state[key])
    start = {path: p.detach().clone() for path, p in now.items()}
    reached: set[str] = set()
    for at in range(2):
        step(net, optimizer, data, 32 * at)
        schedule.step()
        gradients = {path: p.grad for path, p in net.module.named_parameters() if p.grad is not None}
        reached |= {path for path, gradient in gradients.items() if gradient.abs().max() > 1e-5}
    assert reached  # deep and narrow as they are here, some networks pass little on once half of their units are gone
    for path, parameter in net.module.named_parameters():
        if start[path].shape == parameter.shape and path in reached:
            assert not torch.equal(parameter, start[path]), f"{path} no longer trains"


@pytest.mark.parametrize(("method", "network"), GATED)
def test_removal_under_training_changes_no_later_loss(method: str, network: str) -> None:
    """Dead units whose removal is delayed must train as if removed: the state of the others is untouched."""
    losses = []
    for remove in (True, False):
        net, data = attached(network, method, factor=1e-6)
        optimizer = net.track(torch.optim.Adam(net.param_groups(1e-4)))
        net.module.eval()
        step(net, optimizer, data, 0)
        kill(net)
        if net.gates is None:
            for group in net.groups:
                for slot in group.roles("column"):
                    pick = positions(slot.units, group.atom)[[1, 3]].flatten()
                    slot.ref.tensor.detach().index_fill_(slot.dim, pick, 0)
        if remove:
            for layer in net.widths:
                net.remove(layer, (1, 3))
        trace = []
        for at in range(1, 8):
            optimizer.zero_grad()
            loss = loss_of(net, data, 32 * at, 32)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
            trace.append(float(loss.detach()))
        losses.append(trace)
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


@pytest.mark.parametrize(("method", "network"), GATED)
def test_finish_leaves_a_plain_module_with_the_same_outputs(method: str, network: str) -> None:
    net, data = attached(network, method)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    for at in range(3):
        step(net, optimizer, data, 32 * at)
    before, plain = outputs(net, data), {name: value.clone() for name, value in net.plain_state().items()}
    module = net.finish().eval()
    with torch.no_grad():
        assert_same(module(data.x_val), before)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    fresh = networks.build(network, data.input_shape, data.outputs, list(net.widths.values()))
    assert {n: v.shape for n, v in module.state_dict().items()} == {n: v.shape for n, v in fresh.state_dict().items()}
    for name, value in module.state_dict().items():
        assert torch.equal(value, plain[name])
    for child in module.modules():
        if isinstance(child, nn.Linear):
            assert (child.out_features, child.in_features) == tuple(child.weight.shape)
        if isinstance(child, nn.Conv2d):
            assert (child.out_channels, child.in_channels // child.groups) == tuple(child.weight.shape[:2])


def test_a_finished_network_is_exported_and_runs_elsewhere(network: str, tmp_path: Path) -> None:
    net, data = attached(network, "shrinknets")
    net.remove(next(iter(net.widths)), [1])
    before, module = outputs(net, data), net.finish().eval()
    program = torch.export.export(module, (data.x_val[:2],))
    assert_same(in_onnx(program, data.x_val[:2], tmp_path), before[:2], tolerance=1e-4)


def run(
    network: str,
    method: str,
    factor: float = 1.0,
    seed: int = 0,
    epochs: int = 3,
    batch_size: int = 64,
    folder: Path | None = None,
    stop_after: int | None = None,
    settings: dict[str, Any] | None = None,
    **values: Any,
) -> Run:
    data = pictures(network)

    def on_epoch(epoch: sizer.Epoch) -> None:
        if epoch.epoch == stop_after:
            raise Interrupted

    return sizer.fit(
        build(network, data, seed),
        data,
        create(method, knob(method, factor), **(SETTINGS.get(method, {}) if settings is None else settings)),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=RATES.get(method, 5e-4),
        seed=seed,
        folder=folder,
        on_epoch=on_epoch,
        **values,
    )


def measured(run: Run) -> list[dict[str, object]]:
    """The history without what a clock and the system say."""
    rows = [epoch.to_dict() for epoch in run.history]
    return [{key: row[key] for key in row if key not in {"seconds", "peak_memory"}} for row in rows]


def test_two_runs_with_one_seed_are_equal_to_the_bit(method: str, trained: str) -> None:
    state = torch.random.get_rng_state()
    one, two = run(trained, method, factor=10), run(trained, method, factor=10)
    assert measured(one) == measured(two)
    for a, b in zip(one.net.module.state_dict().values(), two.net.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert measured(one) != measured(run(trained, method, factor=10, seed=1))
    del state


@pytest.mark.parametrize(("device", "precision"), WHERE)
@pytest.mark.parametrize(("method", "settings"), [*[(name, None) for name in SIZING], *GROWING[: len(SOURCES)]])
def test_it_sizes_alike_in_lower_precision_and_on_a_gpu(
    method: str, settings: dict[str, Any] | None, device: str, precision: str
) -> None:
    there = run("lenet", method, factor=10, settings=settings, device=device, precision=precision)
    here = run("lenet", method, factor=10, settings=settings)
    for parameter in there.net.module.parameters():
        assert (parameter.dtype, parameter.device.type) == (torch.float32, device)
    assert there.net.resizes > 0
    for one, other in zip(there.history, here.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.02)
        assert abs(sum(one.widths.values()) - sum(other.widths.values())) <= 2, "a unit may be on the border"


def test_an_interrupted_run_goes_on_equal_to_the_bit(method: str, trained: str, tmp_path: Path) -> None:
    whole = run(trained, method, factor=10, epochs=4, folder=tmp_path / "whole")
    for stop in (1, 3):
        with pytest.raises(Interrupted):
            run(trained, method, factor=10, epochs=4, folder=tmp_path / "parts", stop_after=stop)
    parts = run(trained, method, factor=10, epochs=4, folder=tmp_path / "parts")
    assert measured(parts) == measured(whole)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    for a, b in zip(whole.net.module.state_dict().values(), parts.net.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_kept_weights_are_those_of_the_best_epoch(method: str, trained: str, tmp_path: Path) -> None:
    result = run(trained, method, factor=10, folder=tmp_path)
    best, data = result.best, pictures(trained)
    assert best is not None
    weights, _ = load_tensors(weights_file(tmp_path, best.epoch))
    architecture = Architecture(trained, data.input_shape, data.outputs, data.task, best.widths)
    sizer.save(tmp_path / "out", Architecture.from_json(architecture.to_json()), weights)
    module = sizer.load(tmp_path / "out")
    with torch.no_grad():
        hits = float((module(data.x_val).argmax(1) == data.y_val).float().mean())
    assert hits == pytest.approx(best.val_accuracy, abs=1e-6)
    assert sum(p.numel() for p in module.parameters()) == best.parameters
    again = copy.deepcopy(module)
    sizer.save(tmp_path / "again", architecture, again.state_dict())
    assert torch.equal(sizer.load(tmp_path / "again")(data.x_val), module(data.x_val))


@pytest.mark.parametrize("trained", ["mlp"])
def test_a_larger_knob_gives_no_more_units(method: str, trained: str) -> None:
    units = [
        sum(sum(run(trained, method, factor, seed, 6, 16).history[-1].widths.values()) for seed in range(3))
        for factor in (0.1, 30.0)
    ]
    assert units[1] < units[0]


@pytest.mark.parametrize("trained", ["mlp"])
def test_a_knob_too_large_ends_as_collapsed_with_a_unit_in_each_layer(method: str, trained: str) -> None:
    result = run(trained, method, factor=1e4, epochs=8 if method in BOUNDED else 60, batch_size=8)
    assert all(width >= 1 for width in result.history[-1].widths.values())
    assert result.history[-1].val_loss == result.history[-1].val_loss
    if method in BOUNDED:
        assert result.status == "complete"
        return
    assert result.status == "collapsed"
    assert any(layer in result.reason for layer in result.history[-1].widths)
