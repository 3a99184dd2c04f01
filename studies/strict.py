"""What all parts of a plan have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """No field too many, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Named(Strict):
    """What a plan may say by a name alone, or by a table with this name and more.

    Attributes:
        example: What the message shows where it is neither.
    """

    example: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, given: Any) -> Any:
        if not isinstance(given, str | Mapping | cls):
            raise ValueError(f"must be {cls.example}, got {given!r}")
        return {"name": given} if isinstance(given, str) else given
