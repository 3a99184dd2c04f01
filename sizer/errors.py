"""The one error tree of the project. Every message is one line: the value given, what would be right, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SizerError(Exception):
    """Anything that this project refuses or fails at, said in one line."""


class InputError(SizerError):
    """A value that the user gave is wrong. The command line prints the line and ends with exit code 2."""


class UnsupportedNetworkError(SizerError):
    """A network that cannot be followed. The message names the module's path and the operation."""


class DataError(InputError):
    """A data set that is missing, broken or unfit to train on."""


class UnknownNameError(InputError):
    """A name that nothing has. The message lists the names there are, the nearest first."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that nothing has.

    Args:
        kind: What was named, in the singular: "network", "method", "preset".
        name: The name that was given.
        known: The names there are.

    Returns:
        The error, to be raised by the caller: ``unknown network 'mpl'; there are: mlp, lenet``.
    """

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()

    nearest_first = sorted(sorted(known), key=likeness, reverse=True)
    listed = ", ".join(nearest_first) if nearest_first else "none"
    return UnknownNameError(f"unknown {kind} {name!r}; there are: {listed}")
