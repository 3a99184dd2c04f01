"""A small evaluation on digits in a database: really trained, here and now, without Ray."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import sizer
from sizer import datasets, methods, networks
from studies.database import locate
from studies.driver import Driver
from studies.lease import Lease
from studies.plan import Plan
from studies.sweep import describe
from tests.studies.sweeps import Seen, folder_of

FAILED = ("fixed", 2)


def small_plan(**values: Any) -> Plan:
    """Two arms of three trials and three epochs on digits."""
    arms = {"shrinknets": {"lambda": {"low": 1e-3, "high": 1e-2}}, "fixed": {"widths": {"low": 4, "high": 16}}}
    given = {"name": "small", "data": "digits", "network": "mlp", "widths": [12], "epochs": 3, "trials": 3}
    return Plan(**{**given, "batch_size": 256, "arms": arms, **values})


def sweep_here(plan: Plan, path: Path, trials: int | None = None) -> None:
    """Trains `trials` of the plan's trials (all unless given) into the database; the trial `FAILED` diverges."""
    database = locate(path)[0]
    database.create()
    data = datasets.load(plan.data, validation=plan.validation, seed=plan.seed)
    with Lease(database, plan.name) as lease:
        driver = Driver(plan, database, lease, Seen())
        driver.begin(describe(data))
        left = trials if trials is not None else driver.left
        while left > 0 and (member := driver.next()) is not None:
            left -= 1
            if (member["arm"], member["number"]) == FAILED:
                driver.end(member["trial_id"], "diverged", "the loss became NaN in epoch 1")
                continue
            torch.manual_seed(member["seed"])
            network = networks.build(member["network"], data.input_shape, data.outputs, member["widths"])
            run = sizer.fit(
                network,
                data,
                methods.create(member["method"], member["knob"], **member["settings"]),
                epochs=member["epochs"],
                batch_size=member["batch_size"],
                learning_rate=member["learning_rate"],
                seed=member["seed"],
                folder=folder_of(member),
                on_epoch=partial(driver.epoch, member["trial_id"]),
            )
            driver.end(member["trial_id"], run.status, run.reason)
    database.close()


def assert_repeated(lines: list[str], history: pd.DataFrame) -> None:
    """Runs what a trial's page says repeats it: its epochs are the same to the bit."""
    told: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec("\n".join(lines[:-1]), told)
    columns = ["val_loss", "test_accuracy", "parameters", "training_flops"]
    again = [[getattr(epoch, column) for column in columns] for epoch in told["run"].history]
    assert again == history[columns].to_numpy().tolist()
