"""Numbers are written in one way everywhere, and sizes are read as people write them."""

import math

import pytest

from dashboards import numbers
from sizer.errors import InputError


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.972, "97.20 %"), (1.0, "100.00 %"), (0.0, "0.00 %"), (None, "-"), (math.nan, "-")],
)
def test_an_accuracy_is_percent_with_two_decimals(value: float | None, text: str) -> None:
    assert numbers.score(value, "classification") == text


def test_r_squared_is_no_percentage() -> None:
    assert numbers.score(0.9124, "regression") == "0.912"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 FLOP"),
        (7.0, "7 FLOP"),
        (950.0, "950 FLOP"),
        (999.9, "1.00 kFLOP"),
        (1234.0, "1.23 kFLOP"),
        (56_700_000.0, "56.7 MFLOP"),
        (999.4e9, "999 GFLOP"),
        (999.7e9, "1.00 TFLOP"),
        (3.5e15, "3.50 PFLOP"),
        (None, "-"),
    ],
)
def test_flops_have_three_digits_and_an_si_prefix(value: float | None, text: str) -> None:
    assert numbers.si(value, "FLOP") == text


def test_counts_have_thousands_separators() -> None:
    assert numbers.count(1234567.0) == "1,234,567"
    assert numbers.count(None) == "-"


@pytest.mark.parametrize(("value", "text"), [(3.16e-4, "3.16e-4"), (0.01, "1.00e-2"), (math.nan, "-")])
def test_a_knob_has_three_digits(value: float, text: str) -> None:
    assert numbers.knob(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "-")]
)
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(("p", "text"), [(0.5, "0.50"), (0.0312, "0.031"), (1e-9, "<0.0001"), (None, "-")])
def test_p_values_are_not_over_precise(p: float | None, text: str) -> None:
    assert numbers.pvalue(p) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5000", 5000),
        ("100k", 100_000),
        ("1.5M", 1_500_000),
        ("2G", 2_000_000_000),
        ("1,000", 1000),
        ("1e6", 1_000_000),
        ("2.3k", 2300),
    ],
)
def test_sizes_are_read_with_their_prefix(text: str, size: int) -> None:
    assert numbers.read_size(text, "--max-params") == size


@pytest.mark.parametrize("text", ["", "0", "-5", "many", "1.5X", "k", "nan", "0.2", "1e99"])
def test_anything_else_is_refused_naming_the_option_and_the_value(text: str) -> None:
    with pytest.raises(InputError, match="--max-params must be a positive number such as") as error:
        numbers.read_size(text, "--max-params")
    assert repr(text) in str(error.value)
