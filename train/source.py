"""Gives the loop its batches: the interface of sources, and packed rows of a data set."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.seeds import derive_seed
from models.tokens.packing import Placement, pack, place, place_apart

Batch = Mapping[str, np.ndarray]

TOO_LONG = ("error", "truncate", "drop")


class Source(abc.ABC):
    """Gives batches to the loop.

    In a job of several processes each process must return the same, whole batch; `TrainStep.put`
    gives each device its rows.

    Attributes:
      depends_on_state: whether `next` looks at the state, as rollouts of the policy do. If not,
        a background thread makes batches ahead.
    """

    depends_on_state: bool = False

    @abc.abstractmethod
    def next(self, state: Any) -> Batch | list[Batch]:
        """Returns a batch, or several with one update each before the source is asked again.

        Args:
          state: the `TrainState`; None if `depends_on_state` is False.

        Raises:
          StopIteration: the data has ended.
        """

    def metrics(self) -> Mapping[str, float]:
        """Returns what the latest `next` measured on the host, to be logged with its updates."""
        return {}

    def notes(self) -> list[str]:
        """Returns messages to the user about the latest `next`, one line each."""
        return []

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the JSON-able state that later calls of `next` depend on."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""


class PackedSource(Source):
    """Gives rows of packed examples, shuffled anew in every epoch.

    An epoch is a permutation of the examples, cut into windows. Each window is packed on its own
    and its rows are shuffled. Batches take the rows of one window after another, across epochs
    too. Everything follows from the seed, so the iterator's state is three integers and does not
    depend on the number of processes.
    """

    def __init__(
        self,
        examples: Sequence[Mapping[str, np.ndarray]],
        *,
        rows: int,
        row_length: int,
        seed: int,
        num_epochs: int | None = None,
        shuffle: bool = True,
        packed: bool = True,
        too_long: str = "error",
        window: int = 4096,
    ):
        """Checks the examples and leaves out those with nothing to train on.

        An example has nothing to train on if, for instance, its response was cut off;
        `num_examples` examples remain.

        Args:
          examples: dicts of arrays of one length: `tokens`, `loss_weights`, any others.
          rows, row_length: shape of a batch.
          seed: decides the order.
          num_epochs: passes over the examples; None for no end. Empty rows fill the last batch.
          shuffle: whether to shuffle examples and rows.
          packed: whether a row holds several examples; otherwise it holds one.
          too_long: what to do with examples longer than a row: `error`, `truncate` (which cuts
            off the end, the end-of-sequence token included) or `drop`.
          window: number of examples that are packed together.

        Raises:
          ValueError: no examples, examples that are too long, or numbers that are not positive.
        """
        for name, value in {"rows": rows, "row_length": row_length, "window": window}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: it must be at least 1")
        self._examples = fitted(examples, row_length, too_long)
        self._lengths = np.array([len(example["tokens"]) for example in self._examples])
        self._rows, self._row_length, self._seed = rows, row_length, seed
        self._num_epochs, self._shuffle, self._packed = num_epochs, shuffle, packed
        self._window = window
        self.load_state_dict({"epoch": 0, "window": 0, "row": 0})

    def next(self, state: Any = None) -> Batch:
        """Returns a dict of `[rows, row_length, ...]` arrays."""
        del state
        parts, missing = [], self._rows
        while missing:
            current = self._current or self._load_window()
            if current is None:
                break
            end = min(self._row + missing, len(current["tokens"]))
            parts.append({name: x[self._row : end] for name, x in current.items()})
            missing -= end - self._row
            self._row = end
            if end == len(current["tokens"]):
                self._current, self._row, self._window_index = None, 0, self._window_index + 1
        if not parts:
            raise StopIteration
        if len(parts) == 1 and not missing:
            return parts[0]
        if missing:
            parts.append(
                {name: np.zeros((missing, *x.shape[1:]), x.dtype) for name, x in parts[0].items()}
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def state_dict(self) -> dict[str, Any]:
        """Returns the epoch, the window in it and the row in that; JSON-able."""
        return {"epoch": self._epoch, "window": self._window_index, "row": self._row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._epoch, self._window_index = int(state["epoch"]), int(state["window"])
        self._row, self._current = int(state["row"]), None

    def count_batches(self) -> int:
        """Counts the batches of all `num_epochs` by placing every example, without packing it."""
        if self._num_epochs is None:
            raise ValueError("num_epochs=None has no end to count to; set num_epochs")
        rows = 0
        for epoch in range(self._num_epochs):
            for window in range(self._num_windows):
                rows += self._place(self._members(epoch, window)).num_rows
        return -(-rows // self._rows)

    @property
    def num_examples(self) -> int:
        """Examples that have something to train on."""
        return len(self._examples)

    @property
    def _num_windows(self) -> int:
        return -(-len(self._examples) // self._window)

    def _load_window(self) -> dict[str, np.ndarray] | None:
        """Packs the next window and returns its rows; None if the data has ended."""
        if self._window_index == self._num_windows:
            self._epoch, self._window_index = self._epoch + 1, 0
        if self._num_epochs is not None and self._epoch >= self._num_epochs:
            return None
        members = self._members(self._epoch, self._window_index)
        placement = self._place(members)
        packed = pack([self._examples[i] for i in members], placement, self._row_length)
        if self._shuffle:
            # Packing sorts by length, so its rows come long examples first.
            order = self._rng(self._epoch, 1 + self._window_index).permutation(placement.num_rows)
            packed = {name: x[order] for name, x in packed.items()}
        self._current = packed
        return packed

    def _members(self, epoch: int, window: int) -> np.ndarray:
        count = len(self._examples)
        order = self._rng(epoch, 0).permutation(count) if self._shuffle else np.arange(count)
        return order[window * self._window : (window + 1) * self._window]

    def _place(self, members: np.ndarray) -> Placement:
        return (place if self._packed else place_apart)(self._lengths[members], self._row_length)

    def _rng(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self._seed, epoch, purpose))


def fitted(
    examples: Sequence[Mapping[str, np.ndarray]], row_length: int, too_long: str
) -> list[dict[str, np.ndarray]]:
    """Returns the examples that fit in a row and have something to train on.

    See `PackedSource` for `too_long`.

    Raises:
      ValueError: `too_long` is unknown, an example is too long, or no example is left.
    """
    if too_long not in TOO_LONG:
        raise ValueError(f"too_long={too_long!r} is unknown; choose {', '.join(TOO_LONG)}")
    long = [i for i, example in enumerate(examples) if len(example["tokens"]) > row_length]
    if long and too_long == "error":
        tokens = len(examples[long[0]]["tokens"])
        raise ValueError(
            f"example {long[0]} has {tokens} tokens, longer than row length {row_length}"
            f" ({len(long)} of {len(examples)} are): raise row_length, or set too_long to"
            " 'truncate' or 'drop'"
        )
    if too_long == "drop":
        examples = [example for example in examples if len(example["tokens"]) <= row_length]
    cut = [_truncated(example, row_length) for example in examples]
    # Some are left with nothing to train on: a lone token, or a prompt without its response.
    trained = [example for example in cut if np.any(example["loss_weights"][1:])]
    if not trained:
        dropped = f": none of those given has {row_length} tokens or fewer" if long else ""
        raise ValueError(f"there are no examples to train on{dropped}")
    return trained


def _truncated(example: Mapping[str, np.ndarray], row_length: int) -> dict[str, np.ndarray]:
    if len(example["tokens"]) <= row_length:
        return dict(example)
    return {name: x[:row_length] for name, x in example.items()}
