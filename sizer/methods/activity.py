"""Dynamically adding and removing neurons, DARN (Gandhi, Bandaru): units go by what they do on data (Algorithm 1).

After a pretraining, each round removes the units that a threshold picks and trains the network again. If its validation
metric stays within ``sacrifice`` of that at the end of the pretraining, the round is accepted, and the next threshold,
which removes more, is tried; else the network is brought back, and sizing ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sizer import cost, snapshot, splitting
from sizer.errors import InputError, unknown
from sizer.groups import Group
from sizer.methods.method import Knob, Method
from sizer.net import Net, fresh
from sizer.statistics import Statistics, measure

CRITERIA = ("l1", "variance", "correlation")
SOURCES = ("split-variance", "split-l1", "average", "random", "copy")


class Activity(Method):
    """Units are removed, or added, in rounds that are taken back where they cost too much.

    The paper gives no formula; read here as follows. By a threshold t, ``l1`` and ``variance`` remove the share 1 - t
    of each layer's units, rounded up, whose mean absolute activation or variance is the least; ``correlation`` removes
    those that correlate by more than t, either sign, with a unit of larger variance, the highest pair first. So a
    falling threshold removes more, and a layer never loses its last unit. What units are is measured on the training
    data, after the activation; units that are zero whatever the input go at the end of any epoch.

    It needs ``net.training_data`` and ``net.validate``, which ``fit`` sets. What came of each round stands in
    ``net.notes["activity"]["rounds"]``.

    Args:
        value: the sacrifice: how much of the validation metric a round may cost, against the end of the pretraining.
        criterion: ``l1``, ``variance``, ``correlation``, or several joined by ``+``: a unit goes when any says so.
        direction: ``remove``, or ``add``: each round adds ``share`` of each layer's units, until the network has
            ``max_growth`` times the parameters it had.
        source: where added units come from: ``split-variance`` and ``split-l1`` (those of the highest variance or
            activation are split in two), ``copy`` (random ones are), ``average`` (of the incoming weights of the least
            correlated pairs) or ``random`` (a fresh start). The last two begin with outgoing weights of 0.
        thresholds: those of the rounds, strictly falling, between 0 and 1; or how many, from ``first`` to ``last`` on a
            log scale. A threshold by which nothing would go is passed over.
        pretrain: epochs before the first round.
        retraining: further epochs that a round gets before it is taken back; the last planned epoch decides anyhow.
        layers: beginnings of the names of the layers that are sized, joined by ``,``; all where empty.
        maps: how correlations of feature maps are taken: ``averaged`` over positions, or ``pooled`` (see ``measure``).
        noise: what parts the halves of a split unit, as a share of its weights; the outputs change by its square.
    """

    name = "activity"
    knob = Knob("sacrifice", 1e-3, 1e-1)
    settings: ClassVar = {
        "criterion": "correlation", "direction": "remove", "source": "split-variance", "thresholds": 10, "first": 0.98,
        "last": 0.7, "pretrain": 3, "retraining": 3, "layers": "", "maps": "averaged", "share": 0.1, "max_growth": 2.0,
        "noise": 1e-3,
    }  # fmt: skip

    def __init__(
        self,
        value: float,
        criterion: str = "correlation",
        direction: str = "remove",
        source: str = "split-variance",
        thresholds: int | Sequence[float] = 10,
        first: float = 0.98,
        last: float = 0.7,
        pretrain: int = 3,
        retraining: int = 3,
        layers: str = "",
        maps: str = "averaged",
        share: float = 0.1,
        max_growth: float = 2.0,
        noise: float = 1e-3,
    ) -> None:
        super().__init__(value)
        self.criteria = tuple(part.strip() for part in criterion.split("+"))
        for part in self.criteria:
            if part not in CRITERIA:
                raise unknown("criterion of activity", part, CRITERIA)
        for kind, given, known in (
            ("direction", direction, ("remove", "add")),
            ("source", source, SOURCES),
            ("maps", maps, ("averaged", "pooled")),
        ):
            if given not in known:
                raise unknown(f"{kind} of activity", given, known)
        if pretrain < 0 or retraining < 0 or not 0 < share <= 1 or max_growth < 1 or not 0 <= noise < 1:
            raise InputError(
                "activity needs pretrain >= 0, retraining >= 0, 0 < share <= 1, max_growth >= 1 and 0 <= noise < 1, "
                f"got {pretrain}, {retraining}, {share}, {max_growth}, {noise}"
            )
        self.adds = direction == "add"
        self.source = source
        self.thresholds = falling(thresholds, first, last)
        self.pretrain = pretrain
        self.retraining = retraining
        self.layers = tuple(part.strip() for part in layers.split(",") if part.strip())
        self.pooled = maps == "pooled"
        self.share = share
        self.max_growth = max_growth
        self.noise = noise

    def check_epochs(self, epochs: int) -> None:
        if epochs <= self.pretrain:
            raise InputError(
                f"activity sizes nothing in {epochs} epochs, the first {self.pretrain} being its pretraining; plan "
                "more epochs or set pretrain lower"
            )

    def prepare(self, net: Net) -> None:
        for start in self.layers:
            if not any(name.startswith(start) for name in net.widths):
                raise unknown("layer to size by activity", start, net.widths)

    def before_epoch(self, net: Net) -> None:
        validate = _given(net.validate, "validate", "a callable that gives the validation metric")
        if not self.adds or self.source not in ("random", "copy"):
            _given(net.training_data, "training_data", "a callable that gives the inputs of the training batches")
        if net.epoch <= self.pretrain:
            return
        if "activity" not in net.notes:
            net.notes["activity"] = {
                "initial": validate(), "parameters": cost.parameters(net.module), "next": 0, "done": False,
                "pending": False, "retrained": 0, "rounds": [],
            }  # fmt: skip
        state = net.notes["activity"]
        if not state["pending"] and not state["done"]:
            step = self._add(net, state) if self.adds else self._remove(net, state)
            state["done"] = step is None
            if step is not None:
                state["pending"], state["retrained"] = True, 0
                state["rounds"].append({"epoch": net.epoch, **step, "accepted": None})

    def after_epoch(self, net: Net) -> None:
        net.drop({group: _zero(group) for group in self._sized(net)})
        state = net.notes.get("activity", {"pending": False})
        if not state["pending"]:
            return
        assert net.validate is not None
        assert net.snapshot is not None
        score, this = net.validate(), state["rounds"][-1]
        this |= {"score": score, "parameters": cost.parameters(net.module), "widths": net.widths}
        accepted = score >= state["initial"] - self.value
        if not accepted and state["retrained"] < self.retraining and net.epoch != net.epochs:
            state["retrained"] += 1
            return
        if not accepted:
            snapshot.restore(net, net.snapshot)
            state["done"] = True
        this["accepted"], state["pending"], net.snapshot = accepted, False, None

    def _sized(self, net: Net) -> list[Group]:
        return [group for group in net.groups if not self.layers or group.name.startswith(self.layers)]

    def _measure(self, net: Net, groups: list[Group], correlations: bool) -> dict[Group, Statistics]:
        assert net.training_data is not None
        return measure(net.module, groups, net.training_data(), correlations=correlations, pooled=self.pooled)

    def _remove(self, net: Net, state: dict[str, Any]) -> dict[str, float] | None:
        """Removes by the next threshold that removes anything, and says which; None where none does."""
        if state["next"] == len(self.thresholds):
            return None
        found = self._measure(net, self._sized(net), "correlation" in self.criteria)
        while state["next"] < len(self.thresholds):
            threshold = self.thresholds[state["next"]]
            state["next"] += 1
            going = {group.name: pick(own, self.criteria, threshold, net.round_to) for group, own in found.items()}
            if any(len(units) for units in going.values()):
                net.snapshot = snapshot.take(net)
                net.remove_all({layer: units.tolist() for layer, units in going.items() if len(units)})
                return {"threshold": threshold}
        return None

    def _add(self, net: Net, state: dict[str, Any]) -> dict[str, float] | None:
        """Adds a round's units, and says their share; None where the network would have too many parameters."""
        groups = self._sized(net)
        counts = {group: max(1, round(self.share * group.width)) for group in groups}
        net.snapshot = snapshot.take(net)
        if self.source == "random":
            net.grow_all(counts, fresh(1.0, 0.0))
        elif self.source == "copy":
            drawn = {group: torch.randperm(group.width)[:count] for group, count in counts.items()}
            splitting.split(net, drawn, self.noise)
        elif self.source == "average":
            found = self._measure(net, groups, True)
            splitting.average(net, {group: unlike(own, counts[group]) for group, own in found.items()})
        else:
            found = self._measure(net, groups, False)
            sizes = {group: own.l1 if self.source == "split-l1" else own.variance for group, own in found.items()}
            highest = {group: size.topk(counts[group]).indices.cpu() for group, size in sizes.items()}
            splitting.split(net, highest, self.noise)
        if cost.parameters(net.module) <= self.max_growth * state["parameters"]:
            return {"share": self.share}
        snapshot.restore(net, net.snapshot)
        net.snapshot = None
        return None


def falling(thresholds: int | Sequence[float], first: float, last: float) -> tuple[float, ...]:
    """The thresholds as given, or so many from ``first`` to ``last`` on a log scale.

    Raises:
        InputError: they do not fall strictly, or do not lie between 0 and 1.
    """
    if isinstance(thresholds, int):
        if thresholds < 1 or not 0 < last < 1 or not 0 < first < 1:
            raise InputError(
                "activity needs at least 1 threshold, with first and last between 0 and 1, got "
                f"{thresholds} from {first} to {last}"
            )
        given: Sequence[float] = np.geomspace(first, last, thresholds).tolist()
    else:
        given = thresholds
    if not given or any(after >= before for before, after in pairwise([1.0, *given, 0.0])):
        raise InputError(f"thresholds of activity must fall strictly, between 1 and 0, got {list(given)}")
    return tuple(map(float, given))


def pick(found: Statistics, criteria: Sequence[str], threshold: float, multiple: int = 1) -> Tensor:
    """The units of a layer that go: int64 indices; those that stay are a multiple of ``multiple``, and at least 1."""
    width = len(found.l1)
    gone = torch.zeros(width, dtype=torch.bool)
    count = math.ceil(round((1 - threshold) * width, 9))
    for criterion, activity in (("l1", found.l1), ("variance", found.variance)):
        if criterion in criteria:
            gone[activity.cpu().argsort(stable=True)[:count]] = True
    variance = found.variance.cpu()
    if "correlation" in criteria:
        assert found.correlation is not None
        gone[alike(found.correlation.cpu().abs(), variance, threshold)] = True
    if gone.all():
        gone[variance.argmax()] = False
    units = gone.nonzero()[:, 0]
    units = units[variance[units].argsort(descending=True, stable=True)]
    return units[-(width - len(units)) % multiple :].sort().values


def alike(correlation: Tensor, variance: Tensor, threshold: float) -> list[int]:
    """Of each pair above the threshold, the highest first, the unit of smaller variance, unless one is gone already."""
    pairs = (correlation.triu(1) > threshold).nonzero()
    order = correlation[pairs[:, 0], pairs[:, 1]].argsort(descending=True, stable=True)
    sizes, gone = variance.tolist(), set[int]()
    for one, other in pairs[order].tolist():
        if one not in gone and other not in gone:
            gone.add(one if sizes[one] < sizes[other] else other)
    return sorted(gone)


def unlike(found: Statistics, count: int) -> Tensor:
    """The ``count`` least correlated pairs of a layer: (k, 2); a single unit makes a pair with itself."""
    assert found.correlation is not None
    width = len(found.l1)
    pairs = torch.triu_indices(width, width, 1 if width > 1 else 0).T
    close = found.correlation.cpu().abs()[pairs[:, 0], pairs[:, 1]]
    return pairs[close.argsort(stable=True)[:count]]


def _zero(group: Group) -> Tensor:
    """Units all of whose weights, biases and normalisation are 0: (width,) bool."""
    written = [slot.by_unit(slot.ref.tensor.detach(), group) for slot in group.writers]
    return torch.stack([entries.abs().amax(1) for entries in written]).amax(0) == 0


def _given(callable: Callable[[], Any] | None, name: str, what: str) -> Callable[[], Any]:
    if callable is None:
        raise InputError(f"activity needs net.{name}: set it to {what}; sizer.fit does")
    return callable
