"""How numbers are written for people, and how the sizes that people write are read."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from operator import itemgetter

from sizer.errors import InputError

PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def score(value: float | None, task: str) -> str:
    """An accuracy (a fraction) in percent with two decimals, "97.20 %"; R^2 with three, "0.912"; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if task == "regression" else f"{100 * value:.2f} %"


def score_name(task: str) -> str:
    """What a score is called: "accuracy", or "R²" in a regression."""
    return "R²" if task == "regression" else "accuracy"


def count(value: float | None) -> str:
    """A whole number with thousands separators, "1,234,567"; "-" for none."""
    return "-" if value is None or math.isnan(value) else f"{round(value):,}"


@lru_cache(maxsize=2**14)
def si(value: float | None, unit: str = "") -> str:
    """Three significant digits and an SI prefix: "1.23 GFLOP", "950 FLOP"; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    prefix, factor = max(
        ((prefix, factor) for prefix, factor in PREFIXES.items() if factor <= max(1.0, abs(value) * 1.0005)),
        key=itemgetter(1),
    )
    scaled = value / factor
    digits = max(0, 2 - math.floor(math.log10(abs(scaled)))) if abs(scaled) >= 1 else 2
    text = f"{scaled:.{min(digits, 2)}f}"
    if "." in text and factor == 1:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {prefix}{unit}".rstrip()


def knob(value: float | None) -> str:
    """A knob's value with three significant digits, "3.16e-4"; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Seconds as "12 s", "3 min 20 s" or "2 h 5 min"; "-" for none."""
    if seconds is None or math.isnan(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def pvalue(value: float | None) -> str:
    """A p value with two significant digits, "0.031"; "<0.0001" below that; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    if value < 1e-4:
        return "<0.0001"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def read_latency(text: str, option: str) -> float:
    """Reads a time such as "0.2ms", "150us" or "0.2", in milliseconds.

    Raises:
        InputError: it is no positive number with one of the units us, ms, s.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(us|ms|s|)\s*", text)
    value = float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}[match[2]] if match else 0.0
    if value > 0:
        return value
    raise InputError(f"{option} must be a positive time such as 0.2ms, 150us or 1.5 (milliseconds), got {text!r}")


def read_size(text: str, option: str) -> int:
    """Reads a limit such as "100k", "1.5M", "2G" or "5000".

    Raises:
        InputError: it is no positive number with one of the prefixes k, M, G, T.
    """
    match = re.fullmatch(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:[eE]\+?[0-9]+)?)\s*([kKMmGgTt]?)\s*", text)
    if match:
        number, prefix = match.groups()
        factor = PREFIXES[{"K": "k", "m": "M", "g": "G", "t": "T"}.get(prefix, prefix)]
        value = float(number.replace(",", "").replace("_", "")) * factor
        if 1 <= value < 1e18:
            return int(value)
    raise InputError(f"{option} must be a positive number such as 5000, 100k, 1.5M or 2G, got {text!r}")
