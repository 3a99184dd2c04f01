"""Every network family trained for an epoch on CIFAR-10 by every sizing method: do widths change, does the loss fall?

python -m tests.benchmarks.families                        ten, narrowed so that a CPU can
python -m tests.benchmarks.families --images 40000 vit     one of them, on more than 10,000 training images
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch

import sizer
from sizer import datasets, networks
from sizer.methods import create

FAMILIES = ["conv1d", "das-conv", "densenet", "lenet", "mlp", "mobilenetv2", "resnet18", "unet", "vgg11", "vit"]
NARROWED = {
    "conv1d": 4, "das-conv": 2, "densenet": 2, "lenet": 10, "mobilenetv2": 2, "resnet18": 4, "unet": 4, "vgg11": 4,
}  # fmt: skip
"""By what the default widths are divided."""
SEEN = 2_000
"""Validation images that the loss is taken from, and test images: more would cost as much as the training."""
METHODS = {
    "shrinknets": {"knob": 1e-3, "ramp": 0.5},
    "auto-sizing": {"knob": 1e-6, "fine_tuning": 0.0, "min_growth": 2},
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    arguments = parser.parse_args()
    data = datasets.load("cifar10")
    data = replace(
        data,
        x_train=data.x_train[: arguments.images],
        y_train=data.y_train[: arguments.images],
        x_val=data.x_val[:SEEN],
        y_val=data.y_val[:SEEN],
        x_test=data.x_test[:SEEN],
        y_test=data.y_test[:SEEN],
    )
    print("# Every network, sized on CIFAR-10\n")
    print(f"{len(data.x_train):,} training images, one epoch, batch 128, Adam 1e-3, seed 0; widths narrowed for a CPU")
    print("(`NARROWED` in the script). ShrinkNets: lambda 1e-3, reached after half an epoch; auto-sizing: alpha 1e-6,")
    print(f"no static part. The loss is that of {SEEN:,} validation images, at first of the untrained network, in")
    print("training mode. Units of vit are attention heads and hidden units. Written by")
    print("\n    python -m tests.benchmarks.families\n")
    print("| network | method | units before | after | parameters before | after | loss at first | after |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    failed = []
    for family in arguments.families:
        for method, settings in METHODS.items():
            if arguments.method not in (None, method):
                continue
            widths = [max(1, width // NARROWED.get(family, 1)) for width in networks.default_widths(family)]
            torch.manual_seed(0)
            module = networks.build(family, data.input_shape, data.outputs, widths)
            parameters = sum(p.numel() for p in module.parameters())
            with torch.no_grad():
                first = float(loss(module, data.x_val, data.y_val))
            run = sizer.fit(module, data, create(method, **settings), epochs=1, batch_size=128)
            end = run.history[-1]
            after = list(end.widths.values())
            print(
                f"| {family} | {method} | {sum(widths):,} | {sum(after):,} | {parameters:,} | {end.parameters:,} | "
                f"{first:.3f} | {end.val_loss:.3f} |",
                flush=True,
            )
            if after == widths or not end.val_loss < first:
                failed.append(f"{family} with {method}")
    print("\nAll widths changed, all losses fell." if not failed else f"\nNOT so: {', '.join(failed)}.")
    return 1 if failed else 0


def loss(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross entropy of a network as it is built; a label counts for every pixel of a class map."""
    outputs = module(x)
    target = y if outputs.dim() == 2 else y.view(-1, 1, 1).expand(outputs[:, 0].shape)
    return torch.nn.functional.cross_entropy(outputs, target)


if __name__ == "__main__":
    sys.exit(main())
