"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168), read through TFDS without TensorFlow."""

import os

from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.problem import Problem
from reasoning.tasks import draw
from reasoning.tasks.math_task import MathTask

_SPLITS = ("train", "test")


class Gsm8k(MathTask):
    """Grade-school word problems: 7,473 for training, 1,319 for test.

    Args:
        name: The spec.
        data_dir: TFDS folder that holds `gsm8k/1.0.0`; by default the environment variable
            TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        download: Download and prepare it there if it is missing.
        grading: The conventions to grade by.
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
        if split not in _SPLITS:
            raise ValueError(f"{self.name} has the splits {' and '.join(_SPLITS)}, not {split!r}")
        records = self._records(split)
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
        return final_number(problem.answer)

    def _records(self, split):
        import tensorflow_datasets as tfds

        data_dir = os.path.expanduser(
            self._data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        )
        if self._download:
            import tensorflow_datasets.text.gsm8k  # noqa: F401  registers the builder
        try:
            return tfds.data_source(
                "gsm8k",
                split=split,
                data_dir=data_dir,
                download=self._download,
                builder_kwargs={"file_format": "array_record"} if self._download else None,
            )
        except Exception as error:  # TFDS raises many kinds, at great length
            raise FileNotFoundError(
                f"no GSM8K prepared by TFDS in {data_dir} ({type(error).__name__}): set"
                " TFDS_DATA_DIR to the folder that holds gsm8k/1.0.0, or write gsm8k?data_dir=DIR;"
                " where there is a network, gsm8k?download=true fetches it"
            ) from None


def final_number(solution: str) -> str:
    """What stands behind "####" in a reference solution; the text itself without that mark."""
    return solution.rpartition("####")[2].strip()
