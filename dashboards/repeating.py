"""What repeats a trial: a few lines of Python, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sizer import networks, usercode
from sizer.methods import method_class
from studies.path import walks


def repeating(
    spec: Mapping[str, Any], row: Mapping[Any, Any], start: Mapping[Any, int] | None
) -> tuple[list[str], str]:
    """Lines of Python that train the trial again, to the same figures on a CPU of the same kind; else why not.

    Args:
        spec: The plan, as `Plan.spec` gives it.
        row: The trial, as `studies.query.trials` has it.
        start: Layer -> units that its networks start from, of a sizing arm; None where that is not known.
    """
    arm = spec["arms"][row["arm"]]
    if row["arm"] in walks(spec):
        return [], "It is a step of a path, which begins with what the step before has left."
    if any(usercode.is_named(str(spec[field])) for field in ("network", "data")):
        return [], "Its network or its data is a function of one's own."
    if spec.get("folds") or spec.get("samples"):
        return [], "It was trained in cross-validation, on a part of the data."
    if spec["network"] in networks.names() and not networks.layered(spec["network"]):
        if not method_class(row["method"]).sizes:
            return (
                [],
                "Its history has neurons and synapses; the layers that it had are Optuna's parameters.",
            )
        given = arm.get("start") or spec.get("widths") or networks.default_widths(spec["network"])
        start = dict(enumerate(given)) if isinstance(given, list | tuple) else None
    sized = start is not None
    widths = list((start if start is not None else row["widths"]).values())
    if not widths:
        return [], "The widths that it began with are not known."
    training: dict[str, Any] = {field: arm.get(field, spec[field]) for field in ("epochs", "batch_size", "optimizer")}
    precision = arm.get("precision", spec.get("precision", "float32"))
    given = [] if not row["knob_name"] else [repr(float(row["knob"]))]
    given += [f"{key}={value!r}" for key, value in arm.get("settings", {}).items()]
    if row["knob_name"] == "weight_decay":
        given = [f"weight_decay={float(row['knob'])!r}"]
    return [
        "import sizer, torch",
        "from sizer import datasets, methods, networks",
        "",
        f"data = datasets.load({spec['data']!r}, validation={spec['validation']!r}, seed={spec['seed']})",
        f"torch.manual_seed({row['seed']})",
        f"module = networks.build({spec['network']!r}, data.input_shape, data.outputs, {widths})"
        + ("  # where it starts" if sized else ""),
        "run = sizer.fit(",
        f"    module, data, methods.create({', '.join([repr(row['method']), *given])}),",
        f"    epochs={training['epochs']}, batch_size={training['batch_size']}, optimizer={training['optimizer']!r},",
        f"    learning_rate={float(row['learning_rate'])!r}, precision={precision!r}, seed={row['seed']},",
        ")",
        "print(run.best)",
    ], ""
