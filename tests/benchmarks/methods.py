"""Every sizing method on two networks and two data sets, at three values of its knob, beside the unsized network.

python -m tests.benchmarks.methods                     all; prints the table of docs/methods.md
python -m tests.benchmarks.methods --network das-conv  a part of it
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

import sizer
from sizer import cost, datasets, networks
from sizer.datasets import Data
from sizer.methods import create

NETWORKS = {"das-conv": 3, "resnet18": 8}
"""Network -> by what its default widths are divided."""
DATA = ("fashion_mnist", "cifar10")
KNOBS: dict[str, tuple[float, float, float]] = {
    "shrinknets": (1e-4, 1e-3, 1e-2),
    "auto-sizing": (3e-4, 1e-3, 3e-3),
    "group-sparsity": (3e-4, 1e-3, 3e-3),
    "activity": (3e-3, 1e-2, 3e-2),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "auto-sizing": {"min_growth": 5, "fine_tuning": 0.25},
    "activity": {"criterion": "l1", "pretrain": 1, "thresholds": 7},
}
RATES = {("auto-sizing", "das-conv"): 4e-4, ("auto-sizing", "resnet18"): 8e-4}
"""Learning rates other than 1e-3. Auto-sizing's is below its threshold, or steps alone keep units above that; where a
unit's size is the scale of a batch normalisation, which begins at 1, a smaller one takes too many steps."""
BATCH = 12
HEAD = f"""# Every method at three values of its knob

{{images:,}} training images, {{epochs}} epochs, batch {BATCH}, Adam 1e-3 (auto-sizing 4e-4 on das-conv, 8e-4 on
resnet18), seed 0; widths narrowed for a CPU, das-conv's by 3, resnet18's by 8. Auto-sizing grows 5 units a layer and
epoch, its last epoch is static; activity goes by l1, with 7 thresholds after one epoch of pretraining.
Each row is the epoch that 1,000 validation images choose; the test accuracy is that of 2,000 images: one standard error
is about 1 point. Latency: a pass of a batch of 64 over that of the unsized network, the median of 9 pairs. Written by

    python -m tests.benchmarks.methods
"""
COLUMNS = ("data", "network", "method", "knob", "units", "parameters", "MFLOPs", "latency", "test accuracy")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--data", choices=DATA)
    arguments = parser.parse_args()
    print(HEAD.format(images=arguments.images, epochs=arguments.epochs))
    print(line(COLUMNS) + "\n" + line(["---"] * len(COLUMNS)), flush=True)
    rows = []
    for name in [arguments.data] if arguments.data else DATA:
        data = shortened(name, arguments.images)
        for network in [arguments.network] if arguments.network else NETWORKS:
            for row in measured(data, network, arguments.epochs):
                print(line(row), flush=True)
                rows.append(row)
    print("\nThe same side by side: parameters, MFLOPs, latency, test accuracy\n\n" + side_by_side(rows))
    return 0


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def side_by_side(rows: Sequence[Sequence[str]]) -> str:
    """A row a method and knob, a column a network and data set."""
    columns = list(dict.fromkeys((row[1], row[0]) for row in rows))
    cells = {(row[2], row[3], row[1], row[0]): ", ".join(row[5:]) for row in rows}
    told = [line(["method", "knob", *(", ".join(column) for column in columns)]), line(["---"] * (len(columns) + 2))]
    for knob in dict.fromkeys((row[2], row[3]) for row in rows):
        told.append(line([*knob, *(cells.get((*knob, *column), "") for column in columns)]))
    return "\n".join(told)


def measured(data: Data, network: str, epochs: int) -> Iterator[tuple[str, ...]]:
    """The rows of one network on one data set."""
    start = [max(1, width // NETWORKS[network]) for width in networks.default_widths(network)]
    unsized = build(network, data, start)
    for method, knob in [("fixed", None), *((method, knob) for method, knobs in KNOBS.items() for knob in knobs)]:
        chosen = create(method, knob, **SETTINGS.get(method, {}))
        rate = RATES.get((method, network), 1e-3)
        run = sizer.fit(build(network, data, start), data, chosen, epochs=epochs, batch_size=BATCH, learning_rate=rate)
        end = run.best
        assert end is not None
        sized = build(network, data, list(end.widths.values()))
        # One right after the other, so that what else the machine does slows both.
        pairs = [[cost.latency(each, (data.x_test[:64],), runs=3) for each in (sized, unsized)] for _ in range(9)]
        latency = statistics.median(one / other for one, other in pairs)
        name = ("unsized", "") if knob is None else (method, f"{knob:g}")
        yield (
            data.name, network, *name, f"{sum(end.widths.values()):,}", f"{end.parameters:,}", f"{end.flops / 1e6:.1f}",
            f"{latency:.2f}", f"{100 * end.test_accuracy:.1f} %",
        )  # fmt: skip


def build(network: str, data: Data, widths: list[int]) -> torch.nn.Module:
    """The network with the weights of seed 0."""
    torch.manual_seed(0)
    return networks.build(network, data.input_shape, data.outputs, widths)


def shortened(name: str, images: int) -> Data:
    """The first training images of a data set, 1,000 for validation and 2,000 for the test."""
    data = datasets.load(name)
    parts = {f"{kind}_{part}": getattr(data, f"{kind}_{part}")[:count] for kind in "xy"
             for part, count in (("train", images), ("val", 1000), ("test", 2000))}  # fmt: skip
    return replace(data, **parts)


if __name__ == "__main__":
    sys.exit(main())
