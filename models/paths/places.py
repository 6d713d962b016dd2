"""Where the paths of a search lie: lengths, rows and columns, as NumPy arrays on the host.

A search names a path by its place. Each prompt has R places, and M rows that are extended together.
The host needs these numbers to check a request, and they come back with every step anyway; the keys
and values themselves are on the device (`models.paths.path_pool`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.config import ModelConfig
from models.decoding.sampler import bucket
from models.layers.kv_cache import column_blocks

# The place of a bare prompt, and the length of what is not there.
ROOT, EMPTY = -1, -1


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is kept of each prompt's paths.

    Attributes:
      capacity: R, places.
      width: M, rows that lie open.
      max_new_tokens: W, most tokens of a path.
      step_tokens: T, most columns of a step.
    """

    capacity: int
    width: int
    max_new_tokens: int
    step_tokens: int

    def __post_init__(self):
        check_sizes(**dataclasses.asdict(self))

    @property
    def in_place(self) -> bool:
        """Whether the rows are the places."""
        return self.capacity <= self.width

    @property
    def spare(self) -> int:
        """Columns that holes may take before they are closed: a block of attention."""
        return min(self.max_new_tokens, column_blocks(self.max_new_tokens)[0])

    @property
    def columns(self) -> int:
        """C of the rows, in whole blocks: room for a path, its holes, and one more step."""
        columns = self.max_new_tokens + self.step_tokens + self.in_place * self.spare
        size, blocks = column_blocks(columns)
        return size * blocks


class Moves(NamedTuple):
    """What moves before rows are extended, and after.

    Attributes:
      source: `[P, M]`, what comes into each row: a row, or a place where rows are not kept.
      back: `[P, R]`, the row then stored in each place, or -1; `[P, 0]` where rows are kept.
      past: `[P, M]`, tokens of each row before.
    """

    source: Any
    back: Any
    past: Any


@dataclasses.dataclass(frozen=True)
class Places:
    """The numbers of P prompts and of R paths each. Immutable; an extension makes new ones.

    Numbers of paths are arrays `[P, R + 1]`, whose last column, which `ROOT` indexes, is that of
    the bare prompt.

    Attributes:
      layout: what is kept of each prompt.
      prefix_lengths: `[P]`, columns of the prompt's keys and values that hold tokens.
      lengths: `[P, R + 1]`, tokens of each path, `EMPTY` where there is none; 0 for a prompt.
      row_of: `[P, R + 1]`, the row that each path lies in, where rows are kept.
      valid: `[P, M, C]` bool, the columns of the rows that hold tokens.
      end: columns in use, of the rows.
    """

    layout: Layout
    prefix_lengths: np.ndarray
    lengths: np.ndarray
    row_of: np.ndarray
    valid: np.ndarray
    end: int

    @classmethod
    def of_prompts(cls, layout: Layout, lengths: np.ndarray, cached: np.ndarray) -> "Places":
        """No paths yet.

        Args:
          lengths: `[P]`, tokens of each prompt; 0 is padding.
          cached: `[P]`, how many of them are read already.
        """
        of_paths = np.full((len(lengths), layout.capacity + 1), EMPTY, np.int32)
        of_paths[lengths > 0, ROOT] = 0
        valid = np.zeros((len(lengths), layout.width, layout.columns), bool)
        return cls(layout, cached, of_paths, np.zeros_like(of_paths), valid, 0)

    def fork(self, parents: np.ndarray, into: np.ndarray) -> tuple["Places", Moves]:
        """The places once `parents` lie in the rows, with the places `into` emptied."""
        used, past = into >= 0, np.maximum(at(self.lengths, parents), 0)
        past = np.where(used, past, 0)
        lengths = put(self.lengths, into, np.full(into.shape, EMPTY))
        if self.layout.in_place:
            row_of, source = self._make_room(lengths, used)
            source = np.where(used, at(self.row_of, parents), source)
            valid = np.take_along_axis(self.valid, source[..., None], 1)
            valid &= (~used | (past > 0))[..., None]
            back, end = np.full((len(into), 0), -1), self.end
        else:
            row_of, source, end = self.row_of, np.maximum(parents, 0), int(past.max())
            valid = np.arange(self.valid.shape[-1]) < past[..., None]
            rows = np.broadcast_to(np.arange(into.shape[1]), into.shape)
            back = put(np.full(lengths.shape, -1), into, rows)[:, :ROOT]
        places = dataclasses.replace(self, lengths=lengths, row_of=row_of, valid=valid, end=end)
        return places, Moves(*(x.astype(np.int32) for x in (source, back, past)))

    def _make_room(self, lengths: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`row_of` and the rows' sources, once the paths kept in `used [P, M]` have left them."""
        row_of, source = self.row_of.copy(), np.tile(np.arange(used.shape[1]), (len(used), 1))
        held = lengths[:, :ROOT] > 0
        displaced = held & np.take_along_axis(used, row_of[:, :ROOT], 1)
        if not displaced.any():
            return row_of, source
        taken = used.copy()
        prompt, place = np.nonzero(held & ~displaced)
        taken[prompt, row_of[prompt, place]] = True
        free = np.argsort(taken, axis=1, kind="stable")
        prompt, place = np.nonzero(displaced)
        target = free[prompt, (np.cumsum(displaced, 1) - 1)[prompt, place]]
        source[prompt, target] = row_of[prompt, place]
        row_of[prompt, place] = target
        return row_of, source

    def extended(
        self, into: np.ndarray, past: np.ndarray, new: np.ndarray
    ) -> tuple["Places", np.ndarray | None]:
        """The forked places after their rows were extended.

        Args:
          into: `[P, M]`, the places of the rows' paths; -1 for a row without work.
          past, new: `[P, M]`, the tokens of each before, and how many were added behind `end`.

        Returns:
          The places; and, where holes are to be closed, the order `[P, M, C]` that the rows'
          columns are to be brought into, else None.
        """
        lengths = put(self.lengths, into, past + new)
        if not self.layout.in_place:
            return dataclasses.replace(self, lengths=lengths), None
        column = np.arange(self.valid.shape[-1]) - self.end
        rows = np.broadcast_to(np.arange(into.shape[1]), into.shape)
        places = dataclasses.replace(
            self,
            lengths=lengths,
            row_of=put(self.row_of, into, rows),
            valid=self.valid | ((column >= 0) & (column < new[..., None])),
            end=self.end + int(new.max()),
        )
        longest = int(places.valid.sum(-1).max())
        if places.end <= longest + self.layout.spare:
            return places, None
        order = np.argsort(~places.valid, axis=-1, kind="stable").astype(np.int32)
        valid = np.take_along_axis(places.valid, order, -1)
        return dataclasses.replace(places, valid=valid, end=longest), order


def at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The numbers `[P, R + 1]` of the paths in `places [P, M]`."""
    return numbers[np.arange(len(numbers))[:, None], places]


def put(numbers: np.ndarray, into: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A copy of `numbers [P, R + 1]` with `values [P, M]` in the places `into`; -1 is nowhere."""
    numbers = numbers.copy()
    prompt, row = np.nonzero(into >= 0)
    numbers[prompt, into[prompt, row]] = values[prompt, row]
    return numbers


def check_places(
    lengths: np.ndarray, ended: np.ndarray, parents: Any, into: Any, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A request to extend `parents` and store the results in `into`, as arrays `[P, width]`.

    Args:
      lengths, ended: `[P, R + 1]`, the tokens of each path, and whether it may not be extended.

    Raises:
      ValueError: a wrong shape, a place that is not there, that holds no path or one that has
        ended, or two paths stored in one place.
    """
    parents, into = np.asarray(parents, np.int32), np.asarray(into, np.int32)
    prompts, places = lengths.shape[0], lengths.shape[1] - 1
    for name, array in (("parents", parents), ("into", into)):
        if array.shape != (prompts, width):
            raise ValueError(f"{name} has shape {array.shape}; it must be {(prompts, width)}")
        if array.min() < -1 or array.max() >= places:
            bad = array[(array < -1) | (array >= places)][0]
            raise ValueError(f"{name} names place {bad}; places are 0..{places - 1}, or -1")
    ordered = np.sort(into, 1)
    if (twice := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        prompt, row = np.argwhere(twice)[0]
        raise ValueError(
            f"two paths of prompt {prompt} would be stored in place {ordered[prompt, row]}"
        )
    for numbers, bad, why in ((lengths, EMPTY, "holds no path"), (ended, True, "has ended")):
        if (found := (into >= 0) & (at(numbers, parents) == bad)).any():
            prompt, row = np.argwhere(found)[0]
            raise ValueError(
                f"place {parents[prompt, row]} of prompt {prompt} {why}; it cannot be extended"
            )
    return parents, into


def check_sizes(**sizes: int) -> None:
    """Raises `ValueError` for a size below one."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def pad_prompts(
    prompts: Sequence[Sequence[int]], most: int, max_new_tokens: int, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """`most` rows of tokens, as wide as the longest prompt's bucket, and their lengths.

    Raises:
      ValueError: no or too many prompts, an empty one, a token outside the vocabulary, or no room
        for `max_new_tokens` in the model's context.
    """
    if not 1 <= len(prompts) <= most:
        raise ValueError(f"{len(prompts)} prompts were given; there is room for 1..{most}")
    lengths = np.zeros(most, np.int32)
    lengths[: len(prompts)] = [len(prompt) for prompt in prompts]
    tokens = np.zeros((most, bucket(int(lengths.max()), least=16)), np.int32)
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty; give at least a beginning-of-sequence token")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(
                f"prompt {i} holds a token outside the model's vocabulary of {config.vocab_size}; "
                "was it made by another tokenizer?"
            )
        if len(prompt) + max_new_tokens > config.max_length:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with {max_new_tokens} new ones it exceeds "
                f"the model's context of {config.max_length}: shorten it or lower max_new_tokens"
            )
        tokens[i, : len(prompt)] = prompt
    return tokens, lengths
