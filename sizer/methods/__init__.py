"""The papers' ways of sizing a network, one file each, and the fixed-width baselines; found by their ``name``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from sizer.errors import InputError, unknown
from sizer.methods.method import Knob, Method, misfit

__all__ = ["Knob", "Method", "create", "method_class", "misfit", "names"]


@cache
def _classes() -> dict[str, type[Method]]:
    found: dict[str, type[Method]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, item in inspect.getmembers(module, inspect.isclass):
            if issubclass(item, Method) and item.__module__ == module.__name__ and "name" in vars(item):
                found[item.name] = item
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """The names of all methods, in alphabetical order."""
    return tuple(_classes())


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UnknownNameError: there is none of that name; those there are stand in the message.
    """
    try:
        return _classes()[name]
    except KeyError:
        raise unknown("method", name, names()) from None


def create(name: str, knob: float | None = None, **settings: Any) -> Method:
    """Makes a method, such as ``create("shrinknets", 1e-3, rule="subgradient")``.

    Args:
        name: one of ``names()``.
        knob: the value of the method's one knob (``method_class(name).knob``); None for a baseline, which has none.
        settings: constants of the method, such as those of ``method_class(name).settings``.

    Raises:
        InputError: the knob is missing, superfluous or not positive, or a setting is unknown.
    """
    kind = method_class(name)
    for key in settings:
        if key not in kind.settings:
            raise unknown(f"setting of {name}", key, kind.settings)
    if kind.knob is None:
        if knob is not None:
            raise InputError(f"{name} has no knob to set, got {knob}")
        return kind(**settings)
    if knob is None:
        raise InputError(f"{name} needs its knob, {kind.knob.name}, a positive number such as {kind.knob.low:g}")
    return kind(knob, **settings)
