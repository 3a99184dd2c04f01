"""Trains one architecture again, as a fixed network, once for each of several seeds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sizer
from sizer import Epoch, architecture, datasets, methods, usercode
from sizer.checkpoint import load_tensors
from sizer.datasets import Data
from sizer.errors import InputError, unknown
from sizer.training import OPTIMIZERS, weights_file

# What an architecture does not say, because a user wrote it by hand or an older version did.
DEFAULTS: Mapping[str, Any] = {
    "validation": 0.2, "data_seed": 0, "batch_size": 256, "learning_rate": 1e-3, "optimizer": "adam",
    "precision": "float32", "weight_decay": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What one seed gave.

    Attributes:
        seed: Of weights (from scratch) and of the order of samples.
        best: Its best validation epoch; None where it has none.
        status: As `sizer.fit` says: complete, or diverged.
        reason: Why it is not complete.
        weights: The `state_dict` at its best epoch, where they were asked for.
    """

    seed: int
    best: Epoch | None
    status: str
    reason: str
    weights: dict[str, Tensor] | None = None


class Retraining:
    """An architecture, its data and how it is to be trained, checked before anything runs.

    Args:
        folder: What `sizer best --out` or `sizer.save` wrote.
        from_scratch: From fresh weights, not from those in the folder.
        given: `data`, `epochs`, `batch_size`, `learning_rate`, `optimizer`: they win over what the architecture says it
            was trained with; None is ignored.

    Attributes:
        architecture: What is trained.
        data: On what; where the architecture says which rows were held out, they are again.
        settings: Everything it is trained with, by name.
        same_data: Whether it is the data that the architecture says it was trained with.

    Raises:
        InputError: The folder holds no network, its settings are not known, or the data does not fit it.
    """

    def __init__(self, folder: Path | str, *, from_scratch: bool, given: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.from_scratch = from_scratch
        self.architecture = architecture.read(folder)
        info = self.architecture.info
        known = {**DEFAULTS, **_older(info), **info.get("training", {})}
        wanted = {key: value for key, value in given.items() if value is not None}
        if (file := datasets.file_of(str(wanted.get("data", "")))) is not None:
            wanted["data"] = datasets.with_file(str(wanted["data"]), file.expanduser().resolve())
        self.settings: dict[str, Any] = {**known, **wanted}
        for key, option in (("data", "--data"), ("epochs", "--epochs")):
            if key not in self.settings:
                raise InputError(f"{self.folder} does not say its {key}: give {option}")
        if self.settings["optimizer"] not in OPTIMIZERS:
            raise unknown("optimizer", self.settings["optimizer"], OPTIMIZERS)
        self.same_data = self.settings["data"] == known.get("data")
        network_folder = str(info.get("network_folder", ""))
        if network_folder and usercode.is_named(self.settings["data"]):
            usercode.look_first(Path(network_folder))
        self.data = self._fitting()
        self._weights = {} if from_scratch else load_tensors(self.folder / architecture.WEIGHTS)[0]
        # Shows what does not fit within a second, not after an epoch.
        self._module(seed=0)

    def run(self, seed: int, on_epoch: Callable[[Epoch], None], *, keep_weights: bool) -> Trained:
        """Trains it once.

        Args:
            seed: 0 or more.
            on_epoch: Called after every epoch.
            keep_weights: Whether the best epoch's weights are wanted.
        """
        settings = self.settings
        with tempfile.TemporaryDirectory(prefix="sizer-retrain-") as place:
            folder = Path(place)
            run = sizer.fit(
                self._module(seed), self.data, methods.create("fixed"),
                epochs=settings["epochs"], batch_size=settings["batch_size"], learning_rate=settings["learning_rate"],
                optimizer=settings["optimizer"], precision=settings["precision"],
                weight_decay=settings["weight_decay"], seed=seed,
                folder=folder if keep_weights else None, on_epoch=on_epoch,
            )  # fmt: skip
            best = run.best if run.status == "complete" else None
            weights = load_tensors(weights_file(folder, best.epoch))[0] if best and keep_weights else None
        return Trained(seed, best, run.status, run.reason, weights)

    def save(self, folder: Path, trained: Trained) -> None:
        """Writes a seed's network with its weights, as `sizer best --out` does."""
        assert trained.best is not None
        assert trained.weights is not None
        best = trained.best
        before = {key: value for key, value in self.architecture.info.items() if key not in ("study", "trial")}
        info = {
            **before, "epoch": best.epoch, "val_accuracy": best.val_accuracy, "test_accuracy": best.test_accuracy,
            "data": self.data.name, "training": {**self.settings, "seed": trained.seed},
            "retrained": {"from": str(self.folder), "from_scratch": self.from_scratch},
        }  # fmt: skip
        if usercode.is_named(self.architecture.network):
            code = self.architecture.code()
            info |= {"network_sha256": code.sha256, "network_folder": code.folder}
        found = replace(self.architecture, preprocessing=self.data.preprocessing, info=info)
        architecture.save(folder, found, trained.weights)

    def _module(self, seed: int) -> torch.nn.Module:
        if not self.from_scratch:
            return architecture.fill(self.architecture, self._weights, str(self.folder / architecture.WEIGHTS))
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return self.architecture.build()

    def _fitting(self) -> Data:
        settings, built = self.settings, self.architecture
        data = datasets.load(
            settings["data"], validation=settings["validation"], seed=settings["data_seed"],
            folds=settings.get("folds"), fold=settings.get("fold", 0), samples=settings.get("samples"),
        )  # fmt: skip
        takes = f"inputs {built.input_shape}, {built.outputs} outputs, {built.task}"
        has = f"inputs {data.input_shape}, {data.outputs} outputs, {data.task}"
        name = settings["data"]
        if takes != has:
            raise InputError(f"the network in {self.folder} takes {takes}; {name} has {has}: give other --data")
        return data


def _older(info: Mapping[str, Any]) -> dict[str, Any]:
    """What an architecture that does not say how it was trained says nevertheless: one of our data sets' names."""
    return {"data": info["data"]} if info.get("data") in datasets.names() else {}


def best_of(results: list[Trained]) -> Trained:
    """The seed of highest validation accuracy.

    Raises:
        InputError: No seed gave a network.
    """
    usable = [each for each in results if each.best is not None]
    if not usable:
        raise InputError(f"no seed gave a network ({results[0].reason}): lower --learning-rate")
    return max(usable, key=lambda each: each.best.val_accuracy if each.best else 0.0)
