"""Reads MATH-500: 500 test problems of MATH, chosen by Lightman et al. 2023 (arXiv:2305.20050)."""

import json
import os

from reasoning.jsonl import read_jsonl, text_field
from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.problem import Problem
from reasoning.tasks import draw
from reasoning.tasks.math_task import MathTask


class Math500(MathTask):
    """Competition problems with LaTeX answers; only a test set.

    Args:
      name: the spec.
      path: a JSON array or JSON Lines file of objects with `problem` and `answer`; by default the
        environment variable MATH500_PATH.
      grading: the conventions of grading.
    """

    def __init__(self, name: str, path: str | None = None, *, grading: GradingOptions = DEFAULT):
        super().__init__(name, grading)
        self._path = path

    def files(self) -> list[str]:
        """Returns the file of problems, if one is named."""
        path = self._path or os.environ.get("MATH500_PATH")
        return [path] if path else []

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws problems; see `Task.problems`."""
        if split != "test":
            raise ValueError(f"{self.name} has the split test only, not {split!r}")
        path = self._path or os.environ.get("MATH500_PATH")
        if not path or not os.path.isfile(path):
            raise FileNotFoundError(
                f"there is no MATH-500 at {path or 'any path'}: get the file"
                " (HuggingFaceH4/MATH-500, test split) and write math500:FILE or set"
                " MATH500_PATH=FILE"
            )
        problems = [
            Problem(
                task=self.name,
                question=text_field(record, ("problem",), path, number),
                answer=text_field(record, ("answer",), path, number),
                metadata={k: record[k] for k in ("subject", "level", "unique_id") if k in record},
            )
            for number, record in _records(path)
        ]
        return draw(problems, count, seed, self.name)


def _records(path):
    """Returns (number, record) pairs; the file exists in two forms, and this reads both."""
    with open(path, "rb") as file:
        is_array = file.read(64).lstrip().startswith(b"[")
    if not is_array:
        return list(read_jsonl(path))
    try:
        with open(path, "rb") as file:
            return list(enumerate(json.load(file), start=1))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
