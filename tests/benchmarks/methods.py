"""Every sizing method on two networks and two data sets, at three values of its knob, beside the unsized network.

python -m tests.benchmarks.methods                     all; prints the table of docs/methods.md
python -m tests.benchmarks.methods --network das-conv  a part of it
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch

import sizer
from sizer import cost, datasets, networks
from sizer.datasets import Data
from sizer.methods import create

NETWORKS = {"das-conv": 2, "resnet18": 8}
"""Network -> by what its default widths are divided."""
DATA = ("fashion_mnist", "cifar10")
KNOBS: dict[str, tuple[float, float, float]] = {
    "shrinknets": (1e-4, 1e-3, 1e-2),
    "auto-sizing": (1e-5, 1e-4, 1e-3),
    "group-sparsity": (1e-4, 1e-3, 1e-2),
    "activity": (3e-3, 1e-2, 3e-2),
}
SETTINGS: dict[str, dict[str, float]] = {"auto-sizing": {"min_growth": 5}}
BATCH = 64


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--data", choices=DATA)
    arguments = parser.parse_args()
    print("# Every method at three values of its knob\n")
    print(f"{arguments.images:,} training images, {arguments.epochs} epochs, batch {BATCH}, Adam 1e-3, seed 0; widths")
    print("narrowed for a CPU: " + ", ".join(f"{name} by {by}" for name, by in NETWORKS.items()) + ". Each row is the")
    print("epoch that 2,000 validation images choose; the test accuracy is that of 2,000 images: one standard error is")
    print("about 1 point. Latency: a batch of 64, one pass, the median of 20, over that of the unsized network in")
    print("the same run. Written by\n\n    python -m tests.benchmarks.methods\n")
    print("| data | network | method | knob | units | parameters | MFLOPs | latency | test accuracy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in [arguments.data] if arguments.data else DATA:
        data = shortened(name, arguments.images)
        for network in [arguments.network] if arguments.network else NETWORKS:
            table(data, network, arguments.epochs)
    return 0


def table(data: Data, network: str, epochs: int) -> None:
    """The rows of one network on one data set."""
    start = [max(1, width // NETWORKS[network]) for width in networks.default_widths(network)]
    unsized = build(network, data, start)
    for method, knob in [("fixed", None), *((method, knob) for method, knobs in KNOBS.items() for knob in knobs)]:
        chosen = create(method, knob, **SETTINGS.get(method, {}))
        run = sizer.fit(build(network, data, start), data, chosen, epochs=epochs, batch_size=BATCH)
        end = run.best
        assert end is not None
        sized = build(network, data, list(end.widths.values()))
        # One after the other, so that what else the machine does slows both.
        seconds = [cost.latency(module, (data.x_test[:64],)) for module in (sized, unsized)]
        name = ("unsized", "") if knob is None else (method, f"{knob:g}")
        print(
            f"| {data.name} | {network} | {name[0]} | {name[1]} | {sum(end.widths.values()):,} | {end.parameters:,} | "
            f"{end.flops / 1e6:.1f} | {seconds[0] / seconds[1]:.2f} | {100 * end.test_accuracy:.1f} % |",
            flush=True,
        )


def build(network: str, data: Data, widths: list[int]) -> torch.nn.Module:
    """The network with the weights of seed 0."""
    torch.manual_seed(0)
    return networks.build(network, data.input_shape, data.outputs, widths)


def shortened(name: str, images: int) -> Data:
    """The first training images of a data set, and 2,000 of its other parts each."""
    data = datasets.load(name)
    parts = {f"{kind}_{part}": getattr(data, f"{kind}_{part}")[:count] for kind in "xy"
             for part, count in (("train", images), ("val", 2000), ("test", 2000))}  # fmt: skip
    return replace(data, **parts)


if __name__ == "__main__":
    sys.exit(main())
