"""Reads your own problems from JSON Lines files."""

import hashlib

from reasoning.jsonl import read_jsonl, text_field
from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.problem import Problem
from reasoning.tasks import draw
from reasoning.tasks.math_task import MathTask

_QUESTION_FIELDS = ("prompt", "question", "problem")


class Jsonl(MathTask):
    """Problems from JSONL records with `prompt` (or `question`) and `answer`.

    Other fields become metadata. Answers are verified as mathematics or words
    (`reasoning.mathematics.verifier`). Without a file of test problems, one problem in ten is held
    out for test, by a hash of its question.

    Args:
      name: the spec.
      path: the file; all of it is for training if `test` is given.
      test: the file of test problems.
      grading: the conventions of grading.
    """

    def __init__(
        self,
        name: str,
        path: str,
        *,
        test: str | None = None,
        grading: GradingOptions = DEFAULT,
    ):
        super().__init__(name, grading)
        self._path, self._test_path = path, test

    def files(self) -> list[str]:
        """Returns the file of problems, and that of test problems if there is one."""
        return [self._path] + ([self._test_path] if self._test_path else [])

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws problems; see `Task.problems`."""
        if split not in ("train", "test"):
            raise ValueError(f"{self.name} has the splits train and test, not {split!r}")
        if self._test_path:
            path = self._test_path if split == "test" else self._path
            problems = self._read(path)
        else:
            path = self._path
            problems = [p for p in self._read(path) if is_held_out(p.question) == (split == "test")]
        if not problems:
            raise ValueError(
                f"{path} has no problems for the split {split}: add some, or name a file of test"
                f" problems with jsonl:{self._path}?test=FILE"
            )
        return draw(problems, count, seed, f"{path}, split {split},")

    def _read(self, path):
        own = (*_QUESTION_FIELDS, "answer")
        return [
            Problem(
                task=self.name,
                question=text_field(record, _QUESTION_FIELDS, path, number),
                answer=text_field(record, ("answer",), path, number),
                metadata={k: v for k, v in record.items() if k not in own},
            )
            for number, record in read_jsonl(path)
        ]


def is_held_out(question: str) -> bool:
    """Says whether a question belongs to the tenth that is held out for test."""
    digest = hashlib.blake2b(question.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 10 == 0
