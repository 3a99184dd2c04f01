"""What the papers published of the evaluations that the presets repeat: the `[published]` table of a preset."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from pydantic import Field, ValidationError

from sizer.errors import InputError
from studies import presets
from studies.strict import Strict

KEY = "published"
"""The table of a plan's file that holds it; it says nothing of what is run."""


class Sizes(Strict):
    """Units over epochs under one value of the knob.

    Attributes:
        knob: The value.
        epochs: Ends of epochs, rising.
        units: At each of them, of all layers together.
    """

    knob: float
    epochs: list[int]
    units: list[int]


class Change(Strict):
    """Against the arm that is not sized: percent of its size, and points of accuracy. None where not published."""

    parameters: float | None = None
    flops: float | None = None
    units: float | None = None
    accuracy: float | None = None


class Meets(Strict):
    """Arms that differ in where they start end with like widths.

    Attributes:
        within: The most units over the fewest, at the end.
        layer: The layer that the paper shows; where a network has it, it is held to that beside the sum of all.
    """

    within: float
    layer: str = ""


class Figures(Strict):
    """What is published of one arm of one evaluation; None where it is not.

    Attributes:
        accuracy: Test accuracy in percent.
        units: Of all hidden layers together.
        parameters: Weights and biases.
        of: The data set that these are of, where the evaluation is of another.
        change: Against `Published.against`.
        sizes: Units over epochs.
        ratios: Parameters of layered networks over those of graphs at equal loss, from the smallest on.
    """

    accuracy: float | None = None
    units: float | None = None
    parameters: float | None = None
    of: str = ""
    change: Change | None = None
    sizes: list[Sizes] = Field(default=[])
    ratios: list[float] = Field(default=[])


class Published(Strict):
    """What a paper says of one preset.

    Attributes:
        source: The paper, and where in it.
        says: Its claims, in words.
        protocol: How ours differs from what its authors did.
        stands_for: Cell whose data cannot be had -> the cell that stands for it.
        against: The arm that changes are against.
        order: What the cells are ordered by, `parameters`; their order should be the published one.
        meets: Arms that differ in where they start should end alike.
        falls: The larger the knob, the fewer units.
        steadier: The first sizing arm's accuracies vary less than those of each other arm with published figures.
        arms: Of a preset without cells, by arm.
        cells: Of the others, by cell and arm.
    """

    source: str
    says: list[str] = Field(default=[])
    protocol: list[str] = Field(default=[])
    stands_for: dict[str, str] = Field(default={})
    against: str = ""
    order: str = ""
    meets: Meets | None = None
    falls: bool = False
    steadier: bool = False
    arms: dict[str, Figures] = Field(default={})
    cells: dict[str, dict[str, Figures]] = Field(default={})

    def of(self, cell: str) -> Mapping[str, Figures]:
        """Arm -> what is published of it; `cell` is empty where there are none."""
        return self.cells.get(cell, {}) if cell else self.arms


def published(preset: str) -> Published | None:
    """What a preset says that its paper published; None where it is of no paper.

    Raises:
        InputError: The table says it wrongly; the line names the field.
    """
    found = tomllib.loads(presets.text(preset)).get(KEY)
    if found is None:
        return None
    try:
        return Published.model_validate(found, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (preset, KEY, *first["loc"])))
        raise InputError(f"{where}: {first['msg']}, got {first['input']!r:.80}") from None
