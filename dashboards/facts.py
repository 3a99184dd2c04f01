"""What an evaluation is, in a few lines of text: from the plan and the description of its data in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dashboards import numbers, progress
from sizer.methods import method_class
from studies.path import walks
from studies.pruning import pruner_of
from studies.target import Target

if TYPE_CHECKING:
    from studies.retrain import Retraining

OVERRIDES = ("learning_rate", "epochs", "batch_size", "optimizer", "precision", "sampler")


def facts(spec: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Label -> text, in the order in which to show them.

    Args:
        spec: the plan as JSON values (`studies.plan.Plan.spec`).
        data: what the data was, with the numbers of its rows; None where it has not been read.
    """
    said = {"data": _data(spec, data or {}), "network": _network(spec)}
    each = f"{_number(spec['trials'], 'point')} of {spec['folds']} folds" if spec.get("folds") else ""
    said["training"] = (
        f"{each or _number(spec['trials'], 'trial')} an arm, {_number(spec['epochs'], 'epoch')}, batch "
        f"{spec['batch_size']}, {spec['optimizer']} at {_short(spec['learning_rate'])}, seed {spec['seed']}"
    )
    if spec.get("precision"):
        said["training"] += f", {spec['precision']}"
    if spec.get("samples"):
        said["training"] += f", at most {numbers.count(spec['samples'])} samples"
    if spec.get("max_training_flops"):
        said["training"] += f", at most {numbers.si(spec['max_training_flops'], 'FLOP')} an arm"
    if spec.get("max_concurrent_trials"):
        said["training"] += f", at most {_number(spec['max_concurrent_trials'], 'trial')} of an arm at once"
    for name, arm in spec["arms"].items():
        if "stage" not in arm:
            said[name] = drawn(name, arm, _by(spec, name))
            if pruner := pruner_of(spec, name):
                said[name] += f", pruned by {_pruner(pruner)}"
    if aimed := spec.get("target"):
        target = Target(**aimed)
        what = {"params": " parameters", "flops": " FLOPs", "latency": f" a pass of {_number(target.batch, 'sample')}"}
        said["target"] = f"networks of at most {', '.join(map(target.told, target.budgets))}{what[target.kind]}"
    if pruned := pruning(spec):
        said["pruning"] = pruned
    if unequal := differences(spec):
        said["not equal"] = "; ".join(unequal)
    return said


def retraining(found: Retraining, seeds: int) -> dict[str, str]:
    """What is trained again, on what and how: label -> text."""
    built, settings, data = found.architecture, found.settings, found.data
    rows = {"train": len(data.x_train), "val": len(data.x_val), "test": len(data.x_test)}
    info = built.info
    origin = f", of {info['study']} trial {info['trial']}, epoch {info['epoch']}" if "study" in info else ""
    said = {
        "network": f"{built.network}, {progress.short(built.widths, 6)} units{origin}",
        "data": _data({"data": settings["data"]}, rows),
        "training": (
            f"{_number(seeds, 'seed')} from {'scratch' if found.from_scratch else 'its weights'}, "
            f"{_number(settings['epochs'], 'epoch')}, batch {settings['batch_size']}, "
            f"{settings['optimizer']} at {_short(settings['learning_rate'])}"
            + (f", weight decay {_short(settings['weight_decay'])}" if settings["weight_decay"] else "")
        ),
    }
    if found.same_data and "val_accuracy" in info:
        scores = (numbers.score(info.get(f"{part}_accuracy"), built.task) for part in ("val", "test"))
        said["as it was"] = "validation {}, test {}".format(*scores)
    return said


def _by(spec: Mapping[str, Any], name: str) -> str:
    """What draws an arm's points."""
    if (walk := walks(spec).get(name)) is not None:
        first = spec["arms"][name].get("epochs", spec["epochs"])
        settles = f", and {walk.settle} of each without the penalty" if walk.settle else ""
        tuned = f"; {walk.tune or first} tune what is within the target" if spec.get("target") else ""
        return f"a path: {_number(first, 'epoch')}, then {walk.each} a step{settles}{tuned}"
    aims = spec.get("target") and method_class(spec["arms"][name]["method"]).sizes
    return "size" if aims else str(spec["sampler"])


def drawn(name: str, arm: Mapping[str, Any], sampler: str) -> str:
    """What an arm's study draws: "lambda 1e-5 .. 1e-2, random"."""
    ranges = {key: value for key, value in arm.items() if isinstance(value, Mapping) and "low" in value}
    if "match" in arm:
        knob = next(iter(ranges))
        parts = [f"{knob} for as many parameters as {arm['match']}, in {_range(ranges.pop(knob))}"]
    else:
        parts = [f"{key.replace('_', ' ')} {_range(value)}" for key, value in ranges.items()]
    for field, words in (("widths", "widths"), ("start", "starts from")):
        given = arm.get(field)
        if isinstance(given, list):
            parts.append(f"{words} {'-'.join(map(str, given))}")
        elif isinstance(given, Mapping) and "cut" in given:
            parts.append(f"{words} {_taken(given)}")
        elif isinstance(given, Mapping) and "low" not in given:
            parts.append(f"{words} " + ", ".join(f"{layer} {_range(value)}" for layer, value in given.items()))
    if isinstance(rates := arm.get("learning_rate"), list):
        parts.append(f"learning rate of {', '.join(map(_short, rates))}")
    parts += [f"{key} = {value}" for key, value in arm.get("settings", {}).items()]
    if arm.get("enqueue"):
        parts.append(f"{_number(len(arm['enqueue']), 'point')} put first")
    method = [] if arm["method"] == name else [f"method {arm['method']}"]
    layered = isinstance(arm.get("widths"), Mapping) and not {"low", "cut"} & set(arm["widths"])
    by = [str(arm.get("sampler", sampler))] if ranges or layered else []
    return ", ".join([*method, *parts, *by])


def pruning(spec: Mapping[str, Any]) -> str:
    """What should be known of pruning before a sweep; empty where nothing is unusual."""
    arms = {name: given for name in spec["arms"] if (given := pruner_of(spec, name)) is not None}
    lines = []
    if "pruner" in spec and spec["pruner"] not in arms.values():
        lines.append(f"{_pruner(spec['pruner'])} ends no arm's trials: those that size themselves must name their own")
    if sizing := [name for name in arms if method_class(spec["arms"][name]["method"]).sizes]:
        lines.append(f"by accuracy it tends to kill small networks, which {', '.join(sizing)} looks for")
    return "; ".join(lines)


def _pruner(given: Mapping[str, Any]) -> str:
    """ "hyperband (reduction_factor 4)"."""
    arguments = ", ".join(f"{key} {value}" for key, value in given.items() if key != "name")
    return f"{given['name']} ({arguments})" if arguments else str(given["name"])


def differences(spec: Mapping[str, Any]) -> list[str]:
    """Where an arm trains otherwise than the others: "fixed: epochs 40 (others 20)"."""
    others = {"precision": "float32", **spec}
    return [
        f"{name}: {field.replace('_', ' ')} {arm[field]} (others {others[field]})"
        for name, arm in spec["arms"].items()
        for field in OVERRIDES
        if field in arm
        and arm[field] != others[field]
        and "stage" not in arm
        and not isinstance(arm[field], list | Mapping)
    ]


def _data(spec: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    name = str(spec["data"]).replace("\\", "/").rpartition("/")[2]
    if "train" not in data:
        return name
    rows = {"training": data["train"], "validation": data["val"], "test": data["test"]}
    return f"{name}: " + ", ".join(f"{numbers.count(count)} {part}" for part, count in rows.items())


def _taken(given: Mapping[str, Any]) -> str:
    """ "the mean of auto-sizing, uniform"."""
    words = [f"the mean of {given['mean_of']}" if given.get("mean_of") else "the plan's"]
    words += ["uniform"] if given.get("uniform") else []
    return ", ".join(words) + (f", less {100 * given['cut']:g} %" if given.get("cut") else "")


def _network(spec: Mapping[str, Any]) -> str:
    widths = spec.get("widths")
    return str(spec["network"]) + (f", sizing arms start from {'-'.join(map(str, widths))}" if widths else "")


def _range(value: Mapping[str, Any]) -> str:
    uniform = "" if value.get("log", True) else " (uniform)"
    return f"{_short(value['low'])} .. {_short(value['high'])}{uniform}"


def _short(value: float) -> str:
    """ "1e-4" rather than "0.0001"; whole numbers as they are."""
    if value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
