"""What the compiled sampler returns, also when it was stopped before all samples were finished."""

import dataclasses
import io

import numpy as np

from models.host.interruption import Interrupted

FINISH_REASONS = ("", "stop", "stop_string", "length")
RUNNING, STOP_TOKEN, STOP_STRING, LENGTH = range(4)


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of B prompts, as NumPy arrays.

    Attributes:
      tokens: int32 `[B, G, W]`, the stop token included, zeros after the end.
      logprobs: float32 `[B, G, W]`, log-probability of each token under softmax(logits /
        temperature), before top-k/top-p/min-p; at temperature 0 under softmax(logits).
      lengths: int32 `[B, G]`, number of tokens of each sample.
      finish: int32 `[B, G]`, why each sample ended, as an index into `FINISH_REASONS`; `RUNNING` if
        sampling was stopped before.
      steps: number of decode steps; `lengths.sum() / (steps * slots * G)` is the occupancy.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    lengths: np.ndarray
    finish: np.ndarray
    steps: int

    def ids(self, prompt: int, sample: int) -> list[int]:
        """Returns the token ids of one sample, the stop token included."""
        return self.tokens[prompt, sample, : self.lengths[prompt, sample]].tolist()

    @property
    def finished(self) -> np.ndarray:
        """Returns which samples are finished, bool `[B, G]`."""
        return self.finish != RUNNING

    def completed(self, earlier: "Samples | None") -> "Samples":
        """Returns these samples, with those that were finished earlier in their places.

        Samples that are not finished are left empty: `Sampler` draws them again from their start.
        """
        done = np.zeros_like(self.finished) if earlier is None else earlier.finished
        other = self if earlier is None else earlier
        mine = self.finished

        def pick(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            wide = (..., None) if a.ndim == 3 else ...
            return np.where(done[wide], b, np.where(mine[wide], a, 0)).astype(a.dtype)

        names = ("tokens", "logprobs", "lengths", "finish")
        arrays = {name: pick(getattr(self, name), getattr(other, name)) for name in names}
        return Samples(**arrays, steps=self.steps)

    def to_bytes(self) -> bytes:
        """Returns the finished samples in NumPy's npz format, without the room of the others."""
        kept = np.arange(self.tokens.shape[-1]) < (self.lengths * self.finished)[..., None]
        file = io.BytesIO()
        np.savez(
            file, tokens=self.tokens[kept], logprobs=self.logprobs[kept],
            lengths=self.lengths * self.finished, finish=self.finish,
            width=self.tokens.shape[-1], steps=self.steps,
        )  # fmt: skip
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Samples":
        """Reads what `to_bytes` has written.

        Raises:
          ValueError, OSError, KeyError: it is something else.
        """
        with np.load(io.BytesIO(content)) as file:
            lengths, finish, width = file["lengths"], file["finish"], int(file["width"])
            kept = np.arange(width) < lengths[..., None]
            tokens, logprobs = np.zeros(kept.shape, np.int32), np.zeros(kept.shape, np.float32)
            tokens[kept], logprobs[kept] = file["tokens"], file["logprobs"]
            return cls(tokens, logprobs, lengths, finish, int(file["steps"]))


class SamplingStopped(Interrupted):
    """The sampler was stopped before all samples were finished.

    Attributes:
      samples: those that were; the others are `RUNNING`.
    """

    def __init__(self, reason: str, samples: Samples):
        super().__init__(reason)
        self.samples = samples
