"""What the commands ask: a database that this machine reaches, or a server's (`dashboards.client.Remote`)."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd
from torch import Tensor

from sizer import Architecture
from sizer.checkpoint import load_tensors
from studies import query, selection, stopping
from studies.database import Database
from studies.standing import Standing, standing


class Source(Protocol):
    """The evaluations somewhere; each method is, and refuses, as the function of `studies` that it is named after."""

    def plan_names(self) -> list[str]:
        """The evaluations, in the order they began."""

    def standing(self, name: str) -> Standing:
        """Where an evaluation stands."""

    def spec(self, name: str) -> dict[str, Any]:
        """Its plan."""

    def data(self, name: str) -> dict[str, Any]:
        """What its data was."""

    def trials(self, name: str) -> pd.DataFrame:
        """One row a trial."""

    def history(self, name: str) -> pd.DataFrame:
        """One row an epoch of every trial."""

    def driver(self, name: str) -> str:
        """Who runs it now, in words."""

    def best(self, name: str, arm: str | None = None, **limits: Any) -> pd.Series[Any]:
        """The epoch of highest validation accuracy that fits; limits as `studies.selection.best` has them."""

    def front(self, name: str, arm: str | None = None) -> pd.DataFrame:
        """The epochs that no other beats at its size."""

    def architecture(self, name: str, row: pd.Series[Any]) -> tuple[Architecture, dict[str, Tensor]]:
        """The architecture of a row of `best` or `front`, and its weights."""

    def stop(self, name: str) -> str:
        """Asks whoever runs it to end; gives who was asked, in words."""


class Local:
    """The evaluations in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def plan_names(self) -> list[str]:
        return query.plan_names(self.database)

    def standing(self, name: str) -> Standing:
        return standing(self.database, name)

    def spec(self, name: str) -> dict[str, Any]:
        return query.spec(self.database, name)

    def data(self, name: str) -> dict[str, Any]:
        return query.data(self.database, name)

    def trials(self, name: str) -> pd.DataFrame:
        return query.trials(self.database, name)

    def history(self, name: str) -> pd.DataFrame:
        return query.history(self.database, name)

    def driver(self, name: str) -> str:
        return query.driver(self.database, name)

    def best(self, name: str, arm: str | None = None, **limits: Any) -> pd.Series[Any]:
        return selection.best(self.database, name, arm, **limits)

    def front(self, name: str, arm: str | None = None) -> pd.DataFrame:
        return selection.front(self.database, name, arm)

    def architecture(self, name: str, row: pd.Series[Any]) -> tuple[Architecture, dict[str, Tensor]]:
        found, file = selection.architecture(self.database, name, row)
        return found, load_tensors(file)[0]

    def stop(self, name: str) -> str:
        return stopping.ask(self.database, name)
