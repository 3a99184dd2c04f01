"""Alive units over epochs, beside those of the authors of ShrinkNets (Fig. 1): 784-10000-10, faithful rule, batch 256.

python tests/benchmarks/convergence.py [--data mnist] [--epochs 10] [LAMBDA ...] > docs/convergence.md
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch

import sizer
from sizer import datasets, methods, networks
from sizer.history import Epoch

AUTHORS = {  # alive units on MNIST after epochs 1, 5, 10, 20, 50, 100, as their log has them
    1e-1: (7634, 35, 25, 25, 25, 25),
    1e-2: (7708, 121, 56, 54, 54, 54),
    1e-3: (7980, 542, 175, 138, 107, 104),
    1e-4: (9072, 4153, 1317, 436, 208, 172),
    1e-5: (9836, 8825, 7292, 4579, 1125, 441),
}
AT = (1, 5, 10, 20, 50, 100)


def train(name: str, strength: float, epochs: int, seed: int) -> list[Epoch]:
    """One run on all training images: those split off for validation are trained on as well, as the authors did."""
    data = datasets.load(name, validation=0.001, seed=seed)
    data = replace(data, x_train=torch.cat((data.x_train, data.x_val)), y_train=torch.cat((data.y_train, data.y_val)))
    torch.manual_seed(seed)
    module = networks.build("mlp", data.input_shape, data.outputs, [10_000])
    method = methods.create("shrinknets", strength, rule="subgradient")

    def tell(epoch: Epoch) -> None:
        print(f"{name} lambda {strength:g}: epoch {epoch.epoch}, {epoch.widths}", file=sys.stderr, flush=True)

    return sizer.fit(module, data, method, epochs=epochs, batch_size=256, seed=seed, on_epoch=tell).history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lambdas", nargs="*", type=float, default=[1e-2, 1e-3])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("# Does it converge to the published sizes?\n")
    print(
        "784-10000-10 on", options.data + ", ShrinkNets' faithful rule (subgradient, one learning rate, removal at the"
    )
    print("end of each epoch), Adam 1e-3, batch 256, all 60,000 training images, theta ~ U(0, 1), one seed.")
    print("The authors' figures are from their log (MNIST). Written by\n")
    print(f"    python tests/benchmarks/convergence.py {' '.join(sys.argv[1:])}".rstrip() + "\n")
    print("| lambda | epoch | alive units | authors | ratio | test accuracy | loss | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for strength in options.lambdas:
        for epoch in train(options.data, strength, options.epochs, options.seed):
            units = sum(epoch.widths.values())
            known = AUTHORS.get(strength) if options.data == "mnist" and epoch.epoch in AT else None
            theirs = known[AT.index(epoch.epoch)] if known else None
            beside = f"{theirs} | {units / theirs:.2f}" if theirs else " | "
            print(
                f"| {strength:g} | {epoch.epoch} | {units} | {beside} | {epoch.test_accuracy:.4f} "
                f"| {epoch.train_loss:.4f} | {epoch.seconds:.0f} |"
            )


if __name__ == "__main__":
    main()
