"""What makes a plan fit to run, beyond the types of its fields: its names exist, and its arms draw what they may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sizer import datasets, methods, networks
from sizer.datasets import Data
from sizer.errors import InputError, unknown
from sizer.passes import PRECISIONS
from sizer.training import OPTIMIZERS
from studies import pruning
from studies.arms import Range

if TYPE_CHECKING:
    from studies.arms import Arm
    from studies.plan import Plan

SAMPLERS = ("random", "grid", "qmc", "tpe", "gp", "size")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# The one baseline under an L2 penalty, which is the optimiser's and so no setting of the method.
_DECAYS = "fixed-l2"


def check(plan: Plan) -> None:
    """Checks what the fields of a plan cannot say alone: names that must exist, and what a kind of arm may draw.

    Raises:
        InputError: Something does not fit; the message names the field, the value and what would be right.
    """
    own = plan.code("network") is not None
    if not own and plan.network not in networks.names():
        raise unknown("network", plan.network, networks.names())
    if own and plan.widths is not None:
        raise InputError(f"widths: sizing arms start from what {plan.network} builds; leave out {plan.widths}")
    if (file := datasets.file_of(plan.data)) is not None:
        if not file.is_file():
            known = ", ".join(datasets.names())
            raise InputError(f"no data file at {file}: give the path of an .npz file or one of {known}")
    elif plan.code("data") is None and plan.data not in datasets.names():
        raise unknown("data set", plan.data, datasets.names())
    plan.layers()
    for name, arm in plan.arms.items():
        where = f"arms.{name}"
        if not re.fullmatch(NAME, name):
            raise InputError(f"{where}: an arm's name must be letters, digits, '.', '_' or '-', got {name!r}")
        optimizer, sampler = plan.setting(name, "optimizer"), plan.draws_by(name)
        if optimizer not in OPTIMIZERS:
            raise unknown("optimizer", optimizer, OPTIMIZERS)
        precision = plan.setting(name, "precision")
        if precision not in (None, *PRECISIONS):
            raise unknown("precision", precision, PRECISIONS)
        if plan.path(name) is not None:
            _check_path(where, arm, plan)
        elif sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        if not own and (why := methods.misfit(methods.method_class(arm.method), not networks.layered(plan.network))):
            raise InputError(f"{where}: {why}")
        if not own and not networks.layered(plan.network) and arm.taken is not None and arm.taken.mean_of is not None:
            raise InputError(
                f"{where}: {arm.taken.mean_of} ends with neurons and synapses, and no widths of layers to take: give a"
                " range, or {cut = 0}"
            )
        for setting in arm.settings:
            if setting not in methods.method_class(arm.method).settings:
                raise unknown(f"setting of {arm.method}", setting, methods.method_class(arm.method).settings)
        try:
            method = methods.create(arm.method, arm.knob.low if arm.knob else None, **arm.settings)
            method.check_epochs(plan.setting(name, "epochs"))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if arm.sizes:
            _check_sizing(where, arm, plan)
        else:
            _check_baseline(where, arm, plan, sampler)
    if plan.target is not None and not plan.aiming:
        raise InputError("target: no arm looks for sizes: add one whose method sizes itself, such as shrinknets")
    _check_spending(plan)
    _check_pruners(plan)


def check_starts(plan: Plan, data: Data) -> None:
    """Whether the arms that size graphs may start from the plan's.

    Raises:
        InputError: One may not; the line names the arm.
    """
    for name, arm in plan.arms.items():
        if methods.method_class(arm.method).takes == "graph" and plan.code("network") is None:
            method = methods.create(arm.method, arm.first_knob, **arm.settings)
            start = arm.start if isinstance(arm.start, list) else plan.widths
            try:
                method.check_start(plan.build(data.input_shape, data.outputs, start))
            except InputError as error:
                raise InputError(f"arms.{name}: {error}") from None


def _check_path(where: str, arm: Arm, plan: Plan) -> None:
    for field in ("enqueue", "sampler", "match", "pruner"):
        if getattr(arm, field):
            raise InputError(
                f"{where}.{field}: the steps of a path follow from its knob's range and the number of trials; leave out"
                f" {getattr(arm, field)!r}"
            )
    if plan.folds is not None:
        raise InputError(f"{where}.schedule: a path is one run on one part of the data, so leave out folds")
    if plan.target is not None and (plan.target.latency or methods.method_class(arm.method).grows):
        raise InputError(
            f"{where}.schedule: a path comes down to params or flops, so leave out a latency, and methods that grow"
        )
    schedule = plan.path(arm=where.removeprefix("arms."))
    assert schedule is not None
    if plan.trials < 2:
        raise InputError(f"trials: a path has 2 steps or more, got {plan.trials}")
    try:
        methods.create(arm.method, arm.knob.low if arm.knob else None, **arm.settings).check_epochs(schedule.each)
    except InputError as error:
        raise InputError(f"{where}.schedule.each: {error}") from None


def _check_sizing(where: str, arm: Arm, plan: Plan) -> None:
    if isinstance(arm.start, list):
        layers = len(plan.layers())
        if plan.code("network") is not None:
            raise InputError(f"{where}.start: sizing arms start from what {plan.network} builds; leave out {arm.start}")
        if len(arm.start) != layers:
            raise InputError(f"{where}.start: {len(arm.start)} widths given, the plan's network has {layers} layers")
    for point in arm.enqueue:
        if isinstance(point, dict):
            raise InputError(f"{where}.enqueue: points of {arm.knob_name} are positive numbers, got {point!r}")


def _check_baseline(where: str, arm: Arm, plan: Plan, sampler: str) -> None:
    if arm.widths is None:
        raise InputError(f"{where}.widths is missing: a baseline draws its widths, such as {{low = 16, high = 4096}}")
    if sampler in ("grid", "size") and arm.taken is None:
        raise InputError(f"{where}.sampler: {sampler} is for a knob; draw widths with random, qmc, tpe or gp")
    for field in ("start", "match"):
        if getattr(arm, field) is not None:
            raise InputError(f"{where}.{field} is for arms that size themselves, and {arm.method} does not")
    if isinstance(arm.learning_rate, list) and arm.taken is None:
        raise InputError(
            f"{where}.learning_rate: a grid of rates needs one network to try them on; give one rate, or widths such as"
            f" {{ mean_of = 'ARM' }} or {{ cut = 0 }}, got {arm.learning_rate}"
        )
    if arm.taken is not None:
        for field in ("depth", "enqueue"):
            if getattr(arm, field):
                raise InputError(f"{where}.{field}: its widths are taken from elsewhere, so there is nothing to draw")
    if isinstance(arm.learning_rate, Range) and arm.taken is not None:
        raise InputError(
            f"{where}.learning_rate: its widths are taken from elsewhere, so that a stage chooses its rate: give a list"
            f" such as [1e-4, 1e-3], or one rate, got {arm.learning_rate.low:g} .. {arm.learning_rate.high:g}"
        )
    decays = arm.method == _DECAYS
    if decays and arm.weight_decay is None:
        raise InputError(f"{where}.weight_decay is missing: {arm.method} draws it, such as {{low = 1e-5, high = 1e-2}}")
    if not decays and arm.weight_decay is not None:
        raise InputError(f"{where}.weight_decay: {arm.method} has none; use the method fixed-l2")
    if arm.depth is not None and plan.code("network") is not None:
        raise InputError(f"{where}.depth: {plan.network} decides how many layers it has; leave depth out")
    if arm.taken is not None:
        return
    layers = plan.layers(int(arm.depth.high) if arm.depth else None)
    if isinstance(arm.widths, dict):
        if extra := [layer for layer in arm.widths if layer not in layers]:
            raise unknown(f"layer of {plan.network}", extra[0], layers)
        if missing := [layer for layer in layers if layer not in arm.widths]:
            raise InputError(f"{where}.widths lacks the layers {', '.join(missing)}: give a range for each of {layers}")
    assert isinstance(arm.widths, dict | Range)
    ranges = arm.widths.values() if isinstance(arm.widths, dict) else [arm.widths]
    for bounds in [*ranges, *([arm.depth] if arm.depth else [])]:
        if bounds.low < 1 or bounds.low != int(bounds.low) or bounds.high != int(bounds.high):
            raise InputError(f"{where}: widths and depth are whole numbers from 1, got {bounds.low:g}..{bounds.high:g}")
    for point in arm.enqueue:
        _check_point(where, point, decays, plan, arm)


def _check_spending(plan: Plan) -> None:
    most = plan.max_training_flops
    if most is None:
        return
    if plan.folds is not None:
        raise InputError(f"max_training_flops: every point is wanted in all {plan.folds} folds; leave out {most:g}")
    if taking := [(name, arm.taken.mean_of) for name, arm in plan.arms.items() if arm.taken and arm.taken.mean_of]:
        name, other = taking[0]
        raise InputError(
            f"max_training_flops: what {other} spends on the widths of {name} would not count; give {name} widths of"
            f" its own, or leave out {most:g}"
        )
    if staged := [name for name, arm in plan.arms.items() if arm.stages()]:
        raise InputError(
            f"max_training_flops: what the stages of {staged[0]} spend would not count; give it one learning rate, and"
            f" no match, or leave out {most:g}"
        )


def _check_pruners(plan: Plan) -> None:
    spec = plan.spec()
    if plan.pruner is not None:
        _created("pruner", spec["pruner"], plan.epochs)
    for name, arm in plan.arms.items():
        where = f"arms.{name}.pruner" if arm.pruner is not None else "pruner"
        given = pruning.pruner_of(spec, name)
        if given is None:
            continue
        _created(where, given, plan.setting(name, "epochs"))
        if plan.folds is not None:
            raise InputError(f"{where}: every point is wanted in all {plan.folds} folds; leave out {given['name']}")
        if taking := [other for other, each in plan.arms.items() if name in each.waits_for(other)]:
            raise InputError(
                f"{where}: {taking[0]} takes something from {name}, which must not depend on what was pruned;"
                f' give {name} pruner = "{pruning.NONE}"'
            )
        if arm.taken is not None and not arm.sizes and arm.weight_decay is None:
            raise InputError(
                f"{where}: {name} draws nothing, so that {given['name']} would pick lucky seeds; leave it out"
            )


def _created(where: str, given: Mapping[str, Any], epochs: int) -> None:
    try:
        pruning.create(given, epochs)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check_point(where: str, point: float | dict[str, Any], decays: bool, plan: Plan, arm: Arm) -> None:
    wanted = {"widths", *(["weight_decay"] if decays else [])}
    wanted |= {"learning_rate"} if isinstance(arm.learning_rate, Range) else set()
    widths = point.get("widths") if isinstance(point, dict) else None
    if not isinstance(point, dict) or set(point) != wanted or not isinstance(widths, list):
        keys = " and ".join(sorted(wanted))
        raise InputError(f"{where}.enqueue: a baseline's point is a table of {keys}, got {point}")
    rates = [value for key, value in point.items() if key != "widths"]
    if any(not isinstance(value, int) or value < 1 for value in widths) or not all(rate > 0 for rate in rates):
        raise InputError(f"{where}.enqueue: widths, weight_decay and learning_rate must be positive, got {point}")
    depth = (int(arm.depth.low), int(arm.depth.high)) if arm.depth else (len(plan.layers()),) * 2
    if not depth[0] <= len(widths) <= depth[1]:
        raise InputError(f"{where}.enqueue: {len(widths)} widths given, {plan.network} has {depth[0]} to {depth[1]}")
