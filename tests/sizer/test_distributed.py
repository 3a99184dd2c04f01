"""Several processes size one network alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sizer import InputError
from tests.sizer.loops import attach, convolutional


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


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


@pytest.mark.soak
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
