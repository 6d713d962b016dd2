"""Outcomes of routes on questions: read from JSON Lines, a user's own file or that of a run.

A line is one question, in either form:

    {"question": "...", "outcomes": {"NAME": {"correct": 1, "tokens": 40}, ...}}
    {"question": "...", "NAME_correct": true, "NAME_tokens": 40, ...}

`correct` is true, false, or a share from 0 to 1. A route without tokens gets its cost from `costs`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.files import read_jsonl
from reasoning.router.calibration import Outcomes

_CORRECT, _TOKENS = "_correct", "_tokens"


@dataclasses.dataclass(frozen=True)
class OutcomeTable:
    """Questions, the names of the routes, and what every route did.

    Attributes:
      questions: n questions.
      names: R names of routes.
      outcomes: arrays `[n, R]`.
    """

    questions: tuple[str, ...]
    names: tuple[str, ...]
    outcomes: Outcomes

    def __getitem__(self, rows: np.ndarray) -> "OutcomeTable":
        """Returns the rows of the given indices."""
        questions = tuple(self.questions[int(i)] for i in rows)
        return OutcomeTable(questions, self.names, self.outcomes[rows])


def read_outcomes(
    path: str | Path,
    costs: Mapping[str, float] | None = None,
    names: Sequence[str] | None = None,
) -> OutcomeTable:
    """Reads a file of outcomes.

    Args:
      path: the file; see the module for its lines.
      costs: name -> cost of each query, for routes whose lines give no tokens.
      names: the routes to read, in this order; None for all.

    Raises:
      OSError, ValueError: the file or a line is wrong; the error names file, line and route.
    """
    questions: list[str] = []
    rows: list[dict[str, tuple[float, float]]] = []
    for number, record in read_jsonl(path):
        where = f"{path}:{number}"
        question = record.get("question", record.get("query"))
        if not isinstance(question, str):
            raise ValueError(f"{where}: question={question!r:.60} must be a text")
        found = _entries(record, where)
        if not found:
            raise ValueError(f"{where}: no outcomes: give NAME_correct, or outcomes by name")
        if names is not None:
            if missing := [name for name in names if name not in found]:
                known = ", ".join(found)
                raise ValueError(f"{where}: no outcome of {missing[0]!r}: the line has {known}")
            found = {name: found[name] for name in names}
        rows.append({n: _numbers(n, each, costs or {}, where) for n, each in found.items()})
        if rows[-1].keys() != rows[0].keys():
            other = sorted(rows[-1].keys() ^ rows[0].keys())[0]
            raise ValueError(f"{where}: every line needs the same routes; {other!r} differs")
        questions.append(question)
    if not rows:
        raise ValueError(f"{path} holds no outcomes: give at least two lines")
    names = tuple(rows[0])
    correct, cost = (np.array([[row[n][i] for n in names] for row in rows]) for i in (0, 1))
    return OutcomeTable(tuple(questions), names, Outcomes(correct, cost))


def _entries(record: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    if "outcomes" not in record:
        return {
            key.removesuffix(_CORRECT): {
                "correct": value,
                "tokens": record.get(key.removesuffix(_CORRECT) + _TOKENS),
            }
            for key, value in record.items()
            if key.endswith(_CORRECT) and key != _CORRECT
        }
    found = record["outcomes"]
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ValueError(f"{where}: outcomes={found!r:.60} must map names to objects")
    return found


def _numbers(
    name: str, entry: Mapping[str, Any], costs: Mapping[str, float], where: str
) -> tuple[float, float]:
    correct, tokens = entry.get("correct"), entry.get("tokens")
    if not isinstance(correct, bool | int | float) or not 0 <= correct <= 1:
        raise ValueError(
            f"{where}: correct={correct!r:.40} of {name} must be true, false or from 0 to 1"
        )
    if tokens is None:
        tokens = costs.get(name)
    if isinstance(tokens, bool) or not isinstance(tokens, int | float) or not 0 <= tokens < 1e12:
        raise ValueError(
            f"{where}: tokens={tokens!r:.40} of {name} must be a number, at least 0; for files"
            f" without tokens set the cost of {name} in config.costs"
        )
    return float(correct), float(tokens)
