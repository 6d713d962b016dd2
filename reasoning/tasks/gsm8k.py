"""Reads GSM8K (Cobbe et al. 2021, arXiv:2110.14168) through TFDS, without TensorFlow."""

import os
from typing import Any

from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.problem import Problem
from reasoning.tasks import draw
from reasoning.tasks.math_task import MathTask

_SPLITS = ("train", "test")


class Gsm8k(MathTask):
    """Grade-school word problems: 7,473 for training, 1,319 for test.

    Args:
      name: the spec.
      data_dir: the TFDS folder with `gsm8k/1.0.0`; by default the environment variable
        TFDS_DATA_DIR, or else `~/tensorflow_datasets`.
      download: whether to download and prepare the data there if they are missing.
      grading: the conventions of grading.
    """

    def __init__(
        self,
        name: str,
        *,
        data_dir: str | None = None,
        download: bool = False,
        grading: GradingOptions = DEFAULT,
    ):
        super().__init__(name, grading)
        self._data_dir, self._download = data_dir, download

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws problems; see `Task.problems`."""
        if split not in _SPLITS:
            raise ValueError(f"{self.name} has the splits {' and '.join(_SPLITS)}, not {split!r}")
        # TFDS declares its records as lists, but they are dicts.
        records: Any = self._records(split)
        problems = [
            Problem(
                task=self.name,
                question=record["question"].decode(),
                answer=final_number(record["answer"].decode()),
                metadata={"solution": record["answer"].decode()},
            )
            for record in records
        ]
        return draw(problems, count, seed, f"{self.name}, split {split},")

    def reference(self, problem: Problem) -> str:
        """Returns the number after "####" in the problem's answer."""
        return final_number(problem.answer)

    def _records(self, split):
        import tensorflow_datasets as tfds

        data_dir = os.path.expanduser(
            self._data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        )
        if self._download:
            import tensorflow_datasets.text.gsm8k  # noqa: F401  This registers the builder.
        try:
            return tfds.data_source(
                "gsm8k",
                split=split,
                data_dir=data_dir,
                download=self._download,
                builder_kwargs={"file_format": "array_record"} if self._download else None,
            )
        except Exception as error:  # TFDS raises many kinds of errors with long messages.
            raise FileNotFoundError(
                f"{data_dir} has no GSM8K prepared by TFDS ({type(error).__name__}): set"
                " TFDS_DATA_DIR to the folder that holds gsm8k/1.0.0, or write gsm8k?data_dir=DIR;"
                " with a network, gsm8k?download=true fetches it"
            ) from None


def final_number(solution: str) -> str:
    """Returns the text after "####" in a reference solution, or the text without that mark."""
    return solution.rpartition("####")[2].strip()
