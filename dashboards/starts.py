"""The widths that the networks of a sizing arm start from, as far as the plan and its trials tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sizer import networks
from sizer.methods import method_class
from studies.compare import finished


def starts(spec: Mapping[str, Any], trials: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Sizing arm -> layer -> width before the first epoch, layers in the order in which they run.

    An arm is missing where that is not told: one that starts from widths another arm found, or whose network is the
    user's own while no arm trains it unsized, or has no layers.

    Args:
        spec: the plan as JSON values (`studies.plan.Plan.spec`).
        trials: the arms' trials (`studies.query.trials`).
    """
    plain = _plain(spec, trials)
    found = {}
    for name, arm in spec["arms"].items():
        if "stage" not in arm and method_class(arm["method"]).sizes and (widths := _widths(arm.get("start"), plain)):
            found[name] = widths
    return found


def _plain(spec: Mapping[str, Any], trials: pd.DataFrame) -> dict[str, int]:
    """The widths that the plan starts from: those it names, its network's own, or those of an arm that is not sized."""
    if spec["network"] in networks.names():
        if not networks.layered(spec["network"]):
            return {}
        given = spec.get("widths")
        layers = networks.layers(spec["network"], len(given) if given else None)
        return dict(zip(layers, given or networks.default_widths(spec["network"]), strict=True))
    unsized = [name for name, arm in spec["arms"].items() if arm.get("widths") == {"uniform": False, "cut": 0.0}]
    rows = finished(trials)
    rows = rows[rows["arm"].isin(unsized)]
    return dict(rows["widths"].iloc[0]) if len(rows) else {}


def _widths(start: list[int] | Mapping[str, Any] | None, plain: Mapping[str, int]) -> dict[str, int]:
    if start is None:
        return dict(plain)
    if isinstance(start, list):
        return dict(zip(plain, start, strict=True)) if len(plain) == len(start) else {}
    if start.get("mean_of") or start.get("uniform"):
        return {}
    return {layer: max(1, round(width * (1 - start["cut"]))) for layer, width in plain.items()}
