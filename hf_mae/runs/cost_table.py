"""Reads the costs of decisions (`--costs`)."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.sources.tables import normalize_class_name, read_table
from ..errors import UsageError
from ..evaluation.expected_cost import Costs
from .messages import RunMessage

PRIOR_COLUMN = "prior"


@dataclass(frozen=True)
class CostTable:
    """Costs by true class and decision, and the prior of each class, if the table has them."""

    path: Path
    costs: dict[str, dict[str, float]]
    priors: dict[str, float]

    def select(self, class_names: list[str], name: str) -> Costs:
        """Returns the costs of the classes of a run, in their order.

        Raises:
            UsageError: If the table has other classes than the run with this name.
        """
        if set(class_names) != set(self.costs):
            raise UsageError(
                RunMessage.COSTS_OF_OTHER_CLASSES,
                path=self.path,
                name=name,
                missing=sorted(set(class_names) - set(self.costs)) or ["none"],
                unknown=sorted(set(self.costs) - set(class_names)) or ["none"],
            )
        matrix = np.array([[self.costs[true][decision] for decision in class_names] for true in class_names])
        if not self.priors:
            return Costs(matrix)
        priors = np.array([self.priors[true] for true in class_names])
        return Costs(matrix, priors / priors.sum())


def read_costs(path: Path) -> CostTable:
    """Reads a table with one row per true class, whose name is in the first column, and one column per decision.

    The column `prior` contains the prevalence of each class (any unit), unless it is a class.

    Raises:
        UsageError: If the file is unreadable, if rows and columns are different classes, or if a cell is not a finite
            number of at least 0.
    """
    rows = read_table(path)
    first, *columns = rows[0]
    names = [normalize_class_name(str(row[first])) for row in rows]
    decisions = {normalize_class_name(column): column for column in columns}
    prior_column = None if PRIOR_COLUMN in names else decisions.pop(PRIOR_COLUMN, None)
    if sorted(names) != sorted(decisions):
        raise UsageError(RunMessage.COSTS_NOT_SQUARE, path=path, rows=names, columns=list(decisions) or ["none"])
    costs = {
        name: {decision: _parse_cost(path, name, row, column) for decision, column in decisions.items()}
        for name, row in zip(names, rows)
    }
    priors = {name: _parse_cost(path, name, row, prior_column) for name, row in zip(names, rows) if prior_column}
    if priors and not any(priors.values()):
        raise UsageError(RunMessage.COST_INVALID, path=path, row=names[0], column=prior_column, value=0)
    return CostTable(path, costs, priors)


def _parse_cost(path: Path, name: str, row: dict[str, object], column: str) -> float:
    try:
        value = float(str(row[column]))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(RunMessage.COST_INVALID, path=path, row=name, column=column, value=row[column])
    return value
