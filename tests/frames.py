"""Frames like those of `studies.query`, made by formula: what an evaluation of four arms could have given."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

LAYERS = ("dense1", "dense2", "dense3")
ARMS = {
    "shrinknets": ("shrinknets", "lambda", (1e-5, 1e-2), 0.972),
    "auto-sizing": ("auto-sizing", "alpha", (1e-6, 1e-3), 0.968),
    "fixed": ("fixed", "", (0.0, 0.0), 0.964),
    "fixed-l2": ("fixed-l2", "weight_decay", (1e-5, 1e-2), 0.960),
}


def evaluation(
    trials: int = 10, epochs: int = 20, arms: Iterable[str] = tuple(ARMS), seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and history of an evaluation in which larger knobs give smaller networks, and very large ones worse."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    for a, arm in enumerate(arms):
        method, knob_name, (low, high), top = ARMS[arm]
        for number in range(trials):
            knob = float(np.exp(rng.uniform(math.log(low), math.log(high)))) if knob_name else math.nan
            trial_id = 1 + a * trials + number
            start = (
                [100] * 3 if method in ("shrinknets", "auto-sizing") else [int(w) for w in 2 ** rng.uniform(4, 9, 3)]
            )
            talent = top + float(rng.normal(0, 0.006))
            run = [
                epoch_row(arm, method, trial_id, number, knob, low, start, talent, epoch, rng)
                for epoch in range(1, epochs + 1)
            ]
            history += run
            rows.append(trial_row(method, knob_name, run, seed=number))
    return pd.DataFrame(rows), pd.DataFrame(history)


def epoch_row(
    arm: str,
    method: str,
    trial_id: int,
    number: int,
    knob: float,
    low: float,
    start: list[int],
    top: float,
    epoch: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One epoch: accuracy climbs to about `top`, widths of the sizing methods fall towards what the knob says."""
    strength = math.log10(knob / low) if method in ("shrinknets", "auto-sizing") else 0.0
    goal = [max(2, round(width / (1 + strength * (1 + layer)))) for layer, width in enumerate(start)]
    rest = math.exp(-epoch / 4)
    widths = [round(g + (s - g) * rest) for g, s in zip(goal, start, strict=True)]
    sizes = [64, *widths, 10]
    parameters = sum(i * o + o for i, o in itertools.pairwise(sizes))
    skill = top - 0.006 * max(0.0, strength - 2) ** 2 - 0.35 * math.exp(-epoch / 2.5)
    validation, test = (float(min(0.999, skill + rng.normal(0, 0.002))) for _ in range(2))
    flops = 2 * parameters
    return {
        "arm": arm,
        "trial_id": trial_id,
        "number": number,
        "knob": knob,
        "epoch": epoch,
        "train_loss": 2 * math.exp(-epoch / 3) + 0.02,
        "train_accuracy": min(1.0, skill + 0.02),
        "val_loss": 2 * math.exp(-epoch / 3) + 0.12 + 0.03 * strength + float(rng.normal(0, 0.004)),
        "val_accuracy": validation,
        "test_loss": 2 * math.exp(-epoch / 3) + 0.13,
        "test_accuracy": test,
        "parameters": parameters,
        "flops": flops,
        "training_flops": 3 * flops * 1150 * epoch,
        "seconds": 0.2 * epoch,
        "peak_memory": 400_000_000,
        "widths": dict(zip(LAYERS, widths, strict=True)),
    }


def trial_row(method: str, knob_name: str, run: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The trial of a run that ended: everything of its best validation epoch."""
    best = max(run, key=lambda epoch: epoch["val_accuracy"])
    return {
        "arm": best["arm"],
        "method": method,
        "trial_id": best["trial_id"],
        "number": best["number"],
        "state": "COMPLETE",
        "status": "complete",
        "reason": "",
        "knob_name": knob_name,
        "knob": best["knob"],
        "seed": seed,
        "epoch": best["epoch"],
        **{key: best[key] for key in ("val_accuracy", "test_accuracy", "val_loss", "test_loss", "parameters", "flops")},
        "units": sum(best["widths"].values()),
        "training_flops": run[-1]["training_flops"],
        "seconds": run[-1]["seconds"],
        "epochs": len(run),
        "peak_memory": best["peak_memory"],
        "widths": best["widths"],
        "device": "cpu",
    }


def without_result(trials: pd.DataFrame, arm: str, number: int, state: str, status: str, reason: str) -> pd.DataFrame:
    """The trials with one of them turned into one that gave no network."""
    changed = trials.copy()
    row = (changed["arm"] == arm) & (changed["number"] == number)
    changed.loc[row, ["state", "status", "reason"]] = [state, status, reason]
    for column in ("val_accuracy", "test_accuracy", "val_loss", "test_loss", "parameters", "flops", "units"):
        changed[column] = changed[column].astype(float).mask(row)
    return changed
